"""What lets a channel outlive its link: records kept until they are acknowledged, when to
acknowledge, and the two messages that prove on a new link whose channel goes on there.

A link that is lost takes with it an unknown part of what was under way. Both sides therefore keep
the records that the other has not acknowledged, and on the next link send the identical bytes
again from where the other says that it stands. Nothing is ever sealed twice.
"""

import hashlib
import hmac
from collections import deque
from itertools import islice
from typing import Final

from channel._noise import Role
from channel.errors import ChannelError
from channel.limits import (
    ACK_BYTES,
    ACK_DELAY_S,
    ACK_RECORDS,
    MAC_BYTES,
    MOVE_ATTEMPTS_MAX,
    MOVE_KEY_BYTES,
    REPLIES_HURRIED_MAX,
    REPLIES_MAX,
    SESSION_ID_BYTES,
)
from channel.wire import (
    Move,
    Moved,
    RecordType,
    decode_move_untrusted,
    decode_moved_untrusted,
    encode_move,
    encode_moved,
)
from identity import Code

_SESSION_LABEL: Final = b"sidelink session 1"
_MOVE_LABEL: Final = b"sidelink move 1"
_MOVED_LABEL: Final = b"sidelink moved 1"
# What nobody waits to see acknowledged: an ACK alone is not, and behind the others comes nothing.
_LAST_WORDS: Final = frozenset({RecordType.ACK, RecordType.DENY, RecordType.CLOSE})
# What the peer makes us say, by records that need not hold a byte.
_REPLIES: Final = frozenset({RecordType.ACK, RecordType.WAKE})


def session_id_of(handshake_hash: bytes) -> bytes:
    """The name of a session on the wire: no secret, and the same for both sides."""
    return hashlib.sha256(_SESSION_LABEL + handshake_hash).digest()[:SESSION_ID_BYTES]


class SentRecords:
    """The records of one direction that the peer has not acknowledged, as they were sealed."""

    __slots__ = ("_awaited", "_first", "_records", "_replies", "held_bytes")

    def __init__(self) -> None:
        self._first = 0
        self._awaited = 0
        self._records: deque[bytes] = deque()
        self._replies: deque[int] = deque()
        self.held_bytes = 0

    @property
    def is_awaiting(self) -> bool:
        """Whether the peer owes an acknowledgement. For an ACK alone it owes none."""
        return self._awaited > self._first

    @property
    def replies(self) -> int:
        """How many records are held that only answer the peer's."""
        return len(self._replies)

    @property
    def next(self) -> int:
        """The sequence number of the next record to be sealed."""
        return self._first + len(self._records)

    def add(self, record: bytes, type_: RecordType) -> None:
        if type_ in _REPLIES:
            self._replies.append(self.next)
        self._records.append(record)
        self.held_bytes += len(record)
        if type_ not in _LAST_WORDS:
            self._awaited = self.next

    def acknowledge_untrusted(self, position: int) -> None:
        """The peer expects ``position`` next: forget what came before. An older word is nothing.

        Raises ChannelError for a record that was never sealed.
        """
        if position > self.next:
            raise ChannelError(Code.CHANNEL_BAD_RECORD, f"ACK {position} of {self.next}")
        while self._first < position:
            self.held_bytes -= len(self._records.popleft())
            self._first += 1
        while self._replies and self._replies[0] < self._first:
            self._replies.popleft()

    def since_untrusted(self, position: int) -> list[bytes]:
        """What to send again to a peer that expects ``position`` next. Raises ChannelError for a
        record that was never sealed.

        An ACK that was said later, on the link that is left, may have come before: what it
        acknowledged is not held any more, and not missed.
        """
        if position > self.next:
            raise ChannelError(
                Code.CHANNEL_RECORD_OUT_OF_ORDER,
                f"the peer stands at {position} of {self.next}",
            )
        return list(islice(self._records, max(0, position - self._first), None))


