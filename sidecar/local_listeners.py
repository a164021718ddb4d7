"""The sockets at which agents connect: a Unix socket that only its owner, or one group, can reach,
and a TCP port of this machine.
"""

import contextlib
import os
import socket
import stat
from pathlib import Path
from typing import Final

from identity import Code
from node.errors import ConfigError
from node.http_servers import bind_error
from sidecar.local_port import LocalApiError

SOCKET_PATH_BYTES_MAX: Final = 107
FOLDER_MODE: Final = 0o700
FOLDER_MODE_OF_GROUP: Final = 0o750
SOCKET_MODE: Final = 0o600
SOCKET_MODE_OF_GROUP: Final = 0o660


def bind_unix(path: Path, group_id: int | None = None) -> socket.socket:
    """A socket at `path`, in a folder that only this user, and the group, can enter.

    Raises LocalApiError: config.invalid, config.state_unsafe.
    """
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise LocalApiError(
            Code.CONFIG_INVALID,
            f"the socket path {path} is longer than {SOCKET_PATH_BYTES_MAX} bytes; "
            "choose a shorter state folder",
        )
    _close_folder(path.parent, group_id)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise LocalApiError(Code.CONFIG_STATE_UNSAFE, f"{path} is in the way of the socket")
        # The state folder's lock is ours, so a socket found here was left by a crash.
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(os.fspath(path))
        if group_id is not None:
            _give_to_group(path, group_id)
        path.chmod(SOCKET_MODE if group_id is None else SOCKET_MODE_OF_GROUP)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise LocalApiError(Code.CONFIG_INVALID, f"cannot listen at {path}: {error}") from error
    except BaseException:
        listener.close()
        raise
    return listener


def bind_loopback(host: str, port: int) -> socket.socket:
    """A TCP socket of this machine. Raises ConfigError: config.port_busy, config.invalid."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise bind_error(error, "TCP", f"{host}:{port}", "agent_port") from None
    return listener


def _close_folder(folder: Path, group_id: int | None) -> None:
    """Make it if need be; give it to the group; refuse it if more than that can enter."""
    wanted = FOLDER_MODE if group_id is None else FOLDER_MODE_OF_GROUP
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise LocalApiError(
            Code.CONFIG_STATE_UNSAFE, f"the folder {folder} cannot be made: {error.strerror}"
        ) from error
    status = folder.stat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid() or mode & ~wanted & 0o777:
        raise LocalApiError(
            Code.CONFIG_STATE_UNSAFE,
            f"the folder {folder} must be this user's own, with mode {wanted:04o}",
        )
    if group_id is not None:
        _give_to_group(folder, group_id)
        folder.chmod(wanted)


def _give_to_group(path: Path, group_id: int) -> None:
    if path.stat().st_gid == group_id:
        return
    try:
        os.chown(path, -1, group_id)
    except OSError as error:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"agents.socket_group: {path} cannot be given to group {group_id}: {error.strerror}",
            remedy="Make the sidecar's user a member of that group, or start it as root.",
        ) from None
