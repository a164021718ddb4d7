"""One agent process at the local API: its frames checked, its answers batched, its pace kept.

Whatever a process sends costs at most its own connection, which ends with a typed Goodbye.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, cast

import msgspec
from sidelink.errors import WireError
from sidelink.wire import (
    ASK,
    BATCH_BYTES_MAX,
    LOCAL_API_VERSION,
    MESSAGE_BYTES_MAX,
    TELL,
    Answer,
    Attributes,
    ClientFrame,
    CloseAgent,
    Deliver,
    DeliverRun,
    Draining,
    Failed,
    Flush,
    Goodbye,
    Hello,
    Leave,
    Listen,
    OpenAgent,
    Opened,
    Receipt,
    Refuse,
    Reply,
    Send,
    ServerFrame,
    SpawnAgent,
    TellRun,
    bodies_bytes,
    client_frame_reader,
    encode_batches,
)

from identity import Code
from sidecar.local_access import Grant, LocalAccess, Refusal
from sidecar.local_port import LocalApiError, LocalRouter, PeerCredentials, failure

HELLO_WAIT_S: Final = 5.0
CLOSE_GRACE_S: Final = 2.0
BATCH_BYTES_TARGET: Final = 48 * 1024
"""Written at once when this much is queued. Larger batches gain nothing (measured)."""
FRAME_BYTES: Final = 64
"""What a frame takes beside a body and attributes, about."""


@dataclass(frozen=True, slots=True)
class LocalLimits:
    connections_max: int = 256
    strangers_max: int = 64
    """Beside those: connections that nobody vouches for and that have shown no token yet."""
    agents_per_connection_max: int = 1024
    hello_bytes_max: int = 64 * 1024
    write_high_bytes: int = 1024 * 1024
    write_low_bytes: int = 256 * 1024
    pending_bytes_max: int = 16 * 1024 * 1024

    def __post_init__(self) -> None:
        assert 0 < self.write_low_bytes < self.write_high_bytes
        assert self.write_high_bytes + 2 * BATCH_BYTES_MAX <= self.pending_bytes_max


PeerCredentialsOf = Callable[[asyncio.BaseTransport], PeerCredentials]


class SessionHome(Protocol):
    """What a session asks of its listener."""

    router: LocalRouter
    limits: LocalLimits
    access: LocalAccess
    peer_credentials: PeerCredentialsOf
    sessions: "set[Session]"
    goodbyes: Counter[Code]

    @property
    def has_room(self) -> bool: ...
    def stranger_came(self, session: "Session") -> None: ...
    def stranger_proved(self, session: "Session") -> bool: ...
    def session_gone(self, session: "Session") -> None: ...


class Session(asyncio.Protocol):
    """One connection. Implements `sidecar.local_port.LocalSession`."""

    def __init__(self, api: SessionHome, *, is_vouched: bool = True) -> None:
        """``is_vouched``: the kernel says who is there, which it does for Unix sockets only."""
        self._api = api
        self._is_vouched = is_vouched
        self._grant: Grant | None = None
        self._router = api.router
        self._limits = api.limits
        self._reader = client_frame_reader()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._peer = PeerCredentials(-1, 2**32 - 1, 2**32 - 1)
        self._greeted = False
        self._closed = False
        self._left = False
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

    @property
    def grant(self) -> Grant | None:
        """What it may do; None once it has ended, and before it has shown that it may do any."""
        return None if self._closed else self._grant

    def deliver(self, frames: Sequence[ServerFrame]) -> None:
        if self._closed:
            return
        self._pending += frames
        pending_bytes = self._pending_bytes
        for frame in frames:
            pending_bytes += FRAME_BYTES
            if isinstance(frame, (Deliver, DeliverRun, Reply)):
                if frame.attributes is not self._attributes:
                    # Measured once for all messages of a sender, who shares them.
                    self._attributes = frame.attributes
                    self._attributes_bytes = len(msgspec.msgpack.encode(frame.attributes))
                pending_bytes += self._attributes_bytes
                pending_bytes += (
                    bodies_bytes(frame.bodies) if isinstance(frame, DeliverRun) else len(frame.body)
                )
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

    def agent_gone(self, failed: Failed) -> None:
        self._agents.discard(failed.agent)
        self.deliver([failed])

    def pause(self) -> None:
        self._router_paused = True
        self._update_reading()

    def resume(self) -> None:
        self._router_paused = False
        self._update_reading()

    @property
    def may_send(self) -> bool:
        """Whether something new may still come: it is open, and has not said Leave."""
        return not (self._closed or self._left)

    def drain(self, delay_ms: int) -> None:
        """The sidecar stops soon. A process that has asked for nothing yet need not wait."""
        if self._greeted:
            self.deliver([Draining(delay_ms)])
        else:
            self.close(Code.LOCAL_DRAINING, delay_ms)

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

    def cut(self, code: Code) -> None:
        """Say Goodbye, and do not wait for it to be read: somebody else needs the place."""
        self.close(code)
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(
            high=self._limits.write_high_bytes, low=self._limits.write_low_bytes
        )
        has_room = self._api.has_room
        self._api.sessions.add(self)
        if self._is_vouched:
            try:
                self._peer = self._api.peer_credentials(transport)
            except LocalApiError as error:
                self.close(error.code)
                return
            self._grant = self._api.access.of_process(self._peer)
        if self._grant is None:
            self._api.stranger_came(self)
            if not self._api.access.takes_tokens:
                # It is turned away before a byte of it is looked at.
                self._turn_away()
                return
        elif not has_room:
            self.close(Code.LOCAL_LIMIT)
            return
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
            elif type(frame) is TellRun:
                self._send_run(frame)
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
            case Hello(token=token):
                if token is not None:
                    self._grant = self._api.access.of_token_untrusted(token)
                if self._grant is None:
                    self._turn_away(token)
                    return
                if not self._api.stranger_proved(self):
                    self.close(Code.LOCAL_LIMIT)
                    return
                assert self._timer is not None
                self._timer.cancel()
                self._greeted = True
                self.deliver([self._router.welcome()])
            case _:
                self.close(Code.LOCAL_BAD_REQUEST)

    def _turn_away(self, token: str | None = None) -> None:
        """Whatever is wrong, the answer is the same: a guess learns nothing."""
        by_user = self._is_vouched and token is None
        self._api.access.refuse(Refusal.USER if by_user else Refusal.TOKEN)
        self.close(Code.LOCAL_UNAUTHORIZED)

    def _handle(self, frame: ClientFrame) -> None:
        match frame:
            case OpenAgent() | SpawnAgent():
                self._open(frame)
            case CloseAgent(request=request, agent=agent) | Flush(request=request, agent=agent):
                if self._knows(request, agent):
                    if isinstance(frame, CloseAgent):
                        self._agents.discard(agent)
                        self._router.close_agent(self, agent)
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
            case Leave():
                self._left = True
            case _:
                self.close(Code.LOCAL_BAD_REQUEST)

    def _open(self, frame: OpenAgent | SpawnAgent) -> None:
        assert self._grant is not None
        if not frame.request or frame.request in self._openings:
            self.close(Code.LOCAL_BAD_REQUEST)
        elif len(self._agents) + len(self._openings) >= self._limits.agents_per_connection_max:
            self.deliver([failure(frame.request, Code.LOCAL_LIMIT, "too many agents")])
        elif not self._may_act_as(acting_as := _acting_as(frame)):
            reason = self._api.access.refuse_agent(self._grant, acting_as)
            self.deliver([failure(frame.request, Code.LOCAL_UNAUTHORIZED, reason)])
        else:
            self._openings.add(frame.request)
            if isinstance(frame, OpenAgent):
                self._router.open_agent(self, frame.request, frame.name, frame.attributes)
            else:
                spawned = frame.parent, frame.name, frame.attributes, frame.ttl_s
                self._router.spawn_agent(self, frame.request, *spawned)

    def _may_act_as(self, path: str) -> bool:
        grant = self._grant
        assert grant is not None
        return grant.allows(path) and (grant.may_mint(path) or self._router.is_child(path))

    def _send_run(self, run: TellRun) -> None:
        if self._knows(0, run.agent):
            if max(map(len, run.bodies)) > MESSAGE_BYTES_MAX:
                # Nothing of ours sends such a run. Each of its messages gets its own answer.
                sends = [
                    Send(0, run.agent, run.to, TELL, body, run.content_type, 0)
                    for body in run.bodies
                ]
                self._send(sends)
            else:
                self._router.send_run(self, run)

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


def _acting_as(frame: OpenAgent | SpawnAgent) -> str:
    """As whom a process must be allowed to act: whoever may act as an agent may have it spawn."""
    return frame.name if isinstance(frame, OpenAgent) else frame.parent
