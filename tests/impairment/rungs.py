"""The rungs of the ladder: each a worse network, and what is asked of the mesh on it.

An impairment is that of one proxy, for each way. There is a proxy between each sidecar and the
gateway, so a message from agent to agent meets two of them, and a question and its answer four:
a delay of 300 ms makes a round trip of 600 ms on a hop and of 1.2 s between agents.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tests.impairment.settings import NO_IMPAIRMENT, Impairment


@dataclass(frozen=True, slots=True)
class Rung:
    title: str
    impairment: Impairment = NO_IMPAIRMENT
    seconds: float = 15.0
    """How long messages are sent."""
    blackhole_at_s: float | None = None
    blackhole_s: float = 0.0
    rebind_every_s: float = 0.0
    answered_min: float = 0.9
    """The share of the asks that must be answered, each within ASK_TIMEOUT_S."""


TELLS_PER_S: Final = 20
ASKS_PER_S: Final = 2
BODY_BYTES: Final = 200
ASK_TIMEOUT_S: Final = 10.0
TELL_TIMEOUT_S: Final = 20.0
# How long after the last message was accepted all of them have to be there.
SETTLE_S_MAX: Final = 15.0

RUNGS: Final[Mapping[str, Rung]] = {
    "loss-0.1": Rung("0.1 % loss", Impairment(loss=0.001)),
    "bursts": Rung(
        "2 % loss in bursts of 8, 100 ms delay", Impairment(loss=0.02, burst=8, delay_ms=100)
    ),
    "loss-5": Rung("5 % loss", Impairment(loss=0.05)),
    "far": Rung(
        "10 % loss, 300 ms delay, every tenth datagram 150 ms late",
        Impairment(loss=0.1, delay_ms=300, reorder=0.1, reorder_ms=150),
        seconds=20,
        answered_min=0.5,
    ),
    "blackhole": Rung(
        "nothing passes for 10 s in the middle",
        Impairment(delay_ms=10),
        seconds=25,
        blackhole_at_s=6,
        blackhole_s=10,
        answered_min=0.8,
    ),
    "rebinding": Rung(
        "every 2 s both sidecars come from another port",
        Impairment(delay_ms=10),
        rebind_every_s=2,
        answered_min=0.5,
    ),
}
