"""A peer that speaks the wire by hand: a real identity, a real channel, and a free will."""

import os
from dataclasses import dataclass
from typing import Any

from channel import Channel, ChannelEvent, ChannelOpened, DataReceived, Part, PeerVerified, Prologue
from identity import AgentUri, Code, Purpose, VerifiedPeer
from link import Frame, FrameKind, LinkOpen
from link.limits import ACCEPTOR_LINK_BIT
from link.messages import decode_code_untrusted, decode_link_open_untrusted, encode_link_open
from node.link_channel import LinkChannel
from policy import Action, Party, Request
from sidecar.agents import LocalAgent
from sidecar.envelope import Envelope, decode_batch_untrusted, encode_batch
from sidecar.handshakes import BETWEEN_STEPS_SECONDS
from tests.runs import envelopes_of
from tests.simulation.mesh import Sidecar
from tests.simulation.network import SimulatedNetwork
from tests.simulation.people import Node, engine, node, verifier_of


@dataclass(eq=False)
class FakeHop:
    """The sidecar's only hop; at its other end is nobody but the test."""

    peer: VerifiedPeer
    id: int = 1
    is_dialler: bool = True
    closed: Code | None = None
    queued_bytes: int = 0

    def __post_init__(self) -> None:
        self.sent: list[Frame] = []

    def send_frame(self, link: int, kind: int, body: bytes) -> None:
        self.sent.append(Frame(link, kind, body))

    def close(self, code: Code) -> None:
        self.closed = self.closed or code

    def closes(self) -> list[tuple[int, Code]]:
        return [
            (frame.link, decode_code_untrusted(frame.body))
            for frame in self.sent
            if frame.kind == FrameKind.LINK_CLOSE
        ]


class Lonely:
    """One sidecar, "alpha", whose gateway is the test."""

    def __init__(self, **options: Any) -> None:
        self.network = SimulatedNetwork(0)
        self.sidecar = Sidecar(self.network, "alpha", [], **options)
        self.hop: Any = FakeHop(node("gw", role="gateway").peer)
        self.sidecar.do(lambda: self.sidecar.router.hop_opened(self.hop))
        self._last_link = ACCEPTOR_LINK_BIT

    @property
    def router(self) -> Any:
        return self.sidecar.router

    def receive(self, *frames: tuple[int, int, bytes]) -> None:
        given = [Frame(*frame) for frame in frames]
        self.sidecar.do(lambda: self.router.frames_received(self.hop, given))
        self.network.run_for(2 * BETWEEN_STEPS_SECONDS)

    def lose_hop(self) -> None:
        self.sidecar.do(lambda: self.router.hop_closed(self.hop, Code.ROUTE_UNREACHABLE))

    def next_link(self) -> int:
        self._last_link += 1
        return self._last_link

    def opened_links(self) -> list[tuple[int, LinkOpen]]:
        return [
            (frame.link, decode_link_open_untrusted(frame.body))
            for frame in self.hop.sent
            if frame.kind == FrameKind.LINK_OPEN
        ]


