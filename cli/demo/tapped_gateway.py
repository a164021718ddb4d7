"""The gateway with a tap on everything that it relays, for the demo and nothing else.

Started as ``python -m cli.demo.tapped_gateway TAP`` with some flags of ``sidelink gateway up``.
"""

import asyncio
import sys
from pathlib import Path

from cli.demo.flags import program_flags
from cli.demo.tap import TapWriter
from gateway.program import AuditedDecisions, Gateway
from gateway.relay import GatewayRelay
from gateway.streams import StreamRelay
from node.parts import open_parts
from node.program import run
from node.settings import GatewaySettings
from node.settings_load import load_settings


async def run_tapped(settings: GatewaySettings, stop: asyncio.Event, tap_file: Path) -> None:
    with TapWriter(tap_file) as tap:
        async with open_parts(settings) as parts:
            relay = GatewayRelay(AuditedDecisions(parts), observe=tap.frame)
            streams = StreamRelay(
                relay, observe=lambda hop, stream, data: tap.stream(hop.id, stream, data)
            )
            await Gateway(parts, settings, relay=relay, streams=streams).run(stop)


def main() -> int:
    flags, (tap_file,) = program_flags(sys.argv[1:])

    async def tapped(settings: GatewaySettings, stop: asyncio.Event) -> None:
        await run_tapped(settings, stop, Path(tap_file))

    return run(tapped, load_settings(GatewaySettings, flags))


if __name__ == "__main__":
    sys.exit(main())
