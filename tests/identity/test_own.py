"""Our own identities: how often they may rotate and still show themselves."""

import pytest

from identity import Proof, Purpose, SigningKey, new_identity
from identity.own import ROTATIONS_MAX, OwnIdentity
from identity.proof import PROOF_BYTES_MAX
from tests.identity.helpers import HELPER, NARROW, NOW, WIDE, Person, World

CHILD = f"{HELPER}/child"


def _rotated_often(person: Person) -> Person:
    for _ in range(ROTATIONS_MAX):
        person = person.rotated(created_unix_s=NOW - 10)
    return person


def test_a_whole_chain_of_those_that_rotated_as_often_as_they_may_fits_into_a_proof() -> None:
    world = World(*(_rotated_often(Person()) for _ in range(4)))
    child = _rotated_often(Person())
    chain = (
        world.helper.link(child, CHILD),
        world.helper_link(delegable=NARROW),
        world.planner_link(delegable=WIDE),
        world.node_link(),
    )
    proof = Proof(child.history.encode(), child.attestation(), chain).encode()

    assert len(proof) <= PROOF_BYTES_MAX


def test_an_identity_is_rotated_no_more_often_than_a_proof_can_show() -> None:
    own: OwnIdentity = new_identity("often", unix_s=NOW, purposes=(Purpose.HOP,))
    for _ in range(ROTATIONS_MAX):
        own = own.with_next_key(SigningKey.generate(), unix_s=NOW, overlap_s=60)
        own = own.using_next_key(unix_s=NOW)
    with pytest.raises(ValueError, match="begin a new identity"):
        own.with_next_key(SigningKey.generate(), unix_s=NOW, overlap_s=60)

    assert own.proof(Purpose.HOP)
