"""What is to happen later, in a heap. It is told the time; it never looks."""

import heapq
from collections.abc import Callable


class Timers:
    """Calls come back in order of their time. What no longer matters must say so when called."""

    __slots__ = ("_heap", "_number")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = 0

    @property
    def deadline_s(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def at(self, when_s: float, call: Callable[[float], None]) -> None:
        # The number keeps equal times in the order in which they were asked for.
        self._number += 1
        heapq.heappush(self._heap, (when_s, self._number, call))

    def run(self, now_s: float) -> None:
        while self._heap and self._heap[0][0] <= now_s:
            heapq.heappop(self._heap)[2](now_s)
