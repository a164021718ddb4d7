"""Byte streams of a sidecar: opened on a channel, sealed by a secret it carried, one task each.

The asyncio side of ``channel.StreamSession``. Whoever uses a stream sees only ``MeshStream``.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from channel import (
    ChannelError,
    Role,
    StreamData,
    StreamEvent,
    StreamFinished,
    StreamOpen,
    StreamReset,
    StreamSecret,
    StreamSession,
    decode_stream_open_untrusted,
    encode_stream_open,
)
from identity import AgentUri, Code, SidelinkError, VerifiedIdentity
from link import Credit, FrameKind, HopPort, ReceiveWindow, SendWindow, StreamPreamble
from link.errors import CreditError, FrameError
from link.limits import STREAM_PREAMBLE_BYTES, STREAM_WINDOW_BYTES
from link.messages import (
    decode_stream_preamble_untrusted,
    encode_credit,
    encode_stream_preamble,
)
from node.clocks import Clock
from policy import Action, Denial, Party, Permit
from sidecar.agents import LocalAgent
from sidecar.channels import ChannelSlot
from sidecar.conversation import Failure
from sidecar.decisions import SidecarDecisions
from sidecar.local_stream import local_stream_pair
from sidecar.mesh_stream import MeshStream, StreamError
from sidecar.router import Router

OPEN_SECONDS_MAX: Final = 10.0
EARLY_BYTES_MAX: Final = 64 << 10
EARLY_SECONDS_MAX: Final = 5.0
EARLY_STREAMS_MAX: Final = 256
STREAMS_MAX: Final = 4_096
STREAMS_PER_CHANNEL_MAX: Final = 512

# Sealed at once. Larger pieces only make the reader wait longer for the first byte.
PIECE_BYTES_MAX: Final = 32 << 10
# What a seal adds to a piece, at most: length, header, tag, and the type in a first chunk.
PIECE_OVERHEAD_BYTES_MAX: Final = 128

Serve = Callable[[MeshStream], Awaitable[None]]

_log = structlog.get_logger("sidecar.streams")


class SealedStream:
    """One end of a stream over the mesh. Fits MeshStream."""

    def __init__(
        self,
        hop: HopPort,
        slot: ChannelSlot,
        number: int,
        quic_stream: int,
        session: StreamSession,
        role: Role,
        forget: Callable[["SealedStream"], None],
    ) -> None:
        self.hop = hop
        self.slot = slot
        self.number = number
        self.quic_stream = quic_stream
        self._session = session
        self._forget = forget
        self._send_window = SendWindow()
        self._receive_window = ReceiveWindow(STREAM_WINDOW_BYTES)
        self._received: deque[tuple[bytes, int]] = deque()
        self._finished = False
        self._sent_end = False
        self._fault: Code | None = None
        self._readable = asyncio.Event()
        self._creditable = asyncio.Event()
        self._established = asyncio.Event()
        # The side that was spoken to first may always write; the opener has to begin.
        self._spoken = role is Role.RESPONDER

    @property
    def peer(self) -> VerifiedIdentity:
        return self.slot.peer.identity

    async def read(self, bytes_max: int) -> bytes:
        while not self._received:
            if self._fault is not None:
                raise StreamError(self._fault, "the stream broke")
            if self._finished:
                return b""
            if not self._spoken:
                self._speak()
            self._readable.clear()
            await self._readable.wait()
        data, owed_bytes = self._received.popleft()
        if len(data) > bytes_max:
            self._received.appendleft((data[bytes_max:], owed_bytes))
            return data[:bytes_max]
        self._consume(owed_bytes)
        return data

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(view), PIECE_BYTES_MAX):
            piece = bytes(view[start : start + PIECE_BYTES_MAX])
            # The first piece goes with the handshake; the others wait for the answer to it.
            if self._spoken:
                await self._wait_established()
            self._spoken = True
            await self._wait_for_credit(len(piece) + PIECE_OVERHEAD_BYTES_MAX)
            self._send(self._session.write(piece))

    async def finish(self) -> None:
        if not self._spoken:
            self._speak()
        await self._wait_established()
        await self._wait_for_credit(2 * PIECE_OVERHEAD_BYTES_MAX)
        self._sent_end = True
        self._send(self._session.finish(), end=True)
        self._done_if_both()

    def reset(self, code: Code) -> None:
        if self._fault is None and not (self._finished and self._sent_end):
            self._send(self._session.reset(code))
            self.hop.reset_stream(self.quic_stream, int(code))
            self._break(code)

    def _speak(self) -> None:
        """The opener's handshake, when it has nothing to say with it."""
        self._spoken = True
        self._send(self._session.write(b""))

    def received_untrusted(self, data: bytes, ended: bool) -> None:
        """Bytes of the QUIC stream. Whatever they are, they cost this stream at most."""
        if self._fault is not None:
            return
        try:
            self._receive_window.receive_untrusted(len(data))
        except CreditError as exc:
            self.reset(exc.code)
            return
        events: list[StreamEvent] = list(self._session.feed_untrusted(data))
        self._send(self._session.take_output())
        last = events[-1] if events else None
        for event in events:
            match event:
                case StreamData():
                    self._received.append((event.data, len(data) if event is last else 0))
                case StreamFinished():
                    self._finished = True
                case StreamReset():
                    self._end_with(event.code)
        if not isinstance(last, StreamData):
            self._consume(len(data))
        if ended:
            broken = self._session.quic_ended()
            if broken is not None:
                self._end_with(Code.STREAM_TRUNCATED)
        self._readable.set()
        if self._session.established:
            self._established.set()
        self._done_if_both()

    def quic_reset(self, code: Code) -> None:
        """The stream below is gone. Nobody sealed that, so it is no ending."""
        if self._session.quic_ended() is not None:
            self._end_with(code)

    def credit(self, limit: int) -> None:
        if self._send_window.grant_untrusted(limit):
            self._creditable.set()

    def _end_with(self, code: Code) -> None:
        if self._fault is None:
            self.hop.reset_stream(self.quic_stream, int(code))
            self._break(code)

    def _break(self, code: Code) -> None:
        self._fault = code
        self._readable.set()
        self._creditable.set()
        self._established.set()
        self._forget(self)

    def _done_if_both(self) -> None:
        if self._finished and self._sent_end:
            self._forget(self)

    async def _wait_established(self) -> None:
        if self._session.established:
            return
        try:
            async with asyncio.timeout(OPEN_SECONDS_MAX):
                await self._established.wait()
        except TimeoutError:
            self.reset(Code.STREAM_TIMEOUT)
        if self._fault is not None:
            raise StreamError(self._fault, "the far side did not take the stream")

    async def _wait_for_credit(self, count_bytes: int) -> None:
        while True:
            if self._fault is not None:
                raise StreamError(self._fault, "the stream broke")
            if self._send_window.available_bytes >= count_bytes:
                return
            self._creditable.clear()
            await self._creditable.wait()

    def _send(self, data: bytes, *, end: bool = False) -> None:
        if data or end:
            self._send_window.spend(min(len(data), self._send_window.available_bytes))
            self.hop.send_stream(self.quic_stream, data, end=end)

    def _consume(self, count_bytes: int) -> None:
        limit = self._receive_window.consume(count_bytes)
        if limit is not None and self._fault is None:
            body = encode_credit(Credit(self.number, limit))
            self.hop.send_frame(self.slot.links.link, FrameKind.CREDIT, body)


