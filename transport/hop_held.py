"""What overtook the peer's HOP_ACCEPT: streams of QUIC arrive in any order. Kept in bounds."""

from identity import Code
from transport import limits
from transport.engine import StreamData, StreamReset
from transport.errors import TransportError


class HeldEvents:
    """Events of streams, in the order of their arrival."""

    __slots__ = ("_bytes", "_events")

    def __init__(self) -> None:
        self._events: list[StreamData | StreamReset] = []
        self._bytes = 0

    def hold(self, event: StreamData | StreamReset) -> None:
        """Raises TransportError when the peer sends too much ahead of its word."""
        size = len(event.data) if isinstance(event, StreamData) else 0
        self._bytes += size + limits.HELD_EVENT_BYTES
        if self._bytes > limits.HELD_BYTES_MAX:
            raise TransportError(Code.HOP_LIMIT_EXCEEDED, "too much before HOP_ACCEPT")
        self._events.append(event)

    def take(self) -> list[StreamData | StreamReset]:
        events, self._events = self._events, []
        return events
