"""The audit log: one line per decision, bounded, and honest when the disk takes nothing."""

import asyncio
import json
import os
import stat
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from node.audit import BUFFER_BYTES_MAX, FLUSH_DELAY_S, TEXT_CHARACTERS_MAX, AuditEntry, AuditLog
from node.clocks import ManualClock


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
    }
    return AuditEntry(**(fields | changes))


def open_log(path: Path, **limits: int) -> AuditLog:
    return AuditLog(path, ManualClock(), **limits)


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_decision_is_one_line_with_what_was_decided_and_why(tmp_path: Path) -> None:
    log = open_log(tmp_path / "audit.jsonl")

    log.record(entry())
    log.close()

    assert lines_of(tmp_path / "audit.jsonl") == [
        {
            "time": "2027-01-15T08:00:00.000Z",
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
        }
    ]


@given(st.text(max_size=600))
def test_no_text_can_forge_a_second_line(tmp_path_factory: Any, text: str) -> None:
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    log = open_log(path)

    log.record(entry(reason=text, subject=text))
    log.close()

    (line,) = path.read_bytes().split(b"\n")[:-1]
    assert len(json.loads(line)["reason"]) <= TEXT_CHARACTERS_MAX


def test_the_file_is_closed_to_others(tmp_path: Path) -> None:
    open_log(tmp_path / "audit.jsonl").close()

    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600


async def test_lines_are_written_together_and_soon(tmp_path: Path) -> None:
    log = open_log(tmp_path / "audit.jsonl")

    log.record(entry())
    log.record(entry())
    at_once = lines_of(tmp_path / "audit.jsonl")
    async with asyncio.timeout(FLUSH_DELAY_S * 20):
        await asyncio.sleep(FLUSH_DELAY_S * 2)

    assert at_once == []
    assert len(lines_of(tmp_path / "audit.jsonl")) == 2
    log.close()


def test_a_restart_appends(tmp_path: Path) -> None:
    for _ in range(2):
        log = open_log(tmp_path / "audit.jsonl")
        log.record(entry())
        log.close()

    assert len(lines_of(tmp_path / "audit.jsonl")) == 2


def test_half_a_line_left_by_a_crash_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'{"time": "20')
    path.chmod(0o600)
    log = open_log(path)

    log.record(entry())
    log.close()

    half, whole = path.read_bytes().splitlines()
    assert half == b'{"time": "20'
    assert json.loads(whole)["decision_id"] == "d1"


def test_files_are_rotated_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = open_log(path, file_bytes=1_000, files_kept=2)

    for number in range(40):
        log.record(entry(decision_id=str(number)))
        log.flush()
    log.close()

    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    assert all((tmp_path / name).stat().st_size <= 1_000 for name in names)
    kept = [
        int(line["decision_id"])
        for name in ("audit.jsonl.2", "audit.jsonl.1", "audit.jsonl")
        for line in lines_of(tmp_path / name)
    ]
    assert kept == list(range(kept[0], 40))


def test_a_full_disk_is_a_fault_that_is_told_and_heals(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = open_log(path)
    good = log._descriptor
    full = os.open("/dev/full", os.O_WRONLY)
    log._descriptor = full

    log.record(entry())
    fault = log.fault
    log._descriptor = good
    os.close(full)
    log.record(entry())
    log.close()

    assert fault == "audit log: No space left on device"
    assert log.fault is None
    assert len(lines_of(path)) == 2


def test_lines_beyond_what_memory_may_hold_are_dropped_and_counted(tmp_path: Path) -> None:
    log = open_log(tmp_path / "audit.jsonl")
    log._buffered_bytes = BUFFER_BYTES_MAX

    log.record(entry())

    assert log.dropped == 1
    log._buffered_bytes = 0
    log.close()
