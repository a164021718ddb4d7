"""Revocation lists: who makes them, which one counts, and whom they take along."""

from typing import Any

import pytest

from identity import (
    Code,
    Identifier,
    IdentityError,
    OwnIdentity,
    ProofVerifier,
    Purpose,
    RevocationLists,
    SigningKey,
    TrustAnchor,
    VerifiedPeer,
    decode_revocations_untrusted,
    issue_revocations,
    new_identity,
)
from identity.cbor import decode_untrusted, encode
from identity.cose import SignedType, sign
from identity.revocation import NEXT_UPDATE_S_MAX, NUMBER_AHEAD_MAX, REVOKED_MAX
from tests.identity.helpers import DAY_S, NARROW, NOW, Person, World, flip_bit, refused


class Revoking(World):
    """A world whose verifier knows revocation lists, and whose authority issues them."""

    def __init__(self, **lists: Any) -> None:
        self.lists = RevocationLists(**lists)
        super().__init__()

    def new_verifier(self, **arguments: Any) -> ProofVerifier:
        return super().new_verifier(**{"lists": self.lists} | arguments)

    def issue(self, *revoked: Person, **changes: Any) -> bytes:
        return issue(self.authority, *(one.history.identifier for one in revoked), **changes)

    def learn(self, encoded: bytes, unix_s: float = NOW) -> Any:
        return self.verifier.learn_revocations_untrusted(encoded, unix_s=unix_s)

    def show(self, unix_s: float = NOW) -> VerifiedPeer:
        """The helper's proof, which hangs on the planner's, the node's and the authority's."""
        chain = self.chain
        return self.verify(self.helper.proof(*chain), self.helper, unix_s=unix_s)

    @property
    def chain(self) -> tuple[Any, ...]:
        if not hasattr(self, "_chain"):
            self._chain = (
                self.helper_link(),
                self.planner_link(delegable=NARROW),
                self.node_link(),
            )
        return self._chain


def issue(authority: Person, *revoked: Identifier, **changes: Any) -> bytes:
    own = OwnIdentity("authority", authority.key, authority.history, {}, ())
    arguments: dict[str, Any] = {
        "number": NOW,
        "issued_unix_s": NOW,
        "next_update_unix_s": NOW + DAY_S,
        "revoked": revoked,
    }
    domain = changes.pop("trust_domain", "acme")
    return issue_revocations(own, domain, **arguments | changes)


@pytest.mark.parametrize("who", ["helper", "planner", "node"])
def test_who_is_revoked_is_refused_and_takes_everybody_below_along(who: str) -> None:
    world = Revoking()
    before = world.show()
    world.learn(world.issue(getattr(world, who)))

    assert refused(world.show) is Code.CHANNEL_REVOKED
    assert refused(lambda: world.verifier.recheck(before.identity, NOW)) is Code.CHANNEL_REVOKED


def test_who_stands_beside_the_revoked_one_is_let_in() -> None:
    world = Revoking()
    world.learn(world.issue(Person(), Person()))

    assert world.show().identifier == world.helper.history.identifier


def test_another_encoding_of_a_signature_does_not_lead_round_a_list() -> None:
    world = Revoking()
    world.show()
    world.learn(world.issue(world.planner))
    # The same key and history, vouched for anew, with signatures that no list could have named.
    del world._chain

    assert refused(world.show) is Code.CHANNEL_REVOKED


def test_a_list_older_than_the_newest_seen_is_refused() -> None:
    world = Revoking()
    old = world.issue(number=NOW - 2)
    world.learn(world.issue(world.node, number=NOW - 1))

    assert refused(lambda: world.learn(old)) is Code.CHANNEL_REVOCATIONS_OUTDATED
    assert refused(world.show) is Code.CHANNEL_REVOKED


def test_another_list_of_the_same_number_is_refused() -> None:
    world = Revoking()
    world.learn(world.issue(world.node))

    assert refused(lambda: world.learn(world.issue())) is Code.CHANNEL_REVOCATIONS_OUTDATED


def test_the_list_that_is_held_already_is_no_news() -> None:
    world = Revoking()
    encoded = world.issue(world.node)

    assert world.learn(encoded) is not None
    assert world.learn(encoded) is None


def test_a_list_may_name_fewer_than_the_one_before_it() -> None:
    world = Revoking()
    world.learn(world.issue(world.node, number=NOW - 1))
    world.learn(world.issue(number=NOW))

    assert world.show().identifier == world.helper.history.identifier


