"""An authority on real tables, and nodes that come to its desk over a simulated hop."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authority.desk import Desk, Reply
from authority.issuer import GivenTicket, Issuer
from authority.revocations import RevocationBook
from authority.tables import Tables
from channel import Channel, ChannelEvent, Prologue
from identity import (
    Code,
    GatewayAddress,
    Purpose,
    Ticket,
    VerifiedIdentity,
    VerifiedPeer,
    new_identity,
)
from link import Frame, FrameKind, HopPort, LinkOpen
from link.messages import decode_code_untrusted, encode_link_open
from node.clocks import ManualClock
from node.enrolment_wire import AnyRequest, EnrolRequest, RenewRequest, encode_grant
from node.link_channel import LinkChannel
from policy import Action, Denial, Party, Permit, Request
from tests.simulation.people import authority, authority_node, engine, node, stranger, verifier_of

GATEWAYS = (GatewayAddress("127.0.0.1", 7400, node("gw", role="gateway").own.identifier),)
DAY_S = 86_400


@dataclass
class Office:
    """The authority's tables and its issuer."""

    folder: Path
    clock: ManualClock

    def __post_init__(self) -> None:
        self.tables = Tables(self.folder / "state.db")
        self.issuer = Issuer(authority, "acme", self.tables, node_credential_ttl_s=DAY_S)
        self.book = self.issuer.tickets
        self.members = self.issuer.members
        self.revocations = RevocationBook(self.tables, authority, "acme", next_update_s=DAY_S)

    def ticket(self, **wishes: Any) -> Ticket:
        named = {} if "name_prefix" in wishes else {"name": "finance"}
        return self.given(**(named | wishes)).ticket

    def given(self, **wishes: Any) -> GivenTicket:
        return self.issuer.create_ticket(wishes, GATEWAYS, unix_s=self.clock.unix_s())

    def enrol(self, code: bytes, own: Any, **changes: Any) -> Any:
        """Redeem a ticket as the desk would for ``own``."""
        fields = {"history": own.history.encode(), "node": own.identifier, "name": None} | changes
        return self.issuer.enrol(
            EnrolRequest(code, fields["history"], fields["name"]),
            fields["node"],
            GATEWAYS,
            unix_s=self.clock.unix_s(),
        )

    def renew(self, own: Any, identity: VerifiedIdentity) -> Any:
        peer = VerifiedPeer(identity, own.purpose_keys[Purpose.CHANNEL].key.public)
        return self.issuer.renew(
            RenewRequest(own.history.encode()), peer, GATEWAYS, unix_s=self.clock.unix_s()
        )


class OwnNodeOfAuthority:
    """As much of an OwnNode as a desk needs."""

    def __init__(self, clock: ManualClock) -> None:
        own = authority()
        self.identifier = own.identifier
        self.channel_key = own.purpose_keys[Purpose.CHANNEL].key
        self.channel_proof = own.proof(Purpose.CHANNEL)
        self._clock = clock

    def verify_channel(self, proof: bytes, noise_key: bytes) -> VerifiedPeer:
        return verifier_of(self.identifier).verify(
            proof, purpose=Purpose.CHANNEL, noise_key=noise_key, unix_s=self._clock.unix_s()
        )


@dataclass(eq=False)
class FakeHop:
    """The authority's end of a hop to a gateway. The authority dials."""

    id: int = 1
    is_dialler: bool = True
    closed: Any = None

    def __post_init__(self) -> None:
        self.peer = node("gw", role="gateway").peer
        self.sent: list[Frame] = []

    def send_frame(self, link: int, kind: int, body: bytes) -> None:
        self.sent.append(Frame(link, kind, body))

    def close(self, code: Any) -> None:
        self.closed = code

    def closes(self) -> list[tuple[int, Any]]:
        return [
            (frame.link, decode_code_untrusted(frame.body))
            for frame in self.sent
            if frame.kind == FrameKind.LINK_CLOSE
        ]


