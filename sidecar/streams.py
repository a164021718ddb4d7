"""Byte streams of a sidecar: announced on a channel, opened, served by one task each."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from channel import (
    ChannelError,
    Role,
    StreamOpen,
    StreamSecret,
    StreamSession,
    decode_stream_open_untrusted,
    encode_stream_open,
)
from identity import AgentUri, Code, SidelinkError, VerifiedIdentity
from link import HopPort, LinkEnd, StreamPreamble
from link.errors import FrameError
from link.limits import STREAM_PREAMBLE_BYTES
from link.messages import (
    decode_stream_preamble_untrusted,
    encode_stream_preamble,
)
from node.clocks import Clock
from policy import Action, Denial, Party, Permit
from sidecar.agents import LocalAgent
from sidecar.conversation import Failure
from sidecar.decisions import SidecarDecisions
from sidecar.local_stream import local_stream_pair
from sidecar.mesh_stream import MeshStream, StreamError
from sidecar.router import Router
from sidecar.sealed_stream import OPEN_SECONDS_MAX, SealedStream
from sidecar.slot import ChannelSlot
from sidecar.stream_standing import (
    ExpectedStream,
    LocalPair,
    OpenStream,
    StreamRequest,
    StreamStanding,
)

EARLY_BYTES_MAX: Final = 64 << 10
EARLY_SECONDS_MAX: Final = 5.0
EARLY_STREAMS_MAX: Final = 1_024
STREAMS_MAX: Final = 4_096
# Of those that one side opens. A peer that goes beyond loses the channel, so we stop well before:
# the end of a stream is not seen by both sides at once.
STREAMS_PER_CHANNEL_MAX: Final = 512
OWN_STREAMS_PER_CHANNEL_MAX: Final = STREAMS_PER_CHANNEL_MAX // 2
# Of one channel, so that it takes no other's places. Streams opened in one turn may all overtake
# their announcements, which go by a lane that has other work.
EARLY_STREAMS_PER_LINK_MAX: Final = OWN_STREAMS_PER_CHANNEL_MAX

assert EARLY_STREAMS_PER_LINK_MAX <= EARLY_STREAMS_MAX // 4

Serve = Callable[[MeshStream], Awaitable[None]]

_log = structlog.get_logger("sidecar.streams")


@dataclass(slots=True, eq=False)
class _Early:
    """Bytes of a stream that nobody announced yet."""

    hop: HopPort
    data: bytearray
    ended: bool = False
    preamble: StreamPreamble | None = None
    slot: ChannelSlot | None = None
    """The channel that the preamble's link carries, or has carried."""


