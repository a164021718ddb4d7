"""Byte streams through a gateway: joined by their preamble, counted, passed on. Pure; sealed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.relay import GatewayRelay
from identity import Code, SidelinkError
from link import FrameError, HopPort, LinkEnd, StreamPreamble
from link.limits import STREAM_PREAMBLE_BYTES, STREAMS_PER_HOP_MAX
from link.messages import decode_stream_preamble_untrusted, encode_stream_preamble

# A stream's receiver grants what it will take. One that grants and does not read loses the stream
# at this many bytes; looked at once for so many.
STREAM_QUEUED_BYTES_MAX: Final = 16 << 20
STREAM_QUEUE_CHECK_BYTES: Final = 1 << 20


@dataclass(slots=True, eq=False)
class _End:
    """One side of a relayed stream."""

    hop: HopPort
    stream: int
    link: int
    ended: bool = False
    unchecked_bytes: int = 0
    other: "_End | None" = None


class StreamRelay:
    """Every byte stream of one gateway, from either end.

    ``observe`` is called with hop, stream and bytes of whatever is relayed, for compositions that
    want to look on, as that of ``GatewayRelay`` is for frames; it is None in the program.
    """

    def __init__(
        self,
        relay: GatewayRelay,
        *,
        observe: Callable[[HopPort, int, bytes], None] | None = None,
    ) -> None:
        self._relay = relay
        self._observe = observe
        self._ends: dict[tuple[int, int], _End] = {}
        self._preambles: dict[tuple[int, int], bytes] = {}
        self._numbers: dict[_End, int] = {}
        self._per_hop: dict[int, int] = {}
        self._of_link: dict[LinkEnd, set[_End]] = {}

    def __len__(self) -> int:
        return len(self._numbers) // 2

    def received(self, hop: HopPort, stream: int, data: bytes, ended: bool) -> None:
        """Pass bytes on. A stream without a link, or beyond its window, is reset."""
        key = (hop.id, stream)
        try:
            near = self._ends.get(key)
            if near is None:
                opened = self._open_untrusted(hop, stream, data)
                if opened is None:
                    if ended:
                        raise FrameError("a stream that ends within its preamble")
                    return
                near, data = opened
            self._relay.find_link(LinkEnd(hop.id, near.link))
            if key not in self._ends:
                return  # Policy has ended its link at this moment, and with it the stream.
            self._pass_untrusted(near, data, ended)
        except FrameError as exc:
            hop.close(exc.code)
        except SidelinkError as exc:
            self._relay.counters.refuse(exc.code)
            self._reset(key, exc.code)
            hop.reset_stream(stream, int(exc.code))

    def reset(self, hop: HopPort, stream: int, code: int) -> None:
        """The peer gave its stream up: so does the far side."""
        self._preambles.pop((hop.id, stream), None)
        near = self._ends.get((hop.id, stream))
        if near is not None and near.other is not None:
            near.other.hop.reset_stream(near.other.stream, code)
        self._forget(near)

    def link_cut(self, end: LinkEnd, code: Code) -> None:
        """Policy has ended a link: what streams on it, or is silent there, ends at both sides."""
        for near in list(self._of_link.get(end, ())):
            self._reset((near.hop.id, near.stream), code)
            near.hop.reset_stream(near.stream, int(code))

    def hop_closed(self, hop: HopPort) -> None:
        """The streams of a lost hop are reset on their far hops."""
        for key in [key for key in self._preambles if key[0] == hop.id]:
            del self._preambles[key]
        for key in [key for key in self._ends if key[0] == hop.id]:
            near = self._ends.get(key)
            if near is not None and near.other is not None and near.other.hop is not hop:
                near.other.hop.reset_stream(near.other.stream, int(Code.ROUTE_UNREACHABLE))
            self._forget(near)
        self._per_hop.pop(hop.id, None)

    def _open_untrusted(self, hop: HopPort, stream: int, data: bytes) -> tuple[_End, bytes] | None:
        """Read the preamble and open the far side. None while the preamble is incomplete."""
        key = (hop.id, stream)
        data = self._preambles.pop(key, b"") + data
        if len(data) < STREAM_PREAMBLE_BYTES:
            self._preambles[key] = data
            return None
        preamble = decode_stream_preamble_untrusted(data[:STREAM_PREAMBLE_BYTES])
        far_hop = self._relay.join_stream(hop, preamble.link)
        if far_hop is None:
            raise SidelinkError(Code.ROUTE_LINK_CLOSED, f"link {preamble.link} is not relayed")
        if self._per_hop.get(hop.id, 0) >= STREAMS_PER_HOP_MAX:
            raise SidelinkError(Code.STREAM_LIMIT, "too many byte streams on this hop")
        far_link = self._relay.far_link(hop, preamble.link)
        near = _End(hop, stream, preamble.link)
        far = _End(far_hop, far_hop.open_stream(), far_link, other=near)
        near.other = far
        for end in (near, far):
            self._ends[end.hop.id, end.stream] = end
            self._numbers[end] = preamble.stream
            self._per_hop[end.hop.id] = self._per_hop.get(end.hop.id, 0) + 1
            self._of_link.setdefault(LinkEnd(end.hop.id, end.link), set()).add(end)
        onward = encode_stream_preamble(StreamPreamble(far_link, preamble.stream))
        far_hop.send_stream(far.stream, onward)
        return near, data[STREAM_PREAMBLE_BYTES:]

    def _pass_untrusted(self, near: _End, data: bytes, ended: bool) -> None:
        far = near.other
        assert far is not None
        number = self._numbers[near]
        if not self._relay.pass_stream_untrusted(near.hop, near.link, number, len(data)):
            raise SidelinkError(Code.ROUTE_LINK_CLOSED, "the stream's link is gone")
        near.ended = near.ended or ended
        if self._observe is not None:
            self._observe(far.hop, far.stream, data)
        far.hop.send_stream(far.stream, data, end=ended)
        far.unchecked_bytes += len(data)
        if far.unchecked_bytes >= STREAM_QUEUE_CHECK_BYTES:
            far.unchecked_bytes = 0
            if far.hop.stream_queued_bytes(far.stream) > STREAM_QUEUED_BYTES_MAX:
                raise SidelinkError(Code.STREAM_LIMIT, "its receiver grants and does not read")
        if near.ended and far.ended:
            self._forget(near)

    def _reset(self, key: tuple[int, int], code: Code) -> None:
        near = self._ends.get(key)
        if near is not None and near.other is not None:
            near.other.hop.reset_stream(near.other.stream, int(code))
        self._forget(near)

    def _forget(self, near: _End | None) -> None:
        if near is None:
            return
        for end in (near, near.other):
            if end is not None and self._ends.pop((end.hop.id, end.stream), None) is not None:
                number = self._numbers.pop(end)
                self._relay.stream_ended(end.hop, end.link, number)
                self._per_hop[end.hop.id] = self._per_hop.get(end.hop.id, 1) - 1
                link = LinkEnd(end.hop.id, end.link)
                self._of_link[link].discard(end)
                if not self._of_link[link]:
                    del self._of_link[link]
