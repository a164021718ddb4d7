"""The audit log: one JSON line per decision, appended, bounded in size, never a payload.

What is durable when: lines reach the operating system within ``FLUSH_DELAY_S``, or sooner when
``BUFFER_BYTES`` have gathered; they are forced to the disk (fsync) when a file is rotated and when
the program stops. So a crash of the program loses at most ``FLUSH_DELAY_S`` of lines, and a power
failure what the system had not yet written by itself.
"""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

from identity import IdentityError, VerifiedIdentity
from node.clocks import Clock, utc_text
from node.state_folder import SECRET_MODE, sync_folder
from policy import Denial, Party, Permit, Request

FLUSH_DELAY_S: Final = 0.2
BUFFER_BYTES: Final = 64 << 10
BUFFER_BYTES_MAX: Final = 4 << 20
"""What is held when the disk takes nothing. Lines beyond it are dropped and counted."""
FILE_BYTES: Final = 64 << 20
FILES_KEPT: Final = 4
"""Rotated files beside the current one, so a log takes at most 5 x 64 MiB."""
TEXT_CHARACTERS_MAX: Final = 512
DECISION_ID_BYTES: Final = 12

assert BUFFER_BYTES < BUFFER_BYTES_MAX < FILE_BYTES


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One decision. Texts longer than ``TEXT_CHARACTERS_MAX`` are cut when it is written."""

    decision_id: str
    action: str
    effect: str
    """allow, deny, or cut: something live that was ended for who its peer is."""
    rule: str | None
    policy_version: str
    subject: str
    subject_identifier: str | None
    object: str
    service: str | None
    reason: str


class AuditLog:
    """Appends to one file and rotates it. ``fault`` says what keeps it from writing."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        file_bytes: int = FILE_BYTES,
        files_kept: int = FILES_KEPT,
    ) -> None:
        self._path = path
        self._clock = clock
        self._file_bytes = file_bytes
        self._files_kept = files_kept
        self._lines: list[bytes] = []
        self._buffered_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._encoder = msgspec.json.Encoder()
        self._descriptor = _open_append(path)
        self._written_bytes = os.fstat(self._descriptor).st_size
        self.dropped = 0
        """Lines lost because the disk took nothing."""
        self.fault: str | None = None

    def record(self, entry: AuditEntry) -> None:
        """Take one line. Never raises for a full or broken disk: see ``fault`` and ``dropped``."""
        fields: dict[str, str | None] = {"time": utc_text(self._clock.unix_s())}
        fields |= {name: _cut(getattr(entry, name)) for name in entry.__struct_fields__}
        line = self._encoder.encode(fields) + b"\n"
        if self._buffered_bytes + len(line) > BUFFER_BYTES_MAX:
            self.dropped += 1
            return
        self._lines.append(line)
        self._buffered_bytes += len(line)
        if self._buffered_bytes >= BUFFER_BYTES:
            self.flush()
        elif self._timer is None:
            self._flush_soon()

    def flush(self) -> None:
        """Hand all lines to the operating system."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._lines:
            return
        data = b"".join(self._lines)
        try:
            if self._written_bytes and self._written_bytes + len(data) > self._file_bytes:
                self._rotate()
            written = os.write(self._descriptor, data)
        except OSError as error:
            self.fault = f"audit log: {error.strerror}"
            return
        self._written_bytes += written
        rest = data[written:]
        # A disk that is nearly full takes a part; the rest stays for the next attempt.
        self._lines = [rest] if rest else []
        self._buffered_bytes = len(rest)
        self.fault = "audit log: the disk took only a part" if rest else None

    def close(self) -> None:
        """Flush and force to the disk. Harmless when repeated."""
        if self._descriptor < 0:
            return
        self.flush()
        with contextlib.suppress(OSError):
            os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1

    def _flush_soon(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()  # Nobody would wake us later.
        else:
            self._timer = loop.call_later(FLUSH_DELAY_S, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self.flush()

    def _rotate(self) -> None:
        """audit.jsonl becomes audit.jsonl.1, and so on; the oldest goes."""
        os.fsync(self._descriptor)
        for number in range(self._files_kept, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            newer = self._path if number == 1 else older.with_suffix(f".{number - 1}")
            if newer.exists():
                newer.replace(older)
        descriptor = _open_append(self._path)
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._written_bytes = os.fstat(descriptor).st_size
        sync_folder(self._path.parent)


def entry_of(request: Request, decision: Permit | Denial) -> AuditEntry:
    """The line for one decision of the policy engine."""
    allowed = isinstance(decision, Permit)
    return AuditEntry(
        decision_id=decision.decision_id,
        action=str(request.action),
        effect="allow" if allowed else "deny",
        rule=decision.rule,
        policy_version=decision.policy_version,
        subject=str(request.subject),
        subject_identifier=_identifier_text(request.subject),
        object=str(request.object),
        service=request.service,
        reason="" if isinstance(decision, Permit) else decision.reason,
    )


def cut_entry(
    identity: VerifiedIdentity, own: Party, what: str, why: IdentityError, policy_version: str
) -> AuditEntry:
    """The line for something live that ends because of who its peer is. No rule said so."""
    return AuditEntry(
        decision_id=os.urandom(DECISION_ID_BYTES).hex(),
        action=f"{what}.cut",
        effect="cut",
        rule=None,
        policy_version=policy_version,
        subject=str(identity.name or identity.identifier),
        subject_identifier=str(identity.identifier),
        object=str(own),
        service=None,
        reason=f"{why.code.text}: {why.detail}",
    )


def _identifier_text(party: Party) -> str | None:
    return None if party.identifier is None else str(party.identifier)


def _cut(text: str | None) -> str | None:
    return text if text is None else text[:TEXT_CHARACTERS_MAX]


def _open_append(path: Path) -> int:
    """Open for appending, at the start of a line even if a crash left half of one."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, SECRET_MODE)
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        os.write(descriptor, b"\n")
    return descriptor