def test_new_proofs_stop_when_the_grace_of_a_list_is_over_and_old_ones_with_them() -> None:
    world = Revoking(grace_s=100)
    world.learn(world.issue(next_update_unix_s=NOW + 50))
    world.show()

    assert world.show(unix_s=NOW + 149)
    assert refused(lambda: world.show(unix_s=NOW + 150)) is Code.CHANNEL_REVOCATIONS_STALE


def test_what_is_live_outlives_a_stale_list() -> None:
    world = Revoking(grace_s=100)
    world.learn(world.issue(next_update_unix_s=NOW + 50))
    before = world.show()

    world.verifier.recheck(before.identity, NOW + 1_000)
    assert refused(lambda: world.show(unix_s=NOW + 1_000)) is Code.CHANNEL_REVOCATIONS_STALE


def test_a_stale_list_stops_no_hop_for_the_next_one_comes_over_it() -> None:
    world = Revoking(grace_s=100)
    world.learn(world.issue(next_update_unix_s=NOW + 50))
    proof = world.node.proof(world.node_link(), attestation=world.node.attestation(Purpose.HOP))

    def hop() -> VerifiedPeer:
        return world.verify(proof, world.node, purpose=Purpose.HOP, unix_s=NOW + 1_000)

    assert hop().identity.kind == "node"
    assert hop().identity.kind == "node", "a remembered one neither"


def test_a_stale_list_stops_nobody_who_has_been_let_in_and_shows_a_newer_proof() -> None:
    world = Revoking(grace_s=100)
    world.learn(world.issue(next_update_unix_s=NOW + 50))
    proof = world.node.proof(world.node_link())

    def show(*, is_live: bool) -> VerifiedPeer:
        return world.verifier.verify(
            proof,
            purpose=Purpose.CHANNEL,
            noise_key=world.node.noise.public.raw,
            unix_s=NOW + 1_000,
            is_live=is_live,
        )

    assert show(is_live=True).identity.kind == "node"
    assert refused(lambda: show(is_live=False)) is Code.CHANNEL_REVOCATIONS_STALE


def test_an_authority_that_never_shows_a_list_is_given_the_same_grace() -> None:
    world = Revoking(grace_s=100)
    world.lists.expect({world.authority.history.identifier: NOW - 40})

    assert world.show(unix_s=NOW + 59)
    assert refused(lambda: world.show(unix_s=NOW + 60)) is Code.CHANNEL_REVOCATIONS_STALE


def test_an_authority_revokes_in_its_own_domain_only() -> None:
    world = Revoking()
    other = Person()
    both = [
        TrustAnchor(world.authority.history.identifier, "acme"),
        TrustAnchor(other.history.identifier, "globex"),
    ]
    world.verifier = ProofVerifier(both, own=world.own.history.identifier, lists=world.lists)
    of_other = issue(other, world.node.history.identifier, trust_domain="globex")

    world.learn(of_other)
    assert world.show().identifier == world.helper.history.identifier


def _stranger(world: Revoking) -> bytes:
    return issue(Person())


def _foreign_domain(world: Revoking) -> bytes:
    return world.issue(trust_domain="globex")


def _history_of_another(world: Revoking) -> bytes:
    signed, _ = decode_untrusted(world.issue(), bytes_max=100_000)
    return encode([signed, Person().history.encode()])


def _signed_by_another(world: Revoking) -> bytes:
    signed = decode_revocations_untrusted(world.issue())
    forged = sign(SigningKey.generate(), SignedType.REVOCATIONS, signed.message.payload)
    return encode([forged.encode(), world.authority.history.encode()])


def _another_type(world: Revoking) -> bytes:
    signed = decode_revocations_untrusted(world.issue())
    other = sign(world.authority.key, SignedType.CREDENTIAL, signed.message.payload)
    return encode([other.encode(), world.authority.history.encode()])


def _changed(world: Revoking, key: int, value: object) -> bytes:
    signed = decode_revocations_untrusted(world.issue(world.node))
    fields = decode_untrusted(signed.message.payload, bytes_max=100_000)
    fields[key] = value
    message = sign(world.authority.key, SignedType.REVOCATIONS, encode(fields))
    return encode([message.encode(), world.authority.history.encode()])


def _superseded_key(world: Revoking) -> bytes:
    stolen = world.authority
    world.authority = stolen.rotated(created_unix_s=NOW - 200, overlap_s=100)
    world.learn(world.issue(number=NOW - 300, issued_unix_s=NOW - 150))
    return issue(stolen, world.node.history.identifier)


