"""What one side of a session says: sealed in order, and kept until the peer has acknowledged it.

Messages wait here unsealed until the link has room for them, so that what acknowledges the other
direction need not wait behind them: sealed records keep their order for ever. Behind message 3 the
initiator may say a little at once, its first flight; the rest waits for the peer's ACCEPT.
"""

import math
from collections import deque
from typing import Final

from channel._noise import RecordCipher
from channel.errors import ChannelStateError
from channel.limits import (
    EARLY_BYTES_MAX,
    RECORD_OVERHEAD_BYTES,
    UNSENT_BYTES_MAX,
    RekeyLimits,
)
from channel.messages import fragments_of
from channel.moving import SentRecords
from channel.records import RecordWriter
from channel.wire import RecordType
from identity import Code

# Each record may have a REKEY before it.
_OVERHEAD_BYTES_MAX: Final = 2 * RECORD_OVERHEAD_BYTES


class Outgoing:
    """The sending direction of a session, from its first record to its last."""

    __slots__ = ("_early_left_bytes", "_ready", "_unsealed", "sent", "waiting_bytes", "writer")

    def __init__(
        self, cipher: RecordCipher, limits: RekeyLimits, now_s: float, *, is_early: bool
    ) -> None:
        """``is_early``: until ``open``, only a first flight may leave."""
        self.writer = RecordWriter(cipher, limits, now_s)
        self.sent = SentRecords()
        self.waiting_bytes = 0
        """What was queued and is not sealed."""
        self._ready: list[bytes] = []
        self._early_left_bytes = float(EARLY_BYTES_MAX) if is_early else math.inf
        self._unsealed: deque[tuple[RecordType, bytes | memoryview, int]] = deque()

    @property
    def is_awaiting(self) -> bool:
        """Whether something was said that the peer has not acknowledged."""
        return bool(self._unsealed) or self.sent.is_awaiting

    def queue(self, type_: RecordType, data: bytes) -> None:
        """Say something in order, in as many records as it takes, once there is room. Raises
        ChannelStateError when too much waits for ``open``."""
        is_early = self._early_left_bytes != math.inf
        if is_early and self.waiting_bytes + len(data) > UNSENT_BYTES_MAX:
            raise ChannelStateError(Code.MESSAGE_QUEUE_FULL, "too much waits for ACCEPT")
        self._unsealed += [(type_, fragment, flags) for fragment, flags in fragments_of(data)]
        self.waiting_bytes += len(data)

    def seal(self, type_: RecordType, body: bytes, now_s: float) -> None:
        """Say something small now, ahead of what is queued."""
        self._seal(type_, body, now_s, 0)

    def rekey(self, now_s: float) -> None:
        self._add(self.writer.rekey(now_s), RecordType.REKEY)

    def open(self) -> None:
        """The peer has said ACCEPT: what waited for it may go."""
        self._early_left_bytes = math.inf

    def resend_untrusted(self, position: int) -> None:
        """On a new link everything goes again that the peer, who stands at ``position``, has not
        received. Raises ChannelError for a position beyond what was sealed."""
        self.sent.acknowledge_untrusted(position)
        self._ready = self.sent.since_untrusted(position)

    def take_ready(self, room_bytes: float, now_s: float) -> list[bytes]:
        """Records that the link has yet to carry: all that is sealed, and of what is queued as
        much as fits ``room_bytes``."""
        unsealed = self._unsealed
        while unsealed:
            type_, fragment, flags = unsealed[0]
            if len(fragment) + _OVERHEAD_BYTES_MAX > min(room_bytes, self._early_left_bytes):
                break
            unsealed.popleft()
            self.waiting_bytes -= len(fragment)
            sealed_bytes = self._seal(type_, fragment, now_s, flags)
            room_bytes -= sealed_bytes
            self._early_left_bytes -= sealed_bytes
        ready, self._ready = self._ready, []
        return ready

    def _seal(self, type_: RecordType, body: bytes | memoryview, now_s: float, flags: int) -> int:
        records = self.writer.seal(type_, body, now_s, flags)
        for record in records:
            self._add(record, type_)
        return sum(map(len, records))

    def _add(self, record: bytes, type_: RecordType) -> None:
        self.sent.add(record, type_)
        self._ready.append(record)
