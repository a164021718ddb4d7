"""What the verifier of proofs remembers: issuers, and how an authority's key changed."""

from dataclasses import replace
from typing import Any

import pytest

from identity import (
    ChainLink,
    ChangeHistory,
    Code,
    Identifier,
    IdentityError,
    ProofVerifier,
    Purpose,
    SeenInMemory,
    TrustAnchor,
)
from identity.cose import SignatureBudget
from identity.verifier import ANCHOR_CHANGES_NEW_MAX
from tests.identity.helpers import (
    NOW,
    Person,
    World,
    flip_bit,
    refused,
)


def test_a_known_issuer_costs_no_second_check(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    node_link = world.node_link()
    spent: list[int] = []
    honest = SignatureBudget.charge

    def charge(budget: SignatureBudget, checks: int) -> None:
        spent[-1] += checks
        honest(budget, checks)

    monkeypatch.setattr(SignatureBudget, "charge", charge)
    for _ in range(2):
        spent.append(0)
        world.planner = Person()
        world.verify(world.planner.proof(world.planner_link(), node_link), world.planner)

    # The anchor's history, the node's credential, the planner's, the attestation; then only two.
    assert spent == [4, 2]


def test_a_known_issuer_still_expires() -> None:
    world = World()
    node_link = world.node_link(expires_unix_s=NOW + 100)
    proof = world.planner.proof(world.planner_link(expires_unix_s=NOW + 100), node_link)

    world.verify(proof, world.planner)
    code = refused(lambda: world.verify(proof, world.planner, unix_s=NOW + 100))
    assert code is Code.CHANNEL_CREDENTIAL_EXPIRED


def test_a_known_issuer_is_known_by_its_exact_bytes() -> None:
    world = World()
    node_link = world.node_link()
    world.verify(world.planner.proof(world.planner_link(), node_link), world.planner)

    for bit in range(0, 8 * len(node_link.credential), 101):
        forged = ChainLink(flip_bit(node_link.credential, bit), node_link.issuer_history)
        proof = world.planner.proof(world.planner_link(), forged)
        refused(lambda proof=proof: world.verify(proof, world.planner))  # type: ignore[misc]


def test_what_the_verifier_remembers_is_bounded() -> None:
    world = World()
    world.verifier = world.new_verifier(issuers_kept_max=3)

    for _ in range(6):
        world.node = Person()
        proof = world.planner.proof(world.planner_link(), world.node_link())
        world.verify(proof, world.planner)

    assert len(world.verifier._issuers) == 3


def test_a_node_verifies_for_its_agents_and_none_of_them_meets_itself() -> None:
    world = World()
    proof = world.planner.proof(world.planner_link(), world.node_link())
    asked: dict[str, Any] = {
        "purpose": Purpose.CHANNEL,
        "noise_key": world.planner.noise.public.raw,
        "unix_s": NOW,
    }
    for_helper = world.verifier.verify(proof, own=world.helper.history.identifier, **asked)

    with pytest.raises(IdentityError) as itself:
        world.verifier.verify(proof, own=world.planner.history.identifier, **asked)
    assert itself.value.code is Code.CHANNEL_SELF_CONNECTION
    assert for_helper == world.verifier.verify(proof, **asked)


def test_a_superseded_key_of_the_authority_cannot_be_brought_back_by_leaving_its_change_out() -> (
    None
):
    world = World()
    stolen = world.authority
    world.authority = stolen.rotated(created_unix_s=NOW - 200, overlap_s=100)
    world.verify(world.node.proof(world.node_link()), world.node)

    mallory = Person()
    link = stolen.link(mallory, "agent://acme/finance", kind="node")

    code = refused(lambda: world.verify(mallory.proof(link), mallory))
    assert code is Code.CHANNEL_HISTORY_INVALID


def test_a_credential_from_before_the_authoritys_rotation_holds_while_the_overlap_lasts() -> None:
    world = World()
    old_proof = world.node.proof(world.node_link())
    world.authority = world.authority.rotated(created_unix_s=NOW - 10, overlap_s=100)
    world.verify(world.authority.proof(), world.authority)

    peer = world.verify(old_proof, world.node)

    assert peer.identity.expires_unix_s == NOW - 10 + 100


def test_a_fork_of_the_authoritys_history_is_refused() -> None:
    world = World()
    original = world.authority
    world.verify(original.rotated().proof(), world.authority)

    forked = original.rotated()

    assert refused(lambda: world.verify(forked.proof(), forked)) is Code.CHANNEL_PIN_MISMATCH


def test_a_proof_puts_no_other_signature_in_place_of_one_of_the_authoritys() -> None:
    world = World()
    world.verify(world.authority.proof(), world.authority)
    world.authority = world.authority.rotated(created_unix_s=NOW - 10)
    signature = world.authority.history.changes[0].signature
    proof = world.node.proof(world.node_link()).replace(signature, flip_bit(signature, 0))

    assert signature not in proof
    assert world.verify(proof, world.node).identity.kind == "node"

    identifier = world.authority.history.identifier
    assert world.verifier.anchor_history(identifier) == world.authority.history


def test_an_authoritys_history_of_any_length_can_be_learned() -> None:
    world = World()
    for _ in range(ANCHOR_CHANGES_NEW_MAX + 2):
        world.authority = world.authority.rotated(created_unix_s=NOW - 10)
    proof = world.node.proof(world.node_link())
    assert refused(lambda: world.verify(proof, world.node)) is Code.CHANNEL_TOO_MANY_SIGNATURES

    world.verifier.learn_anchor_history(world.authority.history, unix_s=NOW)

    assert world.verify(proof, world.node).identity.kind == "node"
    stranger = Person().history
    code = refused(lambda: world.verifier.learn_anchor_history(stranger, unix_s=NOW))
    assert code is Code.CHANNEL_WRONG_AUTHORITY


def _with_a_flipped_bit_in_the_first_signature(history: ChangeHistory) -> ChangeHistory:
    first = history.changes[0]
    return ChangeHistory(
        (replace(first, signature=flip_bit(first.signature, 0)), *history.changes[1:])
    )


def test_a_copy_of_an_authoritys_newer_history_brings_no_signature_that_was_not_checked() -> None:
    world = World()
    world.verify(world.node.proof(world.node_link()), world.node)
    world.authority = world.authority.rotated(created_unix_s=NOW - 10)
    genuine = world.authority.history
    mallory = Person()
    forged = _with_a_flipped_bit_in_the_first_signature(genuine)
    link = world.authority.link(mallory, "agent://acme/finance", kind="node")
    # A stranger's: nobody has signed its credential. The history is looked at before that is seen.
    stolen = ChainLink(flip_bit(link.credential, 8 * len(link.credential) - 1), forged.encode())
    code = refused(lambda: world.verify(mallory.proof(stolen), mallory))

    assert code is Code.CHANNEL_CREDENTIAL_INVALID
    assert world.verifier.anchor_history(genuine.identifier) == genuine
    assert world.verifier.learn_anchor_history(genuine, unix_s=NOW) == genuine


def test_of_an_authority_whose_history_was_lost_every_signature_is_checked() -> None:
    world = World()
    world.authority = world.authority.rotated(created_unix_s=NOW - 10)
    genuine = world.authority.history
    seen = SeenInMemory()
    seen.saw(genuine.identifier, genuine.pin)
    verifier = world.new_verifier(seen=seen)
    forged = _with_a_flipped_bit_in_the_first_signature(genuine)

    code = refused(lambda: verifier.learn_anchor_history(forged, unix_s=NOW))

    assert code is Code.CHANNEL_HISTORY_INVALID
    assert verifier.learn_anchor_history(genuine, unix_s=NOW) == genuine


def test_what_is_live_ends_with_the_overlap_of_its_authoritys_old_key() -> None:
    world = World()
    live = world.verify(world.planner.proof(world.planner_link(), world.node_link()), world.planner)
    world.authority = world.authority.rotated(created_unix_s=NOW - 10, overlap_s=100)
    world.verify(world.authority.proof(), world.authority)
    world.verifier.recheck(live.identity, NOW + 89)

    code = refused(lambda: world.verifier.recheck(live.identity, NOW + 90))
    assert code is Code.CHANNEL_CREDENTIAL_EXPIRED


def test_what_is_live_outlives_a_clock_that_goes_back_behind_a_rotation() -> None:
    world = World()
    world.authority = world.authority.rotated(created_unix_s=NOW, overlap_s=100)
    live = world.verify(world.node.proof(world.node_link()), world.node)

    world.verifier.recheck(live.identity, NOW - 3_600)


def test_a_verifier_of_yesterday_meets_an_authority_that_has_rotated_often() -> None:
    world = World()
    for _ in range(ANCHOR_CHANGES_NEW_MAX):
        world.authority = world.authority.rotated(created_unix_s=NOW - 10)
    node = world.verify(world.node.proof(world.node_link()), world.node)
    world.verifier = world.new_verifier()
    itself = world.verify(world.authority.proof(), world.authority)

    assert node.identity.kind == "node"
    assert itself.identity.kind == "authority"


def test_one_authority_is_trusted_for_one_trust_domain() -> None:
    identifier = Person().history.identifier
    anchors = [TrustAnchor(identifier, "acme"), TrustAnchor(identifier, "evil")]

    with pytest.raises(ValueError, match="one trust domain"):
        ProofVerifier(anchors, own=Identifier(bytes(32)))
