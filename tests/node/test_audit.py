"""The audit log: one line per decision, chained, bounded, honest when the disk takes nothing."""

import asyncio
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import SigningKey
from node import audit
from node.audit import BUFFER_BYTES_MAX, FLUSH_DELAY_S, AuditLog
from node.audit_chain import CHECKPOINT_LINES, FIRST_HASH, LINE_BYTES_MAX
from node.audit_entry import (
    ENTRY_BYTES_MAX,
    TEXT_CHARACTERS_MAX,
    encode_entry,
    entry_of,
    record_of,
    request_of,
)
from node.audit_reader import decode_line_untrusted
from node.clocks import ManualClock
from policy import Action, Request
from tests.node.audit_logs import NOW, OWN, all_lines, decisions_of, entry, open_log, write_log
from tests.policy.helpers import (
    BILLING,
    PLANNER,
    agent,
    ask,
    call,
    denied,
    permitted,
    policy_of,
    unproved,
)


def test_a_decision_is_one_line_with_what_was_decided_and_why(tmp_path: Path) -> None:
    log = open_log(tmp_path / "audit.jsonl")

    log.record(entry())
    log.close()

    opened, line, _ = all_lines(tmp_path / "audit.jsonl")
    raw = (tmp_path / "audit.jsonl").read_bytes().splitlines()
    assert line == {
        "seq": 2,
        "prev": hashlib.sha256(raw[0]).hexdigest(),
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
        "code": "policy.denied",
        "audited": [],
        "request": None,
    }
    assert opened["prev"] == FIRST_HASH


def test_each_line_names_the_hash_of_the_line_before_it_across_files_and_starts(
    tmp_path: Path,
) -> None:
    path = tmp_path / "audit.jsonl"

    for _ in range(3):
        write_log(path, 8, file_bytes=2_000, files_kept=20)

    files = [path, *(audit.rotated_path(path, number) for number in range(1, 21))]
    raw = [
        line for file in reversed(files) if file.exists() for line in file.read_bytes().splitlines()
    ]
    named = [json.loads(line)["prev"] for line in raw]
    hashes = [hashlib.sha256(line).hexdigest() for line in raw]
    assert named == [FIRST_HASH, *hashes[:-1]]
    assert [json.loads(line)["seq"] for line in raw] == list(range(1, len(raw) + 1))
    assert audit.rotated_path(path, 3).exists()


@given(st.text(alphabet=st.characters(codec=None), max_size=600))
def test_no_text_can_forge_a_second_line(tmp_path_factory: Any, text: str) -> None:
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    log = open_log(path)

    log.record(entry(reason=text, subject=text))
    log.close()

    _, line, _ = path.read_bytes().split(b"\n")[:-1]
    assert len(json.loads(line)["reason"]) <= TEXT_CHARACTERS_MAX


def test_the_file_is_closed_to_others(tmp_path: Path) -> None:
    open_log(tmp_path / "audit.jsonl").close()

    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600


async def test_lines_are_written_together_and_soon(tmp_path: Path) -> None:
    log = open_log(tmp_path / "audit.jsonl")

    log.record(entry())
    log.record(entry())
    at_once = all_lines(tmp_path / "audit.jsonl")
    async with asyncio.timeout(FLUSH_DELAY_S * 20):
        await asyncio.sleep(FLUSH_DELAY_S * 2)

    assert at_once == []
    assert len(decisions_of(tmp_path / "audit.jsonl")) == 2
    log.close()


