"""Which lines of an audit log a person asked for."""

from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Final

from cli.tickets import parse_lifetime
from node.audit_reader import Line
from node.clocks import utc_text

HEADINGS: Final = ("TIME", "SEQ", "EFFECT", "ACTION", "SUBJECT", "OBJECT", "RULE", "ID", "REASON")


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Every field that is not None must match. ``*`` stands for anything in them, but in times."""

    action: str | None = None
    effect: str | None = None
    rule: str | None = None
    agent: str | None = None
    code: str | None = None
    decision_id: str | None = None
    since: str | None = None
    """As lines have it: times in UTC of one length, which sort as text."""
    until: str | None = None

    def takes(self, line: Line) -> bool:
        parties = (line.subject, line.subject_identifier, line.object)
        return (
            _fits(self.action, line.action)
            and _fits(self.effect, line.effect)
            and _fits(self.rule, line.rule, *(one.rule for one in line.audited))
            and _fits(self.agent, *parties)
            and _fits(self.code, line.code)
            and _fits(self.decision_id, line.decision_id)
            and (self.since is None or line.time >= self.since)
            and (self.until is None or line.time < self.until)
        )


def filter_of(wishes: dict[str, Any], unix_s: float) -> AuditFilter:
    """Raises click.BadParameter for what is no time."""
    times = {name: _time(wishes[name], unix_s) for name in ("since", "until")}
    return AuditFilter(**(wishes | times))


def cells_of(line: Line) -> tuple[object, ...]:
    """A line as a row of a table, under ``HEADINGS``."""
    reason = line.reason or line.why
    for one in line.audited:
        would = f'in audit mode, "{one.rule}" would {one.effect}'
        reason = f"{reason}; {would}" if reason else would
    return (
        line.time,
        line.seq,
        line.effect,
        line.action if line.service is None else f"{line.action} ({line.service})",
        line.subject or line.identifier,
        line.object,
        line.rule,
        line.decision_id,
        reason,
    )


def _fits(pattern: str | None, *texts: str | None) -> bool:
    return pattern is None or any(text is not None and fnmatchcase(text, pattern) for text in texts)


def _time(text: str | None, unix_s: float) -> str | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return utc_text(unix_s - parse_lifetime(text))
    return utc_text((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
