"""A program's own folder: who may read it, who holds it, and what lies where."""

import contextlib
import fcntl
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from identity import Code
from node.errors import ConfigError

FOLDER_MODE: Final = 0o700
SECRET_MODE: Final = 0o600
OTHERS: Final = 0o077
OTHERS_WRITE: Final = 0o022
SOCKET_PATH_BYTES_MAX: Final = 107  # sun_path of sockaddr_un, without the zero at its end.
PORTS_FILE_BYTES_MAX: Final = 4_096
POLICY_FILES_MAX: Final = 256
POLICY_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,98}\.yaml")
"""What lies in policy.d and is read, and backed up. None of these names leads elsewhere."""


class StatePaths:
    """The names of what lies in a state folder. Looks at nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.yaml"
        self.policy = folder / "policy.yaml"
        self.policy_folder = folder / "policy.d"
        self.master_key = folder / "master.key"
        self.next_master_key = folder / "master.key.next"
        self.database = folder / "state.db"
        self.audit = folder / "audit.jsonl"
        self.lock = folder / "lock"
        self.run = folder / "run"
        self.agent_socket = self.run / "agent.sock"
        self.admin_socket = self.run / "admin.sock"
        self.ports = self.run / "ports.json"


class StateFolder(StatePaths):
    """A state folder that this process holds, alone, until ``close``.

    ``is_first_start`` is true when the folder held no database yet.
    """

    def __init__(self, folder: Path, lock_descriptor: int, *, is_first_start: bool) -> None:
        super().__init__(folder)
        self.is_first_start = is_first_start
        self._lock_descriptor = lock_descriptor

    @classmethod
    def open(cls, folder: Path) -> "StateFolder":
        """Make the folder if need be, check owner and modes, take the lock, empty ``run/``.

        Raises ConfigError: CONFIG_STATE_UNSAFE, CONFIG_STATE_LOCKED or CONFIG_INVALID.
        """
        folder = folder.absolute()
        paths = StatePaths(folder)
        _check_socket_path_lengths(paths)
        make_folder(folder)
        _check_owned_and_closed(folder, is_folder=True)
        lock_descriptor = _take_lock(paths.lock)
        try:
            make_folder(paths.run)
            _check_owned_and_closed(paths.run, is_folder=True)
            for path in (paths.master_key, paths.next_master_key, paths.database, paths.audit):
                _check_owned_and_closed(path, is_folder=False)
            for path in (paths.config, paths.policy, paths.policy_folder):
                check_not_writable_by_others(path)
            _empty(paths.run)
        except BaseException:
            os.close(lock_descriptor)
            raise
        return cls(folder, lock_descriptor, is_first_start=not paths.database.exists())

    def write_ports(self, ports: Mapping[str, int]) -> None:
        """Leave the ports that the program really got in run/ports.json, at once or not at all."""
        write_atomically(self.ports, json.dumps(dict(ports), sort_keys=True).encode())

    def close(self) -> None:
        """Empty ``run/`` and let go of the lock. Harmless when repeated."""
        if self._lock_descriptor < 0:
            return
        _empty(self.run)
        os.close(self._lock_descriptor)
        self._lock_descriptor = -1

    def __enter__(self) -> "StateFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_ports(folder: Path) -> dict[str, int]:
    """The ports of the program that runs in ``folder``; empty when none has said so."""
    try:
        data = (StatePaths(folder).ports).read_bytes()[:PORTS_FILE_BYTES_MAX]
        ports: Any = json.loads(data)
    except (OSError, ValueError):
        return {}
    if not isinstance(ports, dict):
        return {}
    return {str(name): port for name, port in ports.items() if isinstance(port, int)}


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` with mode 0600, durable, and never seen half-written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, SECRET_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make new and renamed entries of ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_socket_path(path: Path) -> None:
    """Raises ConfigError when the system could not bind a Unix socket there."""
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_BYTES_MAX:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"{path}: a Unix socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes; "
            f"this one has {length}",
            remedy="Choose a shorter folder with --state or SIDELINK_STATE.",
        )


def _check_socket_path_lengths(paths: StatePaths) -> None:
    for path in (paths.agent_socket, paths.admin_socket):
        check_socket_path(path)


def make_folder(folder: Path) -> None:
    """The folder and what is missing above it, closed to others."""
    try:
        for missing in reversed([f for f in (folder, *folder.parents) if not f.exists()]):
            missing.mkdir(mode=FOLDER_MODE, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            Code.CONFIG_STATE_UNSAFE,
            f"{folder}: cannot be made: {error.strerror}",
            remedy="Choose a folder that this user may write with --state or SIDELINK_STATE.",
        ) from None


def _check_owned_and_closed(path: Path, *, is_folder: bool) -> None:
    """Ours, no link, and nobody else may enter or read. A file that is not there is fine."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    user = os.geteuid()
    mode = stat.S_IMODE(found.st_mode)
    wanted = FOLDER_MODE if is_folder else SECRET_MODE
    if not (stat.S_ISDIR(found.st_mode) if is_folder else stat.S_ISREG(found.st_mode)):
        kind = "a folder" if is_folder else "a file"
        raise _unsafe(path, f"is not {kind} of its own", "Move it away and start again.")
    if found.st_uid != user:
        raise _unsafe(
            path,
            f"belongs to user {found.st_uid}, but this program runs as user {user}",
            f"Run as user {found.st_uid}, or give it to this one: chown -R {user} {path}",
        )
    if mode & OTHERS:
        raise _unsafe(
            path,
            f"has mode {mode:04o}, so other users can reach what it holds",
            f"Close it: chmod {wanted:04o} {path}",
        )


def check_not_writable_by_others(path: Path) -> None:
    """Configuration may be readable and may be mounted (a link, owned by root), never writable.

    Raises ConfigError: CONFIG_STATE_UNSAFE. What is not there is fine.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid not in (os.geteuid(), 0):
        raise _unsafe(
            path,
            f"belongs to user {found.st_uid}, who could change what this program obeys",
            f"Give it to this user: chown {os.geteuid()} {path}",
        )
    if mode & OTHERS_WRITE:
        raise _unsafe(
            path,
            f"has mode {mode:04o}, so other users can change what this program obeys",
            f"Close it: chmod go-w {path}",
        )


def _unsafe(path: Path, fault: str, remedy: str) -> ConfigError:
    return ConfigError(Code.CONFIG_STATE_UNSAFE, f"{path}: {fault}", remedy=remedy)


def _take_lock(path: Path) -> int:
    """An exclusive lock that the system lets go of when this process ends, however it ends."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, SECRET_MODE)
    except OSError as error:
        raise _unsafe(path, f"cannot be opened: {error.strerror}", "Move it away.") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise ConfigError(
            Code.CONFIG_STATE_LOCKED,
            f"{path.parent}: in use by another process{f' (pid {holder})' if holder else ''}",
            remedy="Stop that one, or choose another folder with --state or SIDELINK_STATE.",
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _empty(folder: Path) -> None:
    """Remove the sockets and files that a program left; nothing else belongs there."""
    for path in folder.iterdir():
        if not path.is_dir() or path.is_symlink():
            path.unlink(missing_ok=True)
