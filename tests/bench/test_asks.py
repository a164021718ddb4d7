"""Asks are timed one by one, and only a right reply counts."""

import asyncio

import pytest

from bench.errors import BenchError
from bench.messages.asks import AskPlan, measure_asks

PLAN = AskPlan(size_bytes=64, in_flight=4, warm_up_s=0.0, counted_s=0.05)


async def test_as_many_asks_as_wanted_are_in_flight() -> None:
    under_way = most = 0

    async def ask(body: bytes) -> bytes:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return body

    asked = await measure_asks(ask, PLAN)

    assert most == PLAN.in_flight
    assert asked.asks > 0
    assert asked.p50_s > 0


async def test_a_reply_that_is_not_the_ask_is_no_result() -> None:
    async def ask(body: bytes) -> bytes:
        return body[:-1]

    with pytest.RaisesGroup(pytest.RaisesExc(BenchError, match="a reply of 63 bytes")):
        await measure_asks(ask, AskPlan(64, 1, warm_up_s=0.0, counted_s=0.05))


async def test_a_percentile_that_few_asks_stand_for_is_left_out() -> None:
    async def ask(body: bytes) -> bytes:
        await asyncio.sleep(0.02)
        return body

    asked = await measure_asks(ask, PLAN)

    assert asked.asks < 200
    assert asked.p99_s is None
    assert asked.p999_s is None


async def test_no_answer_in_time_is_no_result() -> None:
    async def ask(body: bytes) -> bytes:
        await asyncio.sleep(0)
        return body

    with pytest.raises(BenchError, match="no ask was answered"):
        await measure_asks(ask, AskPlan(64, 1, warm_up_s=0.0, counted_s=0.0))
