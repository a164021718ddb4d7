"""A rate with a burst. Pure: told the time."""


class TokenBucket:
    """Holds up to ``burst`` tokens and gains ``rate`` of them a second."""

    __slots__ = ("_burst", "_filled_s", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int, now_s: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._filled_s = now_s

    def take(self, now_s: float) -> bool:
        """Take one token if there is one."""
        if self._tokens < 1.0:
            self._fill(now_s)
            if self._tokens < 1.0:
                return False
        self._tokens -= 1.0
        return True

    def _fill(self, now_s: float) -> None:
        gained = (now_s - self._filled_s) * self._rate
        self._tokens = min(self._burst, self._tokens + gained)
        self._filled_s = now_s
