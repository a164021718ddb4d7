"""The two models with a memory: losses that come in runs, and a path that carries so much a second.

Pure: chance is handed in, time too.
"""

import random
from collections import deque


class Losses:
    """Which datagrams are lost.

    With bursts this is the simple Gilbert model (Gilbert 1960; Elliott 1963 with both error rates
    at their ends): a good state that loses nothing, a bad one that loses everything. A step is a
    datagram and not a time, so on a quiet path a run of losses lasts long.
    """

    def __init__(self, loss: float, burst: float, chance: random.Random) -> None:
        self._chance = chance
        self._is_bad = False
        # From the stationary share of the bad state, enter / (enter + leave) = loss.
        self._leave = 1 / burst if burst else 1 - loss
        self._enter = loss / (burst * (1 - loss)) if burst else loss
        self._is_off = not loss

    def next_is_lost(self) -> bool:
        if self._is_off:
            return False
        drawn = self._chance.random()
        self._is_bad = drawn >= self._leave if self._is_bad else drawn < self._enter
        return self._is_bad


class TokenBucket:
    """When each datagram leaves a path of a limited rate, or that there is no room to wait."""

    def __init__(self, rate_bytes_s: float, bucket_bytes: int, queue_bytes: int) -> None:
        self._rate_bytes_s = rate_bytes_s
        self._bucket_bytes = bucket_bytes
        self._queue_bytes = queue_bytes
        self._full_s = 0.0
        """When the bucket will be full if nothing more comes."""
        self._last_s = 0.0
        self._waiting: deque[tuple[float, int]] = deque()
        self.waiting_bytes = 0

    def departure_s(self, size: int, now_s: float) -> float | None:
        """When it leaves: now, or behind all that wait. None: the queue is full."""
        while self._waiting and self._waiting[0][0] <= now_s:
            self.waiting_bytes -= self._waiting.popleft()[1]
        # A datagram larger than the bucket leaves when the bucket is full, and leaves a debt.
        spare_s = (self._bucket_bytes - min(size, self._bucket_bytes)) / self._rate_bytes_s
        at_s = max(now_s, self._last_s, self._full_s - spare_s)
        if at_s > now_s:
            if self.waiting_bytes + size > self._queue_bytes:
                return None
            self._waiting.append((at_s, size))
            self.waiting_bytes += size
        self._last_s = at_s
        self._full_s = max(self._full_s, at_s) + size / self._rate_bytes_s
        return at_s
