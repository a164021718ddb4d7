"""``sidelink backup`` and ``sidelink restore``, as a person types them."""

import io
import sys
from pathlib import Path

import pytest

from cli.main import main
from identity import Purpose, new_identity
from node.folder_keys import open_keystore
from node.state_folder import StateFolder

PASSPHRASE = "correct horse battery staple\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIDELINK_STATE", str(tmp_path))
    monkeypatch.delenv("SIDELINK_MASTER_KEY", raising=False)
    (tmp_path / "passphrase").write_text(PASSPHRASE)
    with StateFolder.open(tmp_path / "sidecar") as state:
        keystore = open_keystore(state, {}, create_missing=True)
        keystore.save(new_identity("a", unix_s=0, purposes=(Purpose.CHANNEL,)))
        keystore.close()
    return tmp_path


def words(command: str, folder: Path, *more: str) -> list[str]:
    """The later of two values of an option counts."""
    passphrase = ("--passphrase-file", str(folder / "passphrase"))
    return [command, str(folder / "file"), "--program", "sidecar", *passphrase, *more]


def test_a_program_that_runs_is_backed_up_and_restored_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with StateFolder.open(folder / "sidecar"):
        assert main(words("backup", folder)) == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(PASSPHRASE.encode())))
    new = str(folder / "new")

    assert main(words("restore", folder, "--state", new, "--passphrase-file", "-")) == 0

    with StateFolder.open(folder / "new" / "sidecar") as restored:
        keystore = open_keystore(restored, {})
        assert keystore.load("a") is not None
        keystore.close()
    told = capsys.readouterr()
    assert told.out == ""
    assert "master.key, state.db" in told.err


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("another passphrase\n", "config.backup_passphrase"),
        ("\n", "config.backup_passphrase"),
        ("x" * 5_000, "config.backup_passphrase"),
    ],
    ids=["another one", "none", "one without end"],
)
def test_a_passphrase_is_refused(
    text: str, code: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(words("backup", folder))
    (folder / "passphrase").write_text(text)

    assert main(words("restore", folder, "--state", str(folder / "new"))) == 2

    assert f"sidelink: {code}" in capsys.readouterr().err
    assert not (folder / "new" / "sidecar").exists()


REFUSED: dict[str, tuple[str, tuple[str, ...], str]] = {
    "a state folder that is in use": ("restore", (), "config.invalid"),
    "no backup": ("restore", ("--state", "FOLDER/new"), "config.backup_invalid"),
    "a place that no folder can be": (
        "restore",
        ("--state", "FOLDER/passphrase"),
        "config.invalid",
    ),
    "nothing to back up": ("backup", ("--state", "FOLDER/new"), "config.invalid"),
    "a passphrase that cannot be read": (
        "backup",
        ("--passphrase-file", "FOLDER/none"),
        "config.backup_passphrase",
    ),
}


@pytest.mark.parametrize(("command", "more", "code"), REFUSED.values(), ids=REFUSED)
def test_a_command_is_refused_for(
    command: str,
    more: tuple[str, ...],
    code: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "file").write_bytes(b"no backup")
    if command == "backup":
        (folder / "file").unlink()

    assert (
        main(words(command, folder, *(word.replace("FOLDER", str(folder)) for word in more))) == 2
    )

    told = capsys.readouterr()
    assert told.err.startswith(f"sidelink: {code}")
    assert len(told.err.splitlines()) == 1
