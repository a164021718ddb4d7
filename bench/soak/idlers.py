"""Agents of one sidecar that do next to nothing, as one process: they come, meet once, and leave.

Commands come from the benchmark, see `bench.worker`.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import sidelink
import uvloop

from bench.worker import serve

# Below what a sidecar takes of one connection.
AGENTS_PER_CONNECTION: Final = 1_000
AT_ONCE: Final = 32
MEET_S_MAX: Final = 60.0


class Idlers:
    """What the benchmark may ask for: come, leave, and meet."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._agents: dict[int, sidelink.Agent] = {}
        self._listening: list[asyncio.Task[None]] = []

    async def come(self, wishes: Mapping[str, Any]) -> None:
        """So many agents more, from this number on, over as few connections as will do."""
        first, count = wishes["first"], wishes["count"]
        for start in range(first, first + count, AGENTS_PER_CONNECTION):
            mesh = await self._stack.enter_async_context(sidelink.connect(wishes["socket"]))
            numbers = range(start, min(start + AGENTS_PER_CONNECTION, first + count))
            await _some_at_once(self._open(mesh, wishes["prefix"], number) for number in numbers)

    async def listen(self, _: Mapping[str, Any]) -> None:
        """All of them answer from now on."""
        for agent in self._agents.values():
            self._listening.append(asyncio.create_task(_answer(agent)))

    async def leave(self, _: Mapping[str, Any]) -> None:
        """All of them."""
        for task in self._listening:
            task.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
        self._listening.clear()
        self._agents.clear()
        await self._stack.aclose()

    async def meet(self, wishes: Mapping[str, Any]) -> None:
        """Each of these of ours asks each of those: a channel for each pair."""
        await _some_at_once(
            self._agents[own].ask(f"{wishes['others']}/agent-{other}", None, timeout=MEET_S_MAX)
            for own in range(*wishes["own"])
            for other in range(*wishes["other"])
        )

    async def _open(self, mesh: sidelink.Mesh, prefix: str, number: int) -> None:
        self._agents[number] = await mesh.agent(f"{prefix}/agent-{number}")


async def _answer(agent: sidelink.Agent) -> None:
    async for message in agent.inbox():
        await message.reply(None)


async def _some_at_once(work: Iterable[Awaitable[Any]]) -> None:
    """All of it, a few at a time: not the handshakes of a crowd are weighed, but what stays."""
    remaining = iter(work)

    async def do_the_next() -> None:
        for one in remaining:
            await one

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(do_the_next())


async def main() -> None:
    idlers = Idlers()
    await serve(
        {
            "come": idlers.come,
            "listen": idlers.listen,
            "leave": idlers.leave,
            "meet": idlers.meet,
        }
    )


if __name__ == "__main__":
    uvloop.run(main())
