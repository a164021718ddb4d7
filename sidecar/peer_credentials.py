"""Who is at the other end of a Unix socket, as the kernel says: user, groups, and what it runs.

The kernel notes process, user and group when the other end connects. A process id may be taken by
another process later, so what is read by it counts only while a descriptor of the first one, a
pidfd, says that it lives.
"""

import array
import asyncio
import os
import select
import socket
import struct
from typing import Final, Protocol

from identity import Code
from sidecar.local_port import FileIdentity, LocalApiError, PeerCredentials

GROUPS_BYTES_MAX: Final = 1024
"""What Python lets a socket option have: 256 groups. Of a user in more none counts."""

# Python does not name these two; asm-generic/socket.h does.
SO_PEERGROUPS: Final = 59
SO_PEERPIDFD: Final = 77
_UCRED: Final = struct.Struct("=iII")
_DESCRIPTOR: Final = struct.Struct("=i")


class PeerSocket(Protocol):
    """A connected Unix socket, of asyncio or of uvloop."""

    def getsockopt(self, level: int, option: int, buffer_bytes: int, /) -> bytes: ...


def read_peer_credentials(
    transport: asyncio.BaseTransport, *, executable: bool = False
) -> PeerCredentials:
    """Ask the kernel who connected; with ``executable`` also what that process runs.

    Raises LocalApiError where the kernel does not say (not Linux).
    """
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        raise LocalApiError(Code.LOCAL_UNAUTHORIZED, "this system has no SO_PEERCRED")
    peer = transport.get_extra_info("socket")
    try:
        data = peer.getsockopt(socket.SOL_SOCKET, option, _UCRED.size)
    except OSError as error:
        raise LocalApiError(Code.LOCAL_UNAUTHORIZED, f"SO_PEERCRED: {error}") from error
    process_id, user_id, group_id = _UCRED.unpack(data)
    return PeerCredentials(
        process_id,
        user_id,
        group_id,
        groups=read_groups(peer),
        executable=read_executable(peer, process_id) if executable else None,
    )


def read_groups(peer: PeerSocket) -> frozenset[int]:
    """Its supplementary groups; none where the kernel is too old to say, or where they are many."""
    try:
        data = peer.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, GROUPS_BYTES_MAX)
    except OSError:
        return frozenset()
    return frozenset(array.array("I", data))


def read_executable(peer: PeerSocket, process_id: int) -> FileIdentity | None:
    """The file that the process runs. None if it has ended, or if the kernel does not tell us.

    The kernel tells only root and, unless the process forbids it, the same user.
    """
    try:
        descriptor = _open_process(peer, process_id)
    except OSError:
        return None
    try:
        # The file itself, not its name: what a path means depends on who looks, and from where.
        status = os.stat(f"/proc/{process_id}/exe")
        if _has_ended(descriptor):
            return None  # Who has the number now may be somebody else.
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return FileIdentity(status.st_dev, status.st_ino)


def _open_process(peer: PeerSocket, process_id: int) -> int:
    """A pidfd of the process that connected."""
    try:
        data = peer.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, _DESCRIPTOR.size)
    except OSError:
        # Before Linux 6.5. Whoever took the number between its connecting and now would be opened.
        return os.pidfd_open(process_id)
    (descriptor,) = _DESCRIPTOR.unpack(data)
    assert isinstance(descriptor, int)
    return descriptor


def _has_ended(descriptor: int) -> bool:
    """A pidfd becomes readable when its process ends."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
