"""The local API over a Unix socket: agent processes on one side, the router on the other.

It makes the socket, which no other user can touch, and holds the sessions; each of them frames,
checks and limits one process (``sidecar.local_session``).
"""

import asyncio
import contextlib
from collections import Counter
from pathlib import Path
from typing import Final

from identity import Code
from sidecar.local_listeners import bind_unix
from sidecar.local_port import LocalRouter
from sidecar.local_session import CLOSE_GRACE_S, LocalLimits, PeerCredentialsOf, Session
from sidecar.peer_credentials import read_peer_credentials

DEFAULT_LIMITS: Final = LocalLimits()


class LocalApi:
    """The listener: makes the socket, holds the sessions, and closes both."""

    def __init__(
        self,
        router: LocalRouter,
        *,
        limits: LocalLimits = DEFAULT_LIMITS,
        peer_credentials: PeerCredentialsOf = read_peer_credentials,
    ) -> None:
        self.router = router
        self.limits = limits
        self.peer_credentials = peer_credentials
        self.sessions: set[Session] = set()
        self.goodbyes: Counter[Code] = Counter()
        """How many sessions this side ended, by code: for metrics."""
        self._server: asyncio.Server | None = None
        self._path: Path | None = None
        self._inode = 0
        self._all_gone = asyncio.Event()

    async def start(self, path: Path, group_id: int | None = None) -> None:
        """Listen at `path`, in a folder that only this user, and the group, can enter.

        Raises LocalApiError.
        """
        listener = bind_unix(path, group_id)
        try:
            self._server = await asyncio.get_running_loop().create_unix_server(
                lambda: Session(self), sock=listener
            )
        except BaseException:
            listener.close()
            raise
        self._path = path
        self._inode = _inode_of(path)

    @property
    def may_send(self) -> bool:
        """Whether something new may still come from a process."""
        return any(session.may_send for session in self.sessions)

    def drain(self, delay_ms: int) -> None:
        """Take no further process, and ask those that are here for nothing new."""
        self._stop_listening()
        for session in list(self.sessions):
            session.drain(delay_ms)

    async def close(self, code: Code = Code.LOCAL_DRAINING, delay_ms: int = 0) -> None:
        """Say Goodbye to everyone; who has not gone after CLOSE_GRACE_S is cut."""
        self._stop_listening()
        for session in list(self.sessions):
            session.close(code, delay_ms)
        self._all_gone.clear()
        if self.sessions:
            # Sessions cut themselves after the grace; the wait is over soon after.
            async with asyncio.timeout(2 * CLOSE_GRACE_S):
                await self._all_gone.wait()

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                # Only our own: a later start may have taken the path over.
                if _inode_of(self._path) == self._inode:
                    self._path.unlink()
            self._path = None

    def session_gone(self, session: Session) -> None:
        self.sessions.discard(session)
        if not self.sessions:
            self._all_gone.set()


def _inode_of(path: Path) -> int:
    return path.lstat().st_ino


__all__ = ["DEFAULT_LIMITS", "LocalApi", "LocalLimits"]