class Receipts:
    """What was received and is not acknowledged yet, and when it must be."""

    __slots__ = ("_bytes", "_hurried", "_overdue", "_records", "deadline_s")

    def __init__(self) -> None:
        self._records = 0
        self._bytes = 0
        self._hurried = False
        self._overdue = False
        self.deadline_s: float | None = None
        """When to look again. It may pass with nothing to say: it is not moved at each record."""

    def hurry(self) -> None:
        """Acknowledge each record from here on: the peer waits for it."""
        self._hurried = True

    def note(self, type_: RecordType, record_bytes: int, now_s: float) -> None:
        self._records += 1
        if type_ is not RecordType.ACK:
            # An ACK alone is not acknowledged, or two silent peers would do it for ever.
            self._bytes += record_bytes
            if self.deadline_s is None:
                self.deadline_s = now_s + ACK_DELAY_S

    def is_due_untrusted(self, now_s: float, *, unheard: int) -> bool:
        """``unheard``: how many of our replies the peer has not acknowledged. One that leaves many
        so is in no hurry itself. Raises ChannelError for too many."""
        if self._bytes >= ACK_BYTES or self._records >= ACK_RECORDS:
            if unheard >= REPLIES_MAX:
                raise ChannelError(Code.CHANNEL_LIMIT_EXCEEDED, "it acknowledges no reply")
            return True
        if not self._bytes or unheard >= REPLIES_HURRIED_MAX:
            return False
        late = self._overdue or (self.deadline_s is not None and now_s >= self.deadline_s)
        return self._hurried or late

    def acknowledged(self) -> None:
        self._records = 0
        self._bytes = 0
        self._overdue = False

    def passed(self) -> None:
        """The deadline has been looked at."""
        self.deadline_s = None
        self._overdue = self._bytes > 0


class Mover:
    """Proves a channel's claim to a new link. One side asks (MOVE), the other answers (MOVED)."""

    __slots__ = ("_asked", "_key", "_role", "_seen", "session_id")

    def __init__(self, key: bytes, role: Role, session_id: bytes) -> None:
        assert len(key) == MOVE_KEY_BYTES
        self._key = key
        self._role = role
        self._asked: tuple[int, bytes] = (0, b"")
        self._seen = 0
        self.session_id = session_id

    def ask(self, nonce: bytes, position: int) -> bytes:
        """The message that asks to go on, on the link of ``nonce``, from ``position``."""
        attempt = self._asked[0] + 1
        if attempt > MOVE_ATTEMPTS_MAX:
            raise ChannelError(Code.CHANNEL_LIMIT_EXCEEDED, "moved too often")
        self._asked = attempt, nonce
        mac = self._mac(_MOVE_LABEL, self._role, attempt, nonce, position)
        return encode_move(Move(self.session_id, attempt, position, mac))

    def read_ask_untrusted(self, message: bytes, nonce: bytes) -> int:
        """The position of a peer that asks. Raises ChannelError(CHANNEL_MOVE_INVALID) for what the
        peer did not write for this link, or wrote before something that was read already."""
        move = decode_move_untrusted(message)
        expected = self._mac(_MOVE_LABEL, _other(self._role), move.attempt, nonce, move.position)
        if move.session_id != self.session_id or not hmac.compare_digest(move.mac, expected):
            raise ChannelError(Code.CHANNEL_MOVE_INVALID, "not the peer's")
        if move.attempt <= self._seen:
            raise ChannelError(Code.CHANNEL_MOVE_INVALID, f"attempt {move.attempt} is old")
        self._seen = move.attempt
        return move.position

    def answer(self, nonce: bytes, position: int) -> bytes:
        """The answer to the last ask that was read."""
        mac = self._mac(_MOVED_LABEL, self._role, self._seen, nonce, position)
        return encode_moved(Moved(position, mac))

    def read_answer_untrusted(self, message: bytes) -> int:
        """The position of the peer that answers our last ask. Raises ChannelError."""
        moved = decode_moved_untrusted(message)
        attempt, nonce = self._asked
        expected = self._mac(_MOVED_LABEL, _other(self._role), attempt, nonce, moved.position)
        if not hmac.compare_digest(moved.mac, expected):
            raise ChannelError(Code.CHANNEL_MOVE_INVALID, "not the peer's answer")
        return moved.position

    def _mac(self, label: bytes, role: Role, attempt: int, nonce: bytes, position: int) -> bytes:
        fields = (
            label,
            b"\x00" if role is Role.INITIATOR else b"\x01",
            self.session_id,
            nonce,
            attempt.to_bytes(8, "big"),
            position.to_bytes(8, "big"),
        )
        mac = hmac.digest(self._key, b"".join(fields), "sha256")
        assert len(mac) == MAC_BYTES
        return mac


def _other(role: Role) -> Role:
    return Role.RESPONDER if role is Role.INITIATOR else Role.INITIATOR
