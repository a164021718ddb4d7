"""The authority's side of enrolment channels: one question, one answer, then closed. Pure.

An answer may take a moment, when keys must be fetched to judge a token: it is handed in later, and
nobody minds if its visitor has gone meanwhile.
"""

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
    AnyRequest,
    EnrolRefusal,
    decode_request_untrusted,
    encode_refusal,
)
from node.link_channel import LinkChannel
from node.own_node import OwnNode
from policy import Denial, Permit

CHANNELS_MAX: Final = 256
CHANNEL_SECONDS_MAX: Final = 15.0
# One to ask with, and some that lost answers left behind. A gateway holds strangers to as many.
CHANNELS_PER_NODE_MAX: Final = 4

Reply = Callable[[bytes], None]
"""Takes the encoded answer to one question, now or later; once."""


class AnswerRequest(Protocol):
    """Judges the question of a proved node. Gives the answer to ``reply``, or raises
    SidelinkError at once."""

    def __call__(
        self, request: AnyRequest, peer: VerifiedPeer, hop: HopPort, reply: Reply
    ) -> None: ...


@dataclass(slots=True, eq=False)
class _Visit:
    links: LinkChannel
    hop: HopPort
    node: Identifier
    until_s: float
    answered: bool = False


class Desk:
    """Answers links that gateways relay to this authority."""

    def __init__(
        self,
        node: OwnNode,
        may_enrol: Callable[[VerifiedPeer], Permit | Denial],
        answer: AnswerRequest,
        clock: Clock,
    ) -> None:
        self._node = node
        self._may_enrol = may_enrol
        self._answer = answer
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
                    self._verified(end, visit)
                case DataReceived():
                    visit.links.consume(owed_bytes)
                    self._answer_untrusted(end, visit, event.data)
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
        # Whoever is behind the gateway, the gateway attests; without that it speaks for itself.
        source = opening.source_node or hop.peer.identifier
        refusal = None
        if PROTOCOL_VERSION not in opening.versions:
            refusal = Code.CHANNEL_VERSION_UNSUPPORTED
        elif opening.target != self._node.identifier:
            refusal = Code.ROUTE_UNKNOWN
        elif len(self._visits) >= CHANNELS_MAX or self._is_crowded(source):
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
        links = LinkChannel(hop, frame.link, channel)
        visit = _Visit(links, hop, source, now_s + CHANNEL_SECONDS_MAX)
        end = LinkEnd(hop.id, frame.link)
        self._visits[end] = visit
        self._handle(end, visit, channel.receive(Part.OPEN, opening.noise_1, now_s), 0)

    def _is_crowded(self, source: Identifier) -> bool:
        visits = sum(visit.node == source for visit in self._visits.values())
        return visits >= CHANNELS_PER_NODE_MAX

    def _verified(self, end: LinkEnd, visit: _Visit) -> None:
        channel = visit.links.channel
        answer = self._may_enrol(channel.peer)
        if isinstance(answer, Denial):
            channel.deny(answer.code, *answer.told(colleague=True))
            return
        for event in channel.accept(answer):
            if isinstance(event, DataReceived):
                # It came before the yes; the window was given back when it arrived.
                self._answer_untrusted(end, visit, event.data)

    def _answer_untrusted(self, end: LinkEnd, visit: _Visit, data: bytes) -> None:
        channel = visit.links.channel
        if channel.state is not ChannelState.OPEN:
            return
        if visit.answered:
            channel.close(Code.CHANNEL_LIMIT_EXCEEDED)
            return
        visit.answered = True

        def reply(answer: bytes) -> None:
            if self._visits.get(end) is visit and channel.state is ChannelState.OPEN:
                channel.send(answer, self._clock.now_s())
                visit.links.pump()

        try:
            request = decode_request_untrusted(data)
            self._answer(request, channel.peer, visit.hop, reply)
        except SidelinkError as exc:
            reply(encode_refusal(EnrolRefusal(exc.code)))

    def _end(self, end: LinkEnd, visit: _Visit, code: Code) -> None:
        del self._visits[end]
        visit.links.channel.close(code)
        visit.links.pump()
        visit.links.abandon(code)
