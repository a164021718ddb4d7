"""How much may be on the way on a path that has no length: a millisecond's worth.

An engine lets its congestion window grow until something is lost. On loopback nothing is, so the
window ends up in the receiver's socket, and whatever is said next waits behind it. Pure.
"""

from typing import Final

# As long as a path of that kind is busy, this much waits in front of a frame that is said now.
QUEUE_S: Final = 0.0005
# Many times what loopback itself holds (a fifth of a millisecond), so the rate can be found out.
IN_FLIGHT_BYTES_MIN: Final = 64 << 10
IN_FLIGHT_DATAGRAMS_MIN: Final = 4
# As many times as much where nobody waits behind it: one link alone speaks. It must not run dry
# while the process at the other end waits for a core, which takes milliseconds on a busy machine.
ALONE_FACTOR: Final = 8
# Whoever spoke so long ago may speak again.
SHARED_S: Final = 0.1
# A program on this machine may stand for a path that is long after all. Both engines take no round
# trip for shorter than this, and of a longer one twice its content may be on the way.
ROUND_TRIP_S_MIN: Final = 0.001
_PATH_FACTOR: Final = 2
# What counts as the length of the path is the shortest round trip of so long a time.
_MEMORY_S: Final = 10.0
_SAMPLE_S: Final = 0.005
# What a rate that was reached once still counts for after each sample below it.
_FADE: Final = 0.9


class InFlightLimit:
    """Follows the rate at which bytes arrive. Told the time, what has arrived in all, and how often
    another speaks than the one before."""

    __slots__ = (
        "_arrived_bytes",
        "_length_s",
        "_min_bytes",
        "_next_length_s",
        "_rate",
        "_renew_at_s",
        "_sampled_s",
        "_shared_until_s",
        "_speaker_changes",
        "limit_bytes",
    )

    def __init__(self, datagram_bytes: int, now_s: float) -> None:
        self._min_bytes = max(IN_FLIGHT_BYTES_MIN, IN_FLIGHT_DATAGRAMS_MIN * datagram_bytes)
        self._sampled_s = now_s
        self._arrived_bytes = 0
        self._rate = 0.0
        self._length_s = self._next_length_s = float("inf")
        self._renew_at_s = now_s + _MEMORY_S
        self._shared_until_s = now_s
        self._speaker_changes = 0
        self.limit_bytes = self._min_bytes

    def update(
        self, arrived_bytes: int, round_trip_s: float, now_s: float, speaker_changes: int
    ) -> int:
        """``arrived_bytes`` and ``speaker_changes`` count from the beginning. Return how much may
        be on the way."""
        elapsed_s = now_s - self._sampled_s
        if elapsed_s >= max(_SAMPLE_S, round_trip_s):
            rate = (arrived_bytes - self._arrived_bytes) / elapsed_s
            self._rate = max(rate, self._rate * _FADE)
            self._sampled_s, self._arrived_bytes = now_s, arrived_bytes
            self._measure(max(0.0, round_trip_s - ROUND_TRIP_S_MIN), now_s)
        if speaker_changes != self._speaker_changes:
            self._speaker_changes = speaker_changes
            self._shared_until_s = now_s + SHARED_S
        factor = ALONE_FACTOR if now_s >= self._shared_until_s else 1
        self.limit_bytes = factor * self._min_bytes
        if self._rate:
            ahead_s = factor * QUEUE_S + _PATH_FACTOR * self._length_s
            self.limit_bytes = max(self.limit_bytes, int(self._rate * ahead_s))
        return self.limit_bytes

    def _measure(self, length_s: float, now_s: float) -> None:
        if now_s >= self._renew_at_s:
            self._length_s, self._next_length_s = self._next_length_s, length_s
            self._renew_at_s = now_s + _MEMORY_S
        self._length_s = min(self._length_s, length_s)
        self._next_length_s = min(self._next_length_s, length_s)
