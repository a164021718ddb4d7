"""The audit log: one JSON line per decision, appended, chained, signed, bounded in size.

What is durable when: lines reach the operating system within ``FLUSH_DELAY_S``, or sooner when
``BUFFER_BYTES`` have gathered; they are forced to the disk (fsync) when a file is rotated and when
the program stops. So a crash of the program loses at most ``FLUSH_DELAY_S`` of lines, and a power
failure what the system had not yet written by itself.

What is signed when: every ``CHECKPOINT_LINES`` lines, ``CHECKPOINT_DELAY_S`` after the first line
that is not signed, when a file is rotated, and when the program stops.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from identity import OwnIdentity
from node.audit_chain import CHECKPOINT_LINES, LINE_BYTES_MAX, Chain, Torn, goes_on_after
from node.audit_entry import AuditEntry, encode_entry
from node.clocks import Clock
from node.state_folder import SECRET_MODE, sync_folder

FLUSH_DELAY_S: Final = 0.2
CHECKPOINT_DELAY_S: Final = 60.0
BUFFER_BYTES: Final = 64 << 10
BUFFER_BYTES_MAX: Final = 4 << 20
"""What is held when the disk takes nothing. Lines beyond it are dropped and counted."""
FILE_BYTES: Final = 64 << 20
FILES_KEPT: Final = 4
"""Rotated files beside the current one, so a log takes at most 5 x 64 MiB."""
TAIL_BYTES: Final = 1 << 20
"""How much of a file's end is read to go on behind it."""
LINES_AT_ONCE: Final = 4
"""A decision may add a line on what was lost, one on a new key, and a checkpoint."""

assert BUFFER_BYTES < BUFFER_BYTES_MAX < FILE_BYTES
assert TAIL_BYTES > 2 * LINE_BYTES_MAX

Head = tuple[int, str]
"""Number and hash of a line."""


