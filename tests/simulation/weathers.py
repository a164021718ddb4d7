"""The kinds of chaos that stories are told under."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sidecar.router import RouterLimits
from tests.simulation.story import Chaos

CALM: Final = Chaos(
    cuts=0,
    late_cuts=0,
    meetings=0,
    partings=0,
    sidecar_crashes=0,
    sidecar_stops=0,
    gateway_crashes=0,
    gateway_stops=0,
    departures=0,
    slow_readers=0,
    seconds=4,
)
SHORT_RESTS: Final = RouterLimits(channel_idle_s=0.3, channels_max=4)

WEATHERS: Final[Mapping[str, Chaos]] = {
    "everything": Chaos(),
    "calm": CALM,
    "cut-hops": Chaos(
        cuts=0.6, late_cuts=0.4, sidecar_crashes=0, sidecar_stops=0, gateway_crashes=0
    ),
    "crashing-sidecars": Chaos(cuts=0, gateway_crashes=0, gateway_stops=0, sidecar_crashes=0.4),
    "stopping-sidecars": Chaos(gateway_crashes=0, sidecar_crashes=0, sidecar_stops=0.5),
    "crashing-gateway": Chaos(cuts=0, sidecar_crashes=0, gateway_crashes=0.3),
    "two-gateways": Chaos(gateways=2, gateway_crashes=0.2, gateway_stops=0.2, sidecar_crashes=0),
    "meetings": Chaos(meetings=0.8, partings=0.5, cuts=0.4, late_cuts=0.2, sidecar_crashes=0),
    "short-rests": replace(CALM, limits=SHORT_RESTS, sends=6, bursts=0.1, seconds=16),
    "calm-meetings": replace(CALM, meetings=0.8, partings=0.4),
    "slow-readers": Chaos(bursts=1.0, slow_readers=1.0, seconds=4),
    "slow-network": Chaos(departures=0.4, delay_s_max=1.5, gateways=2),
}
