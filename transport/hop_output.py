"""What a hop has to say and has not handed down yet: control frames, four lanes, byte streams.

Queues are kept here and not in the engine, which would send in the order of handing over: here
control goes first, and lanes and byte streams take turns.
"""

from collections import deque
from typing import Final

from link import FrameKind, LaneWriter, encode_frame, lane_of
from link.limits import FRAME_HEADER_BYTES
from transport.carrier import HopCarrier
from transport.hop_streams import CONTROL_STREAM, LANE_STREAMS

# What one lane or one byte stream may hand down before the next has its turn. Small, so that a
# small frame waits for little; a frame of a lane is never split, and one that is larger is paid
# for in the turns that follow.
QUANTUM_BYTES: Final = 16 << 10

assert QUANTUM_BYTES > FRAME_HEADER_BYTES


class _StreamQueue:
    """What waits of one byte stream."""

    __slots__ = ("_chunks", "_offset", "ends", "queued_bytes")

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._offset = 0  # What has been taken of the first chunk.
        self.queued_bytes = 0
        self.ends = False

    def add(self, data: bytes, end: bool) -> None:
        if data:
            self._chunks.append(data)
            self.queued_bytes += len(data)
        self.ends |= end

    def take(self, bytes_max: int) -> bytes:
        taken: list[bytes | memoryview] = []
        left_bytes = min(bytes_max, self.queued_bytes)
        self.queued_bytes -= left_bytes
        while left_bytes:
            chunk = self._chunks[0]
            end = self._offset + left_bytes
            if end < len(chunk):
                taken.append(memoryview(chunk)[self._offset : end])
                self._offset = end
                break
            taken.append(memoryview(chunk)[self._offset :] if self._offset else chunk)
            left_bytes -= len(chunk) - self._offset
            self._offset = 0
            self._chunks.popleft()
        return b"".join(taken)


class _Turns:
    """Deficit round robin among the queues of one sort, named by their streams' numbers."""

    __slots__ = ("_deficit_bytes", "_is_resumed", "order")

    def __init__(self) -> None:
        self.order: deque[int] = deque()
        """Who has something to say."""
        self._deficit_bytes: dict[int, int] = {}
        self._is_resumed = False  # The first in the order had no room for all of its turn.

    def join(self, stream: int) -> None:
        if stream not in self._deficit_bytes:
            self._deficit_bytes[stream] = 0
            self.order.append(stream)

    def leave(self, stream: int) -> None:
        if self._deficit_bytes.pop(stream, None) is not None:
            self._is_resumed = self._is_resumed and self.order[0] != stream
            self.order.remove(stream)

    def only(self) -> int:
        """The only one that has anything to say. What it says now is nobody's loss."""
        (stream,) = self.order
        self._deficit_bytes[stream], self._is_resumed = 0, False
        return stream

    def next(self) -> tuple[int, int]:
        """Whose turn it is, and how much it may say: nothing, while it pays for a large frame."""
        stream = self.order[0]
        if not self._is_resumed:
            self._deficit_bytes[stream] += QUANTUM_BYTES
        return stream, self._deficit_bytes[stream]

    def done(self, said_bytes: int, *, has_more: bool, is_cut: bool) -> None:
        """``is_cut``: there was no room for all that it might have said, so its turn goes on."""
        stream = self.order[0]
        if not has_more:
            self.leave(stream)
            return
        self._deficit_bytes[stream] -= said_bytes
        self._is_resumed = is_cut and self._deficit_bytes[stream] > 0
        if not self._is_resumed:
            self.order.rotate(-1)


