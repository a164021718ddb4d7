"""A relay, and hops that only remember what was sent on them."""

from dataclasses import dataclass, field
from typing import Any

from gateway.hops import RelayLimits
from gateway.relay import GatewayRelay
from gateway.streams import StreamRelay
from identity import AgentUri, Code, Identifier, NamePrefix, VerifiedPeer
from link import Frame, FrameKind, HopLimits, HopPort, LinkOpen
from link.messages import decode_code_untrusted, encode_link_open, encode_prefix
from policy import Action, Denial, Party, Permit, Request
from tests.simulation.people import START_UNIX_S, authority_node, engine, node, stranger

ALICE = "agent://acme/alpha/alice"
BOB = "agent://acme/beta/bob"
NONCE = bytes(16)


@dataclass(eq=False)
class FakeHop:
    """Fits HopPort."""

    id: int
    peer: VerifiedPeer
    is_dialler: bool = False
    sent: list[Frame] = field(default_factory=list)
    streams: dict[int, bytearray] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    reset: dict[int, int] = field(default_factory=dict)
    closed: Code | None = None
    queued_bytes: int = 0
    stream_queue_bytes: int = 0
    next_stream: int = 1

    def send_frame(self, link: int, kind: int, body: bytes) -> None:
        self.sent.append(Frame(link, kind, body))

    def open_stream(self) -> int:
        stream, self.next_stream = self.next_stream, self.next_stream + 4
        self.streams[stream] = bytearray()
        return stream

    def send_stream(self, stream: int, data: bytes, end: bool = False) -> None:
        self.streams.setdefault(stream, bytearray()).extend(data)
        if end:
            self.ended.add(stream)

    def reset_stream(self, stream: int, code: int) -> None:
        self.reset[stream] = code

    def stream_queued_bytes(self, stream: int) -> int:
        return self.stream_queue_bytes

    def close(self, code: Code) -> None:
        self.closed = self.closed or code

    def of(self, kind: FrameKind) -> list[Frame]:
        return [frame for frame in self.sent if frame.kind == kind]

    def closes(self) -> list[tuple[int, Code]]:
        return [
            (frame.link, decode_code_untrusted(frame.body))
            for frame in self.of(FrameKind.LINK_CLOSE)
        ]


class PolicyDecisions:
    """The baseline, asked as the program asks it. ``denied`` actions are refused."""

    def __init__(self) -> None:
        self.denied: set[Action] = set()
        self.permits: list[Permit] = []

    def may_register(self, hop: HopPort, prefix: NamePrefix) -> Permit | Denial:
        own = Party.from_verified(node("gw", role="gateway").identity)
        return self._decide(Action.ROUTE_REGISTER, hop, own, prefix)

    def may_relay(
        self, source: HopPort, target: HopPort, to: AgentUri | Identifier
    ) -> Permit | Denial:
        if isinstance(to, Identifier):
            return self._decide(
                Action.LINK_RELAY, source, Party.from_verified(target.peer.identity)
            )
        return self._decide(Action.LINK_RELAY, source, Party.unproved(to))

    def _decide(
        self, action: Action, hop: HopPort, target: Party, prefix: NamePrefix | None = None
    ) -> Permit | Denial:
        if action in self.denied:
            return Denial(Code.POLICY_DENIED, "a rule", "for the test", "1", "1")
        subject = Party.from_verified(hop.peer.identity)
        answer = engine().decide(Request(action, subject, target, prefix=prefix), START_UNIX_S)
        if isinstance(answer, Permit):
            self.permits.append(answer)
        return answer


class Switchboard:
    """One relay with hops to it: alpha and beta are registered, an authority and a stranger."""

    def __init__(self, links_max: int = 65_536, **limits: Any) -> None:
        self.decisions = PolicyDecisions()
        self.observed: list[Frame] = []
        self.limits = RelayLimits(**limits)
        self.relay = GatewayRelay(self.decisions, limits=self.limits, observe=self.observed.append)
        self.streams = StreamRelay(self.relay)
        self.links_max = links_max
        self.now_s = 0.0
        self._last_hop = 0
        self.alpha = self.hop("alpha")
        self.beta = self.hop("beta")
        for hop, name in ((self.alpha, "alpha"), (self.beta, "beta")):
            self.receive(hop, 0, FrameKind.REGISTER, encode_prefix(prefix(name)))
            hop.sent.clear()

    def hop(self, name: str) -> FakeHop:
        who = {
            "authority": authority_node,
            "stranger": stranger,
        }.get(name, lambda: node(name))()
        self._last_hop += 1
        hop = FakeHop(self._last_hop, who.peer)
        self.relay.hop_opened(
            hop, enrolling=name == "stranger", limits=HopLimits(links=self.links_max)
        )
        return hop

    def lose(self, hop: FakeHop) -> None:
        self.streams.hop_closed(hop)
        self.relay.hop_closed(hop)

    def receive(self, hop: FakeHop, link: int, kind: int, body: bytes = b"") -> None:
        self.relay.frames_received(hop, [Frame(link, kind, body)], self.now_s)

    def open(self, hop: FakeHop, link: int = 1, **changes: Any) -> None:
        self.receive(hop, link, FrameKind.LINK_OPEN, opening(**changes))

    def join(self, link: int = 1) -> int:
        """A link from alice to bob, with its handshake done. Returns its number at beta."""
        self.open(self.alpha, link)
        there = self.beta.of(FrameKind.LINK_OPEN)[-1].link
        self.receive(self.beta, there, FrameKind.LINK_ACCEPT, b"2")
        self.receive(self.alpha, link, FrameKind.LINK_FINISH, b"3")
        return there

    def is_empty(self) -> bool:
        relay, streams = self.relay, self.streams
        return not any(
            (
                relay.hops._hops,
                relay.hops._authorities,
                relay._table._directions,
                relay._table._of_hop,
                relay.directory._routes,
                relay.directory._of_hop,
                streams._ends,
                streams._preambles,
                streams._numbers,
                streams._per_hop,
            )
        )


def prefix(name: str) -> NamePrefix:
    return NamePrefix("acme", (name,))


def opening(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "target": AgentUri.parse(BOB),
        "source": AgentUri.parse(ALICE),
        "nonce": NONCE,
        "source_node": None,
        "noise_1": b"noise",
    }
    return encode_link_open(LinkOpen(**(fields | changes)))
