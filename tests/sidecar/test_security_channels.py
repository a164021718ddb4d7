"""One node that opens channels and says no more takes its own places, and nobody else's."""

import os
from types import SimpleNamespace
from typing import Any, Final

import pytest

from channel import Channel, Prologue
from identity import AgentUri, Code, Identifier, NoiseKey
from link import Frame, FrameKind, LinkOpen
from link.limits import ACCEPTOR_LINK_BIT
from link.messages import decode_code_untrusted, encode_code, encode_link_open
from sidecar import admission
from sidecar.channels import ChannelTable
from sidecar.handshakes import BETWEEN_STEPS_SECONDS
from sidecar.timers import Timers

VICTIM: Final = AgentUri.parse("agent://acme/billing/main")
OPENER: Final = AgentUri.parse("agent://acme/finance/planner")
HOSTILE: Final = Identifier(bytes(31) + b"\1")
HONEST: Final = Identifier(bytes(31) + b"\2")
PLACES: Final = 4


class Hop:
    """A hop that this sidecar dialled."""

    id = 1
    is_dialler = True

    def __init__(self, sent: list[Frame]) -> None:
        self.sent = sent

    def send_frame(self, link: int, kind: int, body: bytes) -> None:
        self.sent.append(Frame(link, kind, body))

    def close(self, code: Code) -> None:
        raise AssertionError(code)


class Stage:
    """A table with one agent, and one message 1 that is good for as many openings as one likes."""

    def __init__(self) -> None:
        agent = SimpleNamespace(
            noise_key=NoiseKey.generate(),
            proof=b"",
            expires_unix_s=0.0,
            full_proof=b"",
            users=0,
            identity=SimpleNamespace(attributes={}),
        )
        owner: Any = SimpleNamespace(
            find_agent=lambda name: agent, arm=lambda slot: None, disarm=lambda slot: None
        )
        owner.channel_closed = lambda slot, code: None
        self._timers = Timers()
        self.table = ChannelTable(
            owner, lambda *_: pytest.fail("nobody proves anything"), self._timers
        )
        self.sent: list[Frame] = []
        self.hop: Any = Hop(self.sent)
        self.table.hop_opened(self.hop, 0.0)
        self._links = 0
        nonce = os.urandom(16)
        opener = Channel.connect(
            key=NoiseKey.generate(),
            proof=b"",
            prologue=Prologue(purpose="channel", target=str(VICTIM), nonce=nonce),
            verify=lambda *_: pytest.fail("nobody proves anything"),
            now_s=0.0,
        )
        [(_, noise_1)] = opener.take_output()
        self._opening = (VICTIM, OPENER, nonce)
        self._noise_1 = noise_1

    def open(self, node: Identifier, now_s: float = 0.0) -> Code | None:
        """Open a link as the gateway attests it; return why it was refused, if it was."""
        self._links += 1
        link = ACCEPTOR_LINK_BIT | self._links
        body = encode_link_open(LinkOpen(*self._opening, node, self._noise_1))
        self.table.frames_received(self.hop, [Frame(link, FrameKind.LINK_OPEN, body)], now_s)
        self._timers.run(now_s + BETWEEN_STEPS_SECONDS)
        last = self.sent[-1]
        return decode_code_untrusted(last.body) if last.kind == FrameKind.LINK_CLOSE else None

    def close(self, number: int, code: Code = Code.ROUTE_UNREACHABLE) -> None:
        frame = Frame(ACCEPTOR_LINK_BIT | number, FrameKind.LINK_CLOSE, encode_code(code))
        self.table.frames_received(self.hop, [frame], 0.0)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(admission, "CHANNELS_UNVERIFIED_PER_NODE_MAX", PLACES)
    return Stage()


def test_a_replayed_opening_takes_the_places_of_its_node_only(stage: Stage) -> None:
    assert [stage.open(HOSTILE) for _ in range(PLACES)] == [None] * PLACES

    assert stage.open(HOSTILE) is Code.ROUTE_LINK_LIMIT
    assert stage.open(HONEST) is None


def test_a_place_is_free_again_when_its_link_ends(stage: Stage) -> None:
    for _ in range(PLACES):
        stage.open(HOSTILE)
    stage.close(1)

    assert stage.open(HOSTILE) is None
    assert stage.open(HOSTILE) is Code.ROUTE_LINK_LIMIT


def test_so_it_is_for_channels_that_are_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "CHANNELS_PER_NODE_MAX", PLACES)
    stage = Stage()
    for _ in range(PLACES):
        stage.open(HOSTILE)

    assert stage.open(HOSTILE) is Code.ROUTE_LINK_LIMIT
    assert stage.open(HONEST) is None


def test_a_node_that_abandons_handshakes_without_end_is_not_answered_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "ABANDONED_PER_NODE_BURST", PLACES)
    stage = Stage()
    answers = []
    for number in range(1, PLACES + 3):
        answers.append(stage.open(HOSTILE))
        stage.close(number, Code.CHANNEL_CLOSED)

    assert answers == [None] * PLACES + [Code.ROUTE_LINK_LIMIT] * 2
    assert stage.open(HONEST) is None
    assert stage.open(HOSTILE, 1 / admission.ABANDONED_PER_NODE_PER_S) is None


def test_what_a_lost_hop_ends_is_not_held_against_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "ABANDONED_PER_NODE_BURST", PLACES)
    stage = Stage()
    for number in range(1, 2 * PLACES):
        assert stage.open(HOSTILE) is None
        stage.close(number, Code.ROUTE_UNREACHABLE)

    assert stage.open(HOSTILE) is None


def test_what_ended_and_what_was_refused_is_counted_by_code(stage: Stage) -> None:
    for _ in range(PLACES + 1):
        stage.open(HOSTILE)
    stage.close(1)

    assert stage.table.refused == {Code.ROUTE_LINK_LIMIT: 1}
    assert stage.table.closed.total() == 1
