"""Both honest agents, as one process: asks at a steady pace, timed where they are asked.

Commands come from the benchmark, see `bench.worker`.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec
import sidelink
import uvloop

from bench.errors import BenchError
from bench.samples import percentile
from bench.worker import serve
from tests.mesh.honest import honest_pair, told_much

BODY: Final = bytes(1_024)
ASK_S_MAX: Final = 20.0


class Asked(msgspec.Struct, frozen=True):
    """What the asker saw."""

    asks: int
    p50_s: float
    p99_s: float


class HonestAgents:
    """What the benchmark may ask for: open, then ask, tell and hush."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._pair: tuple[sidelink.Agent, sidelink.Agent] | None = None
        self._telling = AsyncExitStack()

    async def open(self, wishes: Mapping[str, Any]) -> None:
        self._stack.push_async_callback(self._telling.aclose)
        self._pair = await self._stack.enter_async_context(
            honest_pair(wishes["near"], wishes["far"])
        )

    async def ask(self, wishes: Mapping[str, Any]) -> Asked:
        """So many a second, whether or not those before have been answered. All must be."""
        assert self._pair is not None
        asker, answerer = self._pair
        taken_s: list[float] = []

        async def ask_once() -> None:
            begun_s = time.perf_counter()
            reply = await asker.ask(answerer.uri, BODY, timeout=ASK_S_MAX)
            taken_s.append(time.perf_counter() - begun_s)
            if reply.body != BODY:
                raise BenchError("a reply that is not what was asked")

        async with asyncio.TaskGroup() as group:
            for _ in range(round(wishes["seconds"] * wishes["per_s"])):
                group.create_task(ask_once())
                await asyncio.sleep(1 / wishes["per_s"])
        taken_s.sort()
        return Asked(len(taken_s), percentile(taken_s, 0.5), percentile(taken_s, 0.99))

    async def tell(self, wishes: Mapping[str, Any]) -> None:
        """Begin to tell somebody much."""
        await self._telling.enter_async_context(told_much(wishes["near"], wishes["deaf"]))

    async def hush(self, _: Mapping[str, Any]) -> None:
        await self._telling.aclose()


async def main() -> None:
    async with AsyncExitStack() as stack:
        agents = HonestAgents(stack)
        await serve(
            {"open": agents.open, "ask": agents.ask, "tell": agents.tell, "hush": agents.hush}
        )


if __name__ == "__main__":
    uvloop.run(main())
