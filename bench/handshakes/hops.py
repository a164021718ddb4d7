"""Hops over real UDP on loopback, both sides in one process: all of QUIC, Noise and admission."""

import asyncio
import time
from typing import Final

import msgspec

from bench.nodes import member
from identity import Code
from tests.simulation.people import node
from transport import HopPurpose, TransportSettings

HOP_S_MAX: Final = 10.0
# Opened at once: far below what one address may have half open.
AT_ONCE: Final = 8
# An acceptor holds everybody, and each address, to a rate far below what is measured here.
NO_RATE: Final = 1_000_000


class Opened(msgspec.Struct, frozen=True):
    """What opening so many hops took."""

    engine: str
    per_cpu_s: float
    median_s: float
    """From the first datagram to the opened hop, with others under way."""


async def open_hops(count: int) -> Opened:
    """Each is closed once it is open; the next takes its place."""
    settings = TransportSettings(
        handshakes_per_s=NO_RATE,
        handshakes_burst=NO_RATE,
        handshakes_per_source_per_s=NO_RATE,
        handshakes_per_source_burst=NO_RATE,
    )
    dialler, acceptor = member(node("alpha")), member(node("gw", role="gateway"))
    near, far = await dialler.bind(settings), await acceptor.bind(settings)
    taken_s: list[float] = []

    async def one() -> None:
        near.dial(*far.address, purpose=HopPurpose.ADMIT, target=acceptor.identity.identifier)
        async with asyncio.timeout(HOP_S_MAX):
            hop = await dialler.opened.get()
        taken_s.append(hop.opened_in_s)
        hop.close(Code.HOP_CLOSED)

    async def several(share: int) -> None:
        for _ in range(share):
            await one()

    try:
        await one()  # The first one loads what all of them use.
        taken_s.clear()
        begun_s = time.process_time()
        async with asyncio.TaskGroup() as group:
            for index in range(AT_ONCE):
                group.create_task(several(len(range(index, count, AT_ONCE))))
        spent_s = time.process_time() - begun_s
    finally:
        await near.close()
        await far.close()
    return Opened(near.engine_name, count / spent_s, sorted(taken_s)[count // 2])
