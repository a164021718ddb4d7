"""Verification of an audit log: whoever touched it is found, and where; what is whole passes."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from identity import Purpose, SigningKey, new_identity
from node.audit import AuditLog, rotated_path
from node.audit_chain import CHECKPOINT_LINES, LINE_BYTES_MAX, Chain
from node.audit_reader import Follower, fields_of, read_log
from node.audit_verify import FINDINGS_MAX, Report, Verifier
from node.clocks import ManualClock
from node.errors import ConfigError
from tests.node.audit_logs import NOW, OWN, entry, open_log, write_log

COUNT = 12
"""Decisions in the log that is touched: lines 2 to 13, between its beginning and its end."""


def verify(path: Path, **expected: Any) -> Report:
    verifier = Verifier(**expected)
    for raw in read_log(path):
        verifier.take(raw)
    return verifier.finish()


def problems_of(path: Path, **expected: Any) -> list[tuple[int, str]]:
    return [(found.line, found.text) for found in verify(path, **expected).problems]


def test_a_log_that_nobody_touched_passes_across_files_starts_and_keys(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    own = [OWN]
    for _ in range(2):
        log = AuditLog(path, ManualClock(), lambda: own[0], file_bytes=20_000)
        for number in range(40):
            log.record(entry(decision_id=str(number)))
        own[0] = own[0].with_next_key(SigningKey.generate(), unix_s=NOW, overlap_s=3_600)
        log._checkpoint("lines")
        own[0] = own[0].using_next_key(unix_s=NOW)
        log.close()

    report = verify(path, signer=OWN.identifier)

    assert report.problems == []
    assert rotated_path(path, 1).exists()
    assert report.signed_seq == report.last_seq == report.lines
    assert report.signer == str(OWN.identifier)
    assert report.unsigned_lines == 0


Touch = Callable[[list[bytes]], list[bytes]]


def _swap(lines: list[bytes]) -> list[bytes]:
    return [*lines[:5], lines[6], lines[5], *lines[7:]]


def _rechained(lines: list[bytes], own: Any = None) -> list[bytes]:
    """All lines again, as somebody makes them who can compute hashes and has no key of the node."""
    chain = Chain()
    made = []
    for line in lines:
        read = json.loads(line)
        body = {key: value for key, value in read.items() if key not in ("seq", "prev", "time")}
        if own is not None and read["action"] == "log.checkpoint":
            made.append(chain.checkpoint(own, NOW, why="stopped").rstrip())
        else:
            encoded = json.dumps(body, separators=(",", ":")).encode()
            made.append(chain.link(encoded, NOW).rstrip())
    return made


def _without_rule(line: bytes) -> bytes:
    return line.replace(b"planners only", b"anybody at all")


OTHER = new_identity("other", unix_s=NOW - 1_000, purposes=(Purpose.HOP,))

TOUCHES: dict[str, tuple[Touch, int, str]] = {
    "a line is changed": (
        lambda lines: [*lines[:5], _without_rule(lines[5]), *lines[6:]],
        6,
        "was changed",
    ),
    "one byte of space is added": (
        lambda lines: [*lines[:5], lines[5] + b" ", *lines[6:]],
        6,
        "was changed",
    ),
    "a line is removed": (lambda lines: [*lines[:5], *lines[6:]], 6, "1 missing before it"),
    "three lines are removed": (lambda lines: [*lines[:5], *lines[8:]], 6, "from 6 to 8"),
    "two lines are swapped": (_swap, 6, "missing before it"),
    "a line is put in": (
        lambda lines: [*lines[:5], lines[5].replace(b'"d4"', b'"d9"'), *lines[5:]],
        6,
        "was put in between two lines that belong together",
    ),
    "a line with a number far beyond is put in": (
        lambda lines: [*lines[:5], lines[5].replace(b'"seq":6', b'"seq":999'), *lines[5:]],
        6,
        "was put in between two lines that belong together",
    ),
    "a line comes twice": (lambda lines: [*lines[:6], *lines[5:]], 6, "was put in between"),
    "a line of no log is put in": (
        lambda lines: [*lines[:5], b'{"action": "hop.admit"}', *lines[5:]],
        6,
        "is no line of this log",
    ),
    "a line is emptied": (lambda lines: [*lines[:5], b"", *lines[6:]], 6, "is no line"),
    "the line before the checkpoint is changed": (
        lambda lines: [*lines[:-2], _without_rule(lines[-2]), lines[-1]],
        COUNT + 2,
        "are not those that were signed here",
    ),
    "everything is chained again, without the key": (
        lambda lines: _rechained([_without_rule(line) for line in lines]),
        COUNT + 2,
        "the signature of this checkpoint does not hold",
    ),
    "everything is chained again and signed by another key": (
        lambda lines: _rechained([_without_rule(line) for line in lines], OTHER),
        COUNT + 2,
        "a checkpoint of somebody whose keys stand nowhere above",
    ),
    "the checkpoint says more": (
        lambda lines: [*lines[:-1], lines[-1].replace(b'"rule":null', b'"rule":"x"')],
        COUNT + 2,
        "says more than was signed",
    ),
    "the checkpoint says when": (
        lambda lines: [*lines[:-1], lines[-1].replace(b"08:00", b"09:00")],
        COUNT + 2,
        "does not hold",
    ),
    "the first line is removed": (
        lambda lines: lines[1:],
        COUNT + 1,
        "a checkpoint of somebody whose keys stand nowhere above",
    ),
    "a chain of its own is put behind": (
        lambda lines: [*lines, *lines],
        COUNT + 3,
        "a chain begins anew",
    ),
    "the keys are another's": (
        lambda lines: [
            lines[0].replace(
                OWN.history.encode().hex().encode(), OTHER.history.encode().hex().encode()
            ),
            *lines[1:],
        ],
        1,
        "is not signed by",
    ),
    "the keys are none": (
        lambda lines: [
            lines[0].replace(OWN.history.encode().hex().encode(), b"00"),
            *lines[1:],
        ],
        1,
        "holds no history",
    ),
    "a number is beyond all numbers": (
        lambda lines: [*lines[:5], lines[5].replace(b'"seq":6', b'"seq":%d' % 10**30), *lines[6:]],
        6,
        "is no line of this log",
    ),
}


@pytest.mark.parametrize("what", TOUCHES)
def test_whoever_touches_the_log_is_found_with_the_line(tmp_path: Path, what: str) -> None:
    touch, line, text = TOUCHES[what]
    path = tmp_path / "audit.jsonl"
    write_log(path, COUNT)
    lines = path.read_bytes().splitlines()

    path.write_bytes(b"".join(one + b"\n" for one in touch(lines)))

    found = problems_of(path)
    assert any(at == line and text in why for at, why in found), found


def test_a_single_change_is_a_single_problem(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write_log(path, COUNT)
    lines = path.read_bytes().splitlines()
    lines[5] = _without_rule(lines[5])

    path.write_bytes(b"".join(one + b"\n" for one in lines))

    assert len(verify(path).problems) == 1


@pytest.mark.parametrize("cut", range(1, COUNT + 2))
def test_an_end_cut_off_before_its_checkpoint_is_only_said_to_be_unsigned(
    tmp_path: Path, cut: int
) -> None:
    """What is not proved: nothing in the file tells that there was more."""
    path = tmp_path / "audit.jsonl"
    write_log(path, COUNT)
    lines = path.read_bytes().splitlines(keepends=True)

    path.write_bytes(b"".join(lines[:-cut]))

    report = verify(path)
    assert report.problems == []
    assert report.unsigned_lines == report.lines == COUNT + 2 - cut


def test_an_end_cut_off_is_found_by_whoever_remembers_a_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = open_log(path)
    for _ in range(COUNT):
        log.record(entry())
    seq, line_hash = log.head
    lines = path.read_bytes().splitlines(keepends=True)
    whole = verify(path, known={seq: line_hash}).problems
    other = verify(path, known={seq: "0" * 64}).problems

    path.write_bytes(b"".join(lines[:-3]))

    (found,) = verify(path, known={seq: line_hash}).problems
    assert whole == []
    assert [one.text for one in other] == [f"is not the line {seq} that is known to be written"]
    assert found.text == f"line {seq} is known to have been written, and is gone"
    log.close()


def test_the_log_of_another_node_is_found_by_whoever_knows_the_signer(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = open_log(path, own=OTHER)
    log.close()

    found = problems_of(path, signer=OWN.identifier)

    assert [line for line, _ in found] == [1]
    assert f"is not signed by {OWN.identifier}" in found[0][1]


def test_the_node_that_signs_does_not_change_within_a_log(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write_log(path, 1)
    open_log(path, own=OTHER).close()

    ((line, text),) = problems_of(path)

    assert line == 4
    assert "another node signs from here on" in text


def test_checkpoints_that_were_taken_out_are_missed(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write_log(path, CHECKPOINT_LINES + 100)
    lines = [line for line in path.read_bytes().splitlines() if b"log.checkpoint" not in line]

    path.write_bytes(b"".join(line + b"\n" for line in _rechained(lines)))

    ((_, text),) = problems_of(path)
    assert text.startswith("no checkpoint among the")


def test_crashes_are_notes_and_no_problems(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write_log(path, 2)
    path.write_bytes(path.read_bytes().rpartition(b"\n")[0].rpartition(b"\n")[0] + b'\n{"seq"')
    write_log(path, 2)
    # All of the last line was written, but its newline.
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    write_log(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"seq":99,')

    report = verify(path)

    assert report.problems == []
    assert [found.text.partition(":")[0] for found in report.notes] == [
        "half a line that a crash left; the next line names it",
        "the program began again without having stopped",
        "a crash left this line without its end; the next names it",
        "10 bytes without an end",
    ]


def test_a_log_that_was_rotated_away_says_where_it_begins(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write_log(path, 200, file_bytes=4_000)

    report = verify(path)

    assert report.problems == []
    assert report.first_seq is not None
    assert report.first_seq > 1
    assert report.notes[0].text.startswith("the log begins here: lines 1 to")


def test_a_rotated_file_that_was_taken_out_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write_log(path, 60, file_bytes=8_000)
    rotated_path(path, 2).unlink()

    found = problems_of(path)

    assert any("missing before it" in text for _, text in found)


HOSTILE = {
    "NUL": b"\0" * 1_000 + b"\n",
    "bytes that are no UTF-8": b'{"seq":3,"prev":"\xff","time":"","action":"a","effect":"b"}\n',
    "brackets": b"[" * 60_000 + b"\n",
    "a line of eight megabytes": b"x" * (8 << 20) + b"\n",
    "eight megabytes without an end": b"y" * (8 << 20),
    "nothing but newlines": b"\n" * 5_000,
    "a terminal's commands": b'{"seq":3,"prev":"\x1b[2J"}\n',
    "numbers for texts": b'{"seq":3,"prev":0,"time":1,"action":2,"effect":3}\n',
    "a prev that is no hash": b'{"seq":15,"prev":"zz","time":"x","action":"log.checkpoint",'
    b'"effect":"log"}\n',
    "a checkpoint out of time": b'{"seq":15,"prev":"00","time":"9999","action":"log.checkpoint",'
    b'"effect":"log","identifier":"%s","change":-5,"signature":"00"}\n'
    % str(OWN.identifier).encode(),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_bytes_end_in_findings_of_bounded_size(tmp_path: Path, what: str) -> None:
    path = tmp_path / "audit.jsonl"
    write_log(path, COUNT)
    path.write_bytes(path.read_bytes() + HOSTILE[what])

    report = verify(path)

    findings = report.problems + report.notes
    assert findings
    assert len(findings) <= FINDINGS_MAX + 1
    assert max(len(raw.data) for raw in read_log(path)) <= LINE_BYTES_MAX + 2


ODD = {
    "a key that is no UTF-8": (b'"\xe1":1', None),
    "a value that is no UTF-8": (b'"x":"\xe1"', None),
    "a number beyond all numbers": (b'"x":1e999', {"seq": 1}),
    "a key of tomorrow": (b'"x":[1]', {"seq": 1, "x": [1]}),
}


@pytest.mark.parametrize("what", ODD)
def test_what_stands_beside_our_keys_spoils_nothing(what: str) -> None:
    beside, expected = ODD[what]
    data = b'{"seq":1,"prev":"","time":"","action":"a","effect":"b",%s}' % beside

    found = fields_of(data)

    assert (found is None) == (expected is None)
    assert {key: (found or {}).get(key) for key in expected or {}} == (expected or {})


def test_what_is_no_file_is_refused_with_a_way_out(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.jsonl", tmp_path):
        with pytest.raises(ConfigError) as refused:
            list(read_log(path))

        assert "--program" in str(refused.value.remedy)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "audit.jsonl")

    assert list(read_log(tmp_path / "audit.jsonl")) == []


def test_a_log_that_grows_is_followed_across_rotations(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = open_log(path, file_bytes=10_000)
    log.record(entry(decision_id="before"))
    follower = Follower(path)
    seen: list[Any] = []

    for number in range(60):
        log.record(entry(decision_id=str(number)))
        seen += [json.loads(line) for line in follower.look()]
    log.close()
    seen += [json.loads(line) for line in follower.look()]
    follower.close()

    decided = [line["decision_id"] for line in seen if line["effect"] != "log"]
    assert rotated_path(path, 1).exists()
    assert decided == [str(number) for number in range(60)]


def test_half_a_line_waits_for_its_rest(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"")
    follower = Follower(path)
    with path.open("ab") as file:
        file.write(b'{"se')
        file.flush()
        half = follower.look()
        file.write(b'q":1}\n')
        file.flush()
        whole = follower.look()
    follower.close()

    assert (half, whole) == ([], [b'{"seq":1}'])
