"""Connections that somebody opened to us and that our owner has not accepted yet.

Each costs memory, and beginning one costs milliseconds, so their number and their rate are bounded,
in all and for each source. Who makes no progress makes room when others want in. Pure.
"""

from collections import OrderedDict
from typing import Generic, TypeVar

from transport import limits
from transport.settings import TransportSettings
from transport.token_bucket import TokenBucket

ConnectionT = TypeVar("ConnectionT")

_SOURCES_MAX = 4_096


class HalfOpen(Generic[ConnectionT]):
    """Ordered by the time of the last progress."""

    def __init__(self, settings: TransportSettings, now_s: float) -> None:
        self._settings = settings
        self._bucket = TokenBucket(settings.handshakes_per_s, settings.handshakes_burst, now_s)
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        self._progress_s: OrderedDict[ConnectionT, tuple[float, str]] = OrderedDict()
        self._count_of: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._progress_s)

    def may_begin(self, source: str, now_s: float) -> bool:
        """Whether one more handshake is within its rates; if so it is charged to them."""
        bucket = self._buckets.get(source)
        if bucket is None:
            if len(self._buckets) >= _SOURCES_MAX:
                self._buckets.popitem(last=False)  # Who comes back gets a new burst; the sum holds.
            bucket = self._buckets[source] = TokenBucket(
                self._settings.handshakes_per_source_per_s,
                self._settings.handshakes_per_source_burst,
                now_s,
            )
        self._buckets.move_to_end(source)
        return bucket.take(now_s) and self._bucket.take(now_s)

    def has_room(self, source: str) -> bool:
        is_full = len(self._progress_s) >= self._settings.half_open_max
        return not is_full and not self._is_full_of(source)

    def find_idle(self, source: str, now_s: float) -> ConnectionT | None:
        """Who has to go so that one of ``source`` has room: whoever stands still the longest."""
        is_of_source = self._is_full_of(source)
        for connection, (progress_s, of) in self._progress_s.items():
            if now_s - progress_s < limits.HANDSHAKE_IDLE_S:
                return None  # All that follow made progress later.
            if not is_of_source or of == source:
                return connection
        return None

    def add(self, connection: ConnectionT, source: str, now_s: float) -> None:
        self._progress_s[connection] = now_s, source
        self._count_of[source] = self._count_of.get(source, 0) + 1

    def note_progress(self, connection: ConnectionT, now_s: float) -> None:
        found = self._progress_s.get(connection)
        if found is not None:
            self._progress_s[connection] = now_s, found[1]
            self._progress_s.move_to_end(connection)

    def remove(self, connection: ConnectionT) -> None:
        found = self._progress_s.pop(connection, None)
        if found is None:
            return
        source = found[1]
        self._count_of[source] -= 1
        if not self._count_of[source]:
            del self._count_of[source]

    def _is_full_of(self, source: str) -> bool:
        return self._count_of.get(source, 0) >= self._settings.half_open_per_source_max
