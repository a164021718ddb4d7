"""This node itself: what it shows of itself, and when it has to enrol again."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from identity import (
    AgentUri,
    ChainLink,
    Keystore,
    MasterKey,
    ProofVerifier,
    Purpose,
    TrustAnchor,
    VerifiedIdentity,
    issue_credential,
    new_identity,
)
from node.clocks import ManualClock
from node.own_node import OwnNode
from node.store import Store

LIFETIME_S = 3_600


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def node(tmp_path: Path, clock: ManualClock) -> Iterator[OwnNode]:
    """A node that enrolled with an authority of ``acme`` and holds a credential for an hour."""
    path = tmp_path / "state.db"
    with (
        contextlib.closing(Keystore.open(path, MasterKey.generate())) as keystore,
        Store.open(path) as store,
    ):
        yield enrolled_node(keystore, store, clock)


def enrolled_node(keystore: Keystore, store: Store, clock: ManualClock) -> OwnNode:
    node = OwnNode(keystore, store, clock)
    unix_s = int(clock.unix_s())
    authority = new_identity("authority", unix_s=unix_s, purposes=(Purpose.HOP,))
    node.try_authority(TrustAnchor(authority.identifier, "acme"))
    signed = issue_credential(
        authority.signing_key,
        authority.history,
        node.own.history,
        name=AgentUri.parse("agent://acme/node/a"),
        trust_domain="acme",
        kind="node",
        role_of_node="sidecar",
        attributes={},
        delegable=None,
        not_before_unix_s=unix_s,
        expires_unix_s=unix_s + LIFETIME_S,
    )
    node.adopt((ChainLink(signed.encoded, authority.history.encode()),))
    return node


def seen_by_another(node: OwnNode, clock: ManualClock) -> VerifiedIdentity:
    other = new_identity("other", unix_s=clock.unix_s(), purposes=(Purpose.HOP,))
    verifier = ProofVerifier(
        (TrustAnchor(node.identity.issuer, "acme"),) if node.identity.issuer else (),
        own=other.identifier,
    )
    shown = node.hop_identity()
    return verifier.verify(
        shown.proof,
        purpose=Purpose.HOP,
        noise_key=shown.key.public.raw,
        unix_s=clock.unix_s(),
    ).identity


def test_an_enrolled_node_shows_its_credential(node: OwnNode, clock: ManualClock) -> None:
    seen = seen_by_another(node, clock)

    assert node.enrolled
    assert str(seen.name) == "agent://acme/node/a"


def test_a_node_whose_credential_is_over_may_enrol_again_under_its_identifier(
    node: OwnNode, clock: ManualClock
) -> None:
    clock.advance(LIFETIME_S)

    seen = seen_by_another(node, clock)

    assert not node.enrolled
    assert seen.kind == "unenrolled"
    assert seen.identifier == node.identifier
