"""The local API over a Unix socket: agent processes on one side, the router on the other.

It frames, checks and limits; it decides nothing about messages. Whatever a process sends costs at
most its own connection, which ends with a typed Goodbye.
"""

import asyncio
import contextlib
import os
import socket
import stat
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import msgspec
from sidelink.errors import WireError
from sidelink.wire import (
    ASK,
    BATCH_BYTES_MAX,
    LOCAL_API_VERSION,
    MESSAGE_BYTES_MAX,
    Answer,
    Attributes,
    ClientFrame,
    CloseAgent,
    Deliver,
    Failed,
    Flush,
    Goodbye,
    Hello,
    Listen,
    OpenAgent,
    Opened,
    Receipt,
    Refuse,
    Reply,
    Send,
    ServerFrame,
    client_frame_reader,
    encode_batches,
)

from identity import Code, SidelinkError
from sidecar.local_port import LocalRouter, PeerCredentials, failure

SOCKET_PATH_BYTES_MAX: Final = 107
HELLO_WAIT_S: Final = 5.0
CLOSE_GRACE_S: Final = 2.0
BATCH_BYTES_TARGET: Final = 48 * 1024
"""Written at once when this much is queued. Larger batches gain nothing (measured)."""
FRAME_BYTES: Final = 64
"""What a frame takes beside a body and attributes, about."""


@dataclass(frozen=True, slots=True)
class LocalLimits:
    connections_max: int = 256
    agents_per_connection_max: int = 1024
    hello_bytes_max: int = 64 * 1024
    write_high_bytes: int = 1024 * 1024
    write_low_bytes: int = 256 * 1024
    pending_bytes_max: int = 16 * 1024 * 1024

    def __post_init__(self) -> None:
        assert 0 < self.write_low_bytes < self.write_high_bytes
        assert self.write_high_bytes + 2 * BATCH_BYTES_MAX <= self.pending_bytes_max


DEFAULT_LIMITS: Final = LocalLimits()
PeerCredentialsOf = Callable[[asyncio.BaseTransport], PeerCredentials]
_UCRED: Final = struct.Struct("=iII")


class LocalApiError(SidelinkError):
    """The listener cannot be made, or a process may not connect."""


def read_peer_credentials(transport: asyncio.BaseTransport) -> PeerCredentials:
    """Ask the kernel who connected. Raises LocalApiError where it does not say (not Linux)."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        raise LocalApiError(Code.LOCAL_UNAUTHORIZED, "this system has no SO_PEERCRED")
    peer = transport.get_extra_info("socket")
    try:
        data = peer.getsockopt(socket.SOL_SOCKET, option, _UCRED.size)
    except OSError as error:
        raise LocalApiError(Code.LOCAL_UNAUTHORIZED, f"SO_PEERCRED: {error}") from error
    return PeerCredentials(*_UCRED.unpack(data))


class LocalApi:
    """The listener: makes the socket, holds the sessions, and closes both."""

    def __init__(
        self,
        router: LocalRouter,
        *,
        limits: LocalLimits = DEFAULT_LIMITS,
        peer_credentials: PeerCredentialsOf = read_peer_credentials,
    ) -> None:
        self.router: Final = router
        self.limits: Final = limits
        self.peer_credentials: Final = peer_credentials
        self.sessions: Final[set[Session]] = set()
        self.goodbyes: Final[Counter[Code]] = Counter()
        """How many sessions this side ended, by code: for metrics."""
        self._server: asyncio.Server | None = None
        self._path: Path | None = None
        self._inode = 0
        self._all_gone = asyncio.Event()

    async def start(self, path: Path) -> None:
        """Listen at `path`, in a folder that only this user can enter. Raises LocalApiError."""
        listener = _bind_untouchable(path)
        try:
            self._server = await asyncio.get_running_loop().create_unix_server(
                lambda: Session(self), sock=listener
            )
        except BaseException:
            listener.close()
            raise
        self._path = path
        self._inode = _inode_of(path)

    async def close(self, code: Code = Code.LOCAL_DRAINING, delay_ms: int = 0) -> None:
        """Say Goodbye to everyone; who has not gone after CLOSE_GRACE_S is cut."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                # Only our own: a later start may have taken the path over.
                if _inode_of(self._path) == self._inode:
                    self._path.unlink()
            self._path = None
        for session in list(self.sessions):
            session.close(code, delay_ms)
        self._all_gone.clear()
        if self.sessions:
            # Sessions cut themselves after the grace; the wait is over soon after.
            async with asyncio.timeout(2 * CLOSE_GRACE_S):
                await self._all_gone.wait()

    def session_gone(self, session: "Session") -> None:
        self.sessions.discard(session)
        if not self.sessions:
            self._all_gone.set()


def _inode_of(path: Path) -> int:
    return path.lstat().st_ino


