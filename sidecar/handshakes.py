"""The costly steps of openings, one at a time: what is cheap does not wait behind them. Pure.

A step (reading a first or a last handshake message) takes a millisecond or two, and a peer may send
hundreds in one read. One is done at once; the others wait, those of each node in turn, and between
two of them the loop has its turn.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from identity import Identifier
from sidecar.timers import Timer, Timers

STEPS_WAITING_PER_NODE_MAX: Final = 512
STEPS_WAITING_MAX: Final = 2_048
# Any time that lies ahead: the shell then goes through its loop once.
BETWEEN_STEPS_SECONDS: Final = 0.0002

Step = Callable[[float], None]


class Handshakes:
    """Does each step in its turn."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._waiting: OrderedDict[Identifier | None, deque[Step]] = OrderedDict()
        self._count = 0
        self._timer: Timer | None = None
        self.refused = 0

    def __len__(self) -> int:
        """How many steps wait."""
        return self._count

    def submit(self, node: Identifier | None, step: Step, now_s: float) -> bool:
        """Do it now, or in its turn. False if too many wait already."""
        if self._timer is None:
            self._plan(now_s)
            step(now_s)
            return True
        of_node = self._waiting.get(node)
        if of_node is None:
            of_node = self._waiting[node] = deque()
        if len(of_node) >= STEPS_WAITING_PER_NODE_MAX or self._count >= STEPS_WAITING_MAX:
            self.refused += 1
            if not of_node:
                del self._waiting[node]
            return False
        of_node.append(step)
        self._count += 1
        return True

    def _plan(self, now_s: float) -> None:
        self._timer = self._timers.at(now_s + BETWEEN_STEPS_SECONDS, self._next)

    def _next(self, now_s: float) -> None:
        if not self._waiting:
            self._timer = None
            return
        self._plan(now_s)
        node, steps = self._waiting.popitem(last=False)
        step = steps.popleft()
        self._count -= 1
        if steps:
            self._waiting[node] = steps  # Behind the others.
        step(now_s)
