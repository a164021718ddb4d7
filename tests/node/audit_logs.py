"""An audit log in a folder of its own, and what is in its files, for tests."""

import json
from pathlib import Path
from typing import Any

from identity import OwnIdentity, Purpose, new_identity
from node.audit import AuditLog
from node.audit_entry import AuditEntry
from node.clocks import ManualClock

NOW = 1_800_000_000.0
OWN = new_identity("node", unix_s=NOW - 1_000, purposes=(Purpose.HOP,))


def entry(**changes: Any) -> AuditEntry:
    fields: dict[str, Any] = {
        "decision_id": "d1",
        "action": "message.ask",
        "effect": "deny",
        "rule": "planners only",
        "policy_version": "v1",
        "subject": "agent://acme/a",
        "subject_identifier": "sl1a",
        "object": "agent://acme/b",
        "service": None,
        "reason": "a deny rule matched",
        "code": "policy.denied",
    }
    return AuditEntry(**(fields | changes))


def open_log(path: Path, own: OwnIdentity = OWN, **limits: int) -> AuditLog:
    return AuditLog(path, ManualClock(), lambda: own, **limits)


def all_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def decisions_of(path: Path) -> list[Any]:
    """Without the log's own lines."""
    return [line for line in all_lines(path) if line["effect"] != "log"]


def write_log(path: Path, count: int, **limits: int) -> None:
    """A log of so many decisions, from its beginning to a graceful stop."""
    log = open_log(path, **limits)
    for number in range(count):
        log.record(entry(decision_id=f"d{number}"))
    log.close()
