"""The kinds of chaos that stories are told under."""

from collections.abc import Mapping
from typing import Final

from tests.simulation.story import Chaos

WEATHERS: Final[Mapping[str, Chaos]] = {
    "everything": Chaos(),
    "calm": Chaos(
        cuts=0, sidecar_crashes=0, gateway_crashes=0, departures=0, slow_readers=0, seconds=5
    ),
    "cut-hops": Chaos(sidecar_crashes=0, gateway_crashes=0, cuts=0.6),
    "crashing-sidecars": Chaos(cuts=0, gateway_crashes=0, sidecar_crashes=0.3),
    "crashing-gateway": Chaos(cuts=0, sidecar_crashes=0, gateway_crashes=0.2),
    "slow-readers": Chaos(bursts=1.0, slow_readers=1.0, seconds=5),
    "slow-network": Chaos(cuts=0.2, departures=0.4, delay_s_max=1.5),
}
