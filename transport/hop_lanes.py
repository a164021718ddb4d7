"""What may stand on a lane."""

from identity import Code
from link import CONTROL_KIND_MIN, Frame, FrameKind, lane_of
from transport.errors import TransportError
from transport.hop_state import HopState


def is_lane_opening(frame: Frame, lane: int, state: HopState) -> bool:
    """Return whether a lane's frame only shows the lane. Raises TransportError if it may not be."""
    if frame.kind == FrameKind.LANE_OPEN:
        if frame.link != lane or frame.body:
            raise TransportError(Code.HOP_BAD_FRAME, "a malformed LANE_OPEN")
        return True
    if frame.kind >= CONTROL_KIND_MIN or lane_of(frame.link) != lane or not frame.link:
        detail = f"kind {frame.kind:#04x} of link {frame.link} on a lane"
        raise TransportError(Code.HOP_BAD_FRAME, detail)
    if state is not HopState.OPEN:
        raise TransportError(Code.HOP_BAD_FRAME, f"a frame while {state.name}")
    return False
