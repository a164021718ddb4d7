"""The master key of a state folder: where it comes from, and how another takes its place."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from identity import Code, MasterKey, Purpose, SidelinkError, new_identity
from node.folder_keys import open_keystore, rotate_master_key
from node.state_folder import StateFolder
from tests.mesh.programs import REPOSITORY, WAIT_S

NOW = 1_900_000_000
POINTS_MIN = 20


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StateFolder]:
    with StateFolder.open(tmp_path / "sidecar") as state:
        yield state


def fill(folder: StateFolder, environment: Mapping[str, str]) -> None:
    keystore = open_keystore(folder, environment, create_missing=True)
    keystore.save(new_identity("a", unix_s=NOW, purposes=(Purpose.CHANNEL,)))
    keystore.close()


def opens(folder: StateFolder, environment: Mapping[str, str]) -> bool:
    try:
        keystore = open_keystore(folder, environment)
    except SidelinkError as error:
        if error.code is not Code.CONFIG_MASTER_KEY:
            raise
        return False
    found = keystore.load("a")
    keystore.close()
    return found is not None


def text(key: MasterKey) -> str:
    return base64.b64encode(key.raw).decode()


def test_a_rotation_puts_another_key_into_the_file(folder: StateFolder) -> None:
    fill(folder, {})
    before = folder.master_key.read_text()

    resealed = rotate_master_key(folder, {})

    assert (resealed.rows, resealed.damaged) == (1, 0)
    assert folder.master_key.read_text() != before
    assert not folder.next_master_key.exists()
    assert opens(folder, {})
    assert not opens(folder, {"SIDELINK_MASTER_KEY": before})


@pytest.mark.timeout(WAIT_S + 10)
def test_a_rotation_that_is_killed_at_any_write_leaves_a_folder_that_opens(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.node.crash_points", str(tmp_path)]

    said = subprocess.run(
        words, cwd=REPOSITORY, capture_output=True, check=True, text=True, timeout=WAIT_S
    )

    found = json.loads(said.stdout)
    assert found["faults"] == []
    assert found["ways"] == ["after", "before"]
    assert found["points"] >= POINTS_MIN


def test_where_the_environment_gives_the_key_it_gives_the_next_one_too(
    folder: StateFolder, tmp_path: Path
) -> None:
    first, second, third = (text(MasterKey.generate()) for _ in range(3))
    file = tmp_path / "third"
    file.write_text(third)
    file.chmod(0o600)
    fill(folder, {"SIDELINK_MASTER_KEY": first})

    rotate_master_key(folder, {"SIDELINK_MASTER_KEY": first, "SIDELINK_MASTER_KEY_NEW": second})
    rotate_master_key(
        folder, {"SIDELINK_MASTER_KEY": second, "SIDELINK_MASTER_KEY_NEW_FILE": str(file)}
    )

    assert [opens(folder, {"SIDELINK_MASTER_KEY": key}) for key in (first, second, third)] == [
        False,
        False,
        True,
    ]
    assert not folder.master_key.exists()
    assert not folder.next_master_key.exists()


ONE, OTHER = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
REFUSED: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "the environment gives no next key": (
        {"SIDELINK_MASTER_KEY": ONE},
        {"SIDELINK_MASTER_KEY": ONE},
    ),
    "the next key is the same": (
        {"SIDELINK_MASTER_KEY": ONE},
        {"SIDELINK_MASTER_KEY": ONE, "SIDELINK_MASTER_KEY_NEW": ONE},
    ),
    "the next key is none": (
        {"SIDELINK_MASTER_KEY": ONE},
        {"SIDELINK_MASTER_KEY": ONE, "SIDELINK_MASTER_KEY_NEW": "a password"},
    ),
    "the key is another one": (
        {"SIDELINK_MASTER_KEY": ONE},
        {"SIDELINK_MASTER_KEY": OTHER, "SIDELINK_MASTER_KEY_NEW": ONE},
    ),
    "a next key for a key that is in the file": ({}, {"SIDELINK_MASTER_KEY_NEW": OTHER}),
}


@pytest.mark.parametrize(("before", "now"), REFUSED.values(), ids=REFUSED)
def test_a_rotation_is_refused_and_changes_nothing_when(
    before: Mapping[str, str], now: Mapping[str, str], folder: StateFolder
) -> None:
    fill(folder, before)

    with pytest.raises(SidelinkError) as caught:
        rotate_master_key(folder, now)

    assert caught.value.code is Code.CONFIG_MASTER_KEY
    assert opens(folder, before)
    assert not folder.next_master_key.exists()


def test_a_next_key_that_opens_nothing_either_is_left_where_it_is(folder: StateFolder) -> None:
    fill(folder, {})
    for file in (folder.master_key, folder.next_master_key):
        file.write_text(text(MasterKey.generate()))
        file.chmod(0o600)

    assert not opens(folder, {})
    assert folder.next_master_key.exists()
