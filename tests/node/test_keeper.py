"""Background tasks: a fault of ours is said, counted, and ends one turn only."""

import asyncio

import pytest
from structlog.testing import capture_logs

from node import keeper
from node.keeper import PAUSE_SECONDS, Keeper
from node.metrics import Metrics


class Turns:
    """A task that fails so many times, and then ends or waits for ever."""

    def __init__(self, faults: int, *, ends: bool = True) -> None:
        self._faults = faults
        self._ends = ends
        self.begun = 0
        self.waits = asyncio.Event()

    async def run(self) -> None:
        self.begun += 1
        if self.begun <= self._faults:
            raise ZeroDivisionError("nobody foresaw this")
        self.waits.set()
        if not self._ends:
            await asyncio.Event().wait()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been waited; nothing is."""
    waited: list[float] = []
    sleep = asyncio.sleep

    async def at_once(seconds: float) -> None:
        waited.append(seconds)
        await sleep(0)

    monkeypatch.setattr(keeper.asyncio, "sleep", at_once)
    return waited


async def test_a_task_that_fails_is_begun_again_and_it_is_said_and_counted(
    pauses: list[float],
) -> None:
    metrics, turns = Metrics("sidecar", "0"), Turns(2)
    with capture_logs() as logs:
        await Keeper(metrics).keep("renewal", turns.run)

    assert turns.begun == 3
    assert metrics.value("task_faults_total", task="renewal") == 2
    assert [line["event"] for line in logs] == ["task_failed"] * 2
    assert {line["task"] for line in logs} == {"renewal"}


async def test_who_goes_on_failing_is_begun_less_and_less_often(pauses: list[float]) -> None:
    await Keeper(Metrics("sidecar", "0")).keep("renewal", Turns(9).run)

    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert pauses[0] == PAUSE_SECONDS


async def test_a_task_that_is_cancelled_is_not_begun_again(pauses: list[float]) -> None:
    turns = Turns(1, ends=False)
    task = asyncio.create_task(Keeper(Metrics("sidecar", "0")).keep("policy", turns.run))
    await turns.waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert turns.begun == 2