@dataclass(slots=True, eq=False)
class _Expected:
    """A stream that the peer announced and whose first byte has not come yet."""

    slot: ChannelSlot
    opening: StreamOpen
    answer: Permit | Denial


@dataclass(slots=True, eq=False)
class _Early:
    """Bytes of a stream that nobody announced yet."""

    data: bytearray
    ended: bool = False
    preamble: StreamPreamble | None = None


class Streams:
    """All byte streams of one sidecar."""

    def __init__(self, router: Router, decisions: SidecarDecisions, clock: Clock) -> None:
        self._router = router
        self._decisions = decisions
        self._clock = clock
        self._services: dict[tuple[int, str], Serve] = {}
        self._streams: dict[tuple[int, int], SealedStream] = {}
        self._by_link: dict[tuple[int, int, int], SealedStream] = {}
        self._expected: dict[tuple[int, int, int], _Expected] = {}
        self._early: dict[tuple[int, int], _Early] = {}
        self._next_number: dict[ChannelSlot, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.opened = 0

    def __len__(self) -> int:
        return len(self._streams)

    def offer(self, agent: LocalAgent, service: str, serve: Serve) -> None:
        """Serve a service in the name of one of our agents."""
        self._services[agent.handle, service] = serve

    async def close(self) -> None:
        for stream in list(self._streams.values()):
            stream.reset(Code.LOCAL_DRAINING)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def open(self, agent: LocalAgent, to: AgentUri, service: str) -> MeshStream:
        """A stream to a service of another agent. Raises SidelinkError: denied, unreachable."""
        if self._router.agents.covers(to):
            return self._open_locally(agent, to, service)
        slot = await self._channel(agent, to)
        permit = self._decisions.may_stream(
            slot.agent.party,
            Party.from_verified(slot.peer.identity),
            service,
            expires_unix_s=slot.expires_unix_s,
        )
        if isinstance(permit, Denial):
            raise StreamError(permit.code, permit.reason)
        return self._open(permit, slot, service)

    async def prove(self, agent: LocalAgent, to: AgentUri) -> VerifiedIdentity:
        """Who ``to`` is, once a channel has proved it. Raises SidelinkError: unreachable."""
        if not self._router.agents.covers(to):
            slot = await self._channel(agent, to)
            return slot.peer.identity
        target = self._router.agents.find(to, self._clock.unix_s())
        if target is None:
            raise StreamError(Code.MESSAGE_AGENT_UNKNOWN, str(to))
        return target.identity

    # What the router tells (StreamOwner).

    def stream_announced(self, slot: ChannelSlot, payload: bytes) -> None:
        """A STREAM_OPEN record: decided now; the secret waits for the stream's first byte."""
        try:
            opening = decode_stream_open_untrusted(payload)
        except ChannelError as exc:
            self._router.channels.close(slot, exc.code)
            self._router.channel_closed(slot, exc.code)
            return
        key = (slot.links.hop.id, slot.links.link, opening.stream)
        ours = opening.stream % 2 == (1 if slot.initiator else 0)
        too_many = len(self._expected) >= STREAMS_PER_CHANNEL_MAX
        if ours or too_many or key in self._expected or key in self._by_link:
            code = Code.STREAM_LIMIT if too_many else Code.CHANNEL_BAD_RECORD
            self._router.channels.close(slot, code)
            self._router.channel_closed(slot, code)
            return
        answer = self._decisions.may_stream(
            Party.from_verified(slot.peer.identity),
            slot.agent.party,
            opening.service,
            expires_unix_s=slot.expires_unix_s,
        )
        self._expected[key] = _Expected(slot, opening, answer)
        self._later(EARLY_SECONDS_MAX, lambda: self._expected.pop(key, None))
        for (hop_id, quic_stream), early in list(self._early.items()):
            if early.preamble == StreamPreamble(key[1], key[2]) and hop_id == key[0]:
                del self._early[hop_id, quic_stream]
                self._accept(key, quic_stream, bytes(early.data), early.ended)

    def stream_credit(self, hop: HopPort, link: int, stream: int, limit: int) -> None:
        found = self._by_link.get((hop.id, link, stream))
        if found is not None:
            found.credit(limit)

    def channel_gone(self, slot: ChannelSlot, code: Code) -> None:
        """A stream lives no longer than the channel that opened it."""
        self._next_number.pop(slot, None)
        for stream in [s for s in self._streams.values() if s.slot is slot]:
            stream.reset(Code.STREAM_RESET if code is Code.CHANNEL_CLOSED else code)

    # What the hop's handler tells.

    def stream_received(self, hop: HopPort, quic_stream: int, data: bytes, ended: bool) -> None:
        stream = self._streams.get((hop.id, quic_stream))
        if stream is not None:
            stream.received_untrusted(data, ended)
            return
        key = (hop.id, quic_stream)
        early = self._early.get(key)
        if early is None:
            if len(self._early) >= EARLY_STREAMS_MAX or (ended and not data):
                hop.reset_stream(quic_stream, int(Code.STREAM_EARLY_BYTES))
                return
            early = self._early[key] = _Early(bytearray())
            self._later(EARLY_SECONDS_MAX, lambda: self._drop_early(hop, quic_stream))
        early.data += data
        early.ended = ended
        if len(early.data) > EARLY_BYTES_MAX:
            self._drop_early(hop, quic_stream)
            return
        if early.preamble is None and len(early.data) >= STREAM_PREAMBLE_BYTES:
            try:
                head = bytes(early.data[:STREAM_PREAMBLE_BYTES])
                early.preamble = decode_stream_preamble_untrusted(head)
            except FrameError as exc:
                hop.close(exc.code)
                return
            del early.data[:STREAM_PREAMBLE_BYTES]
        if early.preamble is not None:
            wanted = (hop.id, early.preamble.link, early.preamble.stream)
            if wanted in self._expected:
                del self._early[key]
                self._accept(wanted, quic_stream, bytes(early.data), early.ended)

    def stream_reset(self, hop: HopPort, quic_stream: int, code: int) -> None:
        self._early.pop((hop.id, quic_stream), None)
        stream = self._streams.get((hop.id, quic_stream))
        if stream is not None:
            stream.quic_reset(Code.from_number_untrusted(code))

    def hop_closed(self, hop: HopPort) -> None:
        for key in [key for key in self._early if key[0] == hop.id]:
            del self._early[key]
        for stream in [s for key, s in self._streams.items() if key[0] == hop.id]:
            stream.quic_reset(Code.ROUTE_UNREACHABLE)

    async def _channel(self, agent: LocalAgent, to: AgentUri) -> ChannelSlot:
        wanted: asyncio.Future[ChannelSlot | Failure] = asyncio.get_running_loop().create_future()

        def then(answer: ChannelSlot | Failure) -> None:
            if not wanted.done():
                wanted.set_result(answer)

        self._router.want_channel(agent, to, then)
        try:
            async with asyncio.timeout(OPEN_SECONDS_MAX):
                answer = await wanted
        except TimeoutError:
            raise StreamError(Code.STREAM_TIMEOUT, f"no channel to {to} in time") from None
        if isinstance(answer, Failure):
            raise StreamError(answer.code, answer.message or f"no channel to {to}")
        return answer

    def _open(self, permit: Permit, slot: ChannelSlot, service: str) -> SealedStream:
        permit.require(Action.STREAM_OPEN)
        if len(self._streams) >= STREAMS_MAX:
            raise StreamError(Code.STREAM_LIMIT, "too many streams are open")
        number = self._next_number.get(slot, 1 if slot.initiator else 2)
        self._next_number[slot] = number + 2
        secret, secret_bytes = StreamSecret.generate()
        slot.links.channel.open_stream(
            encode_stream_open(StreamOpen(number, service, secret_bytes))
        )
        slot.links.pump()
        hop = slot.links.hop
        session = StreamSession(
            Role.INITIATOR,
            secret,
            channel_hash=slot.links.channel.handshake_hash,
            stream=number,
            service=service,
            opened_by_initiator=slot.initiator,
        )
        stream = SealedStream(
            hop, slot, number, hop.open_stream(), session, Role.INITIATOR, self._forget
        )
        self._keep(stream)
        preamble = encode_stream_preamble(StreamPreamble(slot.links.link, number))
        hop.send_stream(stream.quic_stream, preamble)
        return stream

    def _accept(
        self, key: tuple[int, int, int], quic_stream: int, data: bytes, ended: bool
    ) -> None:
        """The first bytes of an announced stream. A denied one is told so under its own seal."""
        expected = self._expected.pop(key)
        slot, opening = expected.slot, expected.opening
        if slot.dead:
            slot.links.hop.reset_stream(quic_stream, int(Code.STREAM_RESET))
            return
        session = StreamSession(
            Role.RESPONDER,
            StreamSecret(opening.secret),
            channel_hash=slot.links.channel.handshake_hash,
            stream=opening.stream,
            service=opening.service,
            opened_by_initiator=not slot.initiator,
        )
        hop = slot.links.hop
        stream = SealedStream(
            hop, slot, opening.stream, quic_stream, session, Role.RESPONDER, self._forget
        )
        self._keep(stream)
        stream.received_untrusted(data, ended)
        serve = self._services.get((slot.agent.handle, opening.service))
        if isinstance(expected.answer, Denial):
            stream.reset(expected.answer.code)
        elif serve is None:
            stream.reset(Code.STREAM_SERVICE_UNKNOWN)
        else:
            expected.answer.require(Action.STREAM_OPEN)
            self._run(serve, stream)

    def _open_locally(self, agent: LocalAgent, to: AgentUri, service: str) -> MeshStream:
        """Both agents are ours; both decisions are taken all the same."""
        target = self._router.agents.find(to, self._clock.unix_s())
        serve = None if target is None else self._services.get((target.handle, service))
        if target is None or serve is None:
            raise StreamError(Code.STREAM_SERVICE_UNKNOWN, f"{to} offers no {service}")
        expires = min(agent.expires_unix_s, target.expires_unix_s)
        for _side in ("sender", "receiver"):
            answer = self._decisions.may_stream(
                agent.party, target.party, service, expires_unix_s=expires
            )
            if isinstance(answer, Denial):
                raise StreamError(answer.code, answer.reason)
        ours, theirs = local_stream_pair(agent.identity, target.identity)
        self._run(serve, theirs)
        return ours

    def _run(self, serve: Serve, stream: MeshStream) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(serve, stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, serve: Serve, stream: MeshStream) -> None:
        try:
            await serve(stream)
        except SidelinkError as exc:
            stream.reset(exc.code)
            _log.info("stream_ended", code=exc.code.text, detail=exc.detail)
        except Exception:
            stream.reset(Code.LOCAL_INTERNAL)
            _log.exception("stream_failed")

    def _keep(self, stream: SealedStream) -> None:
        self.opened += 1
        self._streams[stream.hop.id, stream.quic_stream] = stream
        self._by_link[stream.hop.id, stream.slot.links.link, stream.number] = stream

    def _forget(self, stream: SealedStream) -> None:
        self._streams.pop((stream.hop.id, stream.quic_stream), None)
        self._by_link.pop((stream.hop.id, stream.slot.links.link, stream.number), None)

    def _drop_early(self, hop: HopPort, quic_stream: int) -> None:
        if self._early.pop((hop.id, quic_stream), None) is not None:
            hop.reset_stream(quic_stream, int(Code.STREAM_EARLY_BYTES))

    def _later(self, seconds: float, call: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_later(seconds, call)
