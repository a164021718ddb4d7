"""The ruler: nothing but the whole run, in order, is a result; nobody gets ahead of the window."""

import asyncio
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import BenchError
from bench.messages.ruler import (
    NUMBER_BYTES,
    WINDOW_BYTES_MAX,
    Counted,
    Plan,
    Tally,
    Window,
    filler_bytes,
    plan_for,
)

PLAN = Plan(size_bytes=32, warm_up=100, counted=300, window=64)
WAIT_S = 5.0


def message(number: int, size_bytes: int = PLAN.size_bytes) -> bytes:
    return number.to_bytes(NUMBER_BYTES) + filler_bytes(size_bytes - NUMBER_BYTES)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The receiver's and the sender's end of the ruler."""
    here, there = socket.socketpair()
    there.setblocking(False)
    with here, there:
        yield here, there


async def test_a_whole_run_in_order_is_a_result(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    tally = Tally(PLAN, ends[0])
    for number in range(PLAN.total):
        tally.take(message(number))

    counted = await asyncio.wait_for(tally.finished, WAIT_S)

    assert counted.messages == PLAN.total == 464
    assert counted.per_s > 0


async def test_warm_up_and_tail_are_not_in_the_rate(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The clock stands but between the first and the last message that count: there, 3 seconds pass.
    seconds = iter([10.0, 13.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(seconds))
    tally = Tally(PLAN, ends[0])
    for number in range(PLAN.total):
        tally.take(message(number))

    counted = tally.finished.result()

    assert counted == Counted(PLAN.total, (PLAN.counted - 1) / 3.0)


FAULTS = {
    "one is missing": [message(0), message(2)],
    "one comes twice": [message(0), message(0)],
    "two have changed places": [message(1), message(0)],
    "one is cut": [message(0), message(1)[:-1]],
    "one has something behind it": [message(0), message(1) + b"!"],
    "one is empty": [b""],
}


@pytest.mark.parametrize("title", FAULTS)
async def test_a_run_is_no_result_when(
    title: str, ends: tuple[socket.socket, socket.socket]
) -> None:
    tally = Tally(PLAN, ends[0])
    for body in FAULTS[title]:
        tally.take(body)

    with pytest.raises(BenchError, match="should have come"):
        await asyncio.wait_for(tally.finished, WAIT_S)


async def test_the_sender_is_never_more_than_a_window_ahead_of_what_was_confirmed(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    tally, window = Tally(PLAN, ends[0]), Window(PLAN, ends[1])
    sent: list[bytes] = []
    ahead: list[int] = []

    async def send() -> None:
        async for burst in window.bursts():
            sent.extend(burst)

    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        group.create_task(send())
        for taken in range(PLAN.total):
            while len(sent) <= taken:  # noqa: ASYNC110
                await asyncio.sleep(0)  # The sender's turn.
            ahead.append(len(sent) - taken)
            tally.take(sent[taken])

    # A confirmation tells of the message that caused it too.
    assert max(ahead) == PLAN.window
    assert tally.finished.result().messages == PLAN.total


async def test_a_sender_whose_window_is_full_waits_for_the_receiver(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    bursts = Window(PLAN, ends[1]).bursts()
    assert len(await anext(bursts)) == PLAN.window
    waiting = asyncio.ensure_future(anext(bursts))
    await asyncio.sleep(0)
    assert not waiting.done()

    tally = Tally(PLAN, ends[0])
    for number in range(PLAN.window):
        tally.take(message(number))

    async with asyncio.timeout(WAIT_S):
        assert (await waiting)[0] == message(PLAN.window)


async def test_a_second_run_finds_no_confirmations_of_the_first(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    window, tally = Window(PLAN, ends[1]), Tally(PLAN, ends[0])
    async with asyncio.timeout(WAIT_S):
        async for burst in window.bursts():
            for body in burst:
                tally.take(body)
        await window.drain()

    with pytest.raises(BlockingIOError):
        ends[1].recv(1)


@given(st.integers(16, 65_535), st.floats(1.0, 1e7), st.floats(0.01, 60.0))
def test_a_plan_counts_what_fits_the_time_and_keeps_its_window_small(
    size_bytes: int, per_s: float, seconds: float
) -> None:
    plan = plan_for(size_bytes, per_s, seconds)

    assert plan.counted >= int(per_s * seconds)
    assert plan.window * size_bytes <= max(WINDOW_BYTES_MAX, 64 * size_bytes)
    assert plan.warm_up >= plan.window
    assert plan.total == plan.warm_up + plan.counted + plan.window


def test_a_plan_counts_as_many_messages_as_were_asked_for() -> None:
    assert plan_for(1024, 50_000.0, 2.0, counted=777).counted == 777
