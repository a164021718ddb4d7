"""The load generator, as a process: both members, in one event loop, on one core.

Commands come from the benchmark, see `bench.worker`.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.relay.members import SINK, SOURCE, Carried, Sink, Source
from bench.worker import serve
from node.logs import configure_logs
from node.parts import Parts, open_parts
from node.refuse_hops import RefuseHops
from node.settings import SidecarSettings
from node.settings_load import load_settings
from sidecar.enrol import enrol
from transport import Endpoint

OPEN_S_MAX: Final = 30.0
STEP_S_MAX: Final = 30.0


class Generator:
    """What the benchmark may ask for, in this order: open, then links and hops, then records."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._pushing: asyncio.Task[None] | None = None

    async def open(self, wishes: Mapping[str, Any]) -> None:
        async with asyncio.timeout(OPEN_S_MAX):
            source, sink = [
                await self._stack.enter_async_context(
                    enrolled(Path(wishes["folder"]) / name, wishes["tickets"][name])
                )
                for name in (SOURCE, SINK)
            ]
            self._source, self._sink = Source(*source), Sink(*sink)
            await self._source.dial()
            await self._sink.dial()
            await self._sink.wait_registered()

    async def open_links(self, wishes: Mapping[str, Any]) -> None:
        async with asyncio.timeout(STEP_S_MAX):
            await self._source.open_links(wishes["count"])

    async def open_hops(self, wishes: Mapping[str, Any]) -> None:
        async with asyncio.timeout(STEP_S_MAX):
            await self._source.dial(wishes["count"])

    async def begin(self, wishes: Mapping[str, Any]) -> None:
        """Push, and return when the warm-up is over."""
        self._sink.size_bytes = wishes["size_bytes"]
        self._pushing = asyncio.create_task(self._source.push(wishes["size_bytes"]))
        await self._sink.count(wishes["warm_up_s"])

    async def count(self, wishes: Mapping[str, Any]) -> Carried:
        return await self._sink.count(wishes["seconds"])

    async def end(self, _: Mapping[str, Any]) -> None:
        """Stop pushing; returns when every record that was pushed has come."""
        assert self._pushing is not None
        self._source.stop()
        async with asyncio.timeout(STEP_S_MAX):
            await self._pushing
            await self._sink.wait_counted(self._source.pushed)


@asynccontextmanager
async def enrolled(state: Path, ticket: str) -> AsyncIterator[tuple[Parts, Endpoint]]:
    """A node's parts with a credential of the authority, got as a sidecar gets it."""
    flags = {"state": str(state), "ticket": ticket, "listen": "127.0.0.1:0"}
    settings = load_settings(SidecarSettings, flags)
    async with open_parts(settings) as parts:
        endpoint = await Endpoint.bind(
            settings.listen.host,
            settings.listen.port,
            identity=parts.node.hop_identity,
            handler=RefuseHops(),
        )
        try:
            await enrol(parts, settings, endpoint)
            yield parts, endpoint
        finally:
            await endpoint.close()


async def main() -> None:
    configure_logs("generator", "json", "warning")
    async with AsyncExitStack() as stack:
        generator = Generator(stack)
        await serve(
            {
                "open": generator.open,
                "open links": generator.open_links,
                "open hops": generator.open_hops,
                "begin": generator.begin,
                "count": generator.count,
                "end": generator.end,
            }
        )


if __name__ == "__main__":
    uvloop.run(main())