class HopOutput:
    """Gathers what one turn of the loop has to say, so that it leaves together."""

    __slots__ = (
        "_control",
        "_lane_turns",
        "_lanes",
        "_speaker",
        "_stream_turns",
        "_streams",
        "_writable",
        "speaker_changes",
    )

    def __init__(self, *, is_dialler: bool) -> None:
        self.speaker_changes = 0
        """How often another link or byte stream spoke than the one before."""
        self._speaker = (False, 0)
        self._control: list[bytes] = []
        self._lanes = {stream: LaneWriter() for stream in LANE_STREAMS}
        self._lane_turns = _Turns()
        self._streams: dict[int, _StreamQueue] = {}
        self._stream_turns = _Turns()
        # The acceptor cannot write on a stream of the dialler's before it has seen it.
        self._writable: set[int] = set(LANE_STREAMS) if is_dialler else set()

    @property
    def queued_bytes(self) -> int:
        """Of lanes. Byte streams are counted one by one: their owners push back one by one."""
        return sum(lane.queued_bytes for lane in self._lanes.values())

    @property
    def has_more(self) -> bool:
        return bool(self._lane_turns.order or self._stream_turns.order)

    def stream_queued_bytes(self, stream: int) -> int:
        queue = self._streams.get(stream)
        return 0 if queue is None else queue.queued_bytes

    def handed_down_bytes(self, carrier: HopCarrier) -> int:
        """What the engine holds of lanes and of control, which waits for no room."""
        lanes = sum(carrier.stream_queued_bytes(stream) for stream in self._writable)
        return lanes + carrier.stream_queued_bytes(CONTROL_STREAM)

    def add_control(self, link: int, kind: int, body: bytes) -> None:
        self._control.append(encode_frame(link, kind, body))

    def add(self, link: int, kind: int, body: bytes) -> None:
        self._note_speaker((False, link))
        stream = LANE_STREAMS[lane_of(link)]
        self._lanes[stream].add(link, kind, body)
        if stream in self._writable:
            self._lane_turns.join(stream)

    def _note_speaker(self, speaker: tuple[bool, int]) -> None:
        if speaker != self._speaker:
            self._speaker = speaker
            self.speaker_changes += 1

    def drop(self, link: int) -> None:
        stream = LANE_STREAMS[lane_of(link)]
        self._lanes[stream].drop(link)
        if not self._lanes[stream].queued_bytes:
            self._lane_turns.leave(stream)

    def add_stream(self, stream: int, data: bytes, end: bool) -> None:
        self._note_speaker((True, stream))
        queue = self._streams.get(stream)
        if queue is None:
            queue = self._streams[stream] = _StreamQueue()
            self._stream_turns.join(stream)
        queue.add(data, end)

    def drop_stream(self, stream: int) -> bool:
        """Forget what waits of a byte stream. Return whether anything, or its end, did."""
        self._stream_turns.leave(stream)
        return self._streams.pop(stream, None) is not None

    def open_lanes(self, carrier: HopCarrier) -> None:
        """Show the peer all lanes at once: it cannot write on one that it has not seen."""
        for lane, stream in enumerate(LANE_STREAMS):
            opened = carrier.open_stream()
            assert opened == stream, f"opened stream {opened}, not {stream}"
            carrier.send_stream(stream, encode_frame(lane, FrameKind.LANE_OPEN, b""), False)

    def lane_seen(self, stream: int) -> None:
        if stream not in self._writable:
            self._writable.add(stream)
            if self._lanes[stream].queued_bytes:
                self._lane_turns.join(stream)

    def write_control(self, carrier: HopCarrier) -> None:
        if self._control:
            data = b"".join(self._control)
            self._control.clear()
            carrier.send_stream(CONTROL_STREAM, data, False)

    def write(self, carrier: HopCarrier, room_bytes: int) -> None:
        """Hand down as much as there is room for; the rest keeps its turn here.

        Lanes and byte streams alternate, however many of either there are: a hundred bulk
        streams leave half of the hop to the lanes.
        """
        lanes, streams = self._lane_turns, self._stream_turns
        while room_bytes > 0 and (lanes.order or streams.order):
            if len(lanes.order) + len(streams.order) == 1:
                # The usual case. Whoever is alone needs no turns.
                turns = lanes if lanes.order else streams
                stream = turns.only()
                said_bytes, has_more = self._say(carrier, stream, room_bytes)
                if not has_more:
                    turns.leave(stream)
                room_bytes -= said_bytes
                continue
            for turns in (lanes, streams):
                if turns.order and room_bytes > 0:
                    room_bytes -= self._take_turn(carrier, turns, room_bytes)

    def _take_turn(self, carrier: HopCarrier, turns: _Turns, room_bytes: int) -> int:
        stream, allowed_bytes = turns.next()
        said_bytes, has_more = 0, True
        if allowed_bytes > 0:
            bytes_max = min(allowed_bytes, room_bytes)
            said_bytes, has_more = self._say(carrier, stream, bytes_max)
        turns.done(said_bytes, has_more=has_more, is_cut=allowed_bytes > room_bytes)
        return said_bytes

    def _say(self, carrier: HopCarrier, stream: int, bytes_max: int) -> tuple[int, bool]:
        """Hand down from one queue. Return how much that was, and whether more waits."""
        lane = self._lanes.get(stream)
        if lane is not None:
            data = lane.take(bytes_max)
            carrier.send_stream(stream, data, False)
            return len(data), lane.queued_bytes > 0
        queue = self._streams[stream]
        data = queue.take(bytes_max)
        has_more = queue.queued_bytes > 0
        carrier.send_stream(stream, data, queue.ends and not has_more)
        if not has_more:
            del self._streams[stream]
        return len(data), has_more