class Streams:
    """All byte streams of one sidecar."""

    def __init__(self, router: Router, decisions: SidecarDecisions, clock: Clock) -> None:
        self._router = router
        self._decisions = decisions
        self._clock = clock
        self._services: dict[tuple[int, str], Serve] = {}
        self._streams: dict[tuple[int, int], SealedStream] = {}
        # A stream stays on the link that it was opened on, though its channel may go on elsewhere:
        # so it belongs to its channel by number, and not to a link.
        self._by_number: dict[tuple[ChannelSlot, int], SealedStream] = {}
        self._expected: dict[tuple[ChannelSlot, int], ExpectedStream] = {}
        # How many of either there are, by channel and by whether their number is odd.
        self._counts: Counter[tuple[ChannelSlot, bool]] = Counter()
        self._early: dict[tuple[int, int], _Early] = {}
        # Streams that both sides have ended under the seal, until they end below it too.
        self._ending: set[tuple[int, int]] = set()
        self._next_number: dict[ChannelSlot, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._local: dict[asyncio.Task[None], LocalPair] = {}
        """Those between two agents of ours, by the task that serves each."""
        self._standing = StreamStanding(decisions)
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
            raise StreamError(permit.code, permit.told(colleague=True)[1])
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

    def policy_changed(self) -> None:
        """Another policy is in force: streams that it denies end, at once or soon."""
        opened = map(OpenStream, self._streams.values())
        # Of open ones whoever moves something asks, so that they can wait for the others.
        self._standing.ask_all([*opened, *self._local.values(), *self._expected.values()])

    # What streams tell and ask (StreamHome).

    def ask_policy(self, stream: SealedStream) -> None:
        """Something is to go over a stream: by the policy in force, for it and for its channel."""
        self._router.channels.may_pass(stream.slot)
        self._standing.ask_open(stream)

    # What the router tells (StreamOwner).

    def stream_announced(self, slot: ChannelSlot, payload: bytes) -> None:
        """A STREAM_OPEN record: decided now; the secret waits for the stream's first byte."""
        try:
            opening = decode_stream_open_untrusted(payload)
        except ChannelError as exc:
            self._router.channels.end(slot, exc.code)
            return
        key = (slot, opening.stream)
        ours = opening.stream % 2 == (1 if slot.initiator else 0)
        too_many = self._counts[slot, not slot.initiator] >= STREAMS_PER_CHANNEL_MAX
        if ours or too_many or key in self._expected or key in self._by_number:
            code = Code.STREAM_LIMIT if too_many else Code.CHANNEL_BAD_RECORD
            self._router.channels.end(slot, code)
            return
        answer = self._decisions.may_stream(
            Party.from_verified(slot.peer.identity),
            slot.agent.party,
            opening.service,
            expires_unix_s=slot.expires_unix_s,
        )
        expected = self._expected[key] = ExpectedStream(slot, opening, answer)
        self._count(slot, opening.stream, 1)
        self._later(EARLY_SECONDS_MAX, lambda: self._give_up(key, expected))
        self._look_for_early(key)

    def _look_for_early(self, key: tuple[ChannelSlot, int]) -> None:
        """An announcement has come: its stream's first bytes may have overtaken it."""
        for (hop_id, quic_stream), early in list(self._early.items()):
            preamble = early.preamble
            if preamble is None or (early.slot, preamble.stream) != key:
                continue
            if key in self._expected:
                del self._early[hop_id, quic_stream]
                self._accept(key, early, quic_stream)
            else:
                # A second one of this number: the first has spent the announcement.
                self._drop_early(quic_stream, early)

    def stream_credit(self, hop: HopPort, link: int, stream: int, limit: int) -> None:
        slot = self._router.channels.find(hop, link)
        found = None if slot is None else self._by_number.get((slot, stream))
        if found is not None:
            found.credit(limit)

    def streams_on(self, end: LinkEnd) -> int:
        """How many streams still use a link that their channel may have left."""
        return sum(stream.end == end for stream in self._streams.values())

    def channel_gone(self, slot: ChannelSlot, code: Code) -> None:
        """A stream lives no longer than the channel that opened it."""
        self._next_number.pop(slot, None)
        if not slot.streams:
            return  # Else each of thousands of channels that end would look at all streams.
        for key in [key for key in self._expected if key[0] is slot]:
            self._unexpect(key)
        for stream in [s for s in self._streams.values() if s.slot is slot]:
            stream.reset(Code.STREAM_RESET if code is Code.CHANNEL_CLOSED else code)

    # What the hop's handler tells.

    def stream_received(self, hop: HopPort, quic_stream: int, data: bytes, ended: bool) -> None:
        stream = self._streams.get((hop.id, quic_stream))
        if stream is not None:
            self.ask_policy(stream)
            stream.received_untrusted(data, ended)
            return
        key = (hop.id, quic_stream)
        if key in self._ending:
            if data:
                hop.reset_stream(quic_stream, int(Code.STREAM_EARLY_BYTES))
            if data or ended:
                self._ending.discard(key)
        else:
            self._early_received(hop, quic_stream, data, ended)

    def _early_received(self, hop: HopPort, quic_stream: int, data: bytes, ended: bool) -> None:
        """Bytes of a stream that is none yet: its announcement may come behind it."""
        key = (hop.id, quic_stream)
        early = self._early.get(key)
        if early is None:
            if len(self._early) >= EARLY_STREAMS_MAX:
                hop.reset_stream(quic_stream, int(Code.STREAM_EARLY_BYTES))
                return
            early = self._early[key] = _Early(hop, bytearray())
            kept = early
            self._later(EARLY_SECONDS_MAX, lambda: self._drop_early(quic_stream, kept))
        early.data += data
        early.ended = early.ended or ended
        if len(early.data) > EARLY_BYTES_MAX:
            self._drop_early(quic_stream, early)
            return
        if early.preamble is None and not self._read_preamble_untrusted(quic_stream, early):
            return
        assert early.preamble is not None
        assert early.slot is not None
        wanted = (early.slot, early.preamble.stream)
        if wanted in self._expected:
            del self._early[key]
            self._accept(wanted, early, quic_stream)

    def _read_preamble_untrusted(self, quic_stream: int, early: _Early) -> bool:
        """Whether it is there, and names a channel on which a stream may wait."""
        if len(early.data) < STREAM_PREAMBLE_BYTES:
            return False
        try:
            head = bytes(early.data[:STREAM_PREAMBLE_BYTES])
            early.preamble = decode_stream_preamble_untrusted(head)
        except FrameError:
            # A relay passes what the far end writes: it is no fault of this hop.
            self._drop_early(quic_stream, early, Code.STREAM_BAD_HEAD)
            return False
        del early.data[:STREAM_PREAMBLE_BYTES]
        early.slot = self._router.channels.find(early.hop, early.preamble.link)
        if not self._has_place(early):
            self._drop_early(quic_stream, early)
            return False
        return True

    def stream_reset(self, hop: HopPort, quic_stream: int, code: int) -> None:
        self._ending.discard((hop.id, quic_stream))
        self._early.pop((hop.id, quic_stream), None)
        stream = self._streams.get((hop.id, quic_stream))
        if stream is not None:
            stream.quic_reset(Code.from_number_untrusted(code))

    def hop_closed(self, hop: HopPort) -> None:
        for key in [key for key in self._early if key[0] == hop.id]:
            del self._early[key]
        for stream in [s for key, s in self._streams.items() if key[0] == hop.id]:
            stream.quic_reset(Code.ROUTE_UNREACHABLE)
        self._ending = {key for key in self._ending if key[0] != hop.id}

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
        if slot.dead:
            raise StreamError(Code.CHANNEL_CLOSED, "the channel ended while it was opened")
        if slot.holds:
            raise StreamError(Code.ROUTE_UNREACHABLE, "the channel has lost its way for now")
        mine = self._counts[slot, slot.initiator]
        if len(self._streams) >= STREAMS_MAX or mine >= OWN_STREAMS_PER_CHANNEL_MAX:
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
            hop,
            slot.links.end,
            slot,
            number,
            hop.open_stream(),
            service,
            session,
            Role.INITIATOR,
            self,
        )
        self._keep(stream)
        preamble = encode_stream_preamble(StreamPreamble(slot.links.link, number))
        hop.send_stream(stream.quic_stream, preamble)
        return stream

    def _accept(self, key: tuple[ChannelSlot, int], early: _Early, quic_stream: int) -> None:
        """The first bytes of an announced stream. A denied one is told so under its own seal."""
        expected = self._unexpect(key)
        slot, opening, hop = expected.slot, expected.opening, early.hop
        self._standing.ask_expected(expected)
        if not self._router.channels.may_pass(slot):
            hop.reset_stream(quic_stream, int(Code.STREAM_RESET))
            return
        session = StreamSession(
            Role.RESPONDER,
            StreamSecret(opening.secret),
            channel_hash=slot.links.channel.handshake_hash,
            stream=opening.stream,
            service=opening.service,
            opened_by_initiator=not slot.initiator,
        )
        assert early.preamble is not None
        end = LinkEnd(hop.id, early.preamble.link)
        stream = SealedStream(
            hop,
            end,
            slot,
            opening.stream,
            quic_stream,
            opening.service,
            session,
            Role.RESPONDER,
            self,
        )
        self._keep(stream)
        stream.received_untrusted(bytes(early.data), early.ended)
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
        unix_s = self._clock.unix_s()
        agent = self._router.agents.find(agent.uri, unix_s) or agent
        target = self._router.agents.find(to, unix_s)
        serve = None if target is None else self._services.get((target.handle, service))
        if target is None or serve is None:
            raise StreamError(Code.STREAM_SERVICE_UNKNOWN, f"{to} offers no {service}")
        expires = min(agent.expires_unix_s, target.expires_unix_s)
        for side in ("sender", "receiver"):
            answer = self._decisions.may_stream(
                agent.party,
                target.party,
                service,
                expires_unix_s=expires,
                again=side == "receiver",
            )
            if isinstance(answer, Denial):
                raise StreamError(answer.code, answer.told(colleague=True)[1])
        ours, theirs = local_stream_pair(agent.identity, target.identity)
        task = self._run(serve, theirs)
        asked = StreamRequest(agent.party, target.party, service, expires)
        self._local[task] = LocalPair(asked, theirs)
        task.add_done_callback(lambda task: self._local.pop(task, None))
        return ours

    def _run(self, serve: Serve, stream: MeshStream) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._serve(serve, stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

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
        self._count(stream.slot, stream.number, 1)
        self._streams[stream.hop.id, stream.quic_stream] = stream
        self._by_number[stream.slot, stream.number] = stream

    def forget(self, stream: SealedStream) -> None:
        if not stream.is_over:
            # It ended under its seal; below, the peer may still write, and must not pass for new.
            self._ending.add((stream.hop.id, stream.quic_stream))
        self._streams.pop((stream.hop.id, stream.quic_stream), None)
        if self._by_number.get((stream.slot, stream.number)) is stream:
            del self._by_number[stream.slot, stream.number]
            self._count(stream.slot, stream.number, -1)

    def _unexpect(self, key: tuple[ChannelSlot, int]) -> ExpectedStream:
        expected = self._expected.pop(key)
        self._count(expected.slot, expected.opening.stream, -1)
        return expected

    def _count(self, slot: ChannelSlot, number: int, count: int) -> None:
        """A stream of a channel, begun or not, is there or gone; the initiator of a channel opens
        those with odd numbers."""
        slot.streams += count
        of_side = slot, number % 2 == 1
        self._counts[of_side] += count
        if not self._counts[of_side]:
            del self._counts[of_side]

    def _give_up(self, key: tuple[ChannelSlot, int], expected: ExpectedStream) -> None:
        if self._expected.get(key) is expected:
            self._unexpect(key)

    def _has_place(self, early: _Early) -> bool:
        """Whether a stream may wait for its announcement: on a channel that is proved, as any that
        announces is, and among not too many."""
        if early.slot is None or not early.slot.verified:
            return False
        of_channel = sum(one.slot is early.slot for one in self._early.values())
        return of_channel <= EARLY_STREAMS_PER_LINK_MAX

    def _drop_early(
        self, quic_stream: int, early: _Early, code: Code = Code.STREAM_EARLY_BYTES
    ) -> None:
        if self._early.get((early.hop.id, quic_stream)) is early:
            del self._early[early.hop.id, quic_stream]
            early.hop.reset_stream(quic_stream, int(code))

    def _later(self, seconds: float, call: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_later(seconds, call)
