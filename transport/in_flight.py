"""How much may be on the way on a path that has no length: a millisecond's worth.

An engine lets its congestion window grow until something is lost. On loopback nothing is, so the
window ends up in the receiver's socket, and whatever is said next waits behind it. Pure.
"""

from typing import Final

# As long as a path of that kind is busy, this much waits in front of a frame that is said now.
QUEUE_S: Final = 0.0007
# Many times what loopback itself holds (a fifth of a millisecond), so the rate can be found out.
IN_FLIGHT_BYTES_MIN: Final = 128 << 10
IN_FLIGHT_DATAGRAMS_MIN: Final = 4
_SAMPLE_S: Final = 0.005
# What a rate that was reached once still counts for after each sample below it.
_FADE: Final = 0.9


class InFlightLimit:
    """Follows the rate at which bytes arrive. Told the time, and what has arrived in all."""

    __slots__ = ("_arrived_bytes", "_min_bytes", "_rate", "_sampled_s", "limit_bytes")

    def __init__(self, datagram_bytes: int, now_s: float) -> None:
        self._min_bytes = max(IN_FLIGHT_BYTES_MIN, IN_FLIGHT_DATAGRAMS_MIN * datagram_bytes)
        self._sampled_s = now_s
        self._arrived_bytes = 0
        self._rate = 0.0
        self.limit_bytes = self._min_bytes

    def update(self, arrived_bytes: int, now_s: float) -> int:
        """``arrived_bytes`` counts from the beginning. Return how much may be on the way."""
        elapsed_s = now_s - self._sampled_s
        if elapsed_s >= _SAMPLE_S:
            rate = (arrived_bytes - self._arrived_bytes) / elapsed_s
            self._rate = max(rate, self._rate * _FADE)
            self._sampled_s, self._arrived_bytes = now_s, arrived_bytes
            self.limit_bytes = max(self._min_bytes, int(self._rate * QUEUE_S))
        return self.limit_bytes
