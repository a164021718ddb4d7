"""Windows: how much may be in flight on one link or stream. Counted in bytes, from its start.

A grant is the total that may ever have been sent, so that a lost or repeated grant does no harm.
"""

from link.errors import CreditError
from link.limits import (
    CREDIT_MAX,
    GRANT_BYTES_MIN,
    GRANTS_UNEARNED_MAX,
    HELD_BYTES_MAX,
    INITIAL_WINDOW_BYTES,
    WINDOW_RESERVE_BYTES,
)


class SendWindow:
    """What we may still send."""

    __slots__ = ("_limit", "_sent")

    def __init__(self) -> None:
        self._limit = INITIAL_WINDOW_BYTES
        self._sent = 0

    @property
    def available_bytes(self) -> int:
        return self._limit - self._sent

    def spend(self, count_bytes: int) -> None:
        """Note bytes sent. The caller has looked at ``available_bytes`` first."""
        assert count_bytes <= self.available_bytes
        self._sent += count_bytes

    def grant_untrusted(self, limit: int) -> bool:
        """Take the peer's grant. Return whether there is more room; a lower one changes nothing."""
        if limit <= self._limit:
            return False
        self._limit = min(limit, CREDIT_MAX)
        return True


class ReceiveWindow:
    """What the peer may still send us, and when to tell it that it may send more.

    A grant is due once half the window has been consumed: early enough that a sender never waits
    for a reader who keeps up, rare enough to cost nothing. What small things have used of the
    reserve at its end is granted again sooner: they pass also while nothing else is consumed.
    """

    __slots__ = ("_consumed", "_granted", "_received", "_size")

    def __init__(self, size_bytes: int, *, held_bytes: int = 0) -> None:
        """``held_bytes``: received on a link before this one, and still to be consumed."""
        self._size = size_bytes
        self._granted = INITIAL_WINDOW_BYTES
        self._received = 0
        self._consumed = -held_bytes

    @property
    def held_bytes(self) -> int:
        """Received and not yet consumed."""
        return self._received - self._consumed

    def receive_untrusted(self, count_bytes: int) -> None:
        """Count what arrived. Raises CreditError when the peer sent more than it was granted, or
        had it granted too often by changing links."""
        self._received += count_bytes
        if self._received > self._granted:
            raise CreditError(f"{self._received - self._granted} bytes beyond the window")
        if self.held_bytes > HELD_BYTES_MAX:
            raise CreditError(f"{self.held_bytes} bytes are held")

    def take_back(self, count_bytes: int) -> None:
        """What was consumed early is held after all: as much is consumed again before the next
        grant."""
        self._consumed -= count_bytes

    def consume(self, count_bytes: int) -> int | None:
        """Note that bytes have left our hands. Return the new limit to grant, when one is due."""
        self._consumed += count_bytes
        assert self._consumed <= self._received
        limit = self._consumed + self._size
        more_bytes = limit - self._granted
        if more_bytes < self._size // 2 and (
            more_bytes < GRANT_BYTES_MIN or self._granted - self._received >= WINDOW_RESERVE_BYTES
        ):
            return None
        self._granted = limit
        return limit


class RelayWindow:
    """What a relay lets pass in one direction: it sees both the grants and the bytes."""

    __slots__ = ("_granted", "_grants", "_passed")

    def __init__(self) -> None:
        self._granted = INITIAL_WINDOW_BYTES
        self._grants = 0
        self._passed = 0

    def grant_untrusted(self, limit: int) -> bool:
        """Note a grant on its way. Return whether it says anything new, and so is worth passing.

        Raises CreditError for more grants than the bytes that were sent on them are worth: they
        would only burden the one to whom they go.
        """
        if limit <= self._granted:
            return False
        self._grants += 1
        if self._grants > GRANTS_UNEARNED_MAX + self._passed // GRANT_BYTES_MIN:
            raise CreditError(f"{self._grants} grants for {self._passed} bytes")
        self._granted = min(limit, CREDIT_MAX)
        return True

    def pass_untrusted(self, count_bytes: int) -> None:
        """Count bytes relayed. Raises CreditError when they exceed what the far end granted."""
        self._passed += count_bytes
        if self._passed > self._granted:
            raise CreditError(f"{self._passed - self._granted} bytes beyond the window")
