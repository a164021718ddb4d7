"""Asks: how long each takes at the asker, with one in flight or with many."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from bench.errors import BenchError
from bench.messages.ruler import filler_bytes
from bench.samples import percentile

SAMPLES_MAX: Final = 200_000
# A percentile of fewer samples than this is the luck of a single ask.
P99_SAMPLES_MIN: Final = 200
P999_SAMPLES_MIN: Final = 2_000


class AskPlan(msgspec.Struct, frozen=True):
    """One run of asks. Replies are as large as asks."""

    size_bytes: int
    in_flight: int
    warm_up_s: float
    counted_s: float


class Asked(msgspec.Struct, frozen=True):
    """What the asker saw. A percentile that too few asks stand for is None."""

    asks: int
    per_s: float
    p50_s: float
    p99_s: float | None
    p999_s: float | None


async def measure_asks(ask: Callable[[bytes], Awaitable[bytes]], plan: AskPlan) -> Asked:
    """Keep ``in_flight`` asks under way until the time is over."""
    body = filler_bytes(plan.size_bytes)
    clock = time.perf_counter
    count_from_s = clock() + plan.warm_up_s
    end_s = count_from_s + plan.counted_s
    taken_s: list[float] = []

    async def ask_again_and_again() -> None:
        while (begun_s := clock()) < end_s and len(taken_s) < SAMPLES_MAX:
            reply = await ask(body)
            ended_s = clock()
            if reply != body:
                raise BenchError(f"a reply of {len(reply)} bytes to an ask of {len(body)}")
            if begun_s >= count_from_s:
                taken_s.append(ended_s - begun_s)

    async with asyncio.TaskGroup() as group:
        for _ in range(plan.in_flight):
            group.create_task(ask_again_and_again())
    if not taken_s:
        raise BenchError(f"no ask was answered within {plan.counted_s:g} s")
    counted_s = clock() - count_from_s
    taken_s.sort()
    count = len(taken_s)
    return Asked(
        asks=count,
        per_s=count / counted_s,
        p50_s=percentile(taken_s, 0.5),
        p99_s=percentile(taken_s, 0.99) if count >= P99_SAMPLES_MIN else None,
        p999_s=percentile(taken_s, 0.999) if count >= P999_SAMPLES_MIN else None,
    )
