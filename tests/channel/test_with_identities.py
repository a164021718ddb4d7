"""Channels between real identities: proofs, purposes and chains as they travel."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from channel import (
    Channel,
    ChannelClosed,
    ChannelOpened,
    DataReceived,
    PeerRenewed,
    PeerVerified,
    Prologue,
    VerifyPeer,
)
from identity import Code, ProofVerifier, Purpose, TrustAnchor
from tests.channel.helpers import NONCE, FakePermit, carry
from tests.identity.helpers import DAY_S, NOW, PLANNER, Person, World

WRITER = "agent://acme/finance/writer"


@dataclass
class Mesh:
    """An authority, a node, and two of its agents: the writer asks for the planner."""

    world: World
    writer: Person

    @classmethod
    def new(cls) -> "Mesh":
        return cls(World(), Person())

    def planner_proof(self) -> bytes:
        return self.world.planner.proof(self.world.planner_link(), self.world.node_link())

    def writer_proof(self) -> bytes:
        link = self.world.node.link(self.writer, WRITER)
        return self.writer.proof(link, self.world.node_link())

    def verify_as(self, person: Person, unix_s: float = NOW) -> VerifyPeer:
        anchors = [TrustAnchor(self.world.authority.history.identifier, "acme")]
        verifier = ProofVerifier(anchors, own=person.history.identifier)
        return lambda proof, noise_key: verifier.verify(
            proof, purpose=Purpose.CHANNEL, noise_key=noise_key, unix_s=unix_s
        )

    def connect(self, target: str = PLANNER, unix_s: float = NOW) -> Channel:
        return Channel.connect(
            prologue=Prologue("channel", target, NONCE),
            key=self.writer.noise,
            proof=self.writer_proof(),
            verify=self.verify_as(self.writer, unix_s),
            now_s=0.0,
        )

    def respond(
        self, person: Person | None = None, proof: bytes | None = None, target: str = PLANNER
    ) -> Channel:
        person = person or self.world.planner
        return Channel.respond(
            prologue=Prologue("channel", target, NONCE),
            key=person.noise,
            proof=proof or self.planner_proof(),
            verify=self.verify_as(person),
            now_s=0.0,
        )


def test_two_agents_of_one_authority_meet_by_name() -> None:
    mesh = Mesh.new()
    writer, planner = mesh.connect(), mesh.respond()
    carry(writer, planner)
    [seen_by_writer] = carry(planner, writer)
    [seen_by_planner] = carry(writer, planner)
    planner.accept(FakePermit(mesh.writer.history.identifier))
    opened = carry(planner, writer)
    writer.send(b"hello", now_s=1.0)
    [received] = carry(writer, planner)

    assert isinstance(seen_by_writer, PeerVerified)
    assert str(seen_by_writer.peer.name) == PLANNER
    assert isinstance(seen_by_planner, PeerVerified)
    assert str(seen_by_planner.peer.name) == WRITER
    assert seen_by_planner.peer.noise_key == mesh.writer.noise.public
    assert opened == [ChannelOpened()]
    assert isinstance(received, DataReceived)


def test_an_authority_is_met_by_its_identifier() -> None:
    mesh = Mesh.new()
    authority = mesh.world.authority
    target = str(authority.history.identifier)
    writer = mesh.connect(target)
    carry(writer, server := mesh.respond(authority, authority.proof(), target))
    [seen] = carry(server, writer)
    assert isinstance(seen, PeerVerified)
    assert seen.peer.identity.kind == "authority"


def _of_hop_purpose(mesh: Mesh) -> Channel:
    planner = mesh.world.planner
    links = mesh.world.planner_link(), mesh.world.node_link()
    proof = planner.proof(*links, attestation=planner.attestation(Purpose.HOP))
    return mesh.respond(proof=proof)


def _of_another_name(mesh: Mesh) -> Channel:
    link = mesh.world.planner_link(name="agent://acme/finance/other")
    return mesh.respond(proof=mesh.world.planner.proof(link, mesh.world.node_link()))


def _of_another_authority(mesh: Mesh) -> Channel:
    other = World()
    link = other.node.link(mesh.world.planner, PLANNER)
    return mesh.respond(proof=mesh.world.planner.proof(link, other.node_link()))


def _without_a_chain(mesh: Mesh) -> Channel:
    return mesh.respond(proof=mesh.world.planner.proof())


def _outside_the_prefix(mesh: Mesh) -> Channel:
    target = "agent://acme/billing/main"
    link = mesh.world.planner_link(name=target)
    proof = mesh.world.planner.proof(link, mesh.world.node_link())
    return mesh.respond(proof=proof)


def _itself(mesh: Mesh) -> Channel:
    twin = Person(mesh.writer.key, history=mesh.writer.history)
    link = mesh.world.node.link(twin, PLANNER)
    return mesh.respond(twin, twin.proof(link, mesh.world.node_link()))


def _with_a_stolen_proof(mesh: Mesh) -> Channel:
    return mesh.respond(Person())


IMPOSTORS: dict[str, tuple[Callable[[Mesh], Channel], Code]] = {
    "whose Noise key is attested for hops": (
        _of_hop_purpose,
        Code.CHANNEL_ATTESTATION_INVALID,
    ),
    "who proves another name": (_of_another_name, Code.CHANNEL_WRONG_NAME),
    "whose authority is not ours": (_of_another_authority, Code.CHANNEL_WRONG_AUTHORITY),
    "who has no name": (_without_a_chain, Code.CHANNEL_WRONG_NAME),
    "whose name is outside the node's prefix": (
        _outside_the_prefix,
        Code.CHANNEL_DELEGATION_EXCEEDED,
    ),
    "who is ourselves": (_itself, Code.CHANNEL_SELF_CONNECTION),
    "who shows the proof of somebody else": (
        _with_a_stolen_proof,
        Code.CHANNEL_ATTESTATION_INVALID,
    ),
}


@pytest.mark.parametrize(("make", "code"), IMPOSTORS.values(), ids=IMPOSTORS)
def test_a_responder_is_refused(make: Callable[[Mesh], Channel], code: Code) -> None:
    mesh = Mesh.new()
    writer, impostor = mesh.connect(), make(mesh)
    carry(writer, impostor)
    assert carry(impostor, writer) == [ChannelClosed(code, sealed=False)]


def test_a_proof_that_has_expired_is_refused() -> None:
    mesh = Mesh.new()
    writer, planner = mesh.connect(unix_s=NOW + DAY_S * 3 // 4), mesh.respond()
    carry(writer, planner)
    assert carry(planner, writer) == [ChannelClosed(Code.CHANNEL_CREDENTIAL_EXPIRED, sealed=False)]


def _open(mesh: Mesh) -> tuple[Channel, Channel]:
    writer, planner = mesh.connect(), mesh.respond()
    carry(writer, planner)
    carry(planner, writer)
    carry(writer, planner)
    planner.accept(FakePermit(mesh.writer.history.identifier))
    carry(planner, writer)
    return writer, planner


def test_a_live_channel_shows_a_newer_proof_and_goes_on() -> None:
    mesh = Mesh.new()
    writer, planner = _open(mesh)
    rotated = mesh.writer.rotated()
    link = mesh.world.node.link(rotated, WRITER, attributes={"role": "planner"})
    writer.send(b"before", now_s=1.0)
    writer.renew(rotated.proof(link, mesh.world.node_link()))
    writer.send(b"after", now_s=1.0)
    first, renewed, last = carry(writer, planner)

    assert (first, last) == (DataReceived(b"before"), DataReceived(b"after"))
    assert isinstance(renewed, PeerRenewed)
    assert dict(renewed.peer.identity.attributes) == {"role": "planner"}
    assert planner.peer == renewed.peer


def _renewed_by_another(mesh: Mesh) -> bytes:
    other = Person(noise=mesh.writer.noise)
    return other.proof(mesh.world.node.link(other, WRITER), mesh.world.node_link())


def _renewed_under_another_name(mesh: Mesh) -> bytes:
    link = mesh.world.node.link(mesh.writer, "agent://acme/finance/boss")
    return mesh.writer.proof(link, mesh.world.node_link())


def _renewed_for_another_key(mesh: Mesh) -> bytes:
    twin = Person(mesh.writer.key, history=mesh.writer.history)
    return twin.proof(mesh.world.node.link(twin, WRITER), mesh.world.node_link())


def _renewed_with_what_has_expired(mesh: Mesh) -> bytes:
    link = mesh.world.node.link(
        mesh.writer, WRITER, not_before_unix_s=NOW - DAY_S, expires_unix_s=NOW
    )
    return mesh.writer.proof(link, mesh.world.node_link())


BAD_RENEWALS: dict[str, tuple[Callable[[Mesh], bytes], Code]] = {
    "by somebody else with the same Noise key": (_renewed_by_another, Code.CHANNEL_WRONG_NAME),
    "under another name": (_renewed_under_another_name, Code.CHANNEL_WRONG_NAME),
    "for another Noise key": (_renewed_for_another_key, Code.CHANNEL_ATTESTATION_INVALID),
    "that has expired": (_renewed_with_what_has_expired, Code.CHANNEL_CREDENTIAL_EXPIRED),
    "that is no proof": (lambda mesh: b"\x00", Code.CHANNEL_PROOF_INVALID),
}


@pytest.mark.parametrize("case", BAD_RENEWALS)
def test_a_renewal_that_does_not_hold_costs_the_channel(case: str) -> None:
    make, code = BAD_RENEWALS[case]
    mesh = Mesh.new()
    writer, planner = _open(mesh)
    writer.renew(make(mesh))

    assert carry(writer, planner) == [ChannelClosed(code, sealed=False)]
