"""Parties, fakes and small pumps that the channel's tests share."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from channel import Handshake, Prologue, Role
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
    options = {"own_proof": party.proof, "verify": party.verify} | options
    return Handshake(role, prologue or channel_prologue(), party.key, **options)


def handshake_pair(**options: Any) -> tuple[Handshake, Handshake]:
    return (
        new_handshake(Role.INITIATOR, ALICE, **options),
        new_handshake(Role.RESPONDER, BOB, **options),
    )


def run_handshake(initiator: Handshake, responder: Handshake) -> None:
    responder.read_1_untrusted(initiator.write_1())
    initiator.read_2_untrusted(responder.write_2())
    responder.read_3_untrusted(initiator.write_3())
