"""``sidelink identity`` and ``sidelink trust``: what is asked of a program, and what is printed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from identity import Code, SidelinkError
from tests.cli.test_commands import program_in

AUTHORITY = "sl1" + "q" * 58
IDENTITY = {
    "identifier": AUTHORITY,
    "name": "agent://acme/finance/planner",
    "kind": "agent",
    "key": "did:key:z6Mk1",
    "announced_key": None,
    "changes": [
        {"number": 0, "key": "did:key:z6Mk0", "created_unix_s": 1, "ends_unix_s": 2},
        {"number": 1, "key": "did:key:z6Mk1", "created_unix_s": 2, "ends_unix_s": 3},
    ],
}
ROTATED = {
    "identifier": AUTHORITY,
    "change_number": 2,
    "key": "did:key:z6Mk2",
    "used_from_unix_s": 1_800_000_030,
    "old_key_ends_unix_s": 1_800_086_400,
}


class Asked:
    """A route that answers always the same, and keeps what it was asked."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.bodies: list[Mapping[str, Any]] = []

    async def __call__(self, body: Mapping[str, Any]) -> object:
        self.bodies.append(body)
        return self.answer


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIDELINK_STATE", str(tmp_path))


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_a_programs_identity_is_printed_a_field_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with program_in(tmp_path, "gateway", {}, {"/v1/identity": Asked(IDENTITY)}):
        assert main(["identity", "show", "--program", "gateway"]) == 0

    lines = printed(capsys).splitlines()
    assert any(line.split()[-2:] == ["key", "did:key:z6Mk1"] for line in lines)
    assert any(AUTHORITY in line for line in lines)
    assert any("did:key:z6Mk0" in line for line in lines), "and each change in a table"


def test_an_agent_is_asked_for_at_the_sidecar_by_path_identifier_or_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Asked(IDENTITY)
    names = ["finance/planner", AUTHORITY, "did:key:z6Mk1"]
    with program_in(tmp_path, "sidecar", {}, {"/v1/agents/identity": asked}):
        for name in names:
            assert main(["identity", "show", "--agent", name, "--json"]) == 0

    whole = printed(capsys)
    assert asked.bodies == [{"agent": name} for name in names]
    assert json.loads(whole[: whole.index("\n}\n") + 3]) == IDENTITY


def test_a_rotation_is_asked_for_with_what_was_said_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node, agent = Asked(ROTATED), Asked(ROTATED)
    routes = {"/v1/identity/rotate": node, "/v1/agents/rotate": agent}
    with program_in(tmp_path, "sidecar", {}, routes):
        assert main(["identity", "rotate"]) == 0
        assert main(["identity", "rotate", "--announce", "0s", "--overlap", "2h"]) == 0
        assert main(["identity", "rotate", "--agent", "finance/planner", "--json"]) == 0

    assert node.bodies == [{}, {"announce_s": 0, "overlap_s": 7_200}]
    assert agent.bodies == [{"agent": "finance/planner"}]
    assert "did:key:z6Mk2" in printed(capsys)


def test_what_the_program_refuses_is_said_with_its_code_and_exits_with_1_or_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refuse(_: Mapping[str, Any]) -> object:
        raise SidelinkError(Code.LOCAL_BAD_REQUEST, "a rotation is under way already")

    with program_in(tmp_path, "sidecar", {}, {"/v1/identity/rotate": refuse}):
        code = main(["identity", "rotate"])

    told = capsys.readouterr()
    assert code != 0
    assert told.out == ""
    assert "local.bad_request" in told.err
    assert "a rotation is under way already" in told.err


@pytest.mark.parametrize("time", ["soon", "-1s", "5 parsecs", ""])
def test_a_time_that_is_none_asks_nobody(
    time: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Asked(ROTATED)
    with program_in(tmp_path, "sidecar", {}, {"/v1/identity/rotate": asked}):
        code = main(["identity", "rotate", f"--overlap={time}"])

    assert code != 0
    assert asked.bodies == []
    assert capsys.readouterr().err


def test_an_authority_is_trusted_and_removed_at_the_program_that_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    added = Asked({"authority": AUTHORITY, "trust_domain": "globex"})
    removed = Asked({"removed": AUTHORITY})
    routes = {"/v1/trust": added, "/v1/trust/remove": removed}
    with program_in(tmp_path, "gateway", {}, routes):
        assert main(["trust", "add", AUTHORITY, "globex", "--program", "gateway"]) == 0
        assert main(["trust", "remove", AUTHORITY, "--program", "gateway"]) == 0

    assert added.bodies == [{"authority": AUTHORITY, "trust_domain": "globex"}]
    assert removed.bodies == [{"authority": AUTHORITY}]
    assert printed(capsys).count(AUTHORITY) == 2


def test_who_is_trusted_is_a_table_and_whole_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = {
        "authorities": [
            {
                "authority": AUTHORITY,
                "trust_domain": "acme",
                "own": True,
                "revocations": {"number": 1_800_000_000, "revoked": 3},
            },
            {
                "authority": AUTHORITY,
                "trust_domain": "globex",
                "own": False,
                "revocations": None,
            },
        ]
    }
    with program_in(tmp_path, "sidecar", {}, {"/v1/trust": Asked(answer)}):
        assert main(["trust", "list"]) == 0
        table = printed(capsys)
        assert main(["trust", "list", "--json"]) == 0

    headings, acme, globex = table.splitlines()
    assert headings.split() == ["TRUST", "DOMAIN", "AUTHORITY", "OWN", "LIST", "REVOKED"]
    assert acme.split() == ["acme", AUTHORITY, "yes", "1800000000", "3"]
    assert globex.split()[:3] == ["globex", AUTHORITY, "no"]
    assert json.loads(printed(capsys)) == answer


def test_an_authority_program_trusts_nobody_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trust", "list", "--program", "authority"]) != 0
    assert "authority" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["identity", "show"], ["identity", "rotate"], ["trust", "list"], ["trust", "remove", "x"]],
)
def test_without_a_program_the_command_says_what_to_start(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) != 0
    assert "local.unavailable" in capsys.readouterr().err
