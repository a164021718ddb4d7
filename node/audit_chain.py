"""The chain of the audit log: each line names the hash of the line before it. Touches no file.

A line is a JSON object that begins with ``seq`` and ``prev``: its number, from 1, and the SHA-256
of the bytes of the line before it, without the newline. The log's own lines have an action that
begins with ``log.``: OPENED says who signs from here on, CHECKPOINT is that signature under all
lines so far, LOST counts lines that the disk did not take.
"""

import hashlib
from typing import Any, Final

import msgspec

from identity import Checkpoint, OwnIdentity
from node.audit_entry import ENTRY_BYTES_MAX
from node.clocks import utc_text

LINE_BYTES_MAX: Final = 64 << 10
FIRST_HASH: Final = "0" * 64
"""What the first line of all has for ``prev``."""
SEQUENCE_MAX: Final = (1 << 53) - 1
"""What every reader of JSON takes for the same number: a log of 280,000 years at 1,000 a second."""
CHECKPOINT_LINES: Final = 1_024
"""A checkpoint is made when so many lines are not yet signed."""
EFFECT: Final = "log"
OPENED: Final = "log.opened"
CHECKPOINT: Final = "log.checkpoint"
LOST: Final = "log.lost"

_HEAD_BYTES_MAX: Final = 160

assert ENTRY_BYTES_MAX + _HEAD_BYTES_MAX < LINE_BYTES_MAX

_encode: Final = msgspec.json.Encoder().encode


class Torn(msgspec.Struct, frozen=True, kw_only=True):
    """Half a line that a crash left behind the last whole one."""

    bytes: int
    sha256: str


class Chain:
    """Gives each line its place. ``seq`` and ``hash`` are those of the last line."""

    def __init__(self, seq: int = 0, line_hash: str = FIRST_HASH) -> None:
        self.seq = seq
        self.hash = line_hash
        self.signed_seq = seq
        """Up to which line the last checkpoint vouches."""
        self._change_number: int | None = None
        """The last change of the history that the log holds."""
        self._second = 0.0
        self._second_text = ""

    def link(self, body: bytes, unix_s: float) -> bytes:
        """The line, newline included, for what is a JSON object already."""
        self.seq += 1
        line = b'{"seq":%d,"prev":"%s","time":"%s",%s' % (
            self.seq,
            self.hash.encode(),
            self._time(unix_s).encode(),
            body[1:],
        )
        self.hash = hashlib.sha256(line).hexdigest()
        return line + b"\n"

    def opened(
        self, own: OwnIdentity, unix_s: float, *, why: str, torn: Torn | None = None
    ) -> bytes:
        """The line that begins a file, or follows a start or another key."""
        self._change_number = own.history.change_number
        return self.link(
            _encode(
                {
                    "action": OPENED,
                    "effect": EFFECT,
                    "rule": None,
                    "why": why,
                    "identifier": str(own.identifier),
                    "history": own.history.encode().hex(),
                    "torn": torn,
                }
            ),
            unix_s,
        )

    def knows(self, own: OwnIdentity) -> bool:
        """Whether the log holds the history with which its next checkpoint is verified."""
        return self._change_number == own.history.change_number

    def checkpoint(self, own: OwnIdentity, unix_s: float, *, why: str) -> bytes:
        """The line that signs all lines before it, and itself."""
        signed = Checkpoint.of(
            own, self.seq + 1, bytes.fromhex(self.hash), time=self._time(unix_s), why=why
        )
        line = self.link(checkpoint_body(signed, signed.sign(own).hex()), unix_s)
        self.signed_seq = self.seq
        return line

    def lost(self, count: int, unix_s: float) -> bytes:
        """The line that stands where lines are missing, because the disk took none."""
        body = {"action": LOST, "effect": EFFECT, "rule": None, "count": count}
        return self.link(_encode(body), unix_s)

    def _time(self, unix_s: float) -> str:
        # Many lines have the same time, to the millisecond.
        if unix_s != self._second:
            self._second, self._second_text = unix_s, utc_text(unix_s)
        return self._second_text


def checkpoint_body(signed: Checkpoint, signature: str) -> bytes:
    """All of a checkpoint's line but its head. Nothing in it is not signed but the signature."""
    return _encode(
        {
            "action": CHECKPOINT,
            "effect": EFFECT,
            "rule": None,
            "why": signed.why,
            "identifier": str(signed.identifier),
            "change": signed.change_number,
            "signature": signature,
        }
    )


def goes_on_after(tail: bytes) -> tuple[Chain | None, Torn | None]:
    """The chain behind the end of a file, given its last bytes; and what a crash left of a line.

    None where the last whole line is none of ours.
    """
    whole, newline, half = tail.rpartition(b"\n")
    torn = Torn(bytes=len(half), sha256=hashlib.sha256(half).hexdigest()) if half else None
    if not newline:
        return None, torn
    line = whole.rpartition(b"\n")[2]
    seq = sequence_of_untrusted(line)
    if seq is None:
        return None, torn
    return Chain(seq, hashlib.sha256(line).hexdigest()), torn


def sequence_of_untrusted(line: bytes) -> int | None:
    """The number of a line; None for what is no line of a chain."""
    if len(line) > LINE_BYTES_MAX:
        return None
    try:
        read: Any = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None
    seq = read.get("seq") if isinstance(read, dict) else None
    return seq if type(seq) is int and 1 <= seq < SEQUENCE_MAX else None
