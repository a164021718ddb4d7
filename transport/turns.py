"""What open hops were sent and nobody has looked at yet: served by turns, a slice of each.

The socket hands over what came in the order in which it came. A hop that says more than can be
digested would make all others wait behind its words; so all that is there is read, and then each
hop has its turn. Whoever is further behind than a socket would be loses datagrams, as it would
there.
"""

from collections import OrderedDict, deque
from typing import Generic, NamedTuple, TypeVar

from transport import limits
from transport.path import Address

ConnectionT = TypeVar("ConnectionT")


class Read(NamedTuple):
    """One read of the socket: a datagram, or several of ``segment_bytes`` each."""

    data: bytes
    segment_bytes: int
    source: Address


class Turns(Generic[ConnectionT]):
    """Pure. Who has not been served yet goes before whoever has, and is not done."""

    __slots__ = ("_bytes_of", "_new", "_old", "_slow", "_waiting_bytes")

    def __init__(self) -> None:
        self._new: OrderedDict[ConnectionT, deque[Read]] = OrderedDict()
        self._old: OrderedDict[ConnectionT, deque[Read]] = OrderedDict()
        self._bytes_of: dict[ConnectionT, int] = {}
        self._slow: set[ConnectionT] = set()
        self._waiting_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._bytes_of)

    def hold(self, connection: ConnectionT, read: Read) -> bool:
        """Keep a read until its turn. False, and it is lost, if too much waits."""
        size = len(read.data)
        waiting_bytes = self._bytes_of.get(connection, 0)
        if waiting_bytes and (
            waiting_bytes + size > limits.HOP_WAITING_BYTES_MAX
            or self._waiting_bytes + size > limits.HOPS_WAITING_BYTES_MAX
        ):
            return False  # A first read is always kept: nobody is locked out by others.
        reads = self._new.get(connection) or self._old.get(connection)
        if reads is None:
            reads = self._new[connection] = deque()
        reads.append(read)
        self._bytes_of[connection] = waiting_bytes + size
        self._waiting_bytes += size
        return True

    def take(self) -> tuple[ConnectionT, list[Read]]:
        """Whose turn it is, and a slice of what it was sent. Only while something waits."""
        connection, reads = (self._new or self._old).popitem(last=False)
        taken = [self._take_first(reads, is_slow=connection in self._slow)]
        size = len(taken[0].data)
        while reads and size + len(reads[0].data) <= limits.HOP_SLICE_BYTES:
            if connection in self._slow:
                break
            size += len(reads[0].data)
            taken.append(reads.popleft())
        self._waiting_bytes -= size
        if reads:
            self._old[connection] = reads
            self._bytes_of[connection] -= size
        else:
            del self._bytes_of[connection]
        return connection, taken

    def served(self, connection: ConnectionT, seconds: float) -> None:
        """What was taken took so long. Of whoever takes long, a slice is the least there is."""
        if seconds > limits.HOP_SLICE_S:
            self._slow.add(connection)
        elif self._slow and seconds < limits.HOP_SLICE_S / 4:
            self._slow.discard(connection)

    def forget(self, connection: ConnectionT) -> None:
        """It is gone, and so is whatever waited for it."""
        self._new.pop(connection, None)
        self._old.pop(connection, None)
        self._waiting_bytes -= self._bytes_of.pop(connection, 0)
        self._slow.discard(connection)

    def clear(self) -> None:
        self._new.clear()
        self._old.clear()
        self._bytes_of.clear()
        self._slow.clear()
        self._waiting_bytes = 0

    @staticmethod
    def _take_first(reads: deque[Read], *, is_slow: bool) -> Read:
        read = reads.popleft()
        if not is_slow or not read.segment_bytes or len(read.data) <= read.segment_bytes:
            return read
        reads.appendleft(read._replace(data=read.data[read.segment_bytes :]))
        return read._replace(data=read.data[: read.segment_bytes])
