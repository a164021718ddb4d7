"""The authority's side of enrolment channels: one question, one answer, then closed. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from channel import Channel, ChannelEvent, ChannelState, DataReceived, Part, PeerVerified, Prologue
from identity import Code, Identifier, SidelinkError, VerifiedPeer
from link import (
    PROTOCOL_VERSION,
    CreditError,
    Frame,
    FrameError,
    FrameKind,
    HopPort,
    LinkEnd,
    is_peers_link,
)
from link.limits import LANES
from link.messages import decode_link_open_untrusted, encode_code
from node.clocks import Clock
from node.enrolment_wire import (
    EnrolRefusal,
    EnrolRequest,
    decode_request_untrusted,
    encode_refusal,
)
from node.link_channel import LinkChannel
from node.own_node import OwnNode
from policy import Denial, Permit

CHANNELS_MAX: Final = 256
CHANNEL_SECONDS_MAX: Final = 15.0


class EnrolNode(Protocol):
    """Redeems a ticket for a proved node: returns the encoded grant, or raises SidelinkError."""

    def __call__(self, request: EnrolRequest, node: Identifier, hop: HopPort) -> bytes: ...


@dataclass(slots=True, eq=False)
class _Visit:
    links: LinkChannel
    hop: HopPort
    until_s: float
    answered: bool = False


class Desk:
    """Answers links that gateways relay to this authority."""

    def __init__(
        self,
        node: OwnNode,
        may_enrol: Callable[[VerifiedPeer], Permit | Denial],
        enrol: EnrolNode,
        clock: Clock,
    ) -> None:
        self._node = node
        self._may_enrol = may_enrol
        self._enrol = enrol
        self._clock = clock
        self._visits: dict[LinkEnd, _Visit] = {}
        self._last_link: dict[int, list[int]] = {}

    @property
    def visits(self) -> int:
        return len(self._visits)

    def hop_opened(self, hop: HopPort) -> None:
        self._last_link[hop.id] = [0] * LANES

    def hop_closed(self, hop: HopPort) -> None:
        self._last_link.pop(hop.id, None)
        for end in [end for end in self._visits if end.hop == hop.id]:
            del self._visits[end]

    def frames_received(self, hop: HopPort, frames: list[Frame]) -> None:
        """Take frames of a gateway. A gateway that breaks the protocol loses its hop."""
        if hop.id not in self._last_link:
            return
        try:
            for frame in frames:
                self._receive_untrusted(hop, frame)
        except FrameError as exc:
            hop.close(exc.code)

    def tidy(self) -> None:
        """Drop visits that have taken too long. Called now and then."""
        now_s = self._clock.now_s()
        for end, visit in list(self._visits.items()):
            if now_s >= visit.until_s:
                self._end(end, visit, Code.CHANNEL_TIMEOUT)

    def _receive_untrusted(self, hop: HopPort, frame: Frame) -> None:
        if frame.kind == FrameKind.LINK_OPEN:
            self._open_untrusted(hop, frame)
            return
        visit = self._visits.get(LinkEnd(hop.id, frame.link))
        if visit is None or not FrameKind.LINK_ACCEPT <= frame.kind <= FrameKind.LINK_CLOSE:
            return
        try:
            events, owed_bytes = visit.links.receive(frame.kind, frame.body, self._clock.now_s())
        except CreditError as exc:
            self._end(LinkEnd(hop.id, frame.link), visit, exc.code)
            return
        self._handle(LinkEnd(hop.id, frame.link), visit, events, owed_bytes)

    def _handle(
        self, end: LinkEnd, visit: _Visit, events: list[ChannelEvent], owed_bytes: int
    ) -> None:
        for event in events:
            match event:
                case PeerVerified():
                    self._verified(visit)
                case DataReceived():
                    visit.links.consume(owed_bytes)
                    self._answer_untrusted(visit, event.data)
                case _:
                    pass  # What ends a channel shows in its state; streams mean nothing here.
        visit.links.pump()
        if visit.links.channel.state is ChannelState.CLOSED:
            self._visits.pop(end, None)
            visit.links.abandon(Code.CHANNEL_CLOSED)

    def _open_untrusted(self, hop: HopPort, frame: Frame) -> None:
        last = self._last_link[hop.id]
        lane = frame.link % LANES
        if not is_peers_link(frame.link, is_dialler=hop.is_dialler) or frame.link <= last[lane]:
            raise FrameError(f"link {frame.link} is not the peer's to open")
        last[lane] = frame.link
        opening = decode_link_open_untrusted(frame.body)
        refusal = None
        if PROTOCOL_VERSION not in opening.versions:
            refusal = Code.CHANNEL_VERSION_UNSUPPORTED
        elif opening.target != self._node.identifier:
            refusal = Code.ROUTE_UNKNOWN
        elif len(self._visits) >= CHANNELS_MAX:
            refusal = Code.ROUTE_LINK_LIMIT
        if refusal is not None:
            hop.send_frame(frame.link, FrameKind.LINK_CLOSE, encode_code(refusal))
            return
        now_s = self._clock.now_s()
        channel = Channel.respond(
            key=self._node.channel_key,
            proof=self._node.channel_proof,
            prologue=Prologue(
                purpose="channel",
                target=str(opening.target),
                nonce=opening.nonce,
                versions=opening.versions,
            ),
            verify=self._node.verify_channel,
            now_s=now_s,
        )
        visit = _Visit(LinkChannel(hop, frame.link, channel), hop, now_s + CHANNEL_SECONDS_MAX)
        end = LinkEnd(hop.id, frame.link)
        self._visits[end] = visit
        self._handle(end, visit, channel.receive(Part.OPEN, opening.noise_1, now_s), 0)

    def _verified(self, visit: _Visit) -> None:
        channel = visit.links.channel
        answer = self._may_enrol(channel.peer)
        if isinstance(answer, Denial):
            channel.deny(answer.code, answer.rule or "", answer.reason)
            return
        for event in channel.accept(answer):
            if isinstance(event, DataReceived):
                # It came before the yes; the window was given back when it arrived.
                self._answer_untrusted(visit, event.data)

    def _answer_untrusted(self, visit: _Visit, data: bytes) -> None:
        channel = visit.links.channel
        if channel.state is not ChannelState.OPEN:
            return
        if visit.answered:
            channel.close(Code.CHANNEL_LIMIT_EXCEEDED)
            return
        visit.answered = True
        try:
            request = decode_request_untrusted(data)
            answer = self._enrol(request, channel.peer.identifier, visit.hop)
        except SidelinkError as exc:
            answer = encode_refusal(EnrolRefusal(exc.code))
        channel.send(answer, self._clock.now_s())

    def _end(self, end: LinkEnd, visit: _Visit, code: Code) -> None:
        del self._visits[end]
        visit.links.channel.close(code)
        visit.links.pump()
        visit.links.abandon(code)
