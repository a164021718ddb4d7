"""The state folder: nobody else's, nobody else in it, and one program at a time."""

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from identity import Code
from node.errors import ConfigError, error_paragraph
from node.state_folder import StateFolder, read_ports, write_atomically

SOMEBODY_ELSE = 12_345


def refusal(folder: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        StateFolder.open(folder)
    return caught.value


def test_a_first_start_makes_the_folder_closed_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "sidecar"

    with StateFolder.open(folder) as state:
        assert state.is_first_start
        for made in (folder.parent, folder, state.run):
            assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_a_folder_with_a_database_is_not_a_first_start(tmp_path: Path) -> None:
    with StateFolder.open(tmp_path / "a") as state:
        state.database.touch(mode=0o600)

    with StateFolder.open(tmp_path / "a") as again:
        assert not again.is_first_start


def make_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "sidecar"
    folder.mkdir(mode=0o700)
    return folder


def chmod_file(name: str, mode: int):  # type: ignore[no-untyped-def]
    def spoil(folder: Path) -> None:
        (folder / name).touch()
        (folder / name).chmod(mode)

    return spoil


def chown_file(name: str):  # type: ignore[no-untyped-def]
    def spoil(folder: Path) -> None:
        (folder / name).touch(mode=0o600)
        os.chown(folder / name, SOMEBODY_ELSE, SOMEBODY_ELSE)

    return spoil


def link_file(name: str):  # type: ignore[no-untyped-def]
    def spoil(folder: Path) -> None:
        (folder.parent / "elsewhere").touch(mode=0o600)
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return spoil


UNSAFE = {
    "the folder belongs to somebody else": lambda f: os.chown(f, SOMEBODY_ELSE, SOMEBODY_ELSE),
    "others may read the folder": lambda f: f.chmod(0o750),
    "others may enter the folder": lambda f: f.chmod(0o701),
    "the master key is open to a group": chmod_file("master.key", 0o640),
    "the master key belongs to somebody else": chown_file("master.key"),
    "the master key is a link": link_file("master.key"),
    "the database is open to all": chmod_file("state.db", 0o644),
    "the audit log is a link": link_file("audit.jsonl"),
    "the lock is a link": link_file("lock"),
    "the policy can be changed by a group": chmod_file("policy.yaml", 0o664),
    "the settings belong to somebody else": chown_file("config.yaml"),
    "run is a file": lambda f: (f / "run").touch(),
}


@pytest.mark.parametrize("case", UNSAFE)
def test_an_unsafe_folder_is_refused_with_the_command_that_mends_it(
    case: str, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path)
    UNSAFE[case](folder)

    error = refusal(folder)

    assert error.code is Code.CONFIG_STATE_UNSAFE
    assert str(folder) in error_paragraph(error)


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    link = tmp_path / "link"
    link.symlink_to(folder)

    assert refusal(link).code is Code.CONFIG_STATE_UNSAFE


def test_a_file_in_the_place_of_a_parent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert refusal(tmp_path / "file" / "sidecar").code is Code.CONFIG_STATE_UNSAFE


def test_a_mounted_read_only_policy_is_fine(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    (tmp_path / "mounted.yaml").touch(mode=0o644)
    (folder / "policy.yaml").symlink_to(tmp_path / "mounted.yaml")

    StateFolder.open(folder).close()


def test_a_refused_folder_can_be_opened_once_it_is_mended(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    chmod_file("master.key", 0o644)(folder)
    refusal(folder)

    (folder / "master.key").chmod(0o600)

    StateFolder.open(folder).close()


def test_a_folder_in_use_is_refused_and_names_the_process(tmp_path: Path) -> None:
    with StateFolder.open(tmp_path / "a"):
        error = refusal(tmp_path / "a")

    assert error.code is Code.CONFIG_STATE_LOCKED
    assert f"pid {os.getpid()}" in str(error)


def test_the_lock_ends_with_a_process_that_was_killed(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from node.state_folder import StateFolder; "
        "StateFolder.open(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "a")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        locked = refusal(tmp_path / "a")
        other.kill()
        other.communicate()

    assert locked.code is Code.CONFIG_STATE_LOCKED
    StateFolder.open(tmp_path / "a").close()


def test_what_a_crash_left_in_run_is_removed(tmp_path: Path) -> None:
    with StateFolder.open(tmp_path / "a") as state, socket.socket(socket.AF_UNIX) as left:
        left.bind(str(state.agent_socket))
        os.close(state._lock_descriptor)  # As a crash does.
        state._lock_descriptor = -1

        with StateFolder.open(tmp_path / "a") as again:
            assert list(again.run.iterdir()) == []


def test_a_stop_leaves_nothing_in_run(tmp_path: Path) -> None:
    state = StateFolder.open(tmp_path / "a")
    state.write_ports({"ops": 1})

    state.close()
    state.close()

    assert list(state.run.iterdir()) == []


def test_the_ports_that_were_got_can_be_read(tmp_path: Path) -> None:
    with StateFolder.open(tmp_path / "a") as state:
        state.write_ports({"ops": 1, "udp": 2})

        assert read_ports(tmp_path / "a") == {"ops": 1, "udp": 2}
        assert stat.S_IMODE(state.ports.stat().st_mode) == 0o600
    assert read_ports(tmp_path / "a") == {}


@pytest.mark.parametrize("text", ["", "{", "[1]", json.dumps({"ops": "x"}), "\xff"])
def test_a_damaged_ports_file_reads_as_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ports.json").write_text(text, encoding="latin-1")

    assert read_ports(tmp_path) == {}


def test_a_folder_whose_socket_path_would_be_too_long_is_refused(tmp_path: Path) -> None:
    fits = 107 - len(os.fsencode(tmp_path)) - len("/") - len("/run/agent.sock")

    error = refusal(tmp_path / ("x" * (fits + 1)))

    assert error.code is Code.CONFIG_INVALID
    assert "107" in str(error)
    StateFolder.open(tmp_path / ("x" * fits)).close()


def test_a_file_written_atomically_replaces_the_old_one_and_leaves_no_other(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    write_atomically(path, b"new")

    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
