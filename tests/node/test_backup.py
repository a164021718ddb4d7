"""Backups: what was in the folder comes back; what is not a whole backup makes no folder."""

import base64
import hashlib
import os
import sqlite3
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import Code, MasterKey, Purpose, SidelinkError, new_identity
from identity.cbor import encode
from node.backup import Manifest, decode_manifest_untrusted, restore_backup, write_backup
from node.backup_format import CHUNK_BYTES, HEADER_BYTES, MAGIC, BackupReader, BackupWriter
from node.errors import ConfigError
from node.folder_keys import open_keystore, rotate_master_key
from node.state_folder import StateFolder, StatePaths
from node.store import RESTORED_UNIX_S, Store

NOW = 1_900_000_000
PASSPHRASE = b"correct horse battery staple"
# As little work as a backup may ask for, so that tests are quick.
QUICK = 14


def make_state(base: Path, environment: dict[str, str] | None = None) -> StatePaths:
    with StateFolder.open(base / "sidecar") as folder:
        keystore = open_keystore(folder, environment or {}, create_missing=True)
        keystore.save_many(
            new_identity(name, unix_s=NOW, purposes=(Purpose.CHANNEL,)) for name in ("a", "b")
        )
        keystore.close()
        folder.policy.write_text("policy")
        with Store.open(folder.database) as store:
            store.put("kept", b"value")
    return StatePaths(base / "sidecar")


def back_up(folder: StatePaths, file: Path, **environment: str) -> Manifest:
    return write_backup(
        folder, "sidecar", file, PASSPHRASE, environment, unix_s=NOW, scrypt_log_n=QUICK
    )


def restore(file: Path, folder: Path, passphrase: bytes = PASSPHRASE) -> Manifest:
    return restore_backup(file, "sidecar", folder, passphrase, unix_s=NOW + 1)


def refusal(call: Callable[[], object]) -> Code:
    with pytest.raises(SidelinkError) as caught:
        call()
    return caught.value.code


def names_in(folder: Path, environment: dict[str, str] | None = None) -> tuple[str, ...]:
    with StateFolder.open(folder) as state:
        keystore = open_keystore(state, environment or {})
        names = keystore.names()
        assert all(keystore.load(name) is not None for name in names)
        keystore.close()
    return names


def test_a_restored_folder_holds_what_was_backed_up_and_says_when_it_was_restored(
    tmp_path: Path,
) -> None:
    folder = make_state(tmp_path)
    folder.audit.write_text("{}\n")
    manifest = back_up(folder, tmp_path / "file")

    assert restore(tmp_path / "file", tmp_path / "new" / "sidecar") == manifest

    restored = StatePaths(tmp_path / "new" / "sidecar")
    assert names_in(restored.folder) == ("a", "b")
    assert restored.policy.read_text() == "policy"
    assert restored.master_key.read_bytes() == folder.master_key.read_bytes()
    assert not restored.audit.exists()
    assert not restored.config.exists()
    with Store.open(restored.database) as store:
        assert store.get("kept") == b"value"
        assert store.get(RESTORED_UNIX_S) == str(NOW + 1).encode()


def test_everything_that_is_made_is_closed_to_others_and_nothing_else_is_left(
    tmp_path: Path,
) -> None:
    folder = make_state(tmp_path / "state")
    before = os.umask(0)
    try:
        back_up(folder, tmp_path / "file")
        restore(tmp_path / "file", tmp_path / "new" / "sidecar")
    finally:
        os.umask(before)

    assert {path.name for path in tmp_path.iterdir()} == {"state", "file", "new"}
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"sidecar"}
    made = [tmp_path / "file", *(tmp_path / "new").rglob("*"), tmp_path / "new"]
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in made)


def test_a_backup_is_taken_while_the_program_runs_and_writes(tmp_path: Path) -> None:
    folder = make_state(tmp_path)
    with StateFolder.open(folder.folder) as running, Store.open(running.database) as store:
        store.put("later", b"in the log beside the file")
        with store.together():
            store.put("kept", b"not yet written")
            back_up(folder, tmp_path / "file")

    restore(tmp_path / "file", tmp_path / "new")
    with Store.open(tmp_path / "new" / "state.db") as restored:
        assert restored.get("later") is not None
        assert restored.get("kept") == b"value"


