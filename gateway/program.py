"""The gateway: admits nodes and relays what they seal. It holds no key but its own."""

import asyncio
from collections import Counter
from typing import Any, Final

import structlog

from gateway.enrolling import EnrollingHops
from gateway.hops import RelayLimits
from gateway.relay import GatewayRelay
from gateway.standing import Standing
from gateway.streams import StreamRelay
from identity import (
    AgentUri,
    Code,
    Identifier,
    NamePrefix,
    SidelinkError,
    Ticket,
    VerifiedPeer,
)
from link import Frame, FrameError, HopPort
from node.enrolment import (
    EnrolmentExchange,
    adopt_grant,
    check_role,
    ticket_exchange,
    trust_ticket,
)
from node.hop_counters import show_counters
from node.membership import Membership
from node.metrics import by_code
from node.neighbours import KINDS as NEIGHBOUR_KINDS
from node.neighbours import Neighbours
from node.parts import Parts, open_parts, serve_operators
from node.renewal import Renewal
from node.settings import GatewaySettings
from node.tickets import load_ticket
from policy import Denial, Permit
from transport import Endpoint, Hop, HopPurpose, TransportSettings

RESTART_DELAY_MS: Final = 500
# A gateway that stops relays on for so long, at least and at most: channels may go elsewhere.
DRAIN_SECONDS_MIN: Final = 0.5
DRAIN_SECONDS_MAX: Final = 5.0
DRAIN_LOOK_SECONDS: Final = 0.02

# Openings and registrations that wait have so much of each so long: a fifth of the time. One costs
# some 0.15 ms. A gateway that were always at it would be late for those who talk.
OPENINGS_SECONDS: Final = 0.00025
OPENINGS_REST_SECONDS: Final = 0.001

# What is live when another policy comes into force is asked about for so long at once, until all
# is. One costs some 40 us.
ASKING_SECONDS: Final = 0.003
ASKING_REST_SECONDS: Final = 0.001

LOOK_SECONDS: Final = 1.0
"""How often is looked at what may have run out."""

_log = structlog.get_logger("gateway")


async def main(settings: GatewaySettings, stop: asyncio.Event) -> None:
    """Run until ``stop``."""
    async with open_parts(settings) as parts:
        await Gateway(parts, settings).run(stop)


class AuditedDecisions:
    """What the relay asks, answered by policy and written down."""

    def __init__(self, parts: Parts) -> None:
        self._admission = parts.admission

    def may_register(self, hop: HopPort, prefix: NamePrefix) -> Permit | Denial:
        return self._admission.decide_register(hop.peer, prefix)

    def may_relay(
        self, source: HopPort, target: HopPort, to: AgentUri | Identifier
    ) -> Permit | Denial:
        return self._admission.decide_relay(source.peer, _far_end(target, to))

    def register_again(self, hop: HopPort, prefix: NamePrefix) -> Permit | Denial:
        return self._admission.register_again(hop.peer, prefix)

    def relay_again(
        self, source: HopPort, target: HopPort, to: AgentUri | Identifier
    ) -> Permit | Denial:
        return self._admission.relay_again(source.peer, _far_end(target, to))


def _far_end(target: HopPort, to: AgentUri | Identifier) -> AgentUri | VerifiedPeer:
    """A name is not proved here; a neighbour that is asked for by its identifier is."""
    return to if isinstance(to, AgentUri) else target.peer


