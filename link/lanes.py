"""Lane output: frames of many links share one stream, by deficit round robin between the links.

Nothing waits here on purpose: ``take`` hands over what is ready, as far as there is room.
"""

from collections import deque

from link.frames import encode_frame
from link.limits import LANES, QUANTUM_BYTES


def lane_of(link: int) -> int:
    return link % LANES


class _LinkQueue:
    __slots__ = ("deficit_bytes", "frames")

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.deficit_bytes = 0


class LaneWriter:
    """What waits to be written to one lane."""

    __slots__ = ("_order", "_queues", "queued_bytes")

    def __init__(self) -> None:
        self._queues: dict[int, _LinkQueue] = {}
        self._order: deque[int] = deque()
        self.queued_bytes = 0

    def add(self, link: int, kind: int, body: bytes) -> None:
        queue = self._queues.get(link)
        if queue is None:
            queue = self._queues[link] = _LinkQueue()
            self._order.append(link)
        frame = encode_frame(link, kind, body)
        queue.frames.append(frame)
        self.queued_bytes += len(frame)

    def take(self, bytes_max: int) -> bytes:
        """Take up to ``bytes_max`` bytes, and at least one frame if any waits.

        Frames of one link keep their order. A link that has much to say gets one quantum a turn.
        """
        if self.queued_bytes <= bytes_max:
            return self._take_all()
        taken: list[bytes] = []
        size = 0
        while self._order and (size < bytes_max or not taken):
            link = self._order.popleft()
            queue = self._queues[link]
            queue.deficit_bytes += QUANTUM_BYTES
            while queue.frames and len(queue.frames[0]) <= queue.deficit_bytes:
                if taken and size + len(queue.frames[0]) > bytes_max:
                    # No room for this frame now: the link keeps its place and what it saved.
                    self._order.appendleft(link)
                    queue.deficit_bytes -= QUANTUM_BYTES
                    self.queued_bytes -= size
                    return b"".join(taken)
                frame = queue.frames.popleft()
                queue.deficit_bytes -= len(frame)
                taken.append(frame)
                size += len(frame)
            if queue.frames:
                self._order.append(link)
            else:
                del self._queues[link]
        self.queued_bytes -= size
        return b"".join(taken)

    def drop(self, link: int) -> None:
        """Forget what waits for a link that has been reset."""
        queue = self._queues.pop(link, None)
        if queue is not None:
            self._order.remove(link)
            self.queued_bytes -= sum(len(frame) for frame in queue.frames)

    def _take_all(self) -> bytes:
        # The usual case: everything fits, so turns would only shuffle it. One link after another
        # keeps each link's order, which is all that is promised.
        data = b"".join(frame for link in self._order for frame in self._queues[link].frames)
        self._queues.clear()
        self._order.clear()
        self.queued_bytes = 0
        return data
