"""The agents of one side, as a process: ``python -m bench.fairness.agent``. See `bench.worker`."""

import asyncio
import contextlib
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec
import sidelink
import uvloop

from bench.messages import ours
from bench.messages.asks import Asked, AskPlan, measure_asks
from bench.messages.ruler import filler_bytes
from bench.worker import serve

# Beside the two agents of `bench.messages.ours`, which ask and answer.
BULK_SENDER: Final = "finance/archive"
BULK_RECEIVER: Final = "billing/archive"
BULK_TO: Final = f"agent://acme/{BULK_RECEIVER}"
# How many messages one call of the loop hands over before others have their turn.
BURST: Final = 64


class Asking:
    """The side that asks, and sends in bulk."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._bulk: asyncio.Task[None] | None = None

    async def open(self, wishes: Mapping[str, Any]) -> None:
        mesh = await self._stack.enter_async_context(sidelink.connect(wishes["socket"]))
        self._asker = await mesh.agent(ours.SENDER, attributes=ours.ATTRIBUTES)

    async def open_bulk(self, wishes: Mapping[str, Any]) -> None:
        mesh = await self._stack.enter_async_context(sidelink.connect(wishes["socket"]))
        self._sender = await mesh.agent(BULK_SENDER, attributes=ours.ATTRIBUTES)

    async def begin_bulk(self, wishes: Mapping[str, Any]) -> None:
        self._bulk = asyncio.create_task(self._send_bulk(wishes["size_bytes"]))

    async def end_bulk(self, _: Mapping[str, Any]) -> None:
        assert self._bulk is not None
        self._bulk.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._bulk

    async def ask(self, wishes: Mapping[str, Any]) -> Asked:
        return await measure_asks(self._ask, msgspec.convert(wishes["plan"], AskPlan))

    async def _ask(self, body: bytes) -> bytes:
        reply = await self._asker.ask(ours.TO, body, content_type=ours.CONTENT_TYPE)
        return reply.raw_body

    async def _send_bulk(self, size_bytes: int) -> None:
        body = filler_bytes(size_bytes)
        while True:
            for _ in range(BURST):
                if not self._sender.writable:
                    await self._sender.wait_writable()
                self._sender.tell_nowait(BULK_TO, body, content_type=ours.CONTENT_TYPE)
            await asyncio.sleep(0)


class Answering:
    """The side that answers, and counts what comes in bulk."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._counted_bytes = 0

    async def open(self, wishes: Mapping[str, Any]) -> None:
        mesh = await self._stack.enter_async_context(sidelink.connect(wishes["socket"]))
        agent = await mesh.agent(ours.RECEIVER)
        self._read = asyncio.create_task(_answer(agent))

    async def open_bulk(self, wishes: Mapping[str, Any]) -> None:
        mesh = await self._stack.enter_async_context(sidelink.connect(wishes["socket"]))
        agent = await mesh.agent(BULK_RECEIVER)
        self._read = asyncio.create_task(self._count(agent))

    async def count(self, _: Mapping[str, Any]) -> int:
        """Bytes of messages that have come so far."""
        return self._counted_bytes

    async def _count(self, agent: sidelink.Agent) -> None:
        async for message in agent.inbox():
            self._counted_bytes += len(message.raw_body)


async def _answer(agent: sidelink.Agent) -> None:
    async for message in agent.inbox():
        await message.reply(message.raw_body, content_type=ours.CONTENT_TYPE)


async def main() -> None:
    async with AsyncExitStack() as stack:
        asking, answering = Asking(stack), Answering(stack)
        await serve(
            {
                "open asker": asking.open,
                "open sender": asking.open_bulk,
                "open answerer": answering.open,
                "open receiver": answering.open_bulk,
                "begin bulk": asking.begin_bulk,
                "end bulk": asking.end_bulk,
                "count": answering.count,
                "ask": asking.ask,
            }
        )


if __name__ == "__main__":
    uvloop.run(main())