class Gateway:
    """The handler of its hops."""

    def __init__(
        self,
        parts: Parts,
        settings: GatewaySettings,
        *,
        relay: GatewayRelay | None = None,
        streams: StreamRelay | None = None,
    ) -> None:
        """``relay``, and ``streams`` on it, are for compositions that look on."""
        self._parts = parts
        self._settings = settings
        decisions = AuditedDecisions(parts)
        self._relay = relay or GatewayRelay(
            decisions,
            limits=RelayLimits(settings.hop_queue_bytes_max, settings.queue_bytes_max),
        )
        self._streams = StreamRelay(self._relay) if streams is None else streams
        self._standing = Standing(self._relay, self._streams, decisions)
        self._hops: dict[int, Hop] = {}
        self._members: dict[Identifier, Hop] = {}
        self._enrolling = EnrollingHops()
        self._ticket: Ticket | None = None
        self._exchange: tuple[Hop, EnrolmentExchange] | None = None
        self._closed_by_code: Counter[Code] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._work_handle: asyncio.TimerHandle | None = None
        self._asking_handle: asyncio.TimerHandle | None = None
        self._failed: asyncio.Future[None] | None = None
        self._neighbours = Neighbours(
            parts.node,
            parts.mandatory,
            parts.clock,
            parts.metrics,
            renewed=lambda hop: self._relay.hop_renewed(hop),
        )
        self._membership = Membership(parts, self._way_to_authority)
        self._renewal = Renewal(parts.node, parts.clock, parts.metrics, self._membership.renew)
        parts.node.trust.on_news += [self._judge, self._renewal.look_again]
        parts.rotation.on_used.append(self._renewal.hurry)
        parts.live_policy.on_change.append(self._policy_changed)
        self._count()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop``. Raises SidelinkError when enrolment is refused."""
        self._prepare_enrolment()
        endpoint = await Endpoint.bind(
            self._settings.listen.host,
            self._settings.listen.port,
            identity=self._parts.node.hop_identity,
            handler=self,
            settings=TransportSettings(
                engine=self._settings.quic_engine,
                datagram_bytes=self._settings.datagram_bytes,
                epoch=self._parts.epoch,
            ),
        )
        self._parts.ports["udp"] = endpoint.address[1]
        self._parts.status["engine"] = lambda: endpoint.engine_name
        show_counters(self._parts, endpoint)
        self._relay.take_turns(self._work_later)
        self._failed = asyncio.get_running_loop().create_future()
        keep = self._parts.keeper.keep
        looking = asyncio.create_task(keep("gateway", self._look_now_and_then))
        renewing = asyncio.create_task(keep("renewal", self._renewal.run))
        try:
            async with serve_operators(self._parts):
                waiting = asyncio.create_task(stop.wait())
                await asyncio.wait((waiting, self._failed), return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                if self._failed.done():
                    self._failed.result()
                self._relay.drain(RESTART_DELAY_MS)
                await self._wait_drained()
        finally:
            looking.cancel()
            renewing.cancel()
            for handle in (self._work_handle, self._asking_handle):
                if handle is not None:
                    handle.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(looking, renewing, *self._tasks, return_exceptions=True)
            await endpoint.close(Code.HOP_RESTARTING)

    async def _wait_drained(self) -> None:
        """Relay on while nodes move their channels elsewhere, or until all that came has left."""
        clock = self._parts.clock
        grace_s = min(DRAIN_SECONDS_MAX, self._settings.stop_grace_s / 2)
        begun_s = clock.now_s()
        while (passed_s := clock.now_s() - begun_s) < grace_s:
            waiting = any(hop.queued_bytes for hop in self._hops.values())
            if not self._relay.links or (passed_s >= DRAIN_SECONDS_MIN and not waiting):
                return
            await asyncio.sleep(DRAIN_LOOK_SECONDS)

    def _work_later(self) -> None:
        if self._work_handle is None:
            loop = asyncio.get_running_loop()
            self._work_handle = loop.call_later(OPENINGS_REST_SECONDS, self._work)

    def _work(self) -> None:
        """Decide what waits to be decided, for a while; then those who talk have theirs."""
        self._work_handle = None
        clock = self._parts.clock
        now_s = clock.now_s()
        until_s = now_s + OPENINGS_SECONDS
        while self._relay.work(now_s):
            now_s = clock.now_s()
            if now_s >= until_s:
                break

    def _policy_changed(self) -> None:
        """Hops are few and asked at once; what goes over them, little by little."""
        self._judge()
        self._standing.policy_changed()
        self._ask_again()

    def _ask_again(self) -> None:
        """Ask about what is live for a while; then those who talk have their turn."""
        if self._asking_handle is not None:
            self._asking_handle.cancel()
            self._asking_handle = None
        clock = self._parts.clock
        until_s = clock.now_s() + ASKING_SECONDS
        while self._standing.ask_next():
            if clock.now_s() >= until_s:
                loop = asyncio.get_running_loop()
                self._asking_handle = loop.call_later(ASKING_REST_SECONDS, self._ask_again)
                return

    # HopHandler.

    def hop_verified(self, hop: Hop) -> None:
        if hop.purpose is HopPurpose.DIRECT:
            hop.refuse(Code.HOP_DENIED)  # Between sidecars only.
            return
        members = len(self._hops) - len(self._enrolling)
        if hop.purpose is HopPurpose.ADMIT and members >= self._settings.hops_max:
            hop.refuse(Code.HOP_LIMIT_EXCEEDED)
            return
        peer = hop.peer.identity
        if hop.purpose is HopPurpose.ADMIT and peer.kind == "unenrolled":
            hop.refuse(Code.HOP_ENROLMENT_ONLY)
            return
        if not self._parts.node.enrolled and not self._is_ours(hop):
            hop.refuse(Code.HOP_DENIED)
            return
        self._parts.admission.answer_hop(hop)

    def hop_opened(self, hop: Hop) -> None:
        enrolling = hop.purpose is HopPurpose.ENROL
        if not enrolling and not self._takes_the_place_of_another(hop):
            hop.close(Code.HOP_SUPERSEDED)
            return
        self._hops[hop.id] = hop
        if enrolling and not self._is_ours(hop):
            self._enrolling.add(hop, self._parts.clock.now_s())
        self._relay.hop_opened(hop, enrolling=enrolling, limits=hop.peer_limits)
        if not enrolling:
            self._neighbours.hop_opened(hop)
        self._handshakes.observe(hop.opened_in_s)
        _log.info(
            "hop_opened",
            peer=str(hop.peer.identifier),
            name=str(hop.peer.name),
            purpose=str(hop.purpose),
            engine=hop.engine,
            seconds=round(hop.opened_in_s, 3),
        )
        if not self._parts.node.enrolled and self._is_ours(hop):
            self._enrol(hop)

    def _is_ours(self, hop: Hop) -> bool:
        """Whether the peer is this gateway's own authority, or is to be. Others may be trusted
        here, for their own trust domains."""
        authority = self._parts.node.identity.issuer
        if self._ticket is not None and not self._parts.node.enrolled:
            authority = self._ticket.authority
        return hop.peer.identifier == authority

    def frames_received(self, hop: Hop, frames: list[Frame]) -> None:
        if self._exchange is not None and self._exchange[0] is hop:
            self._exchange[1].frames_received(frames)
            return
        relayed = self._membership.take(hop, self._hear_neighbours(hop, frames))
        self._relay.frames_received(hop, relayed, self._parts.clock.now_s())

    def stream_received(self, hop: Hop, stream: int, data: bytes, ended: bool) -> None:
        self._streams.received(hop, stream, data, ended)

    def stream_reset(self, hop: Hop, stream: int, code: int) -> None:
        self._streams.reset(hop, stream, code)

    def hop_closed(self, hop: Hop, code: Code, detail: str) -> None:
        if self._exchange is not None and self._exchange[0] is hop:
            self._exchange[1].hop_closed(code, detail)
        self._enrolling.discard(hop)
        if self._hops.pop(hop.id, None) is None:
            _log.info("hop_refused", code=code.text, detail=detail)
        else:
            _log.info("hop_closed", peer=str(hop.peer.identifier), code=code.text, detail=detail)
            if self._members.get(hop.peer.identifier) is hop:
                del self._members[hop.peer.identifier]
        self._closed_by_code[code] += 1
        self._neighbours.hop_closed(hop)
        self._membership.hop_closed(hop, code, detail)
        self._streams.hop_closed(hop)
        self._relay.hop_closed(hop)

    def _hear_neighbours(self, hop: Hop, frames: list[Frame]) -> list[Frame]:
        """Take what is said to this node itself; return the frames that are for the relay."""
        if all(frame.kind not in NEIGHBOUR_KINDS for frame in frames):
            return frames
        try:
            for frame in frames:
                if frame.kind in NEIGHBOUR_KINDS:
                    self._neighbours.receive_untrusted(hop, frame)
        except FrameError as exc:
            hop.close(exc.code)
            return []
        return [frame for frame in frames if frame.kind not in NEIGHBOUR_KINDS]

    def _way_to_authority(self, _: int) -> tuple[HopPort, int] | None:
        authority = self._parts.node.identity.issuer
        state = None if authority is None else self._relay.hops.authority(authority)
        return None if state is None else (state.hop, state.ids.take())

    def _judge(self) -> None:
        """A hop lives no longer than what its peer has proved, and than policy allows it."""
        for hop in list(self._hops.values()):
            if hop.purpose is HopPurpose.ADMIT:
                self._parts.admission.close_hop_if_cut(hop)
            else:
                self._parts.admission.close_hop_if_denied(hop)

    def _takes_the_place_of_another(self, hop: Hop) -> bool:
        """A node has one hop here. Whoever was started last is the node, and a program that dials
        again has noticed before us that its hop was lost."""
        other = self._members.get(hop.peer.identifier)
        if other is not None:
            if hop.peer_epoch < other.peer_epoch:
                return False
            other.close(Code.HOP_SUPERSEDED)
        self._members[hop.peer.identifier] = hop
        return True

    def _prepare_enrolment(self) -> None:
        node = self._parts.node
        self._parts.awaiting["a credential from the authority"] = lambda: node.enrolled
        if node.enrolled:
            check_role(node, "gateway")
            return
        self._ticket = load_ticket(self._settings)
        if self._ticket is None:
            raise SidelinkError(
                Code.ENROL_TICKET_MISSING, "this gateway has no credential yet and no ticket"
            )
        check_role(node, "gateway", self._ticket)
        trust_ticket(node, self._ticket, self._parts.clock.unix_s())

    def _enrol(self, hop: Hop) -> None:
        parts = self._parts
        if self._ticket is None:
            # Its credential has ended while it ran.
            code = Code.ENROL_TICKET_MISSING
            _log.error("credential_over", code=code.text, remedy=code.remedy)
            hop.close(Code.HOP_CREDENTIAL_EXPIRED)
            return
        exchange = ticket_exchange(
            parts.node, self._ticket, hop, parts.clock, name=self._settings.node_name
        )
        self._exchange = hop, exchange
        task = asyncio.create_task(self._finish_enrolment(hop, exchange, self._ticket))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish_enrolment(
        self, hop: Hop, exchange: EnrolmentExchange, ticket: Ticket
    ) -> None:
        parts = self._parts
        try:
            grant = await exchange.answer()
            adopt_grant(parts.node, parts.store, ticket, grant, parts.clock)
            _log.info("enrolled", name=str(parts.node.identity.name))
        except SidelinkError as exc:
            if exc.code in (Code.ENROL_AUTHORITY_UNREACHABLE, Code.HOP_PEER_LOST):
                _log.warning("enrolment_interrupted", code=exc.code.text, detail=exc.detail)
            elif self._failed is not None and not self._failed.done():
                self._failed.set_exception(exc)
        finally:
            self._exchange = None
            # The authority dials again, and then sees a gateway with a credential.
            hop.close(Code.HOP_CLOSED)

    async def _look_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._enrolling.close_overdue(self._parts.clock.now_s())
            self._relay.tick(self._parts.clock.now_s())
            self._neighbours.tick()
            self._judge()

    def _count(self) -> None:
        metrics, counters = self._parts.metrics, self._relay.counters
        self._handshakes = metrics.histogram("hop_handshake_seconds", "Time to open a hop.")
        read = metrics.counter_read
        read(
            "hops_closed",
            "Hops that ended, by code.",
            lambda: by_code(self._closed_by_code),
            label="code",
        )
        read("relayed_frames", "Frames relayed.", lambda: counters.frames)
        read("relayed_frame_bytes", "Bytes of frames relayed.", lambda: counters.frame_bytes)
        read("relayed_stream_bytes", "Bytes of streams relayed.", lambda: counters.stream_bytes)
        read("links_opened", "Links opened.", lambda: counters.links_opened)
        read(
            "links_refused",
            "Links and frames refused, by code.",
            lambda: by_code(counters.refused),
            label="code",
        )
        read(
            "grants_withheld",
            "Grants of slow hops that waited.",
            lambda: self._relay.hops.withheld_grants,
        )
        metrics.gauge(
            "queued_bytes", "Bytes that wait for all hops.", lambda: self._relay.hops.queued_bytes
        )
        metrics.gauge("hops", "Hops open now.", lambda: len(self._hops))
        metrics.gauge("links", "Links open now.", lambda: self._relay.links)
        metrics.gauge("streams", "Byte streams open now.", lambda: len(self._streams))
        metrics.gauge("prefixes", "Prefixes registered.", lambda: len(self._relay.directory))
        status = self._parts.status
        status["hops"] = self._hop_status
        status["links"] = lambda: self._relay.links
        status["renewal"] = self._renewal.status
        status["refused"] = lambda: by_code(counters.refused)
        status["hops_closed"] = lambda: by_code(self._closed_by_code)
        status["routes"] = lambda: [
            {"prefix": str(route.prefix), "node": str(route.node), "epoch": route.epoch}
            for route in self._relay.directory.routes()
        ]

    def _hop_status(self) -> list[dict[str, Any]]:
        return [
            {
                "peer": str(hop.peer.identifier),
                "name": None if hop.peer.name is None else str(hop.peer.name),
                "role": hop.peer.identity.role_of_node,
                "purpose": str(hop.purpose),
                "engine": hop.engine,
                "post_quantum": hop.post_quantum,
                "opened_in_s": round(hop.opened_in_s, 4),
            }
            for hop in self._hops.values()
        ]