class Puppet:
    """A remote agent on one link. ``exchange`` carries what both sides have to say."""

    def __init__(self, lonely: Lonely, name: str = "mallory", *, of: Node | None = None) -> None:
        self.lonely = lonely
        self.node = of or node("beta")
        domain = self.node.identity.trust_domain
        registry = self.node.new_registry()
        path = f"{'/'.join(self.node.identity.name.path)}/{name}"  # type: ignore[union-attr]
        self.agent: LocalAgent = registry.open(path, {}, lonely.network.clock.unix_s())
        assert domain is not None
        self.link = 0
        self.events: list[ChannelEvent] = []
        self.takes_credit = True
        self._owed_bytes = 0
        self._read = 0

    @property
    def uri(self) -> str:
        return str(self.agent.uri)

    def connect(self, to: str, *, link: int | None = None, **changes: Any) -> None:
        """Open a link to one of the sidecar's agents, and carry the handshake."""
        self.link = self.lonely.next_link() if link is None else link
        nonce = os.urandom(16)
        channel = Channel.connect(
            prologue=Prologue(purpose="channel", target=to, nonce=nonce), **self._own()
        )
        [(_, noise_1)] = channel.take_output()
        fields: dict[str, Any] = {
            "target": AgentUri.parse(to),
            "source": self.agent.uri,
            "nonce": nonce,
            "source_node": self.node.own.identifier,
            "noise_1": noise_1,
        }
        opening = LinkOpen(**(fields | changes))
        self._begin(channel)
        self.lonely.receive((self.link, FrameKind.LINK_OPEN, encode_link_open(opening)))
        self.exchange()

    def respond(self, *, accepts: bool = True) -> None:
        """Answer the last link that the sidecar opened."""
        self.link, opening = self.lonely.opened_links()[-1]
        channel = Channel.respond(
            prologue=Prologue(purpose="channel", target=str(opening.target), nonce=opening.nonce),
            **self._own(),
        )
        self._begin(channel)
        self._read = len(self.lonely.hop.sent)
        self.events += channel.receive(Part.OPEN, opening.noise_1, self._now_s())
        self.accepts = accepts
        self.exchange()

    def exchange(self) -> None:
        while True:
            self.links.pump()
            said, self.port.sent = self.port.sent, []
            if said:
                self.lonely.receive(*said)
            heard = self.lonely.hop.sent[self._read :]
            self._read = len(self.lonely.hop.sent)
            for frame in heard:
                if frame.link == self.link and frame.kind < FrameKind.CREDIT:
                    self._hear(frame)
            if not said and not heard:
                return

    def catch_up(self) -> None:
        """Take all that came while nothing was taken."""
        self.takes_credit = True
        owed_bytes, self._owed_bytes = self._owed_bytes, 0
        self.links.consume(owed_bytes)
        self.exchange()

    def say(self, *envelopes: Envelope) -> None:
        self.say_bytes(encode_batch(list(envelopes)))

    def say_bytes(self, data: bytes) -> None:
        self.links.channel.send(data, self._now_s())
        self.exchange()

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def heard(self) -> list[Envelope]:
        return [
            envelope
            for event in self.of(DataReceived)
            for envelope in envelopes_of(decode_batch_untrusted(event.data))
        ]

    @property
    def is_open(self) -> bool:
        return bool(self.of(ChannelOpened))

    def _own(self) -> dict[str, Any]:
        return {
            "key": self.agent.noise_key,
            "proof": self.agent.proof,
            "verify": self._verify,
            "now_s": self._now_s(),
        }

    def _verify(self, proof: bytes, noise_key: bytes) -> VerifiedPeer:
        return verifier_of(self.agent.identity.identifier).verify(
            proof,
            purpose=Purpose.CHANNEL,
            noise_key=noise_key,
            unix_s=self.lonely.network.clock.unix_s(),
        )

    def _now_s(self) -> float:
        return self.lonely.network.clock.now_s()

    def _begin(self, channel: Channel) -> None:
        self.port: Any = FakeHop(node("gw", role="gateway").peer)
        self.links = LinkChannel(self.port, self.link, channel)

    def _hear(self, frame: Frame) -> None:
        events, owed_bytes = self.links.receive(frame.kind, frame.body, self._now_s())
        self.events += events
        self._owed_bytes += owed_bytes
        if self.takes_credit:
            owed_bytes, self._owed_bytes = self._owed_bytes, 0
            self.links.consume(owed_bytes)
        for event in events:
            if isinstance(event, PeerVerified) and self.links.channel.state.name == "VERIFIED":
                if self.accepts:
                    self.events += self.links.channel.accept(self._permit(event.peer))
                else:
                    self.links.channel.deny(Code.POLICY_DENIED, "their rule", "their reason")

    def _permit(self, peer: VerifiedPeer) -> Any:
        request = Request(Action.CHANNEL_OPEN, Party.from_verified(peer.identity), self.agent.party)
        return engine().decide(request, self.lonely.network.clock.unix_s())
