"""Redial: one hop is kept open, with growing patience, and over a path that carries less."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from identity import Code, Identifier
from node import redial as redial_module
from node.addresses import SocketAddress
from node.redial import Redial
from tests.transport.forwarder import forwarder
from tests.transport.helpers import Owner, endpoint, make_identity
from transport import Endpoint, Hop, HopPurpose, limits, path

WAIT_S = 5.0
FIRST_S, LONGEST_S = 0.01, 0.08
PEER = Identifier(b"p" * 32)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redial_module, "RETRY_SECONDS_MIN", FIRST_S)
    monkeypatch.setattr(redial_module, "RETRY_SECONDS_MAX", LONGEST_S)


@dataclass
class FakeEndpoint:
    """Notes each attempt and when it was made; the hop is whatever the test makes of it."""

    attempts: list[tuple[float, HopPurpose, Identifier | None]] = field(default_factory=list)
    dialled: asyncio.Event = field(default_factory=asyncio.Event)

    def dial(self, host: str, port: int, *, purpose: HopPurpose, target: Any, handler: Any) -> Any:
        self.attempts.append((asyncio.get_running_loop().time(), purpose, target))
        self.dialled.set()
        return object()

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self.attempts) < count:
                self.dialled.clear()
                await self.dialled.wait()


@asynccontextmanager
async def running(made: Redial) -> AsyncIterator[Redial]:
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def make(fake: FakeEndpoint, choose: Any = lambda: (HopPurpose.ADMIT, PEER)) -> Redial:
    return Redial(fake, SocketAddress("127.0.0.1", 9), choose, Owner())  # type: ignore[arg-type]


def lose(made: Redial, code: Code = Code.HOP_UNREACHABLE) -> None:
    assert made.hop is not None
    made.closed(made.hop, code, "for a test")


async def test_it_dials_what_its_owner_chooses_and_again_when_that_is_lost() -> None:
    fake = FakeEndpoint()
    async with running(make(fake)) as made:
        await fake.wait_for(1)
        lose(made)
        await fake.wait_for(2)

    assert [attempt[1:] for attempt in fake.attempts] == [(HopPurpose.ADMIT, PEER)] * 2


async def test_it_waits_longer_each_time_up_to_a_limit_and_starts_anew_once_a_hop_opened() -> None:
    fake = FakeEndpoint()
    made = make(fake)
    waits = [made._next_delay_s() for _ in range(6)]
    made.opened()
    after = made._next_delay_s()

    for wait, longest in zip(waits, (1, 2, 4, 8, 8, 8), strict=True):
        assert longest * FIRST_S / 2 <= wait <= longest * FIRST_S * 3 / 2
    assert after <= FIRST_S * 3 / 2


async def test_it_says_why_the_last_hop_was_lost_until_one_opens() -> None:
    fake = FakeEndpoint()
    async with running(make(fake)) as made:
        await fake.wait_for(1)
        lose(made, Code.HOP_DENIED)
        fault = made.fault
        await fake.wait_for(2)
        made.opened()

        assert fault == f"{Code.HOP_DENIED.text}: for a test"
        assert made.fault is None


async def test_the_end_of_another_hop_is_none_of_its_business() -> None:
    fake = FakeEndpoint()
    async with running(make(fake)) as made:
        await fake.wait_for(1)
        made.closed(object(), Code.HOP_CLOSED, "")  # type: ignore[arg-type]
        await asyncio.sleep(3 * FIRST_S)

        assert len(fake.attempts) == 1
        assert made.fault is None


async def test_nothing_is_dialled_while_its_owner_does_not_know_whom() -> None:
    fake, known = FakeEndpoint(), []
    choose = lambda: (HopPurpose.ENROL, None) if known else None  # noqa: E731
    async with running(make(fake, choose)):
        await asyncio.sleep(3 * FIRST_S)
        before = len(fake.attempts)
        known.append(True)
        await fake.wait_for(1)

    assert before == 0
    assert fake.attempts[0][1:] == (HopPurpose.ENROL, None)


async def test_a_hint_that_the_peer_is_back_ends_a_long_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeEndpoint()
    made = make(fake)
    made._delay_s = 600.0
    async with running(made):
        await fake.wait_for(1)
        lose(made)
        await asyncio.sleep(0)
        made.hurry()
        await fake.wait_for(2)

    assert len(fake.attempts) == 2


async def test_a_peer_that_says_when_to_come_back_is_left_alone_so_long() -> None:
    fake = FakeEndpoint()
    async with running(make(fake)) as made:
        await fake.wait_for(1)
        made.come_back_in(0.1)
        lose(made, Code.HOP_RESTARTING)
        await fake.wait_for(2)

    assert fake.attempts[1][0] - fake.attempts[0][0] >= 0.1


class RedialledOwner(Owner):
    """Tells its redial what becomes of the hops, as programs do."""

    redial: Redial

    def hop_opened(self, hop: Hop) -> None:
        super().hop_opened(hop)
        self.redial.opened()

    def hop_closed(self, hop: Hop, code: Code, detail: str) -> None:
        super().hop_closed(hop, code, detail)
        self.redial.closed(hop, code, detail)


@pytest.mark.parametrize("engine", ["qh3", "aioquic"])
async def test_the_attempt_after_one_that_stalled_opens_a_hop_over_a_narrow_path(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path, "is_loopback", lambda host: False)
    acceptor, dialler = Owner(), RedialledOwner()
    async with (
        endpoint(acceptor, engine=engine) as target,
        endpoint(dialler, make_identity("d"), engine=engine, handshake_timeout_s=0.3) as near,
        forwarder(target.address) as router,
    ):
        router.up_bytes_max = router.down_bytes_max = 1_392
        made = narrow_redial(near, router.address, dialler)
        async with running(made):
            await dialler.wait_for("opened")

            assert made.hop is not None
            assert made.hop.is_open
            assert 1 <= len(dialler.values("closed")) <= 3
            plan = made.hop._carrier._plan  # type: ignore[attr-defined]
            assert plan.datagram_bytes == limits.DATAGRAM_BYTES_MIN


def narrow_redial(near: Endpoint, address: tuple[str, int], owner: RedialledOwner) -> Redial:
    owner.redial = Redial(near, SocketAddress(*address), lambda: (HopPurpose.ADMIT, None), owner)
    return owner.redial
