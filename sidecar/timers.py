"""What is to happen later, in a heap. It is told the time; it never looks."""

import heapq
from collections.abc import Callable
from typing import Final

# Below this many, dead entries cost less than clearing them out.
CANCELLED_MIN: Final = 64


class Timer:
    """One call that is due once. Keep it to cancel it."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[float], None]) -> None:
        self.call: Callable[[float], None] | None = call


class Timers:
    """Calls come back in order of their time. A cancelled one holds on to nothing."""

    __slots__ = ("_cancelled", "_heap", "_number")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._number = 0
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    @property
    def deadline_s(self) -> float | None:
        heap = self._heap
        while heap and heap[0][2].call is None:
            heapq.heappop(heap)
            self._cancelled -= 1
        return heap[0][0] if heap else None

    def at(self, when_s: float, call: Callable[[float], None]) -> Timer:
        # The number keeps equal times in the order in which they were asked for.
        self._number += 1
        timer = Timer(call)
        heapq.heappush(self._heap, (when_s, self._number, timer))
        return timer

    def cancel(self, timer: Timer | None) -> None:
        """Forget a call. None, and one that was called or cancelled already, are fine."""
        if timer is None or timer.call is None:
            return
        timer.call = None
        self._cancelled += 1
        if self._cancelled >= CANCELLED_MIN and 2 * self._cancelled > len(self._heap):
            # Most asks are answered long before their time: their entries must not wait for it.
            self._heap = [entry for entry in self._heap if entry[2].call is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def run(self, now_s: float) -> None:
        while self._heap and self._heap[0][0] <= now_s:
            timer = heapq.heappop(self._heap)[2]
            if timer.call is None:
                self._cancelled -= 1
            else:
                call, timer.call = timer.call, None
                call(now_s)
