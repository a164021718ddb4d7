"""Whether an audit log is what its program wrote: every line, its place, and the signatures.

What is proved. Up to the last good checkpoint, nobody without the node's identity key has removed,
changed, reordered or inserted a line, from the first line that is here. Behind it lines are only
chained: whoever can write the file can cut them off, or make others. Lines that were rotated away
are gone, and whoever holds the identity key can write what they like.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from identity import ChangeHistory, Checkpoint, Identifier, IdentityError
from node.audit import LINES_AT_ONCE
from node.audit_chain import (
    CHECKPOINT,
    CHECKPOINT_LINES,
    FIRST_HASH,
    LOST,
    OPENED,
    checkpoint_body,
)
from node.audit_reader import Line, RawLine, decode_line_untrusted

FINDINGS_MAX: Final = 1_000
"""Problems and notes beyond so many are only counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence about a line. ``seq`` is None for what is no line of a log."""

    file: str
    line: int
    seq: int | None
    text: str


@dataclass(slots=True)
class Report:
    """What was found. ``problems`` say that somebody touched the log; ``notes`` do not."""

    lines: int = 0
    first_seq: int | None = None
    last_seq: int = 0
    last_sha256: str = FIRST_HASH
    signed_seq: int | None = None
    """The last line that a good signature vouches for."""
    signer: str | None = None
    problems: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    more: int = 0
    """Problems and notes that are not listed."""

    @property
    def unsigned_lines(self) -> int:
        first = self.first_seq or 1
        return max(0, self.last_seq - max(self.signed_seq or 0, first - 1))


class Verifier:
    """Takes the lines of a log in order. ``known`` are hashes that lines of these numbers have, as
    somebody else remembers them: the running program, or whoever noted one down."""

    def __init__(
        self, *, signer: Identifier | None = None, known: Mapping[int, str] | None = None
    ) -> None:
        self.report = Report()
        self._expected_signer = signer
        self._known = dict(known or {})
        self._histories: dict[str, ChangeHistory] = {}
        self._seq = 0
        self._hash = FIRST_HASH
        self._before: tuple[int, str] = (0, FIRST_HASH)
        """Number and hash of the line before the last."""
        self._last: tuple[RawLine, Line] | None = None
        self._half: RawLine | None = None
        """What is no line, and may be half of one."""
        self._unsigned = 0

    def take(self, raw: RawLine) -> None:
        self.report.lines += 1
        line = decode_line_untrusted(raw.data) if raw.ended else None
        if line is None:
            self._end_half()
            self._half = raw
            return
        self._settle_half(raw, line)
        self._check_place(raw, line)
        self._check_known(raw, line)
        self._unsigned += 1
        if line.action == OPENED:
            self._check_opened(raw, line)
        elif line.action == CHECKPOINT:
            self._check_checkpoint(raw, line)
        elif line.action == LOST:
            self._note(raw, line, f"{line.count} lines are missing: the disk took none")
        if self._unsigned == CHECKPOINT_LINES + LINES_AT_ONCE + 1:
            text = f"no checkpoint among the {self._unsigned} lines up to here: one was taken out"
            self._problem(raw, line, text)
        self._last = raw, line

    def finish(self) -> Report:
        half, report = self._half, self.report
        if half is not None and not half.ended:
            text = f"{half.length} bytes without an end: being written now, or cut by a crash"
            self._note(half, None, text)
            self._half = None
        self._end_half()
        for seq, _ in sorted(self._known.items()):
            if report.first_seq is not None and seq < report.first_seq:
                continue  # Rotated away since.
            where = Finding("", 0, seq, f"line {seq} is known to have been written, and is gone")
            report.problems.append(where)
        report.last_seq, report.last_sha256 = self._seq, self._hash
        return report

    def _settle_half(self, raw: RawLine, line: Line) -> None:
        """A line that follows a crash names what the crash left behind; else it is an intruder."""
        torn = line.torn if line.action == OPENED else None
        half = self._half
        if torn is not None and half is not None:
            if (torn.bytes, torn.sha256) == (half.length, half.sha256):
                self._note(half, None, "half a line that a crash left; the next line names it")
                self._half = None
        elif torn is not None and self._last is not None:
            last, _ = self._last
            # All of it was written but the newline, so it looks whole now.
            if torn.sha256 == last.sha256 and line.seq == self._seq:
                self._note(last, None, "a crash left this line without its end; the next names it")
                self._seq, self._hash = self._before
        self._end_half()

    def _end_half(self) -> None:
        if self._half is not None:
            self._problem(self._half, None, "is no line of this log")
            self._half = None

    def _check_place(self, raw: RawLine, line: Line) -> None:
        report = self.report
        if report.first_seq is None:
            report.first_seq = line.seq
            if line.seq > 1:
                text = (
                    f"the log begins here: lines 1 to {line.seq - 1} were rotated away or removed"
                )
                self._note(raw, line, text)
            elif line.prev != FIRST_HASH:
                self._problem(raw, line, "the first line of all names a line before it")
        elif line.seq == 1 and line.prev == FIRST_HASH:
            self._problem(raw, line, "a chain begins anew: nothing connects it with what is above")
        elif line.seq == self._before[0] + 1 and line.prev == self._before[1] != self._hash:
            # The line before this one stands between two that belong together.
            self._blame_last("was put in between two lines that belong together")
        elif line.seq <= self._seq:
            text = f"stands behind line {self._seq}: out of order, repeated or inserted"
            self._problem(raw, line, text)
            return
        elif line.seq > self._seq + 1:
            missing = line.seq - self._seq - 1
            text = f"{missing} missing before it: from {self._seq + 1} to {line.seq - 1}"
            self._problem(raw, line, text)
        elif line.prev != self._hash:
            self._blame(raw, line)
        self._before = self._seq, self._hash
        self._seq, self._hash = line.seq, raw.sha256

    def _blame(self, raw: RawLine, line: Line) -> None:
        if line.action == CHECKPOINT:
            first = (self.report.signed_seq or 0) + 1
            text = f"the lines from {first} on are not those that were signed here"
            self._problem(raw, line, text)
        else:
            self._blame_last("was changed, or put here: the next line names another hash")

    def _blame_last(self, text: str) -> None:
        assert self._last is not None  # There is a line before this one.
        self._problem(*self._last, text)

    def _check_known(self, raw: RawLine, line: Line) -> None:
        known = self._known.pop(line.seq, None)
        if known is not None and known != raw.sha256:
            self._problem(raw, line, f"is not the line {line.seq} that is known to be written")

    def _check_opened(self, raw: RawLine, line: Line) -> None:
        last = self._last
        if line.why == "started":
            self._unsigned = 1
            stopped = last is not None and last[1].action == CHECKPOINT
            if last is not None and not stopped:
                text = "the program began again without having stopped: what it wrote last is lost"
                self._note(raw, line, text)
        try:
            history = ChangeHistory.decode_untrusted(bytes.fromhex(line.history or ""))
            if line.history != self._known_history(history):
                history.verify_all()
        except (IdentityError, ValueError) as error:
            self._problem(raw, line, f"holds no history of a node's keys: {error}")
            return
        who = str(history.identifier)
        signer = self.report.signer
        expected = self._expected_signer
        if who != line.identifier or (expected is not None and expected != history.identifier):
            self._problem(
                raw, line, f"is not signed by {expected or line.identifier}, but by {who}"
            )
        elif signer is not None and signer != who:
            self._problem(raw, line, f"another node signs from here on: {who}, not {signer}")
        self._histories[who] = history
        self.report.signer = signer or who

    def _known_history(self, history: ChangeHistory) -> str | None:
        held = self._histories.get(str(history.identifier))
        return None if held is None else held.encode().hex()

    def _check_checkpoint(self, raw: RawLine, line: Line) -> None:
        history = self._histories.get(line.identifier or "")
        if history is None:
            self._problem(raw, line, "a checkpoint of somebody whose keys stand nowhere above")
            return
        try:
            signed = Checkpoint(
                history.identifier,
                -1 if line.change is None else line.change,
                line.seq,
                bytes.fromhex(line.prev),
                line.time,
                line.why or "",
            )
            unix_s = datetime.fromisoformat(line.time).timestamp()
            signed.verify(bytes.fromhex(line.signature or ""), history, unix_s)
        except (IdentityError, ValueError) as error:
            detail = error.detail if isinstance(error, IdentityError) else str(error)
            self._problem(raw, line, f"the signature of this checkpoint does not hold: {detail}")
            return
        head = b'{"seq":%d,"prev":"%s","time":"%s",' % (
            line.seq,
            line.prev.encode(),
            line.time.encode(),
        )
        if raw.data != head + checkpoint_body(signed, line.signature or "")[1:]:
            self._problem(raw, line, "says more than was signed")
            return
        self._unsigned = 0
        if line.seq == self._seq:
            self.report.signed_seq = line.seq

    def _problem(self, raw: RawLine, line: Line | None, text: str) -> None:
        self._add(self.report.problems, raw, line, text)

    def _note(self, raw: RawLine, line: Line | None, text: str) -> None:
        self._add(self.report.notes, raw, line, text)

    def _add(self, findings: list[Finding], raw: RawLine, line: Line | None, text: str) -> None:
        if len(findings) >= FINDINGS_MAX:
            self.report.more += 1
            return
        seq = None if line is None else line.seq
        findings.append(Finding(raw.file, raw.number, seq, text))
