"""Datagrams that wait until open hops are served: those of strangers, and those of handshakes.

A handshake costs milliseconds and a stranger's datagram microseconds, and anybody may send either.
Open hops go first in each turn; what waits here gets a slice of the turn, and a bounded queue.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass

from transport import limits
from transport.connection import HopConnection
from transport.counters import EndpointCounters
from transport.path import Address
from transport.token_bucket import TokenBucket


@dataclass(frozen=True, slots=True)
class Waiting:
    """One read, and the half-open connection that it is for; None if it is a stranger's."""

    connection: HopConnection | None
    data: bytes
    segment_bytes: int
    source: Address
    local: bytes | None
    """Which of our addresses it was sent to."""


class _Queue:
    """What one half-open connection was sent and has not digested."""

    __slots__ = ("reads", "waiting_bytes")

    def __init__(self) -> None:
        self.reads: deque[Waiting] = deque()
        self.waiting_bytes = 0


class Lobby:
    """Handshakes go first, by turns: their senders have proved their addresses. Then strangers."""

    __slots__ = ("_bucket", "_counters", "_handshakes", "_strangers")

    def __init__(self, counters: EndpointCounters, now_s: float) -> None:
        self._counters = counters
        self._bucket = TokenBucket(limits.STRANGERS_PER_S, limits.STRANGERS_BURST, now_s)
        self._handshakes: OrderedDict[HopConnection, _Queue] = OrderedDict()
        self._strangers: deque[Waiting] = deque()

    def __bool__(self) -> bool:
        return bool(self._handshakes or self._strangers)

    def hold_stranger(
        self, data: bytes, source: Address, local: bytes | None, now_s: float
    ) -> None:
        if len(self._strangers) < limits.STRANGERS_WAITING_MAX and self._bucket.take(now_s):
            self._strangers.append(Waiting(None, data, 0, source, local))
        else:
            self._counters.dropped_flood += 1

    def hold_handshake(
        self,
        connection: HopConnection,
        data: bytes,
        segment_bytes: int,
        source: Address,
        local: bytes | None,
    ) -> None:
        """Keep it unless much waits already; of a connection that has nothing here, always."""
        queue = self._handshakes.get(connection)
        if queue is None:
            queue = self._handshakes[connection] = _Queue()
        elif queue.waiting_bytes >= limits.HANDSHAKE_WAITING_BYTES_MAX:
            self._counters.dropped_flood += 1
            return
        queue.waiting_bytes += len(data)
        queue.reads.append(Waiting(connection, data, segment_bytes, source, local))

    def take(self) -> Waiting:
        """Return the next. Only while there is one."""
        if not self._handshakes:
            return self._strangers.popleft()
        connection, queue = self._handshakes.popitem(last=False)
        waiting = queue.reads.popleft()
        queue.waiting_bytes -= len(waiting.data)
        if queue.reads:
            self._handshakes[connection] = queue
        return waiting

    def forget(self, connection: HopConnection) -> None:
        self._handshakes.pop(connection, None)

    def clear(self) -> None:
        self._handshakes.clear()
        self._strangers.clear()