def _bind_untouchable(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise LocalApiError(
            Code.CONFIG_INVALID,
            f"the socket path {path} is longer than {SOCKET_PATH_BYTES_MAX} bytes; "
            "choose a shorter state folder",
        )
    folder = path.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise LocalApiError(
            Code.CONFIG_STATE_UNSAFE, f"the folder {folder} must be this user's own, with mode 0700"
        )
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise LocalApiError(Code.CONFIG_STATE_UNSAFE, f"{path} is in the way of the socket")
        # The state folder's lock is ours, so a socket found here was left by a crash.
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(os.fspath(path))
        path.chmod(0o600)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise LocalApiError(Code.CONFIG_INVALID, f"cannot listen at {path}: {error}") from error
    return listener


class Session(asyncio.Protocol):
    """One connection. Implements `sidecar.local_port.LocalSession`."""

    def __init__(self, api: LocalApi) -> None:
        self._api = api
        self._router = api.router
        self._limits = api.limits
        self._reader = client_frame_reader()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._peer = PeerCredentials(-1, 2**32 - 1, 2**32 - 1)
        self._greeted = False
        self._closed = False
        self._openings: set[int] = set()
        self._agents: set[int] = set()
        self._pending: list[ServerFrame] = []
        self._pending_bytes = 0
        self._attributes: Attributes | None = None
        self._attributes_bytes = 0
        self._flush_scheduled = False
        self._write_blocked = False
        self._router_paused = False
        self._reading = True

    # What the router calls.

    @property
    def peer(self) -> PeerCredentials:
        return self._peer

    @property
    def writable(self) -> bool:
        return not (self._write_blocked or self._closed)

    def deliver(self, frames: Sequence[ServerFrame]) -> None:
        if self._closed:
            return
        self._pending += frames
        pending_bytes = self._pending_bytes
        for frame in frames:
            pending_bytes += FRAME_BYTES
            if isinstance(frame, (Deliver, Reply)):
                if frame.attributes is not self._attributes:
                    # Measured once for all messages of a sender, who shares them.
                    self._attributes = frame.attributes
                    self._attributes_bytes = len(msgspec.msgpack.encode(frame.attributes))
                pending_bytes += len(frame.body) + self._attributes_bytes
        self._pending_bytes = pending_bytes
        if pending_bytes >= BATCH_BYTES_TARGET:
            self._flush()
        elif not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush_turn)

    def agent_opened(self, opened: Opened) -> None:
        if self._closed:
            return
        self._openings.discard(opened.request)
        self._agents.add(opened.agent)
        self.deliver([opened])

    def agent_refused(self, failed: Failed) -> None:
        self._openings.discard(failed.request)
        self.deliver([failed])

    def pause(self) -> None:
        self._router_paused = True
        self._update_reading()

    def resume(self) -> None:
        self._router_paused = False
        self._update_reading()

    def close(self, code: Code, delay_ms: int = 0) -> None:
        if self._closed:
            return
        self._api.goodbyes[code] += 1
        self.deliver([Goodbye(code.text, delay_ms)])
        self._flush()
        if self._closed:
            return
        self._end()
        self._tell_router()
        transport = self._transport
        if transport is None:
            return
        # Half-closed and still read from, so that a process in mid-write sees the Goodbye and not
        # a broken pipe. The timer cuts a process that does not go.
        self._reading = True
        with contextlib.suppress(RuntimeError):
            transport.resume_reading()
        with contextlib.suppress(OSError, RuntimeError):
            transport.write_eof()
        self._timer = asyncio.get_running_loop().call_later(CLOSE_GRACE_S, transport.abort)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(
            high=self._limits.write_high_bytes, low=self._limits.write_low_bytes
        )
        full = len(self._api.sessions) >= self._limits.connections_max
        self._api.sessions.add(self)
        try:
            self._peer = self._api.peer_credentials(transport)
        except LocalApiError as error:
            self.close(error.code)
            return
        # A program of another user is turned away before a byte of it is looked at.
        if self._peer.user_id not in (os.geteuid(), 0):
            self.close(Code.LOCAL_UNAUTHORIZED)
        elif full:
            self.close(Code.LOCAL_LIMIT)
        else:
            self._timer = asyncio.get_running_loop().call_later(
                HELLO_WAIT_S, self.close, Code.LOCAL_BAD_REQUEST
            )

    def data_received(self, data: bytes) -> None:
        if self._closed:
            return
        try:
            frames = self._reader.feed_untrusted(data)
        except WireError as error:
            limit = error.code == Code.LOCAL_LIMIT.text
            self.close(Code.LOCAL_LIMIT if limit else Code.LOCAL_BAD_REQUEST)
            return
        if not self._greeted and self._reader.buffered_bytes > self._limits.hello_bytes_max:
            self.close(Code.LOCAL_LIMIT)
            return
        try:
            self._dispatch(frames)
        except Exception:
            # A fault of ours: this connection ends, the loop's handler reports it.
            self.close(Code.LOCAL_INTERNAL)
            raise

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        # A process that does not read its answers may not ask for more of them.
        self._write_blocked = True
        self._update_reading()

    def resume_writing(self) -> None:
        self._write_blocked = False
        self._update_reading()
        if self._greeted and not self._closed:
            self._router.session_writable(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._end()
        self._tell_router()
        self._api.session_gone(self)

    # Frames.

    def _dispatch(self, frames: list[ClientFrame]) -> None:
        run: list[Send] = []
        for frame in frames:
            if type(frame) is Send:
                run.append(frame)
                continue
            if run:
                self._send(run)
                run = []
            if not (self._greeted or self._closed):
                self._greet(frame)
            elif not self._closed:
                self._handle(frame)
            if self._closed:
                return
        if run:
            self._send(run)

    def _greet(self, frame: ClientFrame) -> None:
        match frame:
            case Hello(version=version) if version != LOCAL_API_VERSION:
                self.close(Code.LOCAL_VERSION_UNSUPPORTED)
            case Hello(token=None):
                assert self._timer is not None
                self._timer.cancel()
                self._greeted = True
                self.deliver([self._router.welcome()])
            case Hello():
                # The kernel vouches for who is here; a token would be accepted unread.
                self.close(Code.LOCAL_UNAUTHORIZED)
            case _:
                self.close(Code.LOCAL_BAD_REQUEST)

    def _handle(self, frame: ClientFrame) -> None:
        match frame:
            case OpenAgent():
                self._open(frame)
            case CloseAgent(request=request, agent=agent):
                if self._knows(request, agent):
                    self._agents.discard(agent)
                    self._router.close_agent(self, agent)
                    self.deliver([Receipt(request)])
            case Flush(request=request, agent=agent):
                if self._knows(request, agent):
                    self.deliver([Receipt(request)])
            case Listen(agent=agent, on=on):
                if self._knows(0, agent):
                    self._router.listen(self, agent, on)
            case Answer(agent=agent):
                if self._knows(0, agent) and self._fits(0, frame):
                    self._router.answer(self, frame)
            case Refuse(agent=agent):
                if self._knows(0, agent):
                    self._router.refuse(self, frame)
            case _:
                self.close(Code.LOCAL_BAD_REQUEST)

    def _open(self, frame: OpenAgent) -> None:
        if not frame.request or frame.request in self._openings:
            self.close(Code.LOCAL_BAD_REQUEST)
        elif len(self._agents) + len(self._openings) >= self._limits.agents_per_connection_max:
            self.deliver([failure(frame.request, Code.LOCAL_LIMIT, "too many agents")])
        else:
            self._openings.add(frame.request)
            self._router.open_agent(self, frame.request, frame.name, frame.attributes)

    def _send(self, sends: list[Send]) -> None:
        agents = self._agents
        for send in sends:
            if (
                send.agent not in agents
                or len(send.body) > MESSAGE_BYTES_MAX
                or (send.kind == ASK and not send.request)
            ):
                break
        else:
            if self._greeted:
                self._router.send_batch(self, sends)
                return
        self._send_checked(sends)

    def _send_checked(self, sends: list[Send]) -> None:
        if not self._greeted or any(send.kind == ASK and not send.request for send in sends):
            self.close(Code.LOCAL_BAD_REQUEST)
            return
        accepted = [
            send
            for send in sends
            if self._knows(send.request, send.agent) and self._fits(send.request, send)
        ]
        if accepted:
            self._router.send_batch(self, accepted)

    def _knows(self, request: int, agent: int) -> bool:
        if agent in self._agents:
            return True
        self.deliver([failure(request, Code.LOCAL_AGENT_UNKNOWN, agent=agent)])
        return False

    def _fits(self, request: int, frame: Send | Answer) -> bool:
        if len(frame.body) <= MESSAGE_BYTES_MAX:
            return True
        text = f"a body of {len(frame.body)} bytes, more than {MESSAGE_BYTES_MAX}"
        self.deliver([failure(request, Code.MESSAGE_TOO_LARGE, text, agent=frame.agent)])
        return False

    # Bytes.

    def _flush_turn(self) -> None:
        self._flush_scheduled = False
        self._flush()

    def _flush(self) -> None:
        transport = self._transport
        if not self._pending or transport is None or self._closed:
            return
        frames, self._pending, self._pending_bytes = self._pending, [], 0
        for batch in encode_batches(frames):
            transport.write(batch)
        if transport.get_write_buffer_size() > self._limits.pending_bytes_max:
            # The router went on long after `writable` was false. It is told of the end in
            # `connection_lost`, a turn later, for it is in the midst of delivering now.
            self._api.goodbyes[Code.LOCAL_LIMIT] += 1
            self._end()
            transport.abort()

    def _update_reading(self) -> None:
        transport = self._transport
        reading = not (self._router_paused or self._write_blocked)
        if transport is None or self._closed or reading == self._reading:
            return
        self._reading = reading
        if reading:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def _end(self) -> None:
        self._closed = True
        self._pending.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _tell_router(self) -> None:
        if self._greeted:
            self._greeted = False
            self._router.session_closed(self)


__all__ = ["DEFAULT_LIMITS", "LocalApi", "LocalApiError", "LocalLimits", "read_peer_credentials"]
