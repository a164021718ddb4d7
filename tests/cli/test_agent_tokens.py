"""``sidelink agent token``: the token alone on standard output, and never again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from tests.cli.test_commands import program_in

TOKEN = {
    "id": 7,
    "agents": ["finance/planner", "billing"],
    "created_unix_s": 1_800_000_000,
    "expires_unix_s": 1_800_003_600,
    "last_used_unix_s": None,
    "expired": False,
}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIDELINK_STATE", str(tmp_path))


def test_a_new_token_is_the_only_thing_on_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wishes: list[Mapping[str, Any]] = []

    async def create(body: Mapping[str, Any]) -> object:
        wishes.append(body)
        return {**TOKEN, "token": "slk1abc"}

    words = ["agent", "token", "create", "--agent", "finance/planner", "--agent", "billing"]
    with program_in(tmp_path, "sidecar", {}, {"/v1/agents/tokens": create}):
        assert main([*words, "--expires", "2h"]) == 0
        assert main(words) == 0

    told = capsys.readouterr()
    assert told.out == "slk1abc\n" * 2
    assert "token 7, for finance/planner, billing" in told.err
    assert wishes == [
        {"agents": ["finance/planner", "billing"], "expires_in_s": seconds}
        for seconds in (7200, 30 * 86_400)
    ]


def test_tokens_are_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def show(_: Mapping[str, Any]) -> object:
        return {"tokens": [TOKEN, {**TOKEN, "id": 8, "expired": True}]}

    with program_in(tmp_path, "sidecar", {}, {"/v1/agents/tokens": show}):
        assert main(["agent", "token", "list"]) == 0

    headings, first, second = capsys.readouterr().out.splitlines()
    assert headings.split("  ")[0] == "ID"
    assert first.startswith("7   finance/planner, billing  2027-01-15 08:00 UTC")
    assert first.endswith("-")
    assert "expired" in second


def test_a_token_is_revoked_by_its_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wishes: list[Mapping[str, Any]] = []

    async def revoke(body: Mapping[str, Any]) -> object:
        wishes.append(body)
        return {"revoked": 7}

    with program_in(tmp_path, "sidecar", {}, {"/v1/agents/tokens/revoke": revoke}):
        assert main(["agent", "token", "revoke", "7", "--json"]) == 0

    assert json.loads(capsys.readouterr().out) == {"revoked": 7}
    assert wishes == [{"id": 7}]


@pytest.mark.parametrize(
    "words",
    [["create"], ["create", "--agent", "a", "--expires", "1f"], ["revoke", "0"], ["revoke", "x"]],
)
def test_wrong_use_of_tokens_exits_with_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["agent", "token", *words]) == 2
    assert capsys.readouterr().out == ""
