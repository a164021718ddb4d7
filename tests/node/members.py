"""Nodes on real state files, and authorities by hand that enrol them, renew them and revoke."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from identity import (
    AgentUri,
    ChainLink,
    Delegable,
    Identifier,
    Keystore,
    MasterKey,
    NamePrefix,
    OwnIdentity,
    Proof,
    Purpose,
    SigningKey,
    TrustAnchor,
    issue_credential,
    new_identity,
)
from identity.revocation import issue_revocations
from node.clocks import ManualClock
from node.own_node import OwnNode
from node.store import Store

START_UNIX_S = int(ManualClock().unix_s())
HOUR_S = 3_600
DAY_S = 86_400
MASTER_KEY = MasterKey(bytes(range(32)))


class Authority:
    """Signs whatever a test asks for."""

    def __init__(self, trust_domain: str = "acme", *, unix_s: int = START_UNIX_S) -> None:
        self.trust_domain = trust_domain
        self.own: OwnIdentity = new_identity(
            trust_domain, unix_s=unix_s, purposes=(Purpose.HOP, Purpose.CHANNEL)
        )

    @property
    def identifier(self) -> Identifier:
        return self.own.identifier

    @property
    def anchor(self) -> TrustAnchor:
        return TrustAnchor(self.identifier, self.trust_domain)

    def rotate(self, unix_s: float, *, overlap_s: int = DAY_S) -> None:
        announced = self.own.with_next_key(
            SigningKey.generate(), unix_s=unix_s, overlap_s=overlap_s
        )
        self.own = announced.using_next_key(unix_s=unix_s)

    def link(
        self,
        subject: OwnIdentity,
        unix_s: float,
        *,
        name: str = "node/a",
        ttl_s: int = HOUR_S,
        role: str = "sidecar",
    ) -> ChainLink:
        """A node's credential on the terms that all nodes here have."""
        signed = issue_credential(
            self.own.signing_key,
            self.own.history,
            subject.history,
            name=AgentUri.in_domain(self.trust_domain, name),
            trust_domain=self.trust_domain,
            kind="node",
            role_of_node=role,  # type: ignore[arg-type]
            attributes={},
            delegable=Delegable(
                name_prefixes=(NamePrefix.parse(f"agent://{self.trust_domain}/{name}"),),
                attributes={},
                actions=("message.tell",),
                depth=3,
                lifetime_s_max=DAY_S,
            ),
            not_before_unix_s=int(unix_s),
            expires_unix_s=int(unix_s) + ttl_s,
        )
        return ChainLink(signed.encoded, self.own.history.encode())

    def enrol(self, node: OwnNode, unix_s: float, **changes: Any) -> None:
        """What a ticket and an answer of this authority lead to."""
        node.try_authority(self.anchor)
        node.adopt((self.link(node.own, unix_s, **changes),))

    def renew(self, node: OwnNode, unix_s: float, **changes: Any) -> None:
        node.adopt((self.link(node.own, unix_s, **changes),))

    def revocations(
        self, unix_s: float, *revoked: Identifier, number: int | None = None, due_s: int = DAY_S
    ) -> bytes:
        """A list of this authority, encoded."""
        return issue_revocations(
            self.own,
            self.trust_domain,
            number=int(unix_s) if number is None else number,
            issued_unix_s=int(unix_s),
            next_update_unix_s=int(unix_s) + due_s,
            revoked=revoked,
        )

    def member(self, unix_s: float, **changes: Any) -> OwnIdentity:
        """Another node of its domain, with its credential."""
        own = new_identity("member", unix_s=unix_s, purposes=(Purpose.HOP, Purpose.CHANNEL))
        return own.with_chain((self.link(own, unix_s, **changes),))


@contextlib.contextmanager
def started(folder: Path, clock: ManualClock, **options: Any) -> Iterator[tuple[OwnNode, Store]]:
    """A node on this folder, as a program has it; what it was before outlives it."""
    path = folder / "state.db"
    with (
        contextlib.closing(Keystore.open(path, MASTER_KEY)) as keystore,
        Store.open(path) as store,
    ):
        yield OwnNode(keystore, store, clock, **options), store


def hop_proof(own: OwnIdentity) -> tuple[bytes, bytes]:
    """What a node shows on a hop, and the Noise key that it shows it for."""
    held = own.purpose_keys[Purpose.HOP]
    proof = Proof(own.history.encode(), held.attestation, own.chain)
    return proof.encode(), held.key.public.raw
