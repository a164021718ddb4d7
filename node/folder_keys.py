"""The keystore of a state folder with its master key: opened together, and the key rotated.

A rotation writes the new key beside the old one, puts every private key under it in one
transaction, and then renames it. Whenever that is cut short, one of the two opens the keystore:
the next opening finds out which, and finishes or undoes the rest.
"""

from collections.abc import Mapping
from pathlib import Path

from identity import (
    Code,
    IdentityError,
    Keystore,
    MasterKey,
    Resealed,
    environment_master_key,
    load_master_key,
    new_environment_master_key,
    write_master_key,
)
from node.errors import ConfigError
from node.state_folder import StateFolder, StatePaths, sync_folder


def open_keystore(
    folder: StateFolder, environment: Mapping[str, str], *, create_missing: bool = False
) -> Keystore:
    """Raises IdentityError, for a wrong or missing key among others."""
    if environment_master_key(environment) is None:
        _settle_rotation(folder)
    master_key = load_master_key(
        folder.master_key, environment=environment, create_missing=create_missing
    )
    return Keystore.open(folder.database, master_key)


def rotate_master_key(folder: StateFolder, environment: Mapping[str, str]) -> Resealed:
    """Put every private key of the folder under a new master key.

    Where the old one comes from the environment, so does the new one, and whoever set the one must
    then set the other. Raises SidelinkError.
    """
    keystore = open_keystore(folder, environment)
    try:
        current = environment_master_key(environment)
        new = new_environment_master_key(environment)
        if current is not None:
            return keystore.reseal(_checked_new(current, new))
        if new is not None:
            raise ConfigError(
                Code.CONFIG_MASTER_KEY,
                f"SIDELINK_MASTER_KEY_NEW is set, but the key is in {folder.master_key}",
                remedy="Unset it: a new key is made in that file.",
            )
        write_master_key(folder.next_master_key, MasterKey.generate())
        # Nothing is undone here if the rest fails: it may have failed behind the commit.
        resealed = keystore.reseal(_key_in(folder.next_master_key))
        _take_next(folder)
        return resealed
    finally:
        keystore.close()


def _checked_new(current: MasterKey, new: MasterKey | None) -> MasterKey:
    if new is not None and new != current:
        return new
    fault = "no other one is given" if new is None else "the new one is the same"
    raise ConfigError(
        Code.CONFIG_MASTER_KEY,
        f"the master key comes from the environment, and {fault}",
        remedy="Set SIDELINK_MASTER_KEY_NEW or SIDELINK_MASTER_KEY_NEW_FILE to the new key.",
    )


def _settle_rotation(folder: StatePaths) -> None:
    """Finish or undo a rotation that was cut short."""
    for partial in folder.folder.glob(f".{folder.master_key.name}.*"):
        partial.unlink()
    if not folder.next_master_key.exists() or not folder.database.exists():
        return
    if _opens(folder, folder.next_master_key):
        _take_next(folder)
    elif _opens(folder, folder.master_key):
        folder.next_master_key.unlink()
        sync_folder(folder.folder)


def _opens(folder: StatePaths, key_file: Path) -> bool:
    key = _key_in(key_file)
    try:
        Keystore.open(folder.database, key).close()
    except IdentityError as error:
        if error.code is not Code.CONFIG_MASTER_KEY:
            raise
        return False
    return True


def _key_in(file: Path) -> MasterKey:
    return load_master_key(file, environment={}, create_missing=False)


def _take_next(folder: StatePaths) -> None:
    folder.next_master_key.replace(folder.master_key)
    sync_folder(folder.folder)