def test_half_a_line_left_by_a_crash_is_named_and_the_chain_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write_log(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"seq": 5, "pr')

    write_log(path, 1)

    lines = path.read_bytes().splitlines()
    opened = json.loads(lines[5])
    assert lines[4] == b'{"seq": 5, "pr'
    assert opened["torn"] == {"bytes": 14, "sha256": hashlib.sha256(lines[4]).hexdigest()}
    assert opened["seq"] == 5
    assert opened["prev"] == hashlib.sha256(lines[3]).hexdigest()


TAILS = {
    "a line of another log": (b'{"time": "2026"}\n', 1),
    "a line that is no JSON": (b"\0\0\0\n", 1),
    "a line longer than any of ours": (b'{"seq": 9, "x": "%s"}\n' % (b"x" * LINE_BYTES_MAX), 1),
    "zeros without a newline": (b"\0" * 4_096, 5),
    "more zeros than are looked at": (b"\0" * (audit.TAIL_BYTES + 1), 1),
    "a number that is no number": (b'{"seq": true}\n', 1),
    "brackets without end": (b"[" * 60_000 + b"\n", 1),
}


@pytest.mark.parametrize("tail", TAILS)
def test_whatever_stands_at_the_end_the_log_goes_on_behind_it(tmp_path: Path, tail: str) -> None:
    path = tmp_path / "audit.jsonl"
    write_log(path, 2)
    added, first_seq = TAILS[tail]
    path.write_bytes(path.read_bytes() + added)

    write_log(path, 1)

    lines = [json.loads(line) for line in path.read_bytes().splitlines()[-3:]]
    assert [line["action"] for line in lines] == ["log.opened", "message.ask", "log.checkpoint"]
    assert lines[0]["seq"] == first_seq


def test_a_crash_between_two_renames_costs_no_link_of_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write_log(path, 2)
    path.replace(tmp_path / "audit.jsonl.1")
    path.write_bytes(b'{"se')

    write_log(path, 1)

    opened = json.loads(path.read_bytes().splitlines()[1])
    assert opened["seq"] == 5
    assert opened["torn"]["bytes"] == 4


def test_files_are_rotated_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = open_log(path, file_bytes=4_000, files_kept=2)

    for number in range(40):
        log.record(entry(decision_id=str(number)))
        log.flush()
    log.close()

    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    # The line that filled it, and the checkpoint that ends it.
    assert all((tmp_path / name).stat().st_size <= 5_500 for name in names)
    kept = [
        int(line["decision_id"])
        for name in ("audit.jsonl.2", "audit.jsonl.1", "audit.jsonl")
        for line in decisions_of(tmp_path / name)
    ]
    assert kept == list(range(kept[0], 40))
    assert all_lines(tmp_path / "audit.jsonl.1")[-1]["why"] == "rotated"


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
    assert len(decisions_of(path)) == 2


def test_lines_beyond_what_memory_may_hold_are_counted_where_they_are_missing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "audit.jsonl"
    log = open_log(path)
    log._buffered_bytes = BUFFER_BYTES_MAX

    log.record(entry())
    log.record(entry())
    log._buffered_bytes = 0
    log.record(entry())
    log.close()

    assert log.dropped == 2
    _, lost, line, _ = all_lines(path)
    assert (lost["action"], lost["count"]) == ("log.lost", 2)
    assert line["seq"] == 3


def test_a_checkpoint_comes_with_enough_lines(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = open_log(path)

    for _ in range(2 * CHECKPOINT_LINES):
        log.record(entry())
    log.flush()

    signed = [line["seq"] for line in all_lines(path) if line["action"] == "log.checkpoint"]
    assert signed == [CHECKPOINT_LINES + 1, 2 * CHECKPOINT_LINES + 2]
    log.close()


async def test_a_checkpoint_comes_with_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "CHECKPOINT_DELAY_S", 0)
    path = tmp_path / "audit.jsonl"
    log = open_log(path)
    log.record(entry())

    await asyncio.sleep(0.01)

    assert [line.get("why") for line in all_lines(path)] == ["started", None, "time"]
    log.close()


def test_the_history_stands_in_the_log_before_another_key_signs(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    own = [OWN]
    log = AuditLog(path, ManualClock(), lambda: own[0])
    own[0] = OWN.with_next_key(SigningKey.generate(), unix_s=NOW, overlap_s=3_600)
    log._checkpoint("lines")
    own[0] = own[0].using_next_key(unix_s=NOW)

    log.close()

    lines = [(line["action"], line["why"], line.get("change")) for line in all_lines(path)]
    assert lines == [
        ("log.opened", "started", None),
        ("log.opened", "key", None),
        ("log.checkpoint", "lines", 0),
        ("log.checkpoint", "stopped", 1),
    ]


REQUESTS = {
    "an ask": ask(),
    "to somebody who is only named": Request(Action.CHANNEL_OPEN, PLANNER, unproved()),
    "by a child": ask(agent("agent://acme/finance/planner/one", ancestors=(PLANNER,))),
    "with attributes of every type": ask(
        agent("agent://acme/a", role="x", clearance=-3, human=True, teams=("a", "b"))
    ),
    "a call without arguments": call(args={}),
    "a read": Request(Action.MCP_READ, PLANNER, BILLING, service="weather"),
}


@pytest.mark.parametrize("what", REQUESTS)
def test_a_line_holds_what_it_takes_to_decide_again(tmp_path: Path, what: str) -> None:
    request = REQUESTS[what]
    log = open_log(tmp_path / "audit.jsonl")
    log.record(entry_of(request, denied(policy_of("effect: deny, actions: [hop.admit]"), request)))
    log.close()

    raw = (tmp_path / "audit.jsonl").read_bytes().splitlines()[1]
    line = decode_line_untrusted(raw)
    assert line is not None
    assert line.request is not None
    assert request_of(line.action, line.service, line.request) == request


def test_what_a_rule_in_audit_mode_would_have_done_stands_in_the_line(tmp_path: Path) -> None:
    engine = policy_of(
        "effect: allow, actions: [message.ask]",
        "effect: deny, mode: audit, actions: [message.ask], from: {role: planner}",
    )
    log = open_log(tmp_path / "audit.jsonl")

    log.record(entry_of(ask(), permitted(engine, ask())))
    log.close()

    (line,) = decisions_of(tmp_path / "audit.jsonl")
    assert (line["effect"], line["rule"]) == ("allow", "rule 1")
    assert line["audited"] == [{"rule": "rule 2", "effect": "deny"}]


def test_a_rule_that_names_arguments_for_the_log_has_them_there(tmp_path: Path) -> None:
    engine = policy_of("effect: allow, actions: [mcp.call], audit_args: [days]")
    request = call(args={"days": 3, "secret": "hunter2"})
    log = open_log(tmp_path / "audit.jsonl")

    log.record(entry_of(request, permitted(engine, request)))
    log.close()

    (line,) = decisions_of(tmp_path / "audit.jsonl")
    assert line["request"]["args"] == {"days": 3}
    assert b"hunter2" not in (tmp_path / "audit.jsonl").read_bytes()


def test_of_a_calls_arguments_only_those_that_a_rule_names_are_kept() -> None:
    request = call(args={"days": 3, "secret": "hunter2"})

    none = record_of(request)
    one = record_of(request, audit_args=("days", "absent"))

    assert (none.args, none.args_left_out) == (None, True)
    assert (one.args, one.args_left_out) == ({"days": 3}, True)


HOSTILE = {
    "half a character in a tool": call(tool="\ud800"),
    "an argument that no JSON carries": call(args={"x": object()}),
    "half a character in an attribute": ask(agent("agent://acme/a", role="\udfff")),
    "attributes beyond what a line holds": ask(agent("agent://acme/a", teams=("x" * 1_000,) * 100)),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_request_costs_its_record_and_never_the_line(what: str) -> None:
    decided = entry_of(
        HOSTILE[what], denied(policy_of("effect: deny, actions: [hop.admit]"), HOSTILE[what])
    )
    record = record_of(HOSTILE[what], audit_args=("x",))

    encoded = encode_entry(entry(request=record, subject=decided.subject))

    assert len(encoded) <= ENTRY_BYTES_MAX
    assert json.loads(encoded)["request"] is None
