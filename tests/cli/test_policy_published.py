"""`sidelink policy published`: the texts of a signer whom nobody has to trust with a terminal."""

import json
from typing import Any

import pytest

from cli.main import main
from node import admin_client

TEXT = "rules: []\n\t# \x1b[2J\x9b31m\u202eevil\r\nmore: \u00e9\n"


@pytest.fixture(autouse=True)
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that holds one policy."""

    def answered(*asked: Any, **_: Any) -> dict[str, Any]:
        assert asked[1:] == ("POST", "/v1/policies/show", {"number": 7})
        return {"number": 7, "files": [{"name": "a.yaml", "text": TEXT}]}

    monkeypatch.setattr(admin_client, "admin_request", answered)


def test_a_terminal_finds_nothing_to_obey(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "published", "7"]) == 0

    mark = "\N{REPLACEMENT CHARACTER}"
    assert capsys.readouterr().out == (
        f"# a.yaml\nrules: []\n\t# {mark}[2J{mark}31m{mark}evil\nmore: \u00e9\n\n"
    )


def test_a_program_gets_every_character_and_a_terminal_ascii(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["policy", "published", "7", "--json"]) == 0

    printed = capsys.readouterr().out
    assert printed.isascii()
    assert json.loads(printed)["files"][0]["text"] == TEXT
