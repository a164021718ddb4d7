"""The process in which handshakes are measured: both sides of each in it, and it on one core.

Commands come from the benchmark, see `bench.worker`.
"""

from collections.abc import Mapping
from typing import Any

import uvloop

from bench.handshakes.channels import handshakes_per_cpu_s, make_pairs
from bench.handshakes.hops import Opened, open_hops
from bench.handshakes.round_trips import Trips, measure_trips
from bench.worker import serve


async def channels(wishes: Mapping[str, Any]) -> tuple[float, float]:
    """Channels for each CPU second: of agents that meet for the first time, then again."""
    pairs = make_pairs(wishes["count"])
    return handshakes_per_cpu_s(pairs), handshakes_per_cpu_s(pairs)


async def hops(wishes: Mapping[str, Any]) -> Opened:
    return await open_hops(wishes["count"])


async def round_trips(_: Mapping[str, Any]) -> tuple[Trips, Trips]:
    return measure_trips()


if __name__ == "__main__":
    uvloop.run(serve({"channels": channels, "hops": hops, "round trips": round_trips}))
