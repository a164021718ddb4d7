"""A sidecar that does not seal its agents' messages, for the demo's control run and nothing else.

Started as ``python -m cli.demo.plain_sidecar`` with some flags of ``sidelink up``.
"""

import asyncio
import sys

from cli.demo.flags import program_flags
from cli.demo.plain_codec import make_plain
from node.program import run
from node.settings import SidecarSettings
from node.settings_load import load_settings
from sidecar import program


async def main(settings: SidecarSettings, stop: asyncio.Event) -> None:
    await program.main(settings, stop, make_cipher=make_plain)


if __name__ == "__main__":
    flags, _ = program_flags(sys.argv[1:])
    sys.exit(run(main, load_settings(SidecarSettings, flags)))
