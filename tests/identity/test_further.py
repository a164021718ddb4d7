"""Further credentials: what other issuers say of the same identity stays theirs."""

import pytest

from identity import (
    ChainLink,
    Code,
    Proof,
    ProofVerifier,
    RevocationLists,
    TrustAnchor,
    VerifiedPeer,
)
from tests.identity.helpers import NOW, Person, World, flip_bit, refused
from tests.identity.test_revocation import issue

GUEST = "agent://globex/guests/planner"


class TwoDomains(World):
    """The planner of acme, about whom globex has something to say as well."""

    def __init__(self) -> None:
        self.globex = Person()
        self.lists = RevocationLists()
        super().__init__()
        anchors = [
            TrustAnchor(self.authority.history.identifier, "acme"),
            TrustAnchor(self.globex.history.identifier, "globex"),
        ]
        self.verifier = ProofVerifier(anchors, own=self.own.history.identifier, lists=self.lists)

    def guest_link(self, **changes: object) -> ChainLink:
        arguments: dict[str, object] = {"trust_domain": "globex", "attributes": {"role": "auditor"}}
        return self.globex.link(self.planner, GUEST, **arguments | changes)

    def show(self, *further: tuple[ChainLink, ...], unix_s: float = NOW) -> VerifiedPeer:
        chain = (self.planner_link(attributes={"role": "planner"}), self.node_link())
        person = self.planner
        proof = Proof(person.history.encode(), person.attestation(), chain, further).encode()
        return self.verify(proof, person, unix_s=unix_s)


def test_what_another_issuer_says_stays_apart_from_the_chain_that_proves_the_name() -> None:
    world = TwoDomains()
    identity = world.show((world.guest_link(),)).identity

    assert dict(identity.attributes) == {"role": "planner"}
    assert {issuer: dict(said) for issuer, said in identity.further.items()} == {
        world.globex.history.identifier: {"role": "auditor"}
    }
    assert str(identity.name) == "agent://acme/finance/planner"


def test_what_an_issuer_says_whom_nobody_trusts_here_is_not_heard() -> None:
    world = TwoDomains()
    stranger = Person()
    link = stranger.link(world.planner, GUEST, trust_domain="globex", attributes={"role": "king"})

    assert dict(world.show((link,)).identity.further) == {}


def test_a_peer_lapses_with_the_first_of_its_credentials() -> None:
    world = TwoDomains()
    peer = world.show((world.guest_link(expires_unix_s=NOW + 10),))

    assert peer.identity.expires_unix_s == NOW + 10


def test_whom_the_other_issuer_revokes_is_refused() -> None:
    world = TwoDomains()
    live = world.show((world.guest_link(),)).identity
    world.verifier.learn_revocations_untrusted(
        issue(world.globex, world.planner.history.identifier, trust_domain="globex"), unix_s=NOW
    )

    assert refused(lambda: world.verifier.recheck(live, NOW)) is Code.CHANNEL_REVOKED
    assert refused(lambda: world.show((world.guest_link(),))) is Code.CHANNEL_REVOKED


def test_a_name_is_valid_under_its_own_authority_only() -> None:
    world = TwoDomains()
    # Globex names somebody of acme: its word is worth nothing for that.
    link = world.globex.link(world.planner, "agent://acme/finance/boss")

    assert refused(lambda: world.show((link,))) is Code.CHANNEL_WRONG_AUTHORITY


def _of_somebody_else(world: TwoDomains) -> tuple[tuple[ChainLink, ...], ...]:
    return ((world.globex.link(Person(), GUEST, trust_domain="globex"),),)


def _twice(world: TwoDomains) -> tuple[tuple[ChainLink, ...], ...]:
    return ((world.guest_link(),), (world.guest_link(attributes={"role": "boss"}),))


def _of_the_first_issuer(world: TwoDomains) -> tuple[tuple[ChainLink, ...], ...]:
    return ((world.planner_link(attributes={"role": "auditor"}), world.node_link()),)


def _expired(world: TwoDomains) -> tuple[tuple[ChainLink, ...], ...]:
    return ((world.guest_link(expires_unix_s=NOW - 1, not_before_unix_s=NOW - 9),),)


def _forged(world: TwoDomains) -> tuple[tuple[ChainLink, ...], ...]:
    link = world.guest_link()
    forged = flip_bit(link.credential, 8 * len(link.credential) - 9)
    return ((ChainLink(forged, link.issuer_history),),)


HOSTILE = {
    "of somebody else": (_of_somebody_else, Code.CHANNEL_PROOF_INVALID),
    "twice of one issuer": (_twice, Code.CHANNEL_PROOF_INVALID),
    "of the issuer who proves the name": (_of_the_first_issuer, Code.CHANNEL_PROOF_INVALID),
    "that has expired": (_expired, Code.CHANNEL_CREDENTIAL_EXPIRED),
    "with a wrong signature": (_forged, Code.CHANNEL_CREDENTIAL_INVALID),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_further_credential_that_is_wrong_spoils_the_proof(case: str) -> None:
    make, code = HOSTILE[case]
    world = TwoDomains()
    further = make(world)

    assert refused(lambda: world.show(*further)) is code


def test_somebody_whom_nobody_named_has_no_further_credentials() -> None:
    world = TwoDomains()
    person = world.planner
    proof = Proof(
        person.history.encode(), person.attestation(), (), ((world.guest_link(),),)
    ).encode()

    assert refused(lambda: world.verify(proof, person)) is Code.CHANNEL_PROOF_INVALID


def test_who_told_more_with_the_word_of_an_issuer_whom_nobody_trusts_any_more_tells_it_anew() -> (
    None
):
    world = TwoDomains()
    live = world.show((world.guest_link(),)).identity
    acme = TrustAnchor(world.authority.history.identifier, "acme")
    world.verifier = ProofVerifier([acme], own=world.own.history.identifier, lists=world.lists)

    assert refused(lambda: world.verifier.recheck(live, NOW)) is Code.CHANNEL_WRONG_AUTHORITY
    assert dict(world.show((world.guest_link(),)).identity.further) == {}