class DeskUnderTest:
    """A desk whose policy is the baseline, unless ``denies`` is set."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.clock = office.clock
        self.denies = False
        self.waiting: list[Reply] = []
        own: Any = OwnNodeOfAuthority(self.clock)
        self.desk = Desk(own, self._may_enrol, self._answer, self.clock)
        self.hop: Any = FakeHop()
        self.desk.hop_opened(self.hop)

    def _may_enrol(self, peer: VerifiedPeer) -> Permit | Denial:
        own = Party.from_verified(authority_node().identity)
        request = Request(Action.NODE_ENROL, Party.from_verified(peer.identity), own)
        answer = engine().decide(request, self.clock.unix_s())
        if self.denies:
            return Denial(Code.POLICY_DENIED, "nobody today", "closed", "1", "1")
        return answer

    def _answer(self, request: AnyRequest, peer: VerifiedPeer, hop: HopPort, reply: Reply) -> None:
        """As the registrar does; a token's answer waits until the test gives it."""
        unix_s = self.clock.unix_s()
        match request:
            case EnrolRequest():
                granted, _ = self.office.issuer.enrol(
                    request, peer.identifier, GATEWAYS, unix_s=unix_s
                )
                reply(encode_grant(granted))
            case RenewRequest():
                granted, _ = self.office.issuer.renew(request, peer, GATEWAYS, unix_s=unix_s)
                reply(encode_grant(granted))
            case _:
                self.waiting.append(reply)

    def receive(self, link: int, kind: int, body: bytes) -> None:
        self.desk.frames_received(self.hop, [Frame(link, kind, body)])


class Visitor:
    """A node at the desk: drives a real channel by hand."""

    def __init__(self, at: DeskUnderTest, link: int = (1 << 31) | 1, who: Any = None) -> None:
        own = (who or stranger()).own
        self.own = own
        self.at = at
        self.link = link
        self.nonce = os.urandom(16)
        self.target = authority().identifier
        self.port = FakeHop(id=99)
        channel = Channel.connect(
            key=own.purpose_keys[Purpose.CHANNEL].key,
            proof=own.proof(Purpose.CHANNEL),
            prologue=Prologue(purpose="channel", target=str(self.target), nonce=self.nonce),
            verify=lambda proof, key: verifier_of(own.identifier).verify(
                proof, purpose=Purpose.CHANNEL, noise_key=key, unix_s=at.clock.unix_s()
            ),
            now_s=at.clock.now_s(),
        )
        port: Any = self.port
        self.links = LinkChannel(port, link, channel)
        self.events: list[ChannelEvent] = []
        self._read = 0

    def knock(self, **changes: Any) -> None:
        [(_, noise_1)] = self.links.channel.take_output()
        fields: dict[str, Any] = {
            "target": self.target,
            "source": self.own.identifier,
            "nonce": self.nonce,
            "source_node": self.own.identifier,
            "noise_1": noise_1,
        }
        body = encode_link_open(LinkOpen(**(fields | changes)))
        self.at.receive(self.link, FrameKind.LINK_OPEN, body)

    def exchange(self) -> None:
        """Carry frames both ways until nobody says more."""
        while True:
            self.links.pump()
            said, self.port.sent = self.port.sent, []
            self.at.desk.frames_received(self.at.hop, said)
            heard = [f for f in self.at.hop.sent[self._read :] if f.link == self.link]
            self._read = len(self.at.hop.sent)
            for frame in heard:
                if frame.kind >= 0x10:
                    continue
                events, owed = self.links.receive(frame.kind, frame.body, self.at.clock.now_s())
                self.events += events
                if owed:
                    self.links.consume(owed)
            if not said and not heard:
                return

    def say(self, data: bytes) -> None:
        self.links.channel.send(data, self.at.clock.now_s())
        self.exchange()

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def new_node() -> Any:
    return new_identity(".node", unix_s=ManualClock().unix_s(), purposes=tuple(Purpose))
