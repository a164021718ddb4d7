"""The gateway's core: admits links, joins them, relays what they carry. Pure; it cannot read them.

What a hop hands in is hostile until checked. Each rule that a node may break has its code, and the
answer is either to refuse the link (the node asked for something it may not have) or to close the
hop (the node broke the protocol).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from gateway.hops import HopState, HopTable, RelayLimits, prefixes_of
from gateway.openings import COSTLY_KINDS, Openings
from identity import AgentUri, Code, Identifier, NamePrefix, SidelinkError
from link import (
    CreditError,
    Direction,
    Directory,
    Frame,
    FrameError,
    FrameKind,
    HopLimits,
    HopPort,
    LinkEnd,
    LinkError,
    LinkOpen,
    PrefixEpoch,
    RelayTable,
    RelayWindow,
    is_peers_link,
    lane_of,
)
from link.limits import RECORD_BODY_BYTES_MIN, RESTART_DELAY_MS_MAX, STREAMS_PER_HOP_MAX
from link.messages import (
    decode_credit_untrusted,
    decode_link_open_untrusted,
    decode_prefix_untrusted,
    decode_restarting_untrusted,
    encode_code,
    encode_link_open,
    encode_prefix_epoch,
    encode_restarting,
)
from policy import Action, Denial, Permit

STREAMS_PER_LINK_MAX: Final = 1_024
# How long a node that said it restarts is taken at its word, beyond the delay that it named.
RESTART_GRACE_SECONDS: Final = 10.0
RESTART_SECONDS_MAX: Final = RESTART_DELAY_MS_MAX / 1000

assert STREAMS_PER_LINK_MAX <= STREAMS_PER_HOP_MAX


class RelayDecisions(Protocol):
    """What the gateway asks of policy. The answers are audited by whoever gives them."""

    def may_register(self, hop: HopPort, prefix: NamePrefix) -> Permit | Denial: ...
    def may_relay(
        self, source: HopPort, target: HopPort, to: AgentUri | Identifier
    ) -> Permit | Denial: ...


@dataclass(slots=True, eq=False)
class LinkPermit:
    """By whose leave a link is relayed, and what was asked for: it may be asked for again."""

    permit: Permit
    near: LinkEnd
    """The end that opened it."""
    to: AgentUri | Identifier


@dataclass(slots=True)
class RelayCounters:
    """Totals since the start. Bounded labels only: never a name."""

    frames: int = 0
    frame_bytes: int = 0
    stream_bytes: int = 0
    links_opened: int = 0
    refused: dict[Code, int] = field(default_factory=dict)

    def refuse(self, code: Code) -> None:
        self.refused[code] = self.refused.get(code, 0) + 1


class GatewayRelay:
    """Routes links by name, relays frames by table. One for a gateway.

    ``observe`` is called with each frame relayed, for compositions that want to look on (a
    demonstration's tap); it is None in the program.
    """

    def __init__(
        self,
        decisions: RelayDecisions,
        *,
        limits: RelayLimits | None = None,
        observe: Callable[[Frame], None] | None = None,
    ) -> None:
        self._decisions = decisions
        self._observe = observe
        self._table: RelayTable[LinkPermit] = RelayTable()
        self._restarting: dict[NamePrefix, float] = {}
        self.directory = Directory()
        self.counters = RelayCounters()
        self.hops = HopTable(limits or RelayLimits(), self.counters.refuse)
        self._openings: Openings | None = None
        self.unasked: dict[LinkPermit, None] = {}
        """Links that an older policy has allowed, and the one in force has yet to."""
        self._ask_again: Callable[[LinkPermit], None] | None = None

    @property
    def links(self) -> int:
        return len(self._table)

    def take_turns(self, wake: Callable[[], None]) -> None:
        """From now on what costs a decision is done one at a time: after each call of ``wake``,
        ``work`` is to be called a little later. Before, and without it, all is done at once."""
        self._openings = Openings(wake)

    def work(self, now_s: float) -> bool:
        """Do the next of what waits. False if nothing does."""
        found = None if self._openings is None else self._openings.take()
        if found is None:
            return False
        state = self.hops.find(found[0])
        assert state is not None, "what waits of a hop goes with it"
        try:
            self._decide_untrusted(state, found[1], now_s)
        except SidelinkError as exc:
            self.counters.refuse(exc.code)
            state.hop.close(exc.code)
        return True

    def use_standing(self, ask_again: Callable[[LinkPermit], None]) -> None:
        """Who asks policy about an unasked link, and cuts it upon a no. It is called before the
        link carries anything more: another policy holds for all links from its first moment."""
        self._ask_again = ask_again

    def find_link(self, near: LinkEnd) -> Direction[LinkPermit] | None:
        """What is relayed from here, by leave of the policy in force."""
        direction = self._table.find(near)
        if direction is None or direction.permit not in self.unasked:
            return direction
        assert self._ask_again is not None, "who has filled unasked has said so"
        del self.unasked[direction.permit]
        self._ask_again(direction.permit)
        return self._table.find(near)

    def live_links(self) -> list[LinkPermit]:
        """Every link that is relayed now."""
        return self._table.permits()

    def ends_of(self, link: LinkPermit) -> tuple[LinkEnd, LinkEnd] | None:
        """Both ends of a link, the one that opened it first; None when it is relayed no more."""
        direction = self._table.find(link.near)
        return None if direction is None else (link.near, direction.to)

    def cut_link(self, link: LinkPermit, code: Code) -> None:
        """End a link that is relayed, and tell both ends why."""
        self._reset_link(link.near, code)

    def hop_opened(self, hop: HopPort, *, enrolling: bool, limits: HopLimits) -> None:
        """Take a hop that both sides have accepted. ``limits`` are what the peer said it takes."""
        self.hops.add(hop, enrolling=enrolling, limits=limits)

    def hop_renewed(self, hop: HopPort) -> None:
        """The peer has shown a newer credential: from now on it may register what that names."""
        state = self.hops.find(hop.id)
        if state is not None:
            state.prefixes = prefixes_of(hop)

    def hop_closed(self, hop: HopPort) -> None:
        """Forget a hop and tell the far end of each of its links."""
        if not self.hops.remove(hop):
            return
        if self._openings is not None:
            self._openings.forget_hop(hop.id)
        self.directory.forget_hop(hop.id)
        for other in self._table.part_hop(hop.id):
            self._close_link(other, Code.ROUTE_UNREACHABLE)

    def drain(self, delay_ms: int) -> None:
        """Announce a restart on every hop."""
        for state in self.hops:
            state.hop.send_frame(0, FrameKind.RESTARTING, encode_restarting(delay_ms))

    def tick(self, now_s: float) -> None:
        """Called about once a second."""
        self.hops.tick()
        for prefix in [key for key, until_s in self._restarting.items() if until_s <= now_s]:
            del self._restarting[prefix]

    def frames_received(self, hop: HopPort, frames: list[Frame], now_s: float) -> None:
        """Relay or answer each frame. A node that breaks the protocol loses its hop."""
        state = self.hops.find(hop.id)
        if state is None:
            return
        try:
            for frame in frames:
                if frame.kind == FrameKind.RECORD:
                    if not self._relay(LinkEnd(hop.id, frame.link), frame):
                        self._stray(state, now_s)
                else:
                    self._receive_untrusted(state, frame, now_s)
        except SidelinkError as exc:
            self.counters.refuse(exc.code)
            hop.close(exc.code)

    def join_stream(self, hop: HopPort, link: int) -> HopPort | None:
        """Where the byte streams of a link go on: the far hop, or None for an unknown link."""
        direction = self.find_link(LinkEnd(hop.id, link))
        return None if direction is None else self.hops[direction.to.hop].hop

    def far_link(self, hop: HopPort, link: int) -> int:
        """The number of a relayed link on its far hop."""
        direction = self._table.find(LinkEnd(hop.id, link))
        assert direction is not None
        return direction.to.link

    def pass_stream_untrusted(self, hop: HopPort, link: int, stream: int, count: int) -> bool:
        """Count bytes of a byte stream. False for a link that is gone; may raise CreditError."""
        direction = self._table.find(LinkEnd(hop.id, link))
        if direction is None:
            return False
        window = direction.streams.get(stream)
        if window is None:
            if len(direction.streams) >= STREAMS_PER_LINK_MAX:
                raise CreditError(f"more than {STREAMS_PER_LINK_MAX} streams", Code.STREAM_LIMIT)
            window = direction.streams[stream] = RelayWindow()
        window.pass_untrusted(count)
        self.counters.stream_bytes += count
        return True

    def stream_ended(self, hop: HopPort, link: int, stream: int) -> None:
        """Forget the windows of a byte stream, both ways."""
        near = LinkEnd(hop.id, link)
        direction = self._table.find(near)
        if direction is None:
            return
        direction.streams.pop(stream, None)
        back = self._table.find(direction.to)
        if back is not None:
            back.streams.pop(stream, None)

    def _receive_untrusted(self, state: HopState, frame: Frame, now_s: float) -> None:
        if frame.kind in COSTLY_KINDS:
            self._submit_untrusted(state, frame, now_s)
            return
        match frame.kind:
            case FrameKind.LINK_ACCEPT | FrameKind.LINK_FINISH:
                if not self._relay(LinkEnd(state.hop.id, frame.link), frame):
                    self._stray(state, now_s)
            case FrameKind.LINK_CLOSE:
                if not self._close_untrusted(state, frame):
                    self._stray(state, now_s)
            case FrameKind.CREDIT:
                if not self._credit_untrusted(state, frame):
                    self._stray(state, now_s)
            case FrameKind.RESTARTING:
                self._restarting_untrusted(state, frame, now_s)
                self._stray(state, now_s)
            case FrameKind.LANE_OPEN:
                self._stray(state, now_s)
            case _:
                raise FrameError(f"kind {frame.kind:#04x} is not for a gateway")

    def _submit_untrusted(self, state: HopState, frame: Frame, now_s: float) -> None:
        """Do it now, or in its turn."""
        if frame.kind != FrameKind.LINK_OPEN and not state.registrations.take(now_s):
            raise SidelinkError(Code.HOP_LIMIT_EXCEEDED, "it registers again and again")
        try:
            if self._openings is None or not self._openings.must_wait(state.hop.id, frame):
                self._decide_untrusted(state, frame, now_s)
        except LinkError as exc:
            if exc.code is not Code.ROUTE_LINK_LIMIT or frame.kind != FrameKind.LINK_OPEN:
                raise
            self._refuse_link(LinkEnd(state.hop.id, frame.link), exc.code)

    def _decide_untrusted(self, state: HopState, frame: Frame, now_s: float) -> None:
        if frame.kind == FrameKind.LINK_OPEN:
            self._open_untrusted(state, frame, now_s)
            return
        prefix = decode_prefix_untrusted(frame.body)
        if frame.kind == FrameKind.REGISTER:
            self._register_untrusted(state, prefix)
        else:
            self.directory.unregister(prefix, state.hop.id)

    def _relay(self, near: LinkEnd, frame: Frame) -> bool:
        """Pass it on. False for a link that there is not."""
        direction = self.find_link(near)
        if direction is None:
            # The other end closed it while this frame was on its way: no fault of anybody.
            self.counters.refuse(Code.ROUTE_LINK_CLOSED)
            return False
        try:
            self._count_untrusted(direction, frame)
        except LinkError as exc:
            self._reset_link(near, exc.code)
            return True
        self._forward(direction.permit.permit, direction.to, frame.kind, frame.body)
        return True

    @staticmethod
    def _stray(state: HopState, now_s: float) -> None:
        """A frame that brings nothing. Some are under way when a link ends; without end, none."""
        if not state.strays.take(now_s):
            raise SidelinkError(Code.HOP_LIMIT_EXCEEDED, "its frames bring nothing")

    @staticmethod
    def _count_untrusted(direction: Direction[LinkPermit], frame: Frame) -> None:
        """Raises LinkError for what may not pass: more than was granted, or out of turn."""
        if frame.kind == FrameKind.RECORD:
            if len(frame.body) < RECORD_BODY_BYTES_MIN:
                raise LinkError(f"a RECORD of {len(frame.body)} bytes")
            direction.window.pass_untrusted(len(frame.body))
        elif frame.kind == direction.handshake_kind:
            direction.handshake_kind = None
        else:
            raise LinkError("a handshake frame out of turn")

    def _forward(self, permit: Permit, to: LinkEnd, kind: int, body: bytes) -> None:
        """Send a frame on. Only a link that was joined under a Permit has anything to forward."""
        permit.require(Action.LINK_RELAY)
        self.counters.frames += 1
        self.counters.frame_bytes += len(body)
        if self._observe is not None:
            self._observe(Frame(to.link, kind, body))
        self.hops.say(self.hops[to.hop], to.link, kind, body)

    def _open_untrusted(self, state: HopState, frame: Frame, now_s: float) -> None:
        hop = state.hop
        lane = lane_of(frame.link)
        if not is_peers_link(frame.link, is_dialler=hop.is_dialler):
            raise FrameError(f"link {frame.link} is not yours to open")
        if frame.link <= state.last_link[lane]:
            raise FrameError(f"link {frame.link} was used before")
        state.last_link[lane] = frame.link
        opening = decode_link_open_untrusted(frame.body)
        near = LinkEnd(hop.id, frame.link)
        refusal = self._refuse_source_untrusted(state, opening)
        if refusal is None and (
            self._table.links_of(hop.id) >= state.links_max or not state.openings.take(now_s)
        ):
            refusal = Code.ROUTE_LINK_LIMIT
        if refusal is not None:
            self._refuse_link(near, refusal)
            return
        far = self._find_target(state, opening)
        if isinstance(far, Code):
            self._refuse_link(near, far)
            return
        if self.hops.is_congested(far) or self._table.links_of(far.hop.id) >= far.limits.links:
            # No window holds openings back, and whoever is slow must not lose its hop to them.
            self._refuse_link(near, Code.ROUTE_LINK_LIMIT)
            return
        answer = self._decisions.may_relay(hop, far.hop, opening.target)
        if isinstance(answer, Denial):
            self._refuse_link(near, Code.ROUTE_DENIED)
            return
        self._join(answer, near, state, far, opening)

    def _join(
        self, permit: Permit, near: LinkEnd, source: HopState, far: HopState, opening: LinkOpen
    ) -> None:
        try:
            there = LinkEnd(far.hop.id, far.ids.take())
        except LinkError as exc:
            self._refuse_link(near, exc.code)
            return
        self._table.join(near, there, LinkPermit(permit, near, opening.target))
        self.counters.links_opened += 1
        attested = LinkOpen(
            target=opening.target,
            source=opening.source,
            nonce=opening.nonce,
            source_node=source.hop.peer.identifier,
            noise_1=opening.noise_1,
            move=opening.move,
            versions=opening.versions,
        )
        self._forward(permit, there, FrameKind.LINK_OPEN, encode_link_open(attested))

    def _refuse_source_untrusted(self, state: HopState, opening: LinkOpen) -> Code | None:
        """Whether this node may speak as the source that it names."""
        if opening.source_node is not None:
            raise FrameError("only a gateway may attest a link's source")
        if isinstance(opening.source, AgentUri):
            covered = any(prefix.covers(opening.source) for prefix in state.prefixes)
            return None if covered and not state.enrolling else Code.ROUTE_SOURCE_DENIED
        own = opening.source == state.hop.peer.identifier
        return None if own else Code.ROUTE_SOURCE_DENIED

    def _find_target(self, state: HopState, opening: LinkOpen) -> HopState | Code:
        if isinstance(opening.target, Identifier):
            return self.hops.authority(opening.target) or Code.ENROL_AUTHORITY_UNREACHABLE
        if state.enrolling:
            return Code.HOP_ENROLMENT_ONLY
        route = self.directory.find(opening.target)
        if route is not None:
            return self.hops[route.hop]
        name = opening.target
        restarting = any(
            NamePrefix(name.trust_domain, name.path[:length]) in self._restarting
            for length in range(len(name.path) + 1)
        )
        return Code.ROUTE_RESTARTING if restarting else Code.ROUTE_UNKNOWN

    def _register_untrusted(self, state: HopState, prefix: NamePrefix) -> None:
        if state.enrolling or prefix not in state.prefixes:
            raise SidelinkError(Code.ROUTE_PREFIX_DENIED, f"{prefix} is not in the credential")
        answer = self._decisions.may_register(state.hop, prefix)
        if isinstance(answer, Denial):
            raise SidelinkError(Code.ROUTE_PREFIX_DENIED, answer.reason)
        route, displaced = self.directory.register(prefix, state.hop.id, state.hop.peer.identifier)
        self._restarting.pop(prefix, None)
        told = encode_prefix_epoch(PrefixEpoch(prefix, route.epoch))
        self.hops.say(state, 0, FrameKind.REGISTERED, told)
        if displaced is not None:
            self.hops.say(self.hops[displaced.hop], 0, FrameKind.DISPLACED, told)

    def _restarting_untrusted(self, state: HopState, frame: Frame, now_s: float) -> None:
        """A node will be away for a moment: who asks for its names meanwhile is told so."""
        delay_s = decode_restarting_untrusted(frame.body) / 1000
        until_s = now_s + min(delay_s, RESTART_SECONDS_MAX) + RESTART_GRACE_SECONDS
        for route in self.directory.routes_of(state.hop.id):
            self._restarting[route.prefix] = until_s

    def _credit_untrusted(self, state: HopState, frame: Frame) -> bool:
        """A receiver grants more: note it for what flows towards it, and pass it to the sender.

        False if it grants nothing.
        """
        credit = decode_credit_untrusted(frame.body)
        direction = self._table.find(LinkEnd(state.hop.id, frame.link))
        if direction is None:
            return False
        towards = self._table.find(direction.to)
        assert towards is not None
        window = towards.streams.get(credit.stream) if credit.stream else towards.window
        if window is None or not window.grant_untrusted(credit.limit):
            return False
        self.hops.grant(state, direction.to, credit.stream, frame.body)
        return True

    def _close_untrusted(self, state: HopState, frame: Frame) -> bool:
        """False for a link that there is not."""
        if len(frame.body) != 2:
            raise FrameError("LINK_CLOSE must carry a code")
        if self._openings is not None and self._openings.withdraw(state.hop.id, frame.link):
            return True
        other = self._part(LinkEnd(state.hop.id, frame.link))
        if other is not None:
            self.hops.say(self.hops[other.hop], other.link, FrameKind.LINK_CLOSE, frame.body)
        return other is not None

    def _reset_link(self, near: LinkEnd, code: Code) -> None:
        other = self._part(near)
        self._refuse_link(near, code)
        if other is not None:
            self._close_link(other, code)

    def _part(self, end: LinkEnd) -> LinkEnd | None:
        """Forget a link. Return its other end, if it was relayed."""
        other = self._table.part(end)
        if other is not None:
            for near, far in ((end, other), (other, end)):
                state = self.hops.find(near.hop)
                if state is not None and state.withheld:
                    self.hops.forget_link(state, far)
        return other

    def _refuse_link(self, near: LinkEnd, code: Code) -> None:
        self.counters.refuse(code)
        self._close_link(near, code)

    def _close_link(self, end: LinkEnd, code: Code) -> None:
        state = self.hops.find(end.hop)
        if state is not None:
            self.hops.say(state, end.link, FrameKind.LINK_CLOSE, encode_code(code))