def test_a_master_key_of_the_environment_is_not_in_the_backup(tmp_path: Path) -> None:
    environment = {"SIDELINK_MASTER_KEY": base64.b64encode(MasterKey.generate().raw).decode()}
    folder = make_state(tmp_path, environment=environment)

    manifest = back_up(folder, tmp_path / "file", **environment)
    restore(tmp_path / "file", tmp_path / "new")

    assert list(manifest.files) == ["policy.yaml", "state.db"]
    assert names_in(tmp_path / "new", environment) == ("a", "b")


def test_all_files_of_a_policy_come_back(tmp_path: Path) -> None:
    folder = make_state(tmp_path)
    folder.policy_folder.mkdir(mode=0o700)
    for name in ("a.yaml", "b.yaml", ".a.yaml.swp", "README.md"):
        (folder.policy_folder / name).write_text(name)

    back_up(folder, tmp_path / "file")
    restore(tmp_path / "file", tmp_path / "new")

    found = {path.name: path.read_text() for path in (tmp_path / "new" / "policy.d").iterdir()}
    assert found == {"a.yaml": "a.yaml", "b.yaml": "b.yaml"}
    assert stat.S_IMODE((tmp_path / "new" / "policy.d").stat().st_mode) == 0o700


def test_the_key_that_opens_the_copy_is_the_one_that_is_kept(tmp_path: Path) -> None:
    folder = make_state(tmp_path)
    old = folder.master_key.read_bytes()
    with StateFolder.open(folder.folder) as state:
        rotate_master_key(state, {})
    # As if it had been cut short before the new key was put in its place.
    folder.master_key.rename(folder.next_master_key)
    folder.master_key.write_bytes(old)
    folder.master_key.chmod(0o600)

    back_up(folder, tmp_path / "file")
    restore(tmp_path / "file", tmp_path / "new")

    assert names_in(tmp_path / "new") == ("a", "b")
    folder.next_master_key.unlink()
    assert refusal(lambda: back_up(folder, tmp_path / "other")) is Code.CONFIG_MASTER_KEY
    assert not (tmp_path / "other").exists()


def test_what_is_there_already_is_never_replaced(tmp_path: Path) -> None:
    folder = make_state(tmp_path)
    (tmp_path / "file").write_text("precious")
    assert refusal(lambda: back_up(folder, tmp_path / "file")) is Code.CONFIG_INVALID
    assert (tmp_path / "file").read_text() == "precious"

    back_up(folder, tmp_path / "backup")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for taken in (folder.folder, tmp_path / "file", tmp_path / "link"):
        assert refusal(lambda taken=taken: restore(tmp_path / "backup", taken)) is (
            Code.CONFIG_INVALID
        )
    restore(tmp_path / "backup", tmp_path / "empty")
    assert names_in(tmp_path / "empty") == ("a", "b")


def test_a_short_passphrase_and_a_wrong_one_are_refused(tmp_path: Path) -> None:
    folder = make_state(tmp_path)
    file = tmp_path / "file"
    short = partial(write_backup, folder, "sidecar", file, b"short", {}, unix_s=NOW)
    assert refusal(short) is Code.CONFIG_BACKUP_PASSPHRASE
    back_up(folder, tmp_path / "file")

    wrong = partial(restore, file, tmp_path / "new", b"another one")

    assert refusal(wrong) is Code.CONFIG_BACKUP_PASSPHRASE
    assert not (tmp_path / "new").exists()


def test_where_nothing_can_be_written_nothing_is(tmp_path: Path) -> None:
    folder = make_state(tmp_path)

    nowhere = partial(back_up, folder, tmp_path / "no" / "file")

    assert refusal(nowhere) is Code.CONFIG_INVALID
    assert not (tmp_path / "no").exists()


