"""Renewal at half-life: in time, without a rush, and without giving up what is held."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from identity import Code, SidelinkError
from node import renewal as renewal_module
from node.clocks import ManualClock
from node.metrics import Metrics
from node.own_node import OwnNode
from node.renewal import (
    JITTER,
    RETRY_JITTER,
    RETRY_SECONDS_MAX,
    RETRY_SECONDS_MIN,
    Renewal,
)
from tests.node.members import DAY_S, HOUR_S, START_UNIX_S, Authority, started

TTL_S = 10 * DAY_S
MOMENT_S = 1.0
UNREACHABLE = SidelinkError(Code.ENROL_AUTHORITY_UNREACHABLE, "no hop leads to the authority")


@dataclass
class Scene:
    """A node, its authority, and a clock that the test moves."""

    node: OwnNode
    clock: ManualClock
    acme: Authority
    metrics: Metrics = field(default_factory=lambda: Metrics("test", "1"))
    is_reachable: bool = True
    asked: list[float] = field(default_factory=list)
    """When the authority was asked, by the wall clock."""

    def __post_init__(self) -> None:
        self.renewal = Renewal(self.node, self.clock, self.metrics, self.renew)
        self.progress = asyncio.Event()

    async def renew(self) -> None:
        self.asked.append(self.clock.unix_s())
        self.progress.set()
        if not self.is_reachable:
            raise UNREACHABLE
        self.acme.renew(self.node, self.clock.unix_s(), ttl_s=TTL_S)

    async def pass_time(self, seconds: float) -> None:
        """Let time go by; whatever is due on the way is done when it is due."""
        end_s = self.clock.now_s() + seconds
        while (left_s := end_s - self.clock.now_s()) > 0:
            self.clock.advance(min(left_s, max(self.renewal._wait_s(), MOMENT_S)))
            await self.turn()

    async def turn(self) -> None:
        """Let the renewal look at the clock once, and act."""
        self.renewal.look_again()
        for _ in range(4):
            await asyncio.sleep(0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def scene(tmp_path: Path, clock: ManualClock) -> Iterator[Scene]:
    with started(tmp_path, clock) as (node, _):
        acme = Authority()
        acme.enrol(node, clock.unix_s(), ttl_s=TTL_S)
        yield Scene(node, clock, acme)


@contextlib.asynccontextmanager
async def running(scene: Scene) -> AsyncIterator[None]:
    task = asyncio.create_task(scene.renewal.run())
    try:
        async with asyncio.timeout(5):
            yield
        assert not task.done(), "a renewal looks after itself for ever"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


HALF_S = TTL_S / 2
EARLIEST_S = TTL_S * (0.5 - JITTER / 2)
LATEST_S = TTL_S * (0.5 + JITTER / 2)


async def test_a_credential_is_renewed_at_half_of_its_life_and_again_at_half_of_the_next(
    scene: Scene,
) -> None:
    async with running(scene):
        await scene.pass_time(EARLIEST_S - HOUR_S)
        early = list(scene.asked)
        await scene.pass_time(1.7 * HALF_S)

    assert early == []
    assert len(scene.asked) == 2
    first, second = (at - START_UNIX_S for at in scene.asked)
    assert EARLIEST_S <= first <= LATEST_S
    assert first + EARLIEST_S <= second <= first + LATEST_S
    assert scene.node.identity.expires_unix_s == int(scene.asked[-1]) + TTL_S


def test_those_who_enrolled_together_do_not_renew_together(
    tmp_path: Path, clock: ManualClock
) -> None:
    due = []
    with started(tmp_path, clock) as (node, _):
        acme = Authority()
        acme.enrol(node, clock.unix_s(), ttl_s=TTL_S)
        scene = Scene(node, clock, acme)
        for _ in range(24):
            acme.renew(node, clock.unix_s(), ttl_s=TTL_S)
            due.append(scene.renewal.due_unix_s - START_UNIX_S)

    assert EARLIEST_S <= min(due) < TTL_S * 0.49
    assert TTL_S * 0.51 < max(due) <= LATEST_S


async def test_a_renewal_that_fails_leaves_the_credential_and_comes_again_less_and_less_often(
    scene: Scene,
) -> None:
    scene.is_reachable = False
    before = scene.node.own.chain
    async with running(scene):
        await scene.pass_time(EARLIEST_S - HOUR_S)
        await scene.pass_time(2 * DAY_S)
        status = scene.renewal.status()

    waits = [after - at for at, after in itertools.pairwise(scene.asked)]
    doubled = [RETRY_SECONDS_MIN * 2**n for n in range(len(waits))]
    assert scene.node.own.chain == before
    assert scene.node.enrolled
    for wait_s, plain_s in zip(waits, doubled, strict=True):
        lower_s = min(plain_s * (1 - RETRY_JITTER / 2), RETRY_SECONDS_MAX)
        assert max(lower_s, RETRY_SECONDS_MIN) <= wait_s
        assert wait_s <= min(plain_s * (1 + RETRY_JITTER / 2), RETRY_SECONDS_MAX) + 1
    assert waits[-1] >= RETRY_SECONDS_MAX - 1
    assert status["fault"] == "enrol.authority_unreachable: no hop leads to the authority"


async def test_some_attempts_are_left_towards_the_end_of_the_credential(scene: Scene) -> None:
    scene.is_reachable = False
    async with running(scene):
        await scene.pass_time(EARLIEST_S - HOUR_S)
        await scene.pass_time(TTL_S - EARLIEST_S - HOUR_S)
        await scene.pass_time(2 * HOUR_S)

    end_unix_s = START_UNIX_S + TTL_S
    last_hour = [at for at in scene.asked if at >= end_unix_s - HOUR_S]
    assert 20 <= len(last_hour) <= HOUR_S / RETRY_SECONDS_MIN
    assert last_hour[-1] < end_unix_s, "one whose credential has ended is not answered"
    assert min(b - a for a, b in itertools.pairwise(last_hour)) >= RETRY_SECONDS_MIN


async def test_the_authority_that_comes_back_is_found_and_the_next_failure_is_the_first(
    scene: Scene,
) -> None:
    scene.is_reachable = False
    async with running(scene):
        await scene.pass_time(HALF_S + DAY_S)
        scene.is_reachable = True
        await scene.pass_time(RETRY_SECONDS_MAX + 600.0)
        renewed_at, fault = scene.asked[-1], scene.renewal.fault
        scene.is_reachable = False
        await scene.pass_time(EARLIEST_S - HOUR_S)
        count = len(scene.asked)
        await scene.pass_time(2 * (LATEST_S - EARLIEST_S))

    assert fault is None
    assert scene.node.identity.expires_unix_s == int(renewed_at) + TTL_S
    first, second = scene.asked[count : count + 2]
    assert second - first <= RETRY_SECONDS_MIN * (1 + RETRY_JITTER / 2) + 1


def _old_waits(node_number: int, folder: Path, clock: ManualClock) -> float:
    folder.mkdir()
    with started(folder, clock) as (node, _):
        acme = Authority()
        acme.enrol(node, clock.unix_s(), ttl_s=TTL_S)
        renewal = Scene(node, clock, acme).renewal
        for _ in range(5):
            wait_s = renewal._back_off_s()
    return wait_s


def test_those_who_lost_their_authority_together_do_not_come_back_together(
    tmp_path: Path, clock: ManualClock
) -> None:
    waits = {_old_waits(n, tmp_path / str(n), clock) for n in range(6)}

    assert len(waits) >= 5


# Clocks.


async def test_a_clock_that_jumps_ahead_renews_at_once_and_not_again(scene: Scene) -> None:
    async with running(scene):
        await scene.turn()
        scene.clock.unix += LATEST_S
        await scene.turn()
        await scene.pass_time(60.0)

    assert len(scene.asked) == 1


async def test_a_clock_that_jumped_beyond_the_end_and_is_put_right_loses_nothing(
    scene: Scene,
) -> None:
    async with running(scene):
        await scene.turn()
        scene.clock.unix += 2 * TTL_S
        await scene.pass_time(600.0)
        beyond, enrolled_beyond = list(scene.asked), scene.node.enrolled
        scene.clock.unix -= 2 * TTL_S
        await scene.pass_time(LATEST_S)

    assert beyond == [], "nobody would answer"
    assert not enrolled_beyond
    assert scene.node.enrolled
    assert len(scene.asked) == 1


async def test_a_clock_that_goes_back_only_delays_the_renewal(scene: Scene) -> None:
    async with running(scene):
        await scene.pass_time(EARLIEST_S - HOUR_S)
        scene.clock.unix -= DAY_S
        await scene.pass_time(DAY_S / 2)
        back = list(scene.asked)
        await scene.pass_time(DAY_S + LATEST_S - EARLIEST_S)

    assert back == []
    assert len(scene.asked) == 1


async def test_waits_are_told_by_the_clock_that_does_not_jump(scene: Scene) -> None:
    scene.is_reachable = False
    async with running(scene):
        await scene.pass_time(LATEST_S + HOUR_S)
        count = len(scene.asked)
        scene.clock.unix += HOUR_S
        await scene.turn()
        jumped = len(scene.asked) - count
        await scene.pass_time(RETRY_SECONDS_MAX)

    assert jumped == 0
    assert len(scene.asked) > count


async def test_the_wall_clock_is_looked_at_though_nobody_calls(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal_module, "LOOK_SECONDS_MAX", 0.001)
    async with running(scene):
        scene.clock.unix += LATEST_S
        await scene.progress.wait()

    assert len(scene.asked) == 1


# Rotations.


async def test_a_rotated_node_asks_at_once_for_a_credential_that_pins_its_new_key(
    scene: Scene,
) -> None:
    async with running(scene):
        await scene.turn()
        scene.node.announce_key(overlap_s=DAY_S)
        await scene.turn()
        announced = list(scene.asked)
        scene.node.use_announced_key()
        scene.renewal.hurry()
        await scene.turn()

    assert announced == [], "what is only announced signs nothing that needs it"
    assert len(scene.asked) == 1


async def test_a_hurry_does_not_wait_for_the_end_of_a_back_off(scene: Scene) -> None:
    scene.is_reachable = False
    async with running(scene):
        await scene.pass_time(LATEST_S + DAY_S)
        count = len(scene.asked)
        scene.node.announce_key(overlap_s=DAY_S)
        scene.node.use_announced_key()
        scene.renewal.hurry()
        await scene.turn()

    assert len(scene.asked) == count + 1


async def test_a_node_that_crashed_between_rotation_and_renewal_asks_when_it_starts(
    tmp_path: Path, clock: ManualClock
) -> None:
    acme = Authority()
    with started(tmp_path, clock) as (node, _):
        acme.enrol(node, clock.unix_s(), ttl_s=TTL_S)
        node.announce_key(overlap_s=DAY_S)
        node.use_announced_key()
    with started(tmp_path, clock) as (node, _):
        scene = Scene(node, clock, acme)
        async with running(scene):
            await scene.turn()

    assert len(scene.asked) == 1


async def test_an_authoritys_key_that_ends_sooner_moves_the_renewal_forward(scene: Scene) -> None:
    scene.node.trust.on_news.append(scene.renewal.look_again)
    before = scene.renewal.due_unix_s
    async with running(scene):
        await scene.pass_time(DAY_S)
        scene.acme.rotate(scene.clock.unix_s(), overlap_s=HOUR_S)
        scene.node.trust.offer_untrusted(scene.acme.revocations(scene.clock.unix_s()))
        await scene.turn()

    assert before > START_UNIX_S + EARLIEST_S - 1
    assert scene.asked == [START_UNIX_S + DAY_S], "half of what was left of its life is over"
    assert scene.node.identity.expires_unix_s == START_UNIX_S + DAY_S + TTL_S


# Before there is anything to renew.


async def test_a_node_without_a_credential_waits(tmp_path: Path, clock: ManualClock) -> None:
    with started(tmp_path, clock) as (node, _):
        scene = Scene(node, clock, Authority())
        async with running(scene):
            await scene.pass_time(TTL_S)
        status = scene.renewal.status()

    assert scene.asked == []
    assert status == {"due_unix_s": None, "fault": None}
    assert scene.metrics.value("credential_renewal_due_unix_seconds") == 0


async def test_metrics_say_when_the_next_is_due_and_how_the_last_ones_went(scene: Scene) -> None:
    due = scene.metrics.value("credential_renewal_due_unix_seconds")
    scene.is_reachable = False
    async with running(scene):
        await scene.pass_time(LATEST_S + HOUR_S)
        failed = scene.metrics.value("credential_renewals_total", result="failed")
        scene.is_reachable = True
        await scene.pass_time(2 * HOUR_S)

    assert due == pytest.approx(START_UNIX_S + HALF_S, abs=TTL_S * JITTER / 2)
    assert failed == len(scene.asked) - 1
    assert scene.metrics.value("credential_renewals_total", result="ok") == 1
    assert scene.renewal.status()["fault"] is None
