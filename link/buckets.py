"""A token bucket: so many at once, and so many a second after that. Told the time."""


class TokenBucket:
    """Starts full."""

    __slots__ = ("_at_s", "_burst", "_per_s", "_tokens")

    def __init__(self, per_s: float, burst: int) -> None:
        assert per_s > 0
        assert burst > 0
        self._per_s = per_s
        self._burst = burst
        self._tokens = float(burst)
        self._at_s = 0.0

    def take(self, now_s: float) -> bool:
        """Take one token. False when there is none."""
        if not self.has_one(now_s):
            return False
        self._tokens -= 1
        return True

    def has_one(self, now_s: float) -> bool:
        """Whether there is a token to take."""
        if now_s > self._at_s:
            self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._per_s)
            self._at_s = now_s
        return self._tokens >= 1
