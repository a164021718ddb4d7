"""Agents that only want to talk, for tests and benchmarks of what others do to them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import sidelink

FIRST_ASK_S_MAX: Final = 30.0
TOLD_BYTES: Final = 32 << 10


@asynccontextmanager
async def honest_pair(
    near: Path | str, far: Path | str
) -> AsyncIterator[tuple[sidelink.Agent, sidelink.Agent]]:
    """One who asks, beside one sidecar, and one who answers with the same, beside another."""
    async with sidelink.connect(near) as asking, sidelink.connect(far) as answering:
        asker = await asking.agent("finance/honest")
        answerer = await answering.agent("billing/honest")

        async def answer() -> None:
            async for message in answerer.inbox():
                await message.reply(message.body)

        task = asyncio.create_task(answer())
        try:
            await asker.ask(answerer.uri, b"", timeout=FIRST_ASK_S_MAX)
            yield asker, answerer
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def told_much(near: Path | str, deaf: Path | str) -> AsyncIterator[None]:
    """Another honest agent tells one beside the sidecar ``deaf`` as much as is taken from it."""
    async with sidelink.connect(near) as mouth, sidelink.connect(deaf) as ears:
        ear, teller = await ears.agent("deaf/ear"), await mouth.agent("finance/teller")

        async def tell() -> None:
            while True:
                if not teller.writable:
                    await teller.wait_writable()
                teller.tell_nowait(ear.uri, bytes(TOLD_BYTES))
                await asyncio.sleep(0)

        task = asyncio.create_task(tell())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
