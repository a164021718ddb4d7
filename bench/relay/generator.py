"""The load generator, as a process: both members, in one event loop, on one core.

Commands come from the benchmark, see `bench.worker`.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.relay.members import SINK, SOURCE, Carried, Hops, Sink, Source
from bench.worker import serve
from node.logs import configure_logs
from node.parts import Parts, open_parts
from node.refuse_hops import RefuseHops
from node.settings import SidecarSettings
from node.settings_load import load_settings
from sidecar.enrol import enrol
from transport import Endpoint, HopIdentity, IdentityProvider

ENROL_S_MAX: Final = 120.0
STEP_S_MAX: Final = 30.0
# Far below what one address may have half open at a gateway.
ENROLLED_AT_ONCE: Final = 8


class Generator:
    """What the benchmark may ask for, in this order: enrol, join, then links, hops and records."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._nodes: dict[str, tuple[Parts, Endpoint]] = {}
        self._idle: list[HopIdentity] = []
        self._idle_hops: tuple[Hops, Endpoint] | None = None
        self._pushing: asyncio.Task[None] | None = None

    async def enrol(self, wishes: Mapping[str, Any]) -> None:
        """Get credentials for both members, and for nodes that will only have an idle hop."""
        folder = Path(wishes["folder"])
        at_once = asyncio.Semaphore(ENROLLED_AT_ONCE)

        async def enrol_idle(number: int, ticket: str) -> None:
            async with at_once, enrolled(folder / f"idle-{number}", ticket) as (parts, _):
                self._idle.append(parts.node.hop_identity())

        async with asyncio.timeout(ENROL_S_MAX):
            for name in (SOURCE, SINK):
                self._nodes[name] = await self._stack.enter_async_context(
                    enrolled(folder / name, wishes["tickets"][name])
                )
            async with asyncio.TaskGroup() as group:
                for number, ticket in enumerate(wishes["idle_tickets"]):
                    group.create_task(enrol_idle(number, ticket))

    async def join(self, _: Mapping[str, Any]) -> None:
        """Both members open their hops."""
        (source, source_endpoint), (sink, sink_endpoint) = self._nodes[SOURCE], self._nodes[SINK]
        self._source, self._sink = Source(source), Sink(sink)
        async with asyncio.timeout(STEP_S_MAX):
            await self._source.join(source_endpoint)
            await self._sink.join(sink_endpoint)

    async def open_links(self, wishes: Mapping[str, Any]) -> None:
        async with asyncio.timeout(STEP_S_MAX):
            await self._source.open_links(wishes["count"])

    async def open_hops(self, wishes: Mapping[str, Any]) -> None:
        """One hop for each of so many nodes: a gateway keeps one for each identity."""
        if self._idle_hops is None:
            endpoint = await _bind("127.0.0.1", 0, self._idle.pop)
            self._stack.push_async_callback(endpoint.close)
            self._idle_hops = Hops(self._nodes[SOURCE][0]), endpoint
        hops, endpoint = self._idle_hops
        async with asyncio.timeout(STEP_S_MAX), asyncio.TaskGroup() as group:
            for _ in range(wishes["count"]):
                group.create_task(hops.dial(endpoint))
        hops.raise_fault()

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
        listen = settings.listen
        endpoint = await _bind(listen.host, listen.port, parts.node.hop_identity)
        try:
            await enrol(parts, settings, endpoint)
            yield parts, endpoint
        finally:
            await endpoint.close()


async def _bind(host: str, port: int, identity: IdentityProvider) -> Endpoint:
    return await Endpoint.bind(host, port, identity=identity, handler=RefuseHops())


async def main() -> None:
    configure_logs("generator", "json", "warning")
    async with AsyncExitStack() as stack:
        generator = Generator(stack)
        await serve(
            {
                "enrol": generator.enrol,
                "join": generator.join,
                "open links": generator.open_links,
                "open hops": generator.open_hops,
                "begin": generator.begin,
                "count": generator.count,
                "end": generator.end,
            }
        )


if __name__ == "__main__":
    uvloop.run(main())
