"""The master key: made once, read strictly, never shown."""

import base64
import os
import stat
from pathlib import Path

import pytest

from identity import Code, IdentityError, MasterKey, load_master_key

KEY = MasterKey(b"\x07" * 32)
TEXT = base64.b64encode(KEY.raw).decode()


def test_a_missing_file_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    before = os.umask(0)
    try:
        first = load_master_key(path, environment={})
    finally:
        os.umask(before)

    assert load_master_key(path, environment={}) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["master.key"]


def test_a_missing_file_is_not_made_where_one_must_be(tmp_path: Path) -> None:
    with pytest.raises(IdentityError) as caught:
        load_master_key(tmp_path / "master.key", environment={}, create_missing=False)

    assert caught.value.code is Code.CONFIG_MASTER_KEY
    assert list(tmp_path.iterdir()) == []


def test_the_environment_gives_the_key_or_names_its_file(tmp_path: Path) -> None:
    file = tmp_path / "elsewhere"
    file.write_text(f"{TEXT}\n")
    file.chmod(0o600)
    (tmp_path / "mounted").symlink_to(file)
    path = tmp_path / "master.key"

    assert load_master_key(path, environment={"SIDELINK_MASTER_KEY": TEXT}) == KEY
    for named in (file, tmp_path / "mounted"):
        assert load_master_key(path, environment={"SIDELINK_MASTER_KEY_FILE": str(named)}) == KEY
    assert not path.exists()


WHAT_IS_NOT_A_MASTER_KEY = {
    "nothing": "",
    "a password": "correct horse battery staple",
    "31 bytes": base64.b64encode(bytes(31)).decode(),
    "33 bytes": base64.b64encode(bytes(33)).decode(),
    "hexadecimal": "07" * 32,
    "a letter of another script": "\u0430" * 44,
}


@pytest.mark.parametrize(
    "text", WHAT_IS_NOT_A_MASTER_KEY.values(), ids=WHAT_IS_NOT_A_MASTER_KEY.keys()
)
def test_what_is_not_a_master_key_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    path = tmp_path / "master.key"
    path.write_text(text)
    path.chmod(0o600)
    for environment in ({}, {"SIDELINK_MASTER_KEY": text}):
        with pytest.raises(IdentityError) as caught:
            load_master_key(path, environment=environment)

        assert caught.value.code is Code.CONFIG_MASTER_KEY
        assert not text or text not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_can_open_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master.key"
    path.write_text(TEXT)
    path.chmod(mode)

    with pytest.raises(IdentityError) as caught:
        load_master_key(path, environment={})

    assert caught.value.code is Code.CONFIG_STATE_UNSAFE


def test_a_link_or_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text(TEXT)
    target.chmod(0o600)
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "folder").mkdir()

    for name in ("link", "folder"):
        with pytest.raises(IdentityError) as caught:
            load_master_key(tmp_path / name, environment={})
        assert caught.value.code is Code.CONFIG_MASTER_KEY
