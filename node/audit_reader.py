"""Reads audit logs that anybody may have written to: bounded lines, across rotated files."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from identity import Code
from node.audit import FILES_KEPT, rotated_path
from node.audit_chain import LINE_BYTES_MAX, SEQUENCE_MAX, Torn
from node.audit_entry import AuditedRecord, RequestRecord
from node.errors import ConfigError

LINES_AT_ONCE: Final = 1_000
"""How many lines one look at a growing file returns at most."""
_CHUNK_BYTES: Final = 64 << 10


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the log, of whatever kind; what its kind does not have is at its default."""

    seq: int
    prev: str
    time: str
    action: str
    effect: str
    rule: str | None = None
    decision_id: str | None = None
    policy_version: str | None = None
    subject: str | None = None
    subject_identifier: str | None = None
    object: str | None = None
    service: str | None = None
    reason: str | None = None
    code: str | None = None
    audited: tuple[AuditedRecord, ...] = ()
    request: RequestRecord | None = None
    why: str | None = None
    identifier: str | None = None
    history: str | None = None
    torn: Torn | None = None
    change: int | None = None
    signature: str | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True)
class RawLine:
    """One line as it stands in a file. ``data`` is its beginning, where it is too long for ours."""

    file: str
    number: int
    data: bytes
    length: int
    sha256: str
    ended: bool
    """Whether a newline follows: else it is still being written, or was cut."""


_decoder: Final = msgspec.json.Decoder(Line)


def decode_line_untrusted(data: bytes) -> Line | None:
    """None for what is no line of an audit log."""
    if len(data) > LINE_BYTES_MAX:
        return None
    try:
        line = _decoder.decode(data)
        # What it skips, it does not look at: a key that we do not know may be no UTF-8.
        data.decode()
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return line if 1 <= line.seq <= SEQUENCE_MAX else None


def fields_of(data: bytes) -> Mapping[str, Any] | None:
    """All that a line says, for programs; None for what is no line of an audit log."""
    line = decode_line_untrusted(data)
    if line is None:
        return None
    try:
        found: Mapping[str, Any] = msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        # Beside our keys stands one whose value no reader takes, such as a number without bounds.
        found = msgspec.to_builtins(line)
    return found


def read_log(path: Path) -> Iterator[RawLine]:
    """Every line there is now, the oldest first, while a program may go on writing.

    Raises ConfigError where there is no such file, or none that may be read.
    """
    with ExitStack() as stack:
        for name, file, size in reversed(_open_all(path, stack)):
            yield from _lines(name, file, size)


def _open_all(path: Path, stack: ExitStack) -> list[tuple[str, BinaryIO, int]]:
    """The newest first: a file that is rotated meanwhile is then met twice, and never missed."""
    opened: list[tuple[str, BinaryIO, int]] = []
    met: set[int] = set()
    for number in range(FILES_KEPT + 1):
        one = rotated_path(path, number)
        try:
            file = stack.enter_context(_open(one))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _unreadable(one, error.strerror or "cannot be read") from None
        found = os.fstat(file.fileno())
        if found.st_ino not in met:
            met.add(found.st_ino)
            opened.append((one.name, file, found.st_size))
    if not opened:
        raise _unreadable(path, "there is no such file")
    return opened


def _open(path: Path) -> BinaryIO:
    # Not to wait for the writer of a pipe that somebody put there.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.fdopen(descriptor, "rb")


def _unreadable(path: Path, why: str) -> ConfigError:
    return ConfigError(
        Code.CONFIG_INVALID,
        f"{path}: {why}",
        remedy="Name the file, or the program and its state folder with --program and --state.",
    )


def _lines(name: str, file: BinaryIO, size: int) -> Iterator[RawLine]:
    """The lines in the first ``size`` bytes."""
    number = 0
    left = size
    while left > 0:
        number += 1
        data = file.readline(min(left, LINE_BYTES_MAX + 2))
        if not data:
            return
        left -= len(data)
        digest = hashlib.sha256(data.removesuffix(b"\n"))
        length, last = len(data), data
        while left > 0 and not last.endswith(b"\n"):
            last = file.readline(min(left, _CHUNK_BYTES))
            if not last:
                break
            left -= len(last)
            length += len(last)
            digest.update(last.removesuffix(b"\n"))
        ended = last.endswith(b"\n")
        yield RawLine(
            name, number, data.removesuffix(b"\n"), length - ended, digest.hexdigest(), ended
        )


class Follower:
    """Reads what is appended to a log, across rotations, from its present end on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = _open(path)
        except OSError as error:
            raise _unreadable(path, error.strerror or "cannot be read") from None
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        self._file.close()

    def look(self) -> list[bytes]:
        """The whole lines that have come, ``LINES_AT_ONCE`` at most. Longer ones are cut."""
        found = self._new_lines()
        if not found and self._rotated():
            # What came between the two looks stands at the end of the old file.
            found = self._new_lines()
            if not found:
                self._file.close()
                self._file = _open(self._path)
                found = self._new_lines()
        return found

    def _rotated(self) -> bool:
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return False
        held = os.fstat(self._file.fileno())
        if held.st_ino == now.st_ino and now.st_size < self._file.tell():
            self._file.seek(0)  # Somebody cut it: `audit verify` says more.
        return held.st_ino != now.st_ino

    def _new_lines(self) -> list[bytes]:
        lines: list[bytes] = []
        while len(lines) < LINES_AT_ONCE:
            begin = self._file.tell()
            data = self._file.readline(LINE_BYTES_MAX + 2)
            if not data:
                break
            if not data.endswith(b"\n") and len(data) <= LINE_BYTES_MAX:
                self._file.seek(begin)  # Half a line: the rest is to come.
                break
            lines.append(data.removesuffix(b"\n"))
        return lines
