"""What a hop has to say and has not handed down yet: control frames, and four lanes of frames."""

from link import LANES, FrameKind, LaneWriter, encode_frame, lane_of
from transport.carrier import HopCarrier
from transport.hop_streams import CONTROL_STREAM, LANE_STREAMS


class HopOutput:
    """Gathers the frames of one turn, so that they leave together."""

    __slots__ = ("_control", "_lanes", "_writable")

    def __init__(self, *, is_dialler: bool) -> None:
        self._control: list[bytes] = []
        self._lanes = tuple(LaneWriter() for _ in range(LANES))
        # The acceptor cannot write on a stream of the dialler's before it has seen it.
        self._writable: set[int] = set(LANE_STREAMS) if is_dialler else set()

    @property
    def queued_bytes(self) -> int:
        return sum(lane.queued_bytes for lane in self._lanes)

    def handed_down_bytes(self, carrier: HopCarrier) -> int:
        """What the engine holds of lanes and of control, which waits for no room."""
        lanes = sum(carrier.stream_queued_bytes(stream) for stream in self._writable)
        return lanes + carrier.stream_queued_bytes(CONTROL_STREAM)

    def add_control(self, link: int, kind: int, body: bytes) -> None:
        self._control.append(encode_frame(link, kind, body))

    def add(self, link: int, kind: int, body: bytes) -> None:
        self._lanes[lane_of(link)].add(link, kind, body)

    def drop(self, link: int) -> None:
        self._lanes[lane_of(link)].drop(link)

    def open_lanes(self, carrier: HopCarrier) -> None:
        """Show the peer all lanes at once: it cannot write on one that it has not seen."""
        for lane, stream in enumerate(LANE_STREAMS):
            opened = carrier.open_stream()
            assert opened == stream, f"opened stream {opened}, not {stream}"
            carrier.send_stream(stream, encode_frame(lane, FrameKind.LANE_OPEN, b""), False)

    def lane_seen(self, stream: int) -> None:
        self._writable.add(stream)

    def write_control(self, carrier: HopCarrier) -> None:
        if self._control:
            data = b"".join(self._control)
            self._control.clear()
            carrier.send_stream(CONTROL_STREAM, data, False)

    def write_lanes(self, carrier: HopCarrier) -> None:
        """Hand down as much as there is room for; the rest keeps its turn here."""
        for writer, stream in zip(self._lanes, LANE_STREAMS, strict=True):
            if writer.queued_bytes and stream in self._writable:
                room_bytes = carrier.send_room_bytes(stream)
                if room_bytes > 0:
                    carrier.send_stream(stream, writer.take(room_bytes), False)
