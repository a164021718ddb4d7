"""Proofs: who is believed, and every way in which one is not."""

from collections.abc import Callable

import pytest

from identity import (
    AgentUri,
    ChainLink,
    ChangeHistory,
    Code,
    Proof,
    Purpose,
)
from identity.cbor import decode_untrusted, encode
from identity.cose import SignedType, sign
from identity.verifier import ANCHOR_CHANGES_NEW_MAX
from tests.identity.helpers import (
    HELPER,
    NARROW,
    NOW,
    PLANNER,
    WIDE,
    Person,
    World,
    refused,
)


def test_a_node_is_believed_on_the_word_of_its_authority() -> None:
    world = World()

    peer = world.verify(world.node.proof(world.node_link()), world.node)

    assert peer.identifier == world.node.history.identifier
    assert peer.noise_key == world.node.noise.public
    assert peer.identity.kind == "node"
    assert peer.identity.role_of_node == "sidecar"
    assert peer.identity.issuer == world.authority.history.identifier
    assert peer.identity.ancestors == ()
    assert peer.identity.allowed_actions is None


def test_an_agents_agent_is_believed_along_its_chain() -> None:
    world = World()
    chain = (
        world.helper_link(attributes={"role": "planner"}),
        world.planner_link(delegable=NARROW, attributes={"role": "planner", "clearance": 2}),
        world.node_link(),
    )

    peer = world.verify(world.helper.proof(*chain), world.helper)

    assert peer.name == AgentUri.parse(HELPER)
    assert peer.identity.attributes == {"role": "planner"}
    assert peer.identity.allowed_actions == ("message.ask",)
    assert [str(ancestor.name) for ancestor in peer.identity.ancestors] == [
        PLANNER,
        "agent://acme/finance",
    ]
    assert peer.identity.ancestors[0].ancestors == peer.identity.ancestors[1:]


def test_the_authority_itself_needs_no_chain() -> None:
    world = World()

    peer = world.verify(world.authority.proof(), world.authority)

    assert peer.identity.kind == "authority"
    assert peer.identity.role_of_node == "authority"
    assert peer.identity.trust_domain == "acme"
    assert peer.name is None


def test_an_identity_without_a_chain_is_nameless() -> None:
    world = World()

    peer = world.verify(world.planner.proof(), world.planner)

    assert peer.identity.kind == "unenrolled"
    assert peer.identity.trust_domain is None
    assert peer.name is None
    assert not peer.identity.attributes


def test_a_proof_expires_with_its_first_part() -> None:
    world = World()

    def expiry(attestation_s: int, planner_s: int, node_s: int) -> int:
        chain = (
            world.planner_link(expires_unix_s=NOW + planner_s),
            world.node_link(expires_unix_s=NOW + node_s),
        )
        attestation = world.planner.attestation(expires_unix_s=NOW + attestation_s)
        proof = world.planner.proof(*chain, attestation=attestation)
        return world.verify(proof, world.planner).identity.expires_unix_s - NOW

    assert expiry(10, 20, 30) == 10
    assert expiry(30, 20, 30) == 20
    assert expiry(90, 30, 30) == 30


def test_a_superseded_issuer_key_bounds_the_expiry_by_its_overlap() -> None:
    world = World()
    link = world.planner_link()
    world.node = world.node.rotated(created_unix_s=NOW - 5, overlap_s=100)
    link = ChainLink(link.credential, world.node.history.encode())

    peer = world.verify(world.planner.proof(link, world.node_link()), world.planner)

    assert peer.identity.expires_unix_s == NOW - 5 + 100


def other_domain(world: World) -> bytes:
    link = world.authority.link(
        world.node,
        "agent://evil/finance",
        trust_domain="evil",
        kind="node",
    )
    return world.node.proof(link)


def shorter_history(world: World) -> bytes:
    old = world.node.history.encode()
    world.node = world.node.rotated()
    return Proof(old, world.node.attestation(), (world.node_link(),)).encode()


def forked_history(world: World) -> bytes:
    pinned, forked = world.node.rotated(), world.node.rotated()
    link = world.authority.link(pinned, "agent://acme/finance", kind="node")
    return Proof(forked.history.encode(), forked.attestation(), (link,)).encode()


def forked_issuer_history(world: World) -> bytes:
    original = world.node
    world.node = original.rotated()
    node_link = world.node_link()
    world.node = original.rotated()
    return world.planner.proof(world.planner_link(), node_link)


