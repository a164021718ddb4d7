"""`sidelink audit`: verified, shown and followed; what a stranger wrote moves no cursor."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import audit
from cli.audit_filter import AuditFilter
from cli.main import main
from node.admin_client import admin_request
from node.audit_reader import decode_line_untrusted
from node.clocks import ManualClock
from node.state_folder import StatePaths
from tests.cli.test_commands import program_in
from tests.node.audit_logs import OWN, entry, open_log, write_log


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIDELINK_STATE", str(tmp_path))


def logged(tmp_path: Path, *changes: dict[str, Any]) -> Path:
    path = StatePaths(tmp_path / "sidecar").audit
    path.parent.mkdir(mode=0o700, exist_ok=True)
    log = open_log(path)
    for change in changes:
        log.record(entry(**change))
    log.close()
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["audit", *arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_a_log_that_nobody_touched_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logged(tmp_path, {}, {})

    code, out, talk = said(capsys, "verify", "--signer", str(OWN.identifier))

    assert (code, out) == (0, "")
    assert talk == (
        f"sidelink: 4 lines, 0 problems; signed by {OWN.identifier} up to line 4, "
        "0 behind it are chained only\n"
    )


def test_a_changed_line_is_named_and_the_exit_code_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = logged(tmp_path, {}, {})
    path.write_bytes(path.read_bytes().replace(b"planners only", b"everybody", 1))

    code, out, _ = said(capsys, "verify", str(path))
    as_json, document, _ = said(capsys, "verify", str(path), "--json")

    assert (code, as_json) == (1, 1)
    assert "was changed" in out
    (problem,) = json.loads(document)["problems"]
    assert (problem["file"], problem["line"], problem["seq"]) == ("audit.jsonl", 2, 2)


def test_a_line_that_was_noted_elsewhere_must_be_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = logged(tmp_path, {}, {})
    _, document, _ = said(capsys, "verify", "--json")
    noted = "{last_seq}:{last_sha256}".format(**json.loads(document))
    whole, _, _ = said(capsys, "verify", "--expect", noted)

    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))

    code, out, _ = said(capsys, "verify", "--expect", noted)
    assert (whole, code) == (0, 1)
    assert "line 4 is known to have been written, and is gone" in out


def test_the_running_program_remembers_what_it_wrote_and_who_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = logged(tmp_path, {}, {})
    head = {"seq": 9, "sha256": "0" * 64}
    with program_in(tmp_path, "sidecar", {"identifier": str(OWN.identifier), "audit_head": head}):
        asked = admin_request(StatePaths(tmp_path / "sidecar").admin_socket, "GET", "/v1/status")
        code, out, _ = said(capsys, "verify")
        of_a_copy, _, _ = said(capsys, "verify", str(path))

    assert asked["audit_head"] == head
    assert (code, of_a_copy) == (1, 0)
    assert "line 9 is known to have been written, and is gone" in out


@pytest.mark.parametrize("expect", ["5", "x:" + "0" * 64, "5:00", "-1:" + "0" * 64])
def test_what_names_no_line_is_refused(expect: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, talk = said(capsys, "verify", "--expect", expect)

    assert code == 2
    assert "SEQ:SHA256" in talk


def test_a_log_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, talk = said(capsys, "verify")

    assert code == 2
    assert "audit.jsonl: there is no such file. Name the file" in talk


LINES = (
    {"decision_id": "a", "action": "mcp.call", "service": "weather", "effect": "allow"},
    {"decision_id": "b", "rule": "interns are not served"},
    {"decision_id": "c", "subject": "agent://globex/x", "code": "policy.no_rule", "rule": None},
)
FILTERS: dict[tuple[str, ...], list[str]] = {
    (): ["a", "b", "c"],
    ("--action", "mcp.*"): ["a"],
    ("--effect", "deny"): ["b", "c"],
    ("--rule", "interns*"): ["b"],
    ("--agent", "agent://globex/*"): ["c"],
    ("--agent", "sl1a"): ["a", "b", "c"],
    ("--code", "policy.no_rule"): ["c"],
    ("--id", "b"): ["b"],
    ("--effect", "deny", "--last", "1"): ["c"],
    ("--since", "2027-01-15T08:00:00Z"): ["a", "b", "c"],
    ("--since", "2027-01-15T08:00:00.001"): [],
    ("--until", "2027-01-15T09:00:00+01:00"): [],
    ("--until", "2027-01-15T10:00:00+01:00"): ["a", "b", "c"],
}


@pytest.mark.parametrize("options", FILTERS, ids=" ".join)
def test_lines_that_fit_are_shown(
    options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logged(tmp_path, *LINES)

    _, document, _ = said(capsys, "show", "--json", *options)

    shown = [line["decision_id"] for line in json.loads(document)["lines"] if "code" in line]
    assert shown == FILTERS[options]


def test_a_span_of_time_counts_back_from_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.clocks.SystemClock", lambda: ManualClock(unix=1_800_000_090.0))
    logged(tmp_path, {})

    _, near, _ = said(capsys, "show", "--since", "2m", "--json")
    _, past, _ = said(capsys, "show", "--since", "1m", "--json")
    code, _, talk = said(capsys, "show", "--since", "soon")

    assert (len(json.loads(near)["lines"]), len(json.loads(past)["lines"])) == (3, 0)
    assert code == 2
    assert "'soon' is not a time like 90s" in talk


def test_what_is_no_line_is_counted_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = logged(tmp_path, {})
    path.write_bytes(path.read_bytes() + b"\x00\xff\n" + b"x" * 100_000 + b"\n")

    code, out, talk = said(capsys, "show")

    assert code == 0
    assert len(out.splitlines()) == 4
    assert talk.startswith("sidelink: 2 lines are none of an audit log")


COMMANDS_OF_A_TERMINAL = "a\x1b[2J\x9b1mb\rc\u202ed"


@pytest.mark.parametrize("options", [("show",), ("show", "--json")])
def test_no_line_gives_a_terminal_commands(
    options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logged(tmp_path, {"subject": COMMANDS_OF_A_TERMINAL, "reason": COMMANDS_OF_A_TERMINAL})

    _, out, _ = said(capsys, *options)

    assert out.replace("\n", "").isprintable()


def test_lines_are_followed_as_they_come(tmp_path: Path) -> None:
    path = logged(tmp_path, *LINES, {"subject": COMMANDS_OF_A_TERMINAL})
    raw = path.read_bytes().splitlines()

    def follow(*, as_json: bool) -> Iterator[str]:
        looks = iter([raw[:3], [b"\0"], raw[3:]])

        def look() -> list[bytes]:
            try:
                return next(looks)
            except StopIteration:
                raise KeyboardInterrupt from None

        wanted = AuditFilter(effect="deny")
        return audit._follow(look, wanted.takes, as_json=as_json)

    texts: list[str] = []
    objects: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        texts.extend(follow(as_json=False))
    with pytest.raises(KeyboardInterrupt):
        objects.extend(follow(as_json=True))

    assert [json.loads(one)["decision_id"] for one in objects] == ["b", "c", "d1"]
    assert len(texts) == 3
    assert all(text.isprintable() for text in [*texts, *objects])


def test_follow_is_a_command_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_log(tmp_path / "audit.jsonl", 1)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(audit.time, "sleep", interrupted)

    code, out, _ = said(capsys, "follow", str(tmp_path / "audit.jsonl"))

    assert (code, out) == (130, "")


def test_a_filter_finds_a_rule_in_audit_mode() -> None:
    line = decode_line_untrusted(
        b'{"seq":1,"prev":"","time":"","action":"a","effect":"allow",'
        b'"audited":[{"rule":"candidate","effect":"deny"}]}'
    )

    assert line is not None
    assert AuditFilter(rule="candidate").takes(line)
