"""Histories as far as they were seen, and what a verifier remembers of whole proofs."""

import pytest

from identity import Code, Identifier, Pin, SeenInMemory, SignatureBudget
from tests.identity.helpers import DAY_S, NARROW, NOW, Person, World, refused


class Counted:
    """Counts signature checks, from the moment it is made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.checks = 0
        honest = SignatureBudget.charge

        def charge(budget: SignatureBudget, checks: int) -> None:
            self.checks += checks
            honest(budget, checks)

        monkeypatch.setattr(SignatureBudget, "charge", charge)


def test_a_peer_that_was_seen_with_a_change_is_refused_without_it() -> None:
    world = World()
    before = world.planner
    old_proof = before.proof(world.planner_link(), world.node_link())
    world.verify(old_proof, before)
    world.planner = before.rotated()
    world.verify(world.planner.proof(world.planner_link(), world.node_link()), world.planner)

    assert refused(lambda: world.verify(old_proof, before)) is Code.CHANNEL_HISTORY_OUTDATED


def test_a_history_that_forks_from_what_was_seen_is_refused() -> None:
    world = World()
    before = world.planner
    world.planner = before.rotated()
    link = world.node.link(before, "agent://acme/finance/planner")
    world.verify(world.planner.proof(link, world.node_link()), world.planner)
    fork = before.rotated()

    code = refused(lambda: world.verify(fork.proof(link, world.node_link()), fork))
    assert code is Code.CHANNEL_PIN_MISMATCH


def test_an_issuer_that_was_seen_with_a_change_is_refused_without_it() -> None:
    world = World()
    node_link, planner_link = world.node_link(), world.planner_link(delegable=NARROW)
    old_proof = world.helper.proof(world.helper_link(), planner_link, node_link)
    world.verify(old_proof, world.helper)
    world.planner = world.planner.rotated()
    world.verify(world.planner.proof(planner_link, node_link), world.planner)

    assert refused(lambda: world.verify(old_proof, world.helper)) is Code.CHANNEL_HISTORY_OUTDATED


def test_what_was_seen_outlives_the_verifier() -> None:
    world = World()
    seen = SeenInMemory()
    world.verifier = world.new_verifier(seen=seen)
    before = world.planner
    old_proof = before.proof(world.planner_link(), world.node_link())
    world.planner = before.rotated()
    world.verify(world.planner.proof(world.planner_link(), world.node_link()), world.planner)
    world.verifier = world.new_verifier(seen=seen)

    assert refused(lambda: world.verify(old_proof, before)) is Code.CHANNEL_HISTORY_OUTDATED


def test_a_stranger_leaves_nothing_behind() -> None:
    world = World()
    seen = SeenInMemory()
    world.verifier = world.new_verifier(seen=seen)
    stranger = Person().rotated()
    world.verify(stranger.proof(), stranger)

    assert seen.pin_of(stranger.history.identifier) is None


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first() -> None:
    seen = SeenInMemory(seen_max=2)
    names = [Identifier(bytes([number]) * 32) for number in range(3)]
    for name in names:
        seen.saw(name, Pin(1, bytes(32)))

    assert [seen.pin_of(name) is None for name in names] == [True, False, False]


def test_a_proof_that_was_verified_costs_no_signature_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    proof = world.planner.proof(world.planner_link(), world.node_link())
    first = world.verify(proof, world.planner)
    counted = Counted(monkeypatch)

    assert world.verify(proof, world.planner) == first
    assert counted.checks == 0


def test_a_remembered_proof_outlives_its_authoritys_rotation_while_the_overlap_lasts() -> None:
    world = World()
    proof = world.planner.proof(world.planner_link(), world.node_link())
    world.verify(proof, world.planner)
    world.authority = world.authority.rotated(created_unix_s=NOW - 10, overlap_s=100)
    world.verify(world.authority.proof(), world.authority)
    again = world.verify(proof, world.planner)
    late = refused(lambda: world.verify(proof, world.planner, unix_s=NOW + 90))

    assert again.identity.expires_unix_s == NOW + 90
    assert late is Code.CHANNEL_HISTORY_INVALID


def test_a_remembered_proof_lapses_when_its_first_part_does() -> None:
    world = World()
    proof = world.planner.proof(world.planner_link(expires_unix_s=NOW + 100), world.node_link())
    world.verify(proof, world.planner)

    code = refused(lambda: world.verify(proof, world.planner, unix_s=NOW + 100))
    assert code is Code.CHANNEL_CREDENTIAL_EXPIRED


def test_a_remembered_proof_is_judged_anew_when_the_clock_goes_back() -> None:
    world = World()
    link = world.planner_link(not_before_unix_s=NOW)
    proof = world.planner.proof(link, world.node_link())
    world.verify(proof, world.planner)

    code = refused(lambda: world.verify(proof, world.planner, unix_s=NOW - 61))
    assert code is Code.CHANNEL_NOT_YET_VALID


def test_a_remembered_proof_is_good_for_its_own_noise_key_only() -> None:
    world = World()
    proof = world.planner.proof(world.planner_link(), world.node_link())
    world.verify(proof, world.planner)

    code = refused(lambda: world.verify(proof, Person()))
    assert code is Code.CHANNEL_ATTESTATION_INVALID


def test_the_proofs_remembered_are_bounded() -> None:
    world = World()
    world.verifier = world.new_verifier(peers_kept_max=3)
    for _ in range(6):
        world.planner = Person()
        world.verify(world.planner.proof(world.planner_link(), world.node_link()), world.planner)

    assert len(world.verifier._peers) == 3


def test_a_seen_history_spares_the_signatures_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    node_link, link = world.node_link(), world.planner_link()
    for _ in range(4):
        world.planner = world.planner.rotated(overlap_s=DAY_S)
    world.verify(world.planner.proof(link, node_link), world.planner)
    counted = Counted(monkeypatch)
    fresh = world.planner.attestation(not_before_unix_s=NOW - 9)
    world.verify(world.planner.proof(link, node_link, attestation=fresh), world.planner)

    # The leaf's credential and the attestation; the four changes were seen.
    assert counted.checks == 2