def superseded_issuer_key(world: World) -> bytes:
    link = world.planner_link()
    world.node = world.node.rotated(created_unix_s=NOW - 200, overlap_s=100)
    link = ChainLink(link.credential, world.node.history.encode())
    return world.planner.proof(link, world.node_link())


def superseded_own_key(world: World) -> bytes:
    attestation = world.node.attestation()
    world.node = world.node.rotated(created_unix_s=NOW - 200, overlap_s=100)
    return world.node.proof(world.node_link(), attestation=attestation)


def attestation_by_another_key(world: World) -> bytes:
    forger = Person(noise=world.node.noise)
    attestation = Person(forger.key, world.node.noise, forger.history).attestation()
    fields = decode_untrusted(decode_untrusted(attestation, bytes_max=999)[2], bytes_max=999) | {
        3: world.node.history.identifier.digest
    }
    signed = sign(forger.key, SignedType.ATTESTATION, encode(fields)).encode()
    return world.node.proof(world.node_link(), attestation=signed)


def issued_by_nobody(world: World) -> bytes:
    """A credential that claims the authority but was signed by somebody else."""
    forger = Person(history=world.authority.history)
    forger.history = world.authority.history
    payload = decode_untrusted(world.node_link().credential, bytes_max=9999)[2]
    credential = sign(forger.key, SignedType.CREDENTIAL, payload).encode()
    link = ChainLink(credential, world.authority.history.encode())
    return world.node.proof(link)


def unsigned_authority_history(world: World) -> bytes:
    """A thief appends his own key to the authority's history."""
    thief = Person()
    honest = decode_untrusted(world.authority.history.encode(), bytes_max=9999)
    mine = Person(world.authority.key, history=world.authority.history).rotated()
    items = decode_untrusted(mine.history.encode(), bytes_max=9999)
    items[1][2] = bytes(64)
    stolen = ChangeHistory.decode_untrusted(encode([*honest, items[1]]))
    world.authority = Person(mine.key, thief.noise, stolen)
    return world.node.proof(world.node_link())


def many_signatures(world: World) -> bytes:
    for _ in range(ANCHOR_CHANGES_NEW_MAX + 2):
        world.authority = world.authority.rotated(created_unix_s=NOW - 10)
    return world.node.proof(world.node_link())


def many_signatures_of_the_leaf(world: World) -> bytes:
    link = world.node_link()
    for _ in range(8):
        world.node = world.node.rotated(created_unix_s=NOW - 10)
    return world.node.proof(link)


def chain_in_a_ring(world: World) -> bytes:
    ring = world.planner.link(world.node, "agent://acme/finance", delegable=WIDE)
    return world.node.proof(ring, world.planner_link(delegable=WIDE), world.node_link())


