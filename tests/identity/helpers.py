"""People for the tests of identity: an authority, a node, agents, and the proofs they show."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from identity import (
    AgentUri,
    ChainLink,
    ChangeHistory,
    Code,
    Delegable,
    IdentityError,
    NamePrefix,
    NoiseKey,
    Proof,
    ProofVerifier,
    Purpose,
    SignedCredential,
    SigningKey,
    TrustAnchor,
    VerifiedPeer,
    attest,
    create_history,
    issue_credential,
    rotate_history,
)

NOW = 1_900_000_000
DAY_S = 86_400
YEAR_S = 365 * DAY_S

WIDE = Delegable(
    name_prefixes=(NamePrefix.parse("agent://acme/finance"),),
    attributes={"role": ("planner", "auditor"), "clearance": (1, 2), "team": None},
    actions=("message.ask", "message.tell"),
    depth=3,
    lifetime_s_max=7 * DAY_S,
)
NARROW = Delegable(
    name_prefixes=(NamePrefix.parse("agent://acme/finance/planner"),),
    attributes={"role": ("planner",)},
    actions=("message.ask",),
    depth=2,
    lifetime_s_max=DAY_S,
)


@dataclass
class Person:
    """An identity that can do whatever its keys allow, honest or not."""

    key: SigningKey = field(default_factory=SigningKey.generate)
    noise: NoiseKey = field(default_factory=NoiseKey.generate)
    history: ChangeHistory = None  # type: ignore[assignment]  # Set at once, from the key.

    def __post_init__(self) -> None:
        if self.history is None:
            self.history = create_history(
                self.key, created_unix_s=NOW - DAY_S, expires_unix_s=NOW + YEAR_S
            )

    def rotated(self, *, created_unix_s: int = NOW, overlap_s: int = DAY_S) -> "Person":
        new_key = SigningKey.generate()
        history = rotate_history(
            self.history,
            self.key,
            new_key,
            created_unix_s=created_unix_s,
            expires_unix_s=created_unix_s + YEAR_S,
            overlap_s=overlap_s,
        )
        return Person(new_key, self.noise, history)

    def attestation(
        self,
        purpose: Purpose = Purpose.CHANNEL,
        *,
        not_before_unix_s: int = NOW - 10,
        expires_unix_s: int = NOW + DAY_S,
    ) -> bytes:
        return attest(
            self.key,
            self.history,
            self.noise.public,
            purpose,
            not_before_unix_s=not_before_unix_s,
            expires_unix_s=expires_unix_s,
        )

    def issue(self, subject: "Person", name: str, **changes: Any) -> SignedCredential:
        """A credential for an agent, or, with kind="node", for a sidecar."""
        kind = changes.pop("kind", "agent")
        arguments: dict[str, Any] = {
            "name": AgentUri.parse(name),
            "trust_domain": "acme",
            "kind": kind,
            "role_of_node": "sidecar" if kind == "node" else None,
            "attributes": {},
            "delegable": None,
            "not_before_unix_s": NOW - 10,
            "expires_unix_s": NOW + DAY_S // 2,
        }
        return issue_credential(self.key, self.history, subject.history, **arguments | changes)

    def link(self, subject: "Person", name: str, **changes: Any) -> ChainLink:
        return ChainLink(self.issue(subject, name, **changes).encoded, self.history.encode())

    def proof(self, *chain: ChainLink, attestation: bytes | None = None) -> bytes:
        return Proof(self.history.encode(), attestation or self.attestation(), chain).encode()


@dataclass
class World:
    """authority → node → planner → helper, and somebody who verifies."""

    authority: Person = field(default_factory=Person)
    node: Person = field(default_factory=Person)
    planner: Person = field(default_factory=Person)
    helper: Person = field(default_factory=Person)
    own: Person = field(default_factory=Person)
    verifier: ProofVerifier = field(init=False)

    def __post_init__(self) -> None:
        self.verifier = self.new_verifier()

    def new_verifier(self, **arguments: Any) -> ProofVerifier:
        anchors = [TrustAnchor(self.authority.history.identifier, "acme")]
        return ProofVerifier(anchors, own=self.own.history.identifier, **arguments)

    def node_link(self, **changes: Any) -> ChainLink:
        arguments = {"kind": "node", "delegable": WIDE, "expires_unix_s": NOW + DAY_S}
        return self.authority.link(self.node, "agent://acme/finance", **arguments | changes)

    def planner_link(self, **changes: Any) -> ChainLink:
        return self.node.link(self.planner, changes.pop("name", PLANNER), **changes)

    def helper_link(self, **changes: Any) -> ChainLink:
        return self.planner.link(self.helper, changes.pop("name", HELPER), **changes)

    def verify(
        self,
        proof: bytes,
        person: Person,
        *,
        purpose: Purpose = Purpose.CHANNEL,
        unix_s: float = NOW,
    ) -> VerifiedPeer:
        return self.verifier.verify(
            proof, purpose=purpose, noise_key=person.noise.public.raw, unix_s=unix_s
        )


PLANNER = "agent://acme/finance/planner"
HELPER = "agent://acme/finance/planner/helper"


def flip_bit(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


def refused(call: Callable[[], object]) -> Code:
    with pytest.raises(IdentityError) as caught:
        call()
    return caught.value.code
