"""What one side of a session says: sealed in order, and kept until the peer has acknowledged it.

Behind message 3 the initiator may say a little at once, its first flight; the rest waits here for
the peer's ACCEPT.
"""

from collections import deque

from channel._noise import RecordCipher
from channel.errors import ChannelStateError
from channel.limits import (
    EARLY_BYTES_MAX,
    RECORD_OVERHEAD_BYTES,
    RECORD_PLAINTEXT_BYTES_MAX,
    UNSENT_BYTES_MAX,
    RekeyLimits,
)
from channel.messages import fragments_of
from channel.moving import SentRecords
from channel.records import RecordWriter
from channel.wire import RecordType
from identity import Code


class Outgoing:
    """The sending direction of a session, from its first record to its last."""

    __slots__ = ("_early_bytes", "_ready", "_unsent", "_unsent_bytes", "sent", "writer")

    def __init__(self, cipher: RecordCipher, limits: RekeyLimits, now_s: float) -> None:
        self.writer = RecordWriter(cipher, limits, now_s)
        self.sent = SentRecords()
        self._ready: list[bytes] = []
        self._early_bytes = 0
        self._unsent: deque[tuple[RecordType, bytes]] = deque()
        self._unsent_bytes = 0

    def seal(self, type_: RecordType, data: bytes, now_s: float) -> None:
        """Seal one body, in as many records as it takes."""
        for fragment, flags in fragments_of(data):
            for record in self.writer.seal(type_, fragment, now_s, flags):
                self._add(record, type_)

    def rekey(self, now_s: float) -> None:
        self._add(self.writer.rekey(now_s), RecordType.REKEY)

    def seal_early(self, type_: RecordType, data: bytes, now_s: float) -> None:
        """Seal into the first flight, or keep it for ``open``. Raises ChannelStateError when too
        much waits already."""
        if self._takes_first_flight(len(data)):
            self.seal(type_, data, now_s)
            return
        if self._unsent_bytes + len(data) > UNSENT_BYTES_MAX:
            raise ChannelStateError(Code.MESSAGE_QUEUE_FULL, "too much waits for ACCEPT")
        self._unsent.append((type_, data))
        self._unsent_bytes += len(data)

    def open(self, now_s: float) -> None:
        """The peer has said ACCEPT: what waited for it goes now."""
        unsent, self._unsent, self._unsent_bytes = self._unsent, deque(), 0
        for type_, data in unsent:
            self.seal(type_, data, now_s)

    def resend_untrusted(self, position: int) -> None:
        """On a new link everything goes again that the peer, who stands at ``position``, has not
        received. Raises ChannelError when that is no longer held."""
        self.sent.acknowledge_untrusted(position)
        self._ready = self.sent.since_untrusted(position)

    def take_ready(self) -> list[bytes]:
        """Records that the link has yet to carry."""
        ready, self._ready = self._ready, []
        return ready

    def _add(self, record: bytes, type_: RecordType) -> None:
        self.sent.add(record, type_)
        self._ready.append(record)

    def _takes_first_flight(self, data_bytes: int) -> bool:
        records = max(1, -(-data_bytes // RECORD_PLAINTEXT_BYTES_MAX))
        # At worst, each record has a REKEY before it.
        self._early_bytes += data_bytes + 2 * records * RECORD_OVERHEAD_BYTES
        if self._early_bytes <= EARLY_BYTES_MAX:
            return True
        # The first that does not fit ends the flight, so that nothing overtakes what waits.
        self._early_bytes = EARLY_BYTES_MAX
        return False