UNTRUE: dict[str, tuple[Callable[[World], bytes], Code]] = {
    "our own identifier": (
        lambda world: world.own.proof(),
        Code.CHANNEL_SELF_CONNECTION,
    ),
    "our own identifier with a chain": (
        lambda world: world.own.proof(
            world.authority.link(world.own, "agent://acme/finance", kind="node")
        ),
        Code.CHANNEL_SELF_CONNECTION,
    ),
    "an authority that nobody trusts": (
        lambda world: world.node.proof(
            Person().link(world.node, "agent://acme/finance", kind="node")
        ),
        Code.CHANNEL_WRONG_AUTHORITY,
    ),
    "a trust domain that is not the authority's": (other_domain, Code.CHANNEL_WRONG_AUTHORITY),
    "a chain that lacks its upper end": (
        lambda world: world.planner.proof(world.planner_link()),
        Code.CHANNEL_WRONG_AUTHORITY,
    ),
    "an expired credential": (
        lambda world: world.node.proof(world.node_link(expires_unix_s=NOW)),
        Code.CHANNEL_CREDENTIAL_EXPIRED,
    ),
    "an expired credential of the issuer": (
        lambda world: world.planner.proof(
            world.planner_link(expires_unix_s=NOW - 1), world.node_link(expires_unix_s=NOW)
        ),
        Code.CHANNEL_CREDENTIAL_EXPIRED,
    ),
    "a credential of the future": (
        lambda world: world.node.proof(world.node_link(not_before_unix_s=NOW + 61)),
        Code.CHANNEL_NOT_YET_VALID,
    ),
    "an expired attestation": (
        lambda world: world.node.proof(
            world.node_link(), attestation=world.node.attestation(expires_unix_s=NOW)
        ),
        Code.CHANNEL_ATTESTATION_INVALID,
    ),
    "an attestation of the future": (
        lambda world: world.node.proof(
            world.node_link(), attestation=world.node.attestation(not_before_unix_s=NOW + 61)
        ),
        Code.CHANNEL_NOT_YET_VALID,
    ),
    "an attestation for the other purpose": (
        lambda world: world.node.proof(
            world.node_link(), attestation=world.node.attestation(Purpose.HOP)
        ),
        Code.CHANNEL_ATTESTATION_INVALID,
    ),
    "an attestation of another identity": (
        lambda world: world.node.proof(
            world.node_link(),
            attestation=Person(noise=world.node.noise).attestation(),
        ),
        Code.CHANNEL_ATTESTATION_INVALID,
    ),
    "an attestation of another Noise key": (
        lambda world: world.node.proof(
            world.node_link(), attestation=Person(world.node.key).attestation()
        ),
        Code.CHANNEL_ATTESTATION_INVALID,
    ),
    "an attestation that another key signed": (
        attestation_by_another_key,
        Code.CHANNEL_ATTESTATION_INVALID,
    ),
    "an attestation by a key whose overlap is over": (
        superseded_own_key,
        Code.CHANNEL_HISTORY_INVALID,
    ),
    "a history shorter than the pin": (shorter_history, Code.CHANNEL_PIN_MISMATCH),
    "a history that forks from the pin": (forked_history, Code.CHANNEL_PIN_MISMATCH),
    "an issuer's history that forks": (forked_issuer_history, Code.CHANNEL_PIN_MISMATCH),
    "an issuer's key whose overlap is over": (
        superseded_issuer_key,
        Code.CHANNEL_HISTORY_INVALID,
    ),
    "a credential that its issuer did not sign": (
        issued_by_nobody,
        Code.CHANNEL_CREDENTIAL_INVALID,
    ),
    "an authority's history with a key slipped in": (
        unsigned_authority_history,
        Code.CHANNEL_HISTORY_INVALID,
    ),
    "a credential of somebody else": (
        lambda world: world.planner.proof(world.node_link()),
        Code.CHANNEL_PROOF_INVALID,
    ),
    "a chain in the wrong order": (
        lambda world: world.planner.proof(world.node_link(), world.planner_link()),
        Code.CHANNEL_PROOF_INVALID,
    ),
    "a chain with a hole": (
        lambda world: world.helper.proof(world.helper_link(), world.node_link()),
        Code.CHANNEL_PROOF_INVALID,
    ),
    "a chain in a ring": (chain_in_a_ring, Code.CHANNEL_PROOF_INVALID),
    "a history that is not the issuer's": (
        lambda world: world.node.proof(
            ChainLink(world.node_link().credential, Person().history.encode())
        ),
        Code.CHANNEL_PROOF_INVALID,
    ),
    "more changes of its authority than one proof may bring": (
        many_signatures,
        Code.CHANNEL_TOO_MANY_SIGNATURES,
    ),
    "more signatures than the budget": (
        many_signatures_of_the_leaf,
        Code.CHANNEL_TOO_MANY_SIGNATURES,
    ),
}


@pytest.mark.parametrize(("make", "code"), UNTRUE.values(), ids=UNTRUE.keys())
def test_a_proof_that_is_not_true_is_refused(make: Callable[[World], bytes], code: Code) -> None:
    world = World()
    proof = make(world)
    people = {
        person.history.identifier: person
        for person in vars(world).values()
        if isinstance(person, Person)
    }
    shown = ChangeHistory.decode_untrusted(Proof.decode_untrusted(proof).history).identifier

    assert refused(lambda: world.verify(proof, people[shown])) is code


def test_what_is_refused_cheaply_costs_no_signature_check(monkeypatch: pytest.MonkeyPatch) -> None:
    checks: list[int] = []
    monkeypatch.setattr(
        "identity.cose.SignatureBudget.charge", lambda _budget, count: checks.append(count)
    )
    free = {Code.CHANNEL_SELF_CONNECTION, Code.CHANNEL_WRONG_AUTHORITY, Code.CHANNEL_PROOF_INVALID}
    for make, code in UNTRUE.values():
        if code in free:
            world = World()
            refused(lambda: world.verify(make(world), world.node))  # noqa: B023

    assert checks == []


def test_a_proof_for_another_noise_key_than_the_handshakes_is_refused() -> None:
    world = World()
    proof = world.node.proof(world.node_link())

    assert refused(lambda: world.verify(proof, Person())) is Code.CHANNEL_ATTESTATION_INVALID
