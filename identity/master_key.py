"""The master key under which the keystore seals private keys: where it comes from."""

import base64
import binascii
import contextlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from identity.codes import Code
from identity.errors import IdentityError

MASTER_KEY_BYTES: Final = 32
MASTER_KEY_VARIABLE: Final = "SIDELINK_MASTER_KEY"
MASTER_KEY_FILE_VARIABLE: Final = "SIDELINK_MASTER_KEY_FILE"
NEW_MASTER_KEY_VARIABLE: Final = "SIDELINK_MASTER_KEY_NEW"
NEW_MASTER_KEY_FILE_VARIABLE: Final = "SIDELINK_MASTER_KEY_NEW_FILE"
_FILE_BYTES_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class MasterKey:
    """32 secret bytes. Raises IdentityError for any other length."""

    raw: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if type(self.raw) is not bytes or len(self.raw) != MASTER_KEY_BYTES:
            raise _refused(f"a master key is {MASTER_KEY_BYTES} bytes in base64")

    @classmethod
    def generate(cls) -> "MasterKey":
        return cls(os.urandom(MASTER_KEY_BYTES))

    @classmethod
    def parse(cls, text: str) -> "MasterKey":
        try:
            return cls(base64.b64decode(text.strip(), validate=True))
        except (binascii.Error, ValueError):
            # Without the cause: its message could quote the secret.
            raise _refused(f"a master key is {MASTER_KEY_BYTES} bytes in base64") from None


def load_master_key(
    path: Path, *, environment: Mapping[str, str], create_missing: bool = True
) -> MasterKey:
    """The key in SIDELINK_MASTER_KEY, or in the file that SIDELINK_MASTER_KEY_FILE names, or at
    `path`, which is made with a new key when it is missing.

    Raises IdentityError (CONFIG_MASTER_KEY, or CONFIG_STATE_UNSAFE for a file that others can
    read or that another user owns).
    """
    key = environment_master_key(environment)
    if key is not None:
        return key
    if create_missing and not path.exists():
        write_master_key(path, MasterKey.generate())
    return _read(path)


def environment_master_key(environment: Mapping[str, str]) -> MasterKey | None:
    """The key that the environment gives, or None: then it is in a file of the state folder."""
    return _from_environment(environment, MASTER_KEY_VARIABLE, MASTER_KEY_FILE_VARIABLE)


def new_environment_master_key(environment: Mapping[str, str]) -> MasterKey | None:
    """The key that is to come after the one of the environment, or None."""
    return _from_environment(environment, NEW_MASTER_KEY_VARIABLE, NEW_MASTER_KEY_FILE_VARIABLE)


def _from_environment(
    environment: Mapping[str, str], variable: str, file_variable: str
) -> MasterKey | None:
    if variable in environment:
        return MasterKey.parse(environment[variable])
    if file_variable in environment:
        # Links are followed here alone: orchestrators mount a secret as one.
        return _read(Path(environment[file_variable]).resolve())
    return None


def write_master_key(path: Path, key: MasterKey) -> None:
    """Write a key so that the file appears whole or not at all, and never replaces one."""
    text = base64.b64encode(key.raw) + b"\n"
    partial = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, text)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            # Another process of ours may have been faster: its key is then the key.
            with contextlib.suppress(FileExistsError):
                os.link(partial, path)
        finally:
            partial.unlink()
        _sync_folder(path.parent)
    except OSError as error:
        raise _refused(f"cannot create {path}: {error.strerror}") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> MasterKey:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(f"cannot read {path}: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _refused(f"{path} is not a file")
        if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o077:
            raise IdentityError(
                Code.CONFIG_STATE_UNSAFE,
                f"{path} must belong to the user that runs the program, with mode 0600",
            )
        text = os.read(descriptor, _FILE_BYTES_MAX)
    finally:
        os.close(descriptor)
    try:
        return MasterKey.parse(text.decode("ascii"))
    except (IdentityError, UnicodeDecodeError):
        raise _refused(f"{path} does not hold {MASTER_KEY_BYTES} bytes in base64") from None


def _refused(detail: str) -> IdentityError:
    return IdentityError(Code.CONFIG_MASTER_KEY, detail)
