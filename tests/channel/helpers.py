"""Parties, fakes and small pumps that the channel's tests share."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from channel import (
    Channel,
    ChannelClosed,
    ChannelEvent,
    Handshake,
    Part,
    Prologue,
    RecordType,
    Role,
)
from identity import AgentUri, Code, Identifier, IdentityError, NoiseKey, NoisePublicKey

NONCE = bytes(range(16))


@dataclass(frozen=True)
class FakePeer:
    """As much of a VerifiedPeer as a channel looks at."""

    identifier: Identifier
    noise_key: NoisePublicKey
    name: AgentUri | None


@dataclass(frozen=True)
class Party:
    """One identity: its proof is its name and its Noise key, in the clear."""

    path: str
    key: NoiseKey = field(default_factory=NoiseKey.generate)

    @property
    def uri(self) -> AgentUri:
        return AgentUri.in_domain("acme", self.path)

    @property
    def identifier(self) -> Identifier:
        return identifier_of(self.key.public.raw)

    @property
    def proof(self) -> bytes:
        return self.key.public.raw + str(self.uri).encode()

    def verify(self, proof: bytes, noise_key: bytes) -> Any:
        """Judge a peer's proof as a ProofVerifier would, with the same error."""
        if identifier_of(noise_key) == self.identifier:
            raise IdentityError(Code.CHANNEL_SELF_CONNECTION, "that is myself")
        if proof[:32] != noise_key:
            raise IdentityError(Code.CHANNEL_ATTESTATION_INVALID, "another key is attested")
        try:
            uri = AgentUri.parse(proof[32:].decode())
        except UnicodeDecodeError as error:
            raise IdentityError(Code.CHANNEL_PROOF_INVALID, "not text") from error
        return FakePeer(identifier_of(noise_key), NoisePublicKey(noise_key), uri)


@dataclass(frozen=True)
class FakePermit:
    subject: Identifier
    action: str = "channel.open"


def identifier_of(noise_key: bytes) -> Identifier:
    return Identifier(hashlib.sha256(b"fake identity" + noise_key).digest())


ALICE = Party("alice")
BOB = Party("bob")
MALLORY = Party("mallory")


def channel_prologue(target: object = BOB.uri, **changes: Any) -> Prologue:
    fields: dict[str, Any] = {"purpose": "channel", "target": str(target), "nonce": NONCE}
    return Prologue(**(fields | changes))


def new_handshake(
    role: Role, party: Party, prologue: Prologue | None = None, **options: Any
) -> Handshake:
    fields: dict[str, Any] = {"own_proof": party.proof, "verify": party.verify}
    return Handshake(role, prologue or channel_prologue(), party.key, **(fields | options))


def handshake_pair(**options: Any) -> tuple[Handshake, Handshake]:
    return (
        new_handshake(Role.INITIATOR, ALICE, **options),
        new_handshake(Role.RESPONDER, BOB, **options),
    )


def fresh_initiator() -> Handshake:
    initiator = new_handshake(Role.INITIATOR, ALICE)
    initiator.write_1()
    return initiator


def fresh_responder() -> Handshake:
    responder = new_handshake(Role.RESPONDER, BOB)
    responder.read_1_untrusted(new_handshake(Role.INITIATOR, ALICE).write_1())
    responder.write_2()
    return responder


def run_handshake(initiator: Handshake, responder: Handshake) -> None:
    responder.read_1_untrusted(initiator.write_1())
    initiator.read_2_untrusted(responder.write_2())
    responder.read_3_untrusted(initiator.write_3())


def new_channel(role: Role, party: Party, **options: Any) -> Channel:
    fields: dict[str, Any] = {
        "prologue": channel_prologue(),
        "key": party.key,
        "proof": party.proof,
        "verify": party.verify,
        "now_s": 0.0,
    }
    make = Channel.connect if role is Role.INITIATOR else Channel.respond
    return make(**(fields | options))


def carry(source: Channel, target: Channel, now_s: float = 1.0) -> list[ChannelEvent]:
    """Bring everything that one side has to say to the other."""
    return deliver(target, source.take_output(), now_s)


def deliver(
    target: Channel, parts: list[tuple[Part, bytes]], now_s: float = 1.0
) -> list[ChannelEvent]:
    events: list[ChannelEvent] = []
    for part, body in parts:
        events += target.receive(part, body, now_s)
    return events


@dataclass
class ChannelPair:
    """Alice, who connects, and Bob, who responds."""

    alice: Channel
    bob: Channel

    def states(self) -> tuple[str, str]:
        return self.alice.state.name, self.bob.state.name

    @classmethod
    def new(cls, **options: Any) -> "ChannelPair":
        return cls(
            new_channel(Role.INITIATOR, ALICE, **options),
            new_channel(Role.RESPONDER, BOB, **options),
        )

    @classmethod
    def verified(cls, **options: Any) -> "ChannelPair":
        """Alice is OPENING; Bob is VERIFIED and has not said yes."""
        pair = cls.new(**options)
        carry(pair.alice, pair.bob)
        carry(pair.bob, pair.alice)
        carry(pair.alice, pair.bob)
        return pair

    @classmethod
    def open(cls, **options: Any) -> "ChannelPair":
        pair = cls.verified(**options)
        pair.bob.accept(FakePermit(ALICE.identifier))
        carry(pair.bob, pair.alice)
        return pair


def records_of(channel: Channel) -> list[bytes]:
    """What a channel says, which must be records only."""
    output = channel.take_output()
    assert {part for part, _ in output} <= {Part.RECORD}
    return [body for _, body in output]


def sealed_by(channel: Channel, type_: RecordType, body: bytes = b"", flags: int = 0) -> bytes:
    """What a peer with the right keys and a wrong mind sends."""
    outgoing = channel._directions()[0]
    [record] = outgoing.writer.seal(type_, body, 1.0, flags)
    outgoing.sent.add(record, type_)
    return record


def end_of(events: list[ChannelEvent]) -> Code:
    """The channel ended by our own finding; nothing was delivered before."""
    [closed] = events
    assert isinstance(closed, ChannelClosed)
    assert not closed.sealed
    return closed.code
