"""Asks that were handed over: how long they hold on to the channel that brought them."""

import gc
import weakref
from types import SimpleNamespace
from typing import Any, Final

from sidelink.wire import Deliver

from node.clocks import ManualClock
from sidecar.delivery import LEASES_LOOKED_AT_MIN, Deliveries
from sidecar.mailbox import Mailbox, Sender, Waiting

ASK_S: Final = 1.0


class Asker:
    """The way back of one ask."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def reply(self, body: bytes, content_type: str) -> None:
        self.heard.append(body)

    def reject(self, reason: str, *, expired: bool = False) -> None:
        self.heard.append(reason.encode())


class Asked:
    """An agent that reads, and its session, which notes what it is handed."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.deliveries = Deliveries(self.clock)
        self.agent: Any = SimpleNamespace(handle=1, mailbox=Mailbox())
        self.numbers: list[int] = []
        session: Any = self
        assert self.deliveries.listen(self.agent, session)

    def ask(self) -> Asker:
        identity: Any = SimpleNamespace(name="a", identifier="b", attributes={})
        asker = Asker()
        deadline_s = self.clock.now_s() + ASK_S
        waiting = Waiting(Sender.of(identity), [b""], "", deadline_s, asker)
        assert self.deliveries.offer(self.agent, waiting) is None
        self.deliveries.flush()
        return asker

    # As much of a LocalSession as is needed.

    writable = True

    def deliver(self, frames: list[Deliver]) -> None:
        self.numbers += [frame.delivery for frame in frames]


def test_asks_that_are_never_answered_hold_no_channel_once_their_time_is_over() -> None:
    asked = Asked()
    ways_back = []
    for _ in range(10 * LEASES_LOOKED_AT_MIN):
        ways_back.append(weakref.ref(asked.ask()))
        asked.clock.advance(ASK_S)
    gc.collect()
    alive = sum(way() is not None for way in ways_back)

    assert alive <= LEASES_LOOKED_AT_MIN
    assert asked.deliveries.answer(asked.agent, asked.numbers[0], b"late", "")
    assert not asked.deliveries.answer(asked.agent, asked.numbers[0], b"twice", "")


def test_an_answer_that_comes_too_late_is_taken_and_goes_nowhere() -> None:
    asked = Asked()
    early = asked.ask()
    asked.clock.advance(ASK_S)
    for _ in range(LEASES_LOOKED_AT_MIN):
        last = asked.ask()
    taken = [
        asked.deliveries.answer(asked.agent, number, b"here", "")
        for number in (asked.numbers[0], asked.numbers[-1])
    ]

    assert taken == [True, True]
    assert early.heard == []
    assert last.heard == [b"here"]
