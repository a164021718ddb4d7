"""A sender's attributes, however many, do not cost its receiver the connection."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from sidelink.wire import DeliverRun, Listen

from node.clocks import ManualClock
from sidecar.delivery import Deliveries
from sidecar.local_api import DEFAULT_LIMITS
from sidecar.local_port import LocalSession
from sidecar.mailbox import Mailbox, Sender, Waiting
from tests.sdk.fakes import WAIT_S, FakeRouter, local_api
from tests.sidecar.local_clients import Clients

MESSAGES: Final = 4_000
# As much as fits a credential.
ATTRIBUTES: Final[dict[str, Any]] = {f"a{number}": "x" * 1_000 for number in range(15)}


class Delivering(FakeRouter):
    """Hands over a mailbox that is full of small messages, as the router does."""

    def __init__(self) -> None:
        super().__init__()
        mailbox = Mailbox()
        identity: Any = SimpleNamespace(name="a", identifier="b", attributes=ATTRIBUTES)
        sender = Sender.of(identity)
        for _ in range(MESSAGES):
            assert mailbox.add(Waiting(sender, [b""], ""))
        self.agent: Any = SimpleNamespace(handle=1, mailbox=mailbox)
        self.deliveries = Deliveries(ManualClock())

    def listen(self, session: LocalSession, agent: int, on: bool) -> None:
        assert self.deliveries.listen(self.agent, session)
        self.deliveries.flush()

    def session_writable(self, session: LocalSession) -> None:
        self.deliveries.session_writable(session)
        self.deliveries.flush()


async def test_many_small_messages_with_many_attributes_arrive_as_fast_as_they_are_read(
    tmp_path: Path,
) -> None:
    assert DEFAULT_LIMITS.pending_bytes_max < MESSAGES * 15_000
    clients = Clients(tmp_path / "run" / "agent.sock")
    async with asyncio.timeout(WAIT_S), local_api(tmp_path / "run" / "agent.sock", Delivering()):
        client = await clients.greeted()
        client.send(Listen(await client.open("planner"), True))
        for _ in range(MESSAGES):
            assert isinstance(await client.next(), DeliverRun)
        await clients.close()
