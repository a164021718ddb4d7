"""What one side of a session hears: opened in order, put together, and acknowledged in time."""

from typing import Final

from channel._noise import RecordCipher
from channel.errors import ChannelError
from channel.limits import RekeyLimits
from channel.messages import MessageAssembler
from channel.moving import Receipts
from channel.records import RecordReader
from channel.wire import RecordHeader, RecordType, decode_header_untrusted
from identity import Code

# What may come between two fragments of one message.
_BETWEEN_FRAGMENTS: Final = frozenset(
    {RecordType.DATA, RecordType.REKEY, RecordType.ACK, RecordType.DENY, RecordType.CLOSE}
)


class Incoming:
    """The receiving direction of a session, from its first record to its last."""

    __slots__ = ("_reader", "has_moved", "message", "receipts")

    def __init__(self, cipher: RecordCipher, limits: RekeyLimits) -> None:
        self._reader = RecordReader(cipher, limits)
        self.message = MessageAssembler()
        self.receipts = Receipts()
        self.has_moved = False
        """Whether records may come again that came before, on a link that was left."""

    @property
    def position(self) -> int:
        """The sequence number that is expected next."""
        return self._reader.next_sequence

    def open_untrusted(self, record: bytes, now_s: float) -> tuple[RecordHeader, bytes] | None:
        """Return header and plaintext, both authentic, or None for a repetition, which is dropped
        unread. Raises ChannelError; the session is then over."""
        if self.has_moved and decode_header_untrusted(record).sequence < self.position:
            return None
        header, plaintext = self._reader.open_untrusted(record)
        self.receipts.note(header.type, len(record), now_s)
        if self.message.is_between_fragments and header.type not in _BETWEEN_FRAGMENTS:
            raise ChannelError(Code.CHANNEL_BAD_RECORD, f"{header.type.name} between fragments")
        return header, plaintext
