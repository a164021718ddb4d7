"""The local API over its sockets: agent processes on one side, the router on the other.

It listens and holds the sessions; each of them frames, checks and limits one process
(``sidecar.local_session``). Who may connect, ``sidecar.local_access`` says.
"""

import asyncio
import contextlib
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Final

from identity import Code
from sidecar.local_access import LocalAccess
from sidecar.local_listeners import bind_loopback, bind_unix
from sidecar.local_port import LocalRouter
from sidecar.local_session import CLOSE_GRACE_S, LocalLimits, PeerCredentialsOf, Session
from sidecar.peer_credentials import read_peer_credentials

DEFAULT_LIMITS: Final = LocalLimits()
TOKEN_LOOK_SECONDS_MIN: Final = 0.05
TOKEN_LOOK_SECONDS_MAX: Final = 30.0
"""The wall clock may jump, so whether tokens hold is looked at again now and then."""


class LocalApi:
    """The listener: makes the sockets, holds the sessions, and closes both."""

    def __init__(
        self,
        router: LocalRouter,
        *,
        limits: LocalLimits = DEFAULT_LIMITS,
        access: LocalAccess | None = None,
        peer_credentials: PeerCredentialsOf | None = None,
    ) -> None:
        """Without ``access`` the sidecar's own user is let in, and may act as any agent."""
        self.router = router
        self.limits = limits
        self.access = access or LocalAccess()
        self.peer_credentials = peer_credentials or partial(
            read_peer_credentials, executable=self.access.reads_executables
        )
        self.sessions: set[Session] = set()
        self.goodbyes: Counter[Code] = Counter()
        """How many sessions this side ended, by code: for metrics."""
        self._strangers: dict[Session, None] = {}
        """Those that nobody vouches for and that have shown no token; the oldest first."""
        self._token_timer: asyncio.TimerHandle | None = None
        self._servers: list[asyncio.Server] = []
        self._path: Path | None = None
        self._inode = 0
        self._all_gone = asyncio.Event()

    async def start(self, path: Path, group_id: int | None = None) -> None:
        """Listen at `path`, in a folder that only this user, and the group, can enter.

        Raises LocalApiError.
        """
        listener = bind_unix(path, group_id)
        try:
            server = await asyncio.get_running_loop().create_unix_server(
                lambda: Session(self), sock=listener
            )
        except BaseException:
            listener.close()
            raise
        self._servers.append(server)
        self._path = path
        self._inode = _inode_of(path)

    async def start_tcp(self, host: str, port: int) -> int:
        """Listen on a loopback address too, where everybody needs a token. Returns the port.

        Raises ConfigError: config.port_busy, config.invalid.
        """
        listener = bind_loopback(host, port)
        try:
            server = await asyncio.get_running_loop().create_server(
                lambda: Session(self, is_vouched=False), sock=listener
            )
        except BaseException:
            listener.close()
            raise
        self._servers.append(server)
        bound: int = listener.getsockname()[1]
        return bound

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
        if self._token_timer is not None:
            self._token_timer.cancel()
            self._token_timer = None
        for session in list(self.sessions):
            session.close(code, delay_ms)
        self._all_gone.clear()
        if self.sessions:
            # Sessions cut themselves after the grace; the wait is over soon after.
            async with asyncio.timeout(2 * CLOSE_GRACE_S):
                await self._all_gone.wait()

    def _stop_listening(self) -> None:
        while self._servers:
            self._servers.pop().close()
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                # Only our own: a later start may have taken the path over.
                if _inode_of(self._path) == self._inode:
                    self._path.unlink()
            self._path = None

    # What sessions ask and tell (SessionHome).

    @property
    def has_room(self) -> bool:
        """For one more process that may be here."""
        return len(self.sessions) - len(self._strangers) < self.limits.connections_max

    def stranger_came(self, session: Session) -> None:
        """It has a place until others need it; who says Hello at once is hardly ever pushed out."""
        self._strangers[session] = None
        if len(self._strangers) > self.limits.strangers_max:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.cut(Code.LOCAL_LIMIT)

    def stranger_proved(self, session: Session) -> bool:
        """It may be here, by a token or because it was none. False when there is no room for it."""
        if session in self._strangers:
            if not self.has_room:
                return False
            del self._strangers[session]
        if session.grant is not None and session.grant.token is not None:
            self.look_at_tokens()
        return True

    def session_gone(self, session: Session) -> None:
        self.sessions.discard(session)
        self._strangers.pop(session, None)
        if not self.sessions:
            self._all_gone.set()

    # Tokens.

    def look_at_tokens(self) -> None:
        """End the sessions whose token is revoked or over, and look again when the next one is."""
        if self._token_timer is not None:
            self._token_timer.cancel()
            self._token_timer = None
        soonest_s: float | None = None
        for session in list(self.sessions):
            grant = session.grant
            if grant is None or grant.token is None:
                continue
            left_s = self.access.left_s(grant.token)
            if left_s <= 0:
                session.close(Code.LOCAL_UNAUTHORIZED)
            else:
                soonest_s = min(left_s, TOKEN_LOOK_SECONDS_MAX if soonest_s is None else soonest_s)
        if soonest_s is not None:
            self._token_timer = asyncio.get_running_loop().call_later(
                max(soonest_s, TOKEN_LOOK_SECONDS_MIN), self.look_at_tokens
            )


def _inode_of(path: Path) -> int:
    return path.lstat().st_ino


__all__ = ["DEFAULT_LIMITS", "LocalApi", "LocalLimits"]
