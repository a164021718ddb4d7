"""Which byte streams of a hop are alive. Streams other than control and lanes. Pure."""

from identity import Code
from link import LANES
from link.limits import STREAMS_PER_HOP_MAX
from transport.errors import TransportError

CONTROL_STREAM = 0
LANE_STREAMS = tuple(4 * (lane + 1) for lane in range(LANES))
_FIRST_DIALLER_STREAM = 4 * (LANES + 1)
_FIRST_ACCEPTOR_STREAM = 1


class ByteStreams:
    """The streams that either side may still speak on. Ended ones are told from new ones."""

    __slots__ = ("_ended_here", "_ended_there", "_live", "_next_of_peer", "_peer_bit")

    def __init__(self, *, is_dialler: bool) -> None:
        self._peer_bit = 1 if is_dialler else 0
        self._next_of_peer = _FIRST_ACCEPTOR_STREAM if is_dialler else _FIRST_DIALLER_STREAM
        self._live: set[int] = set()
        self._ended_here: set[int] = set()
        self._ended_there: set[int] = set()

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, stream: int) -> bool:
        return stream in self._live

    def add_own(self, stream: int) -> None:
        self._live.add(stream)

    def is_legal(self, stream: int) -> bool:
        """A stream of bytes both ways, not control and not a lane."""
        return stream & 2 == 0 and stream != CONTROL_STREAM and stream not in LANE_STREAMS

    def meet(self, stream: int) -> bool:
        """Note that the peer spoke on a stream. Return False if it has ended already.

        A stream's first bytes bring all the streams below it to life: QUIC opens them in order.
        Raises TransportError when that is more than a hop may have.
        """
        if stream & 1 == self._peer_bit and stream >= self._next_of_peer:
            newcomers = (stream - self._next_of_peer) // 4 + 1
            if len(self._live) + newcomers > STREAMS_PER_HOP_MAX:
                raise TransportError(Code.HOP_LIMIT_EXCEEDED, "too many byte streams on this hop")
            self._live.update(range(self._next_of_peer, stream + 1, 4))
            self._next_of_peer = stream + 4
        return stream in self._live and stream not in self._ended_there

    def can_send(self, stream: int) -> bool:
        return stream in self._live and stream not in self._ended_here

    def end_here(self, stream: int) -> None:
        self._ended_here.add(stream)
        if stream in self._ended_there:
            self.drop(stream)

    def end_there(self, stream: int) -> None:
        self._ended_there.add(stream)
        if stream in self._ended_here:
            self.drop(stream)

    def drop(self, stream: int) -> None:
        self._live.discard(stream)
        self._ended_here.discard(stream)
        self._ended_there.discard(stream)
