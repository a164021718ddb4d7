"""Backups of a state folder: what goes in, while the program runs, and how a folder is made of it.

The audit log is not in it. Nor is a master key that the environment gives: whoever gave it gives
it again.
"""

import contextlib
import os
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from identity import (
    CborError,
    Code,
    IdentityError,
    Keystore,
    MasterKey,
    environment_master_key,
    load_master_key,
)
from identity.cbor import decode_untrusted, encode
from node.backup_format import CHUNK_BYTES, SCRYPT_LOG_N, BackupReader, BackupWriter, invalid
from node.errors import ConfigError
from node.state_folder import (
    FOLDER_MODE,
    POLICY_FILE_NAME,
    POLICY_FILES_MAX,
    SECRET_MODE,
    StatePaths,
    make_folder,
    sync_folder,
)
from node.store import RESTORED_UNIX_S, Store

PASSPHRASE_BYTES_MIN: Final = 12
MANIFEST_BYTES_MAX: Final = 64 << 10
DATABASE_BYTES_MAX: Final = 1 << 40
FILE_BYTES_MAX: Final = 16 << 20

# By these names and no others, so that no backup can write anywhere else.
_DATABASE: Final = "state.db"
_MASTER_KEY: Final = "master.key"
_NAMES: Final = (_MASTER_KEY, "policy.yaml", "config.yaml", _DATABASE)
_POLICY_FOLDER: Final = "policy.d/"
_LENGTH: Final = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says it holds: the names of its files with their sizes, in their order."""

    program: str
    made_unix_s: int
    files: Mapping[str, int]

    def encode(self) -> bytes:
        files = [[name, size] for name, size in self.files.items()]
        return encode({"program": self.program, "made": self.made_unix_s, "files": files})


def write_backup(
    folder: StatePaths,
    program: str,
    file: Path,
    passphrase: bytes,
    environment: Mapping[str, str],
    *,
    unix_s: float,
    scrypt_log_n: int = SCRYPT_LOG_N,
) -> Manifest:
    """Write a backup of the program's state to a file that is not there yet. Raises SidelinkError.

    The program may run meanwhile: the database is copied as of one instant.
    """
    if len(passphrase) < PASSPHRASE_BYTES_MIN:
        raise ConfigError(
            Code.CONFIG_BACKUP_PASSPHRASE,
            f"a passphrase has at least {PASSPHRASE_BYTES_MIN} bytes",
            remedy="Choose a longer one, several words for example.",
        )
    if file.exists():
        raise ConfigError(
            Code.CONFIG_INVALID, f"{file}: is there already", remedy="Name another file."
        )
    with _beside(file) as workshop:
        _copy_database(folder.database, workshop / _DATABASE)
        key_file = _key_file(folder, workshop / _DATABASE, environment)
        # In memory, all at once: a policy may be edited, and no key lies about in a second file.
        small = {_MASTER_KEY: key_file, "policy.yaml": folder.policy, "config.yaml": folder.config}
        small |= {f"{_POLICY_FOLDER}{path.name}": path for path in _policies(folder)}
        held = {name: _read_small(path) for name, path in small.items() if path and path.exists()}
        sizes = {name: len(data) for name, data in held.items()}
        sizes[_DATABASE] = (workshop / _DATABASE).stat().st_size
        manifest = Manifest(program, int(unix_s), sizes)
        partial = workshop / "backup"
        with _create(partial) as sink:
            writer = BackupWriter(sink, passphrase, scrypt_log_n=scrypt_log_n)
            encoded = manifest.encode()
            writer.write(_LENGTH.pack(len(encoded)) + encoded)
            for data in held.values():
                writer.write(data)
            with (workshop / _DATABASE).open("rb") as database:
                while chunk := database.read(CHUNK_BYTES):
                    writer.write(chunk)
            writer.finish()
        _put_in_place(partial, file)
    return manifest


def restore_backup(
    file: Path, program: str, folder: Path, passphrase: bytes, *, unix_s: float
) -> Manifest:
    """Make a state folder of a backup, where there is none yet or an empty one.

    It is there whole or not at all. Raises SidelinkError.
    """
    _check_free(folder)
    make_folder(folder.parent)
    with _beside(folder) as workshop, _opened(file) as source:
        made = workshop / program
        made.mkdir(mode=FOLDER_MODE)
        reader = BackupReader(source, passphrase)
        (length,) = _LENGTH.unpack(reader.read_exactly(_LENGTH.size))
        if length > MANIFEST_BYTES_MAX:
            raise invalid("its table of contents is too long")
        manifest = decode_manifest_untrusted(reader.read_exactly(length))
        if manifest.program != program:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"{file}: is a backup of {manifest.program!r}, not of {program!r}",
                remedy="Name the program that it is of with --program.",
            )
        for name, size in manifest.files.items():
            make_folder((made / name).parent)
            _read_file(reader, made / name, size)
        if reader.read(1):
            raise invalid("more follows than its table of contents says")
        _check_key(made)
        with Store.open(made / _DATABASE) as store:
            # For whoever must know that others may have gone on meanwhile.
            store.put(RESTORED_UNIX_S, str(int(unix_s)).encode())
        for inner in {(made / name).parent for name in manifest.files}:
            sync_folder(inner)
        _move(made, folder)
    return manifest


def decode_manifest_untrusted(data: bytes) -> Manifest:
    """Raises ConfigError (CONFIG_BACKUP_INVALID)."""
    try:
        value = decode_untrusted(
            data, bytes_max=MANIFEST_BYTES_MAX, depth_max=3, code=Code.CONFIG_BACKUP_INVALID
        )
    except CborError as error:
        raise invalid(f"its table of contents: {error.detail}") from None
    match value:
        case {"program": str(program), "made": int(made), "files": list(items)} if (
            len(value) == 3 and type(made) is int
        ):
            files = dict(_read_entry(item) for item in items)
        case _:
            raise invalid("its table of contents is none")
    if len(files) != len(items) or _DATABASE not in files:
        raise invalid("its table of contents names a file twice, or no database")
    return Manifest(program, made, files)


def _read_entry(item: Any) -> tuple[str, int]:
    match item:
        case [str(name), int(size)] if _is_ours(name) and type(size) is int:
            if 0 <= size <= (DATABASE_BYTES_MAX if name == _DATABASE else FILE_BYTES_MAX):
                return name, size
    raise invalid("its table of contents names a file that no backup has")


def _is_ours(name: str) -> bool:
    of_policy = name.removeprefix(_POLICY_FOLDER)
    return name in _NAMES or (of_policy != name and bool(POLICY_FILE_NAME.fullmatch(of_policy)))


def _policies(folder: StatePaths) -> list[Path]:
    """The files of policy.d that a program reads, by name."""
    if not folder.policy_folder.is_dir():
        return []
    found = sorted(folder.policy_folder.iterdir())
    return [path for path in found if POLICY_FILE_NAME.fullmatch(path.name)][:POLICY_FILES_MAX]


def _copy_database(database: Path, copy: Path) -> None:
    """As of one instant, whatever the program writes meanwhile."""
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SECRET_MODE))
    try:
        with (
            contextlib.closing(sqlite3.connect(database)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.Error as error:
        raise ConfigError(Code.CONFIG_KEYSTORE_DAMAGED, f"{database}: {error}") from error


def _key_file(folder: StatePaths, copy: Path, environment: Mapping[str, str]) -> Path | None:
    """The file of the key that opens this copy; None where the environment gives the key."""
    given = environment_master_key(environment)
    if given is not None:
        Keystore.open(copy, given).close()
        return None
    # A rotation may have been cut short, or have come to its end since the copy was made.
    candidates = [path for path in (folder.next_master_key, folder.master_key) if path.exists()]
    for path in candidates:
        if _opens(copy, load_master_key(path, environment={}, create_missing=False)):
            return path
    raise IdentityError(Code.CONFIG_MASTER_KEY, f"no key in {folder.folder} opens its state.db")


def _opens(database: Path, key: MasterKey) -> bool:
    try:
        Keystore.open(database, key).close()
    except IdentityError as error:
        if error.code is not Code.CONFIG_MASTER_KEY:
            raise
        return False
    return True


def _check_key(made: Path) -> None:
    key_file = made / _MASTER_KEY
    if key_file.exists():
        key = load_master_key(key_file, environment={}, create_missing=False)
        Keystore.open(made / _DATABASE, key).close()


def _check_free(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"{folder}: holds something already",
            remedy="Move it away, or choose another folder with --state.",
        )


def _read_small(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(Code.CONFIG_INVALID, f"{path}: has more than {FILE_BYTES_MAX} bytes")
    return data


def _read_file(reader: BackupReader, path: Path, size: int) -> None:
    left = size
    with _create(path) as sink:
        while left:
            data = reader.read(min(left, CHUNK_BYTES))
            if not data:
                raise invalid("it ends too early")
            sink.write(data)
            left -= len(data)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A folder on the same disk that nobody else can enter; gone at the end, however it comes."""
    try:
        workshop = Path(tempfile.mkdtemp(prefix=".sidelink-", dir=path.absolute().parent))
    except OSError as error:
        raise _unwritable(path.parent, error) from None
    try:
        yield workshop
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


@contextlib.contextmanager
def _create(path: Path) -> Iterator[BinaryIO]:
    """A new file of our own, on the disk when it is closed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, SECRET_MODE)
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise ConfigError(
            Code.CONFIG_BACKUP_INVALID, f"{path}: cannot be read: {error.strerror}"
        ) from None
    with file:
        yield file


def _put_in_place(partial: Path, file: Path) -> None:
    """By a link, which never replaces what somebody else has put there meanwhile."""
    os.link(partial, file)
    sync_folder(file.absolute().parent)


def _move(made: Path, folder: Path) -> None:
    # Onto nothing or an empty folder; anything else is an error of the system.
    made.rename(folder)
    sync_folder(folder.parent)


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        Code.CONFIG_INVALID,
        f"{path}: {error.strerror}",
        remedy="Choose a place that this user may write, and that is no mount point itself.",
    )
