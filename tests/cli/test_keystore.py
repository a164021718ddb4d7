"""``sidelink keystore rotate-key``: only while the program is stopped, and never half done."""

import json
import sqlite3
from pathlib import Path

import pytest

from cli.main import main
from identity import Purpose, new_identity
from node.folder_keys import open_keystore
from node.state_folder import StateFolder

WORDS = ["keystore", "rotate-key", "--program", "sidecar"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIDELINK_STATE", str(tmp_path))
    for name in ("SIDELINK_MASTER_KEY", "SIDELINK_MASTER_KEY_NEW"):
        monkeypatch.delenv(name, raising=False)
    with StateFolder.open(tmp_path / "sidecar") as state:
        keystore = open_keystore(state, {}, create_missing=True)
        keystore.save_many(
            new_identity(name, unix_s=0, purposes=(Purpose.CHANNEL,)) for name in ("a", "b")
        )
        keystore.close()
    return tmp_path / "sidecar"


def test_the_key_is_rotated_and_the_rows_are_counted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "master.key").read_text()

    assert main([*WORDS, "--json"]) == 0

    assert json.loads(capsys.readouterr().out) == {"rows": 2, "damaged": 0, "damaged_names": []}
    assert (folder / "master.key").read_text() != before


def test_while_the_program_runs_nothing_is_rotated(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "master.key").read_text()
    with StateFolder.open(folder):
        assert main(WORDS) == 2

    told = capsys.readouterr()
    assert told.err.startswith("sidelink: config.state_locked")
    assert (folder / "master.key").read_text() == before


def test_damaged_rows_are_named_and_the_rest_is_rotated(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(folder / "state.db") as connection:
        connection.execute("UPDATE keystore_rows SET sealed = x'00' WHERE name = 'b'")
    connection.close()

    assert main(WORDS) == 1

    told = capsys.readouterr()
    assert told.out.startswith("1 identities")
    assert told.err.endswith("stay as they are: b\n")


def test_a_folder_where_nothing_is_kept_is_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*WORDS, "--state", str(tmp_path / "nowhere")]) == 2

    assert capsys.readouterr().err.startswith("sidelink: config.invalid")
    assert not (tmp_path / "nowhere").exists()