class AuditLog:
    """Appends to one file and rotates it. ``fault`` says what keeps it from writing."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        own: Callable[[], OwnIdentity],
        *,
        file_bytes: int = FILE_BYTES,
        files_kept: int = FILES_KEPT,
    ) -> None:
        self._path = path
        self._clock = clock
        self._own = own
        self._file_bytes = file_bytes
        self._files_kept = files_kept
        self._lines: list[bytes] = []
        self._buffered_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._checkpoint_timer: asyncio.TimerHandle | None = None
        self._lost = 0
        self.dropped = 0
        """Lines lost because the disk took nothing."""
        self.fault: str | None = None
        self._chain, torn = _end_of(path, files_kept)
        self._descriptor = _open_append(path)
        self._file_length = os.fstat(self._descriptor).st_size
        self._written: Head = (self._chain.seq, self._chain.hash)
        self._append(self._chain.opened(own(), clock.unix_s(), why="started", torn=torn))
        self._flush_soon()

    @property
    def head(self) -> Head:
        """The last line that the operating system has: what a file must hold at least."""
        return self._written

    def record(self, entry: AuditEntry) -> None:
        """Take one line. Never raises for a full or broken disk: see ``fault`` and ``dropped``."""
        if self._buffered_bytes + LINES_AT_ONCE * LINE_BYTES_MAX > BUFFER_BYTES_MAX:
            self.dropped += 1
            self._lost += 1
            self._flush_soon()
            return
        unix_s = self._clock.unix_s()
        if self._lost:
            self._append(self._chain.lost(self._lost, unix_s))
            self._lost = 0
        self._append(self._chain.link(encode_entry(entry), unix_s))
        if self._chain.seq - self._chain.signed_seq >= CHECKPOINT_LINES:
            self._checkpoint("lines")
        if self._file_length >= self._file_bytes and self.fault is None:
            self._rotate()
        elif self._buffered_bytes >= BUFFER_BYTES:
            self.flush()
        else:
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
            written = os.write(self._descriptor, data)
        except OSError as error:
            self.fault = f"audit log: {error.strerror}"
            return
        rest = data[written:]
        # A disk that is nearly full takes a part; the rest stays for the next attempt.
        self._lines = [rest] if rest else []
        self._buffered_bytes = len(rest)
        self.fault = "audit log: the disk took only a part" if rest else None
        if not rest:
            self._written = (self._chain.seq, self._chain.hash)

    def close(self) -> None:
        """Sign, flush and force to the disk. Harmless when repeated."""
        if self._descriptor < 0:
            return
        self._checkpoint("stopped")
        self.flush()
        with contextlib.suppress(OSError):
            os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1

    def _append(self, line: bytes) -> None:
        self._lines.append(line)
        self._buffered_bytes += len(line)
        self._file_length += len(line)

    def _checkpoint(self, why: str) -> None:
        if self._checkpoint_timer is not None:
            self._checkpoint_timer.cancel()
            self._checkpoint_timer = None
        own, unix_s = self._own(), self._clock.unix_s()
        if not self._chain.knows(own):
            self._append(self._chain.opened(own, unix_s, why="key"))
        self._append(self._chain.checkpoint(own, unix_s, why=why))

    def _flush_soon(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()  # Nobody would wake us later.
            return
        if self._timer is None:
            self._timer = loop.call_later(FLUSH_DELAY_S, self._timer_fired)
        if self._checkpoint_timer is None:
            self._checkpoint_timer = loop.call_later(CHECKPOINT_DELAY_S, self._checkpoint_due)

    def _timer_fired(self) -> None:
        self._timer = None
        self.flush()

    def _checkpoint_due(self) -> None:
        self._checkpoint_timer = None
        self._checkpoint("time")
        self.flush()

    def _rotate(self) -> None:
        """audit.jsonl becomes audit.jsonl.1, and so on; the oldest goes. The chain goes on."""
        self._checkpoint("rotated")
        self.flush()
        if self._lines:
            return  # The file grows until the disk takes lines again.
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            new.unlink(missing_ok=True)
            descriptor = _open_append(new)
            for number in range(self._files_kept, 0, -1):
                older = rotated_path(self._path, number)
                newer = rotated_path(self._path, number - 1)
                if newer.exists():
                    newer.replace(older)
            new.replace(self._path)
        except OSError as error:
            self.fault = f"audit log: {error.strerror}"
            return
        _make_durable_meanwhile(self._descriptor, self._path.parent)
        self._descriptor = descriptor
        self._file_length = 0
        self._append(self._chain.opened(self._own(), self._clock.unix_s(), why="rotated"))
        self._flush_soon()


def rotated_path(path: Path, number: int) -> Path:
    """Where the file is that was rotated ``number`` rotations ago; 0 is the current one."""
    return path if number == 0 else path.with_name(f"{path.name}.{number}")


def _make_durable_meanwhile(descriptor: int, folder: Path) -> None:
    """Force a rotated file to the disk, and close it, without those waiting who want decisions.

    For 64 MiB it took 40 ms on the machine where it was measured.
    """

    def work() -> None:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
            sync_folder(folder)
        os.close(descriptor)

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        work()
    else:
        loop.run_in_executor(None, work)


def _end_of(path: Path, files_kept: int) -> tuple[Chain, Torn | None]:
    """Where the chain goes on: behind the newest line there is, or at its beginning.

    A current file without a whole line, as a crash in the midst of a rotation leaves it, is behind
    the one before it. A line that is none of ours begins a chain anew, which verification tells.
    """
    torn: Torn | None = None
    for number in range(files_kept + 1):
        tail = _tail_of(rotated_path(path, number))
        chain, half = goes_on_after(tail)
        if number == 0:
            torn = half
        if b"\n" in tail:
            return chain or Chain(), torn
    return Chain(), torn


def _tail_of(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        size = os.fstat(descriptor).st_size
        begin = max(0, size - TAIL_BYTES)
        tail = os.pread(descriptor, TAIL_BYTES, begin)
    finally:
        os.close(descriptor)
    # A line that begins before what was read is not judged by its rest.
    return tail if begin == 0 or b"\n" not in tail else tail[tail.index(b"\n") :]


def _open_append(path: Path) -> int:
    """Open for appending, at the start of a line even if a crash left half of one."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, SECRET_MODE)
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        os.write(descriptor, b"\n")
    return descriptor
