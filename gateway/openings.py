"""What costs a decision of policy, one at a time: what is cheap does not wait behind it. Pure.

An opening or a registration costs some hundred microseconds, and a node may send hundreds in one
read. One is done at once; the others wait, those of each hop in turn, and between two of them the
loop has its turn.
"""

from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from typing import Final

from identity import Code
from link import Frame, FrameKind, LinkError

# What waits of one hop; as many as it may open at once.
WAITING_PER_HOP_MAX: Final = 4_096
WAITING_BYTES_PER_HOP_MAX: Final = 8 << 20

COSTLY_KINDS: Final = frozenset({FrameKind.LINK_OPEN, FrameKind.REGISTER, FrameKind.UNREGISTER})


class _OfHop:
    """In the order in which they came. What opens a link is found by its number."""

    __slots__ = ("bytes", "frames", "numbers")

    def __init__(self) -> None:
        self.frames: OrderedDict[int, Frame] = OrderedDict()
        self.numbers = count(-1, -1)  # Of frames without a link; no link has such a number.
        self.bytes = 0


class Openings:
    """Frames that wait for their turn. ``wake`` is called when there is something to do soon."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._waiting: OrderedDict[int, _OfHop] = OrderedDict()
        self._is_woken = False

    def __len__(self) -> int:
        return sum(len(of_hop.frames) for of_hop in self._waiting.values())

    def must_wait(self, hop_id: int, frame: Frame) -> bool:
        """Whether it has to wait; then it is kept. Raises LinkError if too much waits already."""
        if not self._is_woken:
            self._is_woken = True
            self._wake()
            return False
        of_hop = self._waiting.get(hop_id)
        if of_hop is None:
            of_hop = self._waiting[hop_id] = _OfHop()
        size = len(frame.body)
        if (
            len(of_hop.frames) >= WAITING_PER_HOP_MAX
            or of_hop.bytes + size > WAITING_BYTES_PER_HOP_MAX
            or frame.link in of_hop.frames
        ):
            raise LinkError("more openings than can be answered", Code.ROUTE_LINK_LIMIT)
        of_hop.frames[frame.link or next(of_hop.numbers)] = frame
        of_hop.bytes += size
        return True

    def take(self) -> tuple[int, Frame] | None:
        """The next and its hop, each hop in turn; None when nothing waits."""
        if not self._waiting:
            self._is_woken = False
            return None
        self._wake()
        hop_id, of_hop = self._waiting.popitem(last=False)
        _, frame = of_hop.frames.popitem(last=False)
        of_hop.bytes -= len(frame.body)
        if of_hop.frames:
            self._waiting[hop_id] = of_hop  # Behind the others.
        return hop_id, frame

    def withdraw(self, hop_id: int, link: int) -> bool:
        """Its opener has closed it. False if it does not wait here."""
        of_hop = self._waiting.get(hop_id)
        frame = None if of_hop is None else of_hop.frames.pop(link, None)
        if of_hop is None or frame is None:
            return False
        of_hop.bytes -= len(frame.body)
        if not of_hop.frames:
            del self._waiting[hop_id]
        return True

    def forget_hop(self, hop_id: int) -> None:
        self._waiting.pop(hop_id, None)
