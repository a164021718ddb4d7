"""Datagrams that wait until open hops are served: those of strangers, and those of handshakes.

A handshake costs milliseconds and a stranger's datagram microseconds, and anybody may send either.
Open hops go first in each turn; what waits here gets a slice of the turn, and a bounded queue.
"""

from collections import deque
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


class Lobby:
    """Two queues. Handshakes go first: their senders have proved their addresses."""

    __slots__ = ("_bucket", "_counters", "_handshakes", "_strangers")

    def __init__(self, counters: EndpointCounters, now_s: float) -> None:
        self._counters = counters
        self._bucket = TokenBucket(limits.STRANGERS_PER_S, limits.STRANGERS_BURST, now_s)
        self._handshakes: deque[Waiting] = deque()
        self._strangers: deque[Waiting] = deque()

    def __len__(self) -> int:
        return len(self._handshakes) + len(self._strangers)

    def hold_stranger(
        self, data: bytes, source: Address, local: bytes | None, now_s: float
    ) -> None:
        if len(self._strangers) < limits.STRANGERS_WAITING_MAX and self._bucket.take(now_s):
            self._strangers.append(Waiting(None, data, 0, source, local))
        else:
            self._counters.dropped_flood += 1

    def hold_handshake(self, waiting: Waiting) -> None:
        if len(self._handshakes) < limits.HANDSHAKES_WAITING_MAX:
            self._handshakes.append(waiting)
        else:
            self._counters.dropped_flood += 1

    def take(self) -> Waiting:
        return (self._handshakes or self._strangers).popleft()

    def clear(self) -> None:
        self._handshakes.clear()
        self._strangers.clear()
