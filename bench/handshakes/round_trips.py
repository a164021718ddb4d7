"""How many round trips an ask takes, where every hop delays by a fixed time: in virtual time."""

from typing import Final

import msgspec
from sidelink import wire

from bench.errors import BenchError
from link import FrameKind
from tests.simulation.mesh import Session, new_mesh
from tests.simulation.network import SimulatedHop, Weather

# One way, of each hop. Any value would do: only the ratio counts.
HOP_DELAY_S: Final = 0.02
HOPS: Final = 2
ROUND_TRIP_S: Final = 2 * HOPS * HOP_DELAY_S
STEP_S: Final = HOP_DELAY_S / 100
STEPS_MAX: Final = 10_000
# Larger than anything else that leaves the initiator, so that its record is known by its size.
ASK_BYTES: Final = 8_192


class Trips(msgspec.Struct, frozen=True):
    """Of one ask, in round trips of the whole path."""

    to_reply: float
    flight: int
    """The flight of the initiator in which the ask left: 1 leaves at once, 2 a round trip later."""


def measure_trips() -> tuple[Trips, Trips]:
    """Over a gateway: an ask for which a channel has to be opened, then one on that channel."""
    weather = Weather(delay_s_min=HOP_DELAY_S, delay_s_max=HOP_DELAY_S)
    _, _, [near, far] = new_mesh("alpha", "beta", weather=weather)
    answering = far.new_session("main")

    def answer(frame: wire.Deliver) -> None:
        answering.answer(frame.delivery, b"answer")

    answering.handler = answer
    answering.listen()
    asking = near.new_session("caller")
    [hop] = near.hops
    return _ask(asking, answering.uri, hop), _ask(asking, answering.uri, hop)


def _ask(asking: Session, to: str, hop: SimulatedHop) -> Trips:
    network = asking.sidecar.network
    asked_s = network.clock.now_s()
    replies = len(asking.of(wire.Reply))
    seen = len(hop.sent)
    left_s: float | None = None
    asking.ask(to, bytes(ASK_BYTES))
    for _ in range(STEPS_MAX):
        if left_s is None and any(
            frame.kind == FrameKind.RECORD and len(frame.body) > ASK_BYTES
            for frame in hop.sent[seen:]
        ):
            left_s = network.clock.now_s()
        if len(asking.of(wire.Reply)) > replies:
            break
        network.run_for(STEP_S)
    else:
        raise BenchError(f"no reply in {STEPS_MAX * STEP_S:g} s: {asking.failures()}")
    if left_s is None:
        raise BenchError("the ask was answered, and never seen to leave")
    return Trips(
        to_reply=(network.clock.now_s() - asked_s) / ROUND_TRIP_S,
        flight=1 + round((left_s - asked_s) / ROUND_TRIP_S),
    )