def test_a_backup_of_another_program_is_refused(tmp_path: Path) -> None:
    back_up(make_state(tmp_path), tmp_path / "file")

    other = partial(
        restore_backup,
        tmp_path / "file",
        "authority",
        tmp_path / "new",
        PASSPHRASE,
        unix_s=NOW,
    )

    assert refusal(other) is Code.CONFIG_INVALID
    assert not (tmp_path / "new").exists()


SEALED_CHUNK = CHUNK_BYTES + 16
HOW_A_BACKUP_IS_DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "nothing in it": lambda _: b"",
    "another file": lambda _: b"not a backup at all, but long enough to be one" * 9,
    "a header cut short": lambda data: data[: HEADER_BYTES - 1],
    "a header alone": lambda data: data[:HEADER_BYTES],
    "another salt": lambda data: flip(data, len(MAGIC) + 3),
    "another checksum": lambda data: flip(data, HEADER_BYTES - 40),
    "a bit of the first chunk": lambda data: flip(data, HEADER_BYTES + 5),
    "a bit of the last chunk": lambda data: flip(data, len(data) - 1),
    "cut short by a byte": lambda data: data[:-1],
    "without its last chunk": lambda data: data[: HEADER_BYTES + 2 * SEALED_CHUNK],
    "a chunk twice": lambda data: moved(data, (0, 0, 1, 2)),
    "two chunks swapped": lambda data: moved(data, (1, 0, 2)),
    "a chunk left out": lambda data: moved(data, (0, 2)),
    "the last chunk twice": lambda data: moved(data, (0, 1, 2, 2)),
    "something behind it": lambda data: data + b"x",
}


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :]