HOSTILE = {
    "by somebody who is no authority here": (_stranger, Code.CHANNEL_WRONG_AUTHORITY),
    "for another trust domain": (_foreign_domain, Code.CHANNEL_WRONG_AUTHORITY),
    "beside the history of another": (_history_of_another, Code.CHANNEL_REVOCATIONS_INVALID),
    "signed by another key": (_signed_by_another, Code.CHANNEL_REVOCATIONS_INVALID),
    "signed as another type": (_another_type, Code.CHANNEL_REVOCATIONS_INVALID),
    "signed by a key whose overlap is over": (_superseded_key, Code.CHANNEL_HISTORY_INVALID),
    "of the future": (
        lambda world: world.issue(issued_unix_s=NOW + 61, next_update_unix_s=NOW + 100),
        Code.CHANNEL_NOT_YET_VALID,
    ),
    "with a number that would shut out all later ones": (
        lambda world: world.issue(number=NOW + NUMBER_AHEAD_MAX + 1),
        Code.CHANNEL_REVOCATIONS_INVALID,
    ),
    "whose digests are out of order": (
        lambda world: _changed(world, 7, b"\x02" * 32 + b"\x01" * 32),
        Code.CHANNEL_REVOCATIONS_INVALID,
    ),
    "whose digests repeat": (
        lambda world: _changed(world, 7, b"\x01" * 64),
        Code.CHANNEL_REVOCATIONS_INVALID,
    ),
    "whose last digest is torn": (
        lambda world: _changed(world, 7, b"\x01" * 63),
        Code.CHANNEL_REVOCATIONS_INVALID,
    ),
    "that names the authority itself": (
        lambda world: _changed(world, 7, world.authority.history.identifier.digest),
        Code.CHANNEL_REVOCATIONS_INVALID,
    ),
    "that is never due again": (
        lambda world: _changed(world, 6, NOW + NEXT_UPDATE_S_MAX + 1),
        Code.CHANNEL_REVOCATIONS_INVALID,
    ),
    "that was over before it began": (
        lambda world: _changed(world, 6, NOW),
        Code.CHANNEL_REVOCATIONS_INVALID,
    ),
    "with a field too many": (
        lambda world: _changed(world, 8, 0),
        Code.CHANNEL_REVOCATIONS_INVALID,
    ),
    "that is no list": (lambda world: b"\x00", Code.CHANNEL_REVOCATIONS_INVALID),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_list_changes_nothing(case: str) -> None:
    make, code = HOSTILE[case]
    world = Revoking()
    hostile = make(world)

    assert refused(lambda: world.learn(hostile)) is code
    assert world.node.history.identifier not in (
        world.lists.newest(world.authority.history.identifier) or set()
    )


def test_a_list_of_which_one_bit_is_wrong_is_refused() -> None:
    world = Revoking()
    encoded = world.issue(world.node)
    for bit in range(0, 8 * len(encoded), 7):
        # A verifier that knows the authority's history knows it by its hash: this one does not.
        world.verifier = world.new_verifier()
        refused(lambda bit=bit: world.learn(flip_bit(encoded, bit)))  # type: ignore[misc]

    assert world.show().identifier == world.helper.history.identifier


def test_an_authority_cannot_issue_what_nobody_would_take() -> None:
    own = new_identity("a", unix_s=NOW, purposes=(Purpose.HOP,))
    too_many = (Identifier(number.to_bytes(32, "big")) for number in range(REVOKED_MAX + 1))
    with pytest.raises(IdentityError):
        issue_revocations(
            own,
            "acme",
            number=NOW,
            issued_unix_s=NOW,
            next_update_unix_s=NOW + 1,
            revoked=too_many,
        )


def test_the_largest_list_is_taken() -> None:
    world = Revoking()
    most = [Identifier(number.to_bytes(32, "big")) for number in range(REVOKED_MAX)]
    world.learn(issue(world.authority, *most))

    newest = world.lists.newest(world.authority.history.identifier)
    assert newest is not None
    assert len(newest.revoked) == REVOKED_MAX


def test_a_list_beside_a_history_with_another_signature_is_not_kept_to_be_passed_on() -> None:
    world = Revoking()
    world.learn(world.issue())
    encoded = bytearray(world.issue(world.node, number=NOW + 1))
    encoded[-1] ^= 1  # Of the history's signature, which is known here.

    assert refused(lambda: world.learn(bytes(encoded))) is Code.CHANNEL_HISTORY_INVALID
    world.show()