def moved(data: bytes, order: tuple[int, ...]) -> bytes:
    body = data[HEADER_BYTES:]
    chunks = [body[at : at + SEALED_CHUNK] for at in range(0, len(body), SEALED_CHUNK)]
    assert len(chunks) == 3
    return data[:HEADER_BYTES] + b"".join(chunks[number] for number in order)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A backup of three chunks."""
    folder = make_state(tmp_path_factory.mktemp("large"))
    with sqlite3.connect(folder.database) as connection:
        connection.execute("CREATE TABLE large (data BLOB)")
        connection.execute("INSERT INTO large VALUES (zeroblob(?))", (2 * CHUNK_BYTES + 1_000,))
    connection.close()
    file = folder.folder / "file"
    back_up(folder, file)
    return file.read_bytes()


@pytest.mark.parametrize(
    "damage", HOW_A_BACKUP_IS_DAMAGED.values(), ids=HOW_A_BACKUP_IS_DAMAGED.keys()
)
def test_a_damaged_backup_makes_no_folder(
    damage: Callable[[bytes], bytes], large: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(damage(large))

    assert refusal(lambda: restore(file, tmp_path / "new")) is Code.CONFIG_BACKUP_INVALID

    assert list(tmp_path.iterdir()) == [file]


def test_a_backup_of_three_chunks_comes_back(large: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(large)

    restore(tmp_path / "file", tmp_path / "new")

    assert names_in(tmp_path / "new") == ("a", "b")


@pytest.mark.parametrize("log_n_r_p", [(40, 8, 1), (19, 8, 1), (0, 8, 1), (14, 255, 1), (14, 8, 9)])
def test_a_header_that_asks_for_too_much_work_is_refused_before_any_is_done(
    log_n_r_p: tuple[int, int, int], tmp_path: Path
) -> None:
    parameters = MAGIC + bytes(log_n_r_p) + bytes(16)
    (tmp_path / "file").write_bytes(
        parameters + hashlib.sha256(parameters).digest() + bytes(32) + bytes(100)
    )

    assert refusal(lambda: restore(tmp_path / "file", tmp_path / "new")) is (
        Code.CONFIG_BACKUP_INVALID
    )


def sealed(file: Path, data: bytes) -> None:
    with file.open("wb") as sink:
        writer = BackupWriter(sink, PASSPHRASE, scrypt_log_n=QUICK)
        writer.write(data)
        writer.finish()


def contents(files: object, **changes: object) -> bytes:
    table = encode({"program": "sidecar", "made": NOW, "files": files} | changes)
    return len(table).to_bytes(4, "big") + table


HOSTILE_CONTENTS = {
    "no table": b"",
    "a table that never ends": b"\xff\xff\xff\xff",
    "a table that is no CBOR": b"\x00\x00\x00\x02\xff\xff",
    "no database": contents([]),
    "a path that leads out": contents([["../../state.db", 0], ["state.db", 0]]),
    "a policy that leads out": contents([["policy.d/../a.yaml", 0], ["state.db", 0]]),
    "an absolute path": contents([["/etc/passwd", 0], ["state.db", 0]]),
    "a name that no state folder has": contents([["lock", 0], ["state.db", 0]]),
    "a name twice": contents([["state.db", 0], ["state.db", 0]]),
    "a size below nothing": contents([["state.db", -1]]),
    "a size that is a boolean": contents([["state.db", True]]),
    "a policy of a terabyte": contents([["policy.yaml", 1 << 40], ["state.db", 0]]),
    "a database beyond all bounds": contents([["state.db", 1 << 62]]),
    "more than is there": contents([["state.db", 9]]) + b"12345678",
    "less than is there": contents([["state.db", 7]]) + b"12345678",
    "an unknown field": contents([["state.db", 0]], more=1),
    "a time that is a boolean": contents([["state.db", 0]], made=True),
    "a time that is text": contents([["state.db", 0]], made="now"),
}


@pytest.mark.parametrize("data", HOSTILE_CONTENTS.values(), ids=HOSTILE_CONTENTS.keys())
def test_contents_that_no_backup_has_are_refused(data: bytes, tmp_path: Path) -> None:
    sealed(tmp_path / "file", data)

    assert refusal(lambda: restore(tmp_path / "file", tmp_path / "new")) is (
        Code.CONFIG_BACKUP_INVALID
    )

    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_contents_whose_database_is_none_make_no_folder(tmp_path: Path) -> None:
    sealed(tmp_path / "file", contents([["state.db", 8]]) + b"12345678")

    assert refusal(lambda: restore(tmp_path / "file", tmp_path / "new")) is (
        Code.CONFIG_KEYSTORE_DAMAGED
    )

    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@given(st.binary(max_size=200))
def test_any_table_of_contents_is_read_or_refused(data: bytes) -> None:
    try:
        manifest = decode_manifest_untrusted(data)
    except ConfigError as error:
        assert error.code is Code.CONFIG_BACKUP_INVALID  # noqa: PT017
        return
    assert manifest.encode() == data


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_whatever_its_size_what_is_sealed_is_opened(size: int, tmp_path: Path) -> None:
    sealed(tmp_path / "file", bytes(size))

    with (tmp_path / "file").open("rb") as source:
        reader = BackupReader(source, PASSPHRASE)
        opened = reader.read_exactly(size)
        assert reader.read(1) == b""

    assert opened == bytes(size)


@pytest.mark.parametrize(
    ("order", "opened"),
    [((0,), 0), ((0, 1), 1), ((1, 0, 2), 0), ((0, 0, 1, 2), 1), ((0, 2), 1)],
    ids=["cut to one", "cut to two", "swapped", "one twice", "one left out"],
)
def test_no_chunk_opens_but_in_its_place(
    order: tuple[int, ...], opened: int, tmp_path: Path
) -> None:
    sealed(tmp_path / "file", bytes(3 * CHUNK_BYTES))
    (tmp_path / "file").write_bytes(moved((tmp_path / "file").read_bytes(), order))

    with (tmp_path / "file").open("rb") as source:
        reader = BackupReader(source, PASSPHRASE)
        reader.read_exactly(opened * CHUNK_BYTES)
        with pytest.raises(ConfigError) as caught:
            reader.read(1)

    assert caught.value.code is Code.CONFIG_BACKUP_INVALID
