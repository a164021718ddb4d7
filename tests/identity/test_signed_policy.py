"""Signed policies: who makes them, which one counts, and what a hostile member cannot do."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from identity import (
    Code,
    IdentityError,
    OwnIdentity,
    PolicyFile,
    ProofVerifier,
    RevocationLists,
    SeenInMemory,
    SignedPolicy,
    SigningKey,
    TrustAnchor,
    decode_signed_policy_untrusted,
    issue_policy,
    issue_policy_under,
)
from identity.cbor import decode_untrusted, encode
from identity.cose import SignedType, sign
from identity.signed_policy import (
    FILES_MAX,
    NUMBER_AHEAD_MAX,
    SIGNER_AHEAD_MAX,
    SIGNERS_MAX,
    TEXT_BYTES_MAX,
)
from tests.identity.helpers import DAY_S, NOW, Person, flip_bit, refused
from tests.identity.test_revocation import issue as issue_revocations

RULES = PolicyFile("base.yaml", "rules: []\n")
MORE = PolicyFile("more.yaml", "# more\n")


def parts_of(encoded: bytes) -> list[Any]:
    parts: list[Any] = decode_untrusted(encoded, bytes_max=10_000, depth_max=1)
    return parts


def payload_of(message: bytes) -> bytes:
    payload: bytes = decode_untrusted(message, bytes_max=10_000, depth_max=2)[2]
    return payload


def own(person: Person) -> OwnIdentity:
    return OwnIdentity(".node", person.key, person.history, {}, ())


@dataclass
class Domain:
    """An authority, one whom it lets sign, one whom it does not, and a node that verifies."""

    authority: Person = field(default_factory=Person)
    signer: Person = field(default_factory=Person)
    stranger: Person = field(default_factory=Person)
    lists: RevocationLists = field(default_factory=RevocationLists)
    seen: SeenInMemory = field(default_factory=SeenInMemory)

    def __post_init__(self) -> None:
        self.verifier = ProofVerifier(
            [TrustAnchor(self.authority.history.identifier, "acme")],
            own=Person().history.identifier,
            lists=self.lists,
            seen=self.seen,
        )
        self.held: SignedPolicy | None = None

    def issue(self, by: Person | None = None, **changes: Any) -> bytes:
        """By the authority, which names the signer."""
        arguments: dict[str, Any] = {
            "number": NOW,
            "issued_unix_s": NOW,
            "files": [RULES],
            "signers": [self.signer.history.identifier],
        }
        domain = changes.pop("trust_domain", "acme")
        return issue_policy(own(by or self.authority), domain, **arguments | changes)

    def issue_under(self, held: SignedPolicy, by: Person | None = None, **changes: Any) -> bytes:
        arguments: dict[str, Any] = {"number": NOW + 1, "issued_unix_s": NOW, "files": [MORE]}
        return issue_policy_under(own(by or self.signer), held, **arguments | changes)

    def take(self, encoded: bytes, unix_s: float = NOW) -> SignedPolicy | None:
        taken = self.verifier.verify_policy_untrusted(
            encoded,
            authority=self.authority.history.identifier,
            held=self.held,
            unix_s=unix_s,
        )
        self.held = taken or self.held
        return taken

    def hold(self, encoded: bytes) -> SignedPolicy:
        taken = self.take(encoded)
        assert taken is not None
        return taken


def test_what_the_authority_signs_counts() -> None:
    domain = Domain()

    taken = domain.take(domain.issue(files=[MORE, RULES]))

    assert taken is not None
    assert taken.bundle.files == (RULES, MORE)
    assert taken.is_by_authority
    assert taken.mandate.signers == {domain.signer.history.identifier}


def test_what_a_named_signer_signs_counts_under_the_same_mandate() -> None:
    domain = Domain()
    first = domain.hold(domain.issue())

    taken = domain.take(domain.issue_under(first))

    assert taken is not None
    assert taken.bundle.signer == domain.signer.history.identifier
    assert taken.mandate == first.mandate


def test_a_node_that_holds_none_takes_a_signers_first() -> None:
    domain = Domain()
    encoded = domain.issue_under(decode_signed_policy_untrusted(domain.issue()))

    assert domain.take(encoded) is not None


def test_what_is_held_already_is_no_news() -> None:
    domain = Domain()
    encoded = domain.issue()
    domain.hold(encoded)

    assert domain.take(encoded) is None


def test_the_empty_bundle_is_one() -> None:
    domain = Domain()

    assert domain.hold(domain.issue(files=[])).bundle.files == ()


def test_an_older_one_and_another_of_the_same_number_are_refused() -> None:
    domain = Domain()
    domain.hold(domain.issue())

    for number in (NOW, NOW - 1):
        code = refused(lambda n=number: domain.take(domain.issue(number=n, files=[MORE])))
        assert code is Code.POLICY_BUNDLE_OUTDATED


def test_a_signer_who_was_left_out_does_not_come_back_with_the_mandate_of_before() -> None:
    domain = Domain()
    first = domain.hold(domain.issue())
    domain.hold(domain.issue(number=NOW + 1, signers=[]))

    code = refused(lambda: domain.take(domain.issue_under(first, number=NOW + 2)))

    assert code is Code.POLICY_BUNDLE_OUTDATED


def test_nobody_signs_whom_the_mandate_does_not_name() -> None:
    domain = Domain()
    first = domain.hold(domain.issue())

    with pytest.raises(IdentityError, match="does not name"):
        domain.issue_under(first, domain.stranger)

    # By hand, as somebody would who does not ask our code.
    named = Domain(domain.authority, domain.stranger)
    theirs = parts_of(named.issue_under(decode_signed_policy_untrusted(named.issue())))
    mixed = encode([*parts_of(first.encoded)[:2], *theirs[2:]])
    assert refused(lambda: domain.take(mixed)) is Code.POLICY_BUNDLE_INVALID


def test_a_new_mandate_does_not_make_an_old_bundle_new() -> None:
    domain = Domain()
    old = parts_of(domain.issue(files=[]))
    held = domain.hold(domain.issue(number=NOW + 1))
    newer = parts_of(domain.issue(number=NOW + 2))

    code = refused(lambda: domain.take(encode([newer[0], newer[1], old[2]])))

    assert code is Code.POLICY_BUNDLE_INVALID
    assert domain.held == held


def test_a_newer_mandate_counts_before_a_signers_higher_number() -> None:
    domain = Domain()
    first = domain.hold(domain.issue())
    signers = domain.hold(domain.issue_under(first, number=NOW + 9))
    without = domain.hold(domain.issue(number=NOW + 5, signers=[]))

    code = refused(lambda: domain.take(domain.issue_under(first, number=NOW + 10)))

    assert code is Code.POLICY_BUNDLE_OUTDATED
    assert first.rank < signers.rank < without.rank
    assert domain.held == without


def test_a_year_without_the_authority_makes_no_rank_of_the_next_mandate() -> None:
    domain = Domain()
    first = domain.hold(domain.issue())
    late = domain.issue_under(first, number=NOW + 1_000 * DAY_S)
    newer = domain.issue(number=NOW + 1)

    ranks = [decode_signed_policy_untrusted(one).rank for one in (late, newer)]

    assert ranks == sorted(ranks)
    assert 0 < ranks[0] < ranks[1] < 1 << 63


def test_a_revoked_signer_signs_no_more() -> None:
    domain = Domain()
    first = domain.hold(domain.issue())
    domain.verifier.learn_revocations_untrusted(
        issue_revocations(domain.authority, domain.signer.history.identifier), unix_s=NOW
    )

    assert refused(lambda: domain.take(domain.issue_under(first))) is Code.CHANNEL_REVOKED


def test_a_replaced_key_signs_no_longer_than_its_overlap() -> None:
    domain = Domain()
    first = domain.hold(domain.issue())
    before = domain.signer
    after = before.rotated(created_unix_s=NOW - 10, overlap_s=5)

    late = domain.issue_under(first, Person(before.key, before.noise, after.history))

    assert refused(lambda: domain.take(late)) is Code.CHANNEL_HISTORY_INVALID
    assert domain.take(domain.issue_under(first, after)) is not None


def test_a_history_that_was_seen_longer_cannot_be_cut() -> None:
    domain = Domain()
    first = domain.hold(domain.issue())
    rotated = domain.signer.rotated(created_unix_s=NOW - 10, overlap_s=5)
    domain.hold(domain.issue_under(first, rotated))

    code = refused(lambda: domain.take(domain.issue_under(first, number=NOW + 2)))

    assert code is Code.CHANNEL_HISTORY_OUTDATED


def test_an_authority_that_has_rotated_signs_with_its_new_key_and_the_old_one_ends() -> None:
    domain = Domain()
    before = domain.authority
    after = before.rotated(created_unix_s=NOW - 10, overlap_s=5)
    domain.hold(domain.issue(after))

    code = refused(lambda: domain.take(domain.issue(before, number=NOW + 1)))

    assert code is Code.CHANNEL_HISTORY_INVALID


def _with_a_bit_of_its_first_signature_flipped(encoded: bytes) -> bytes:
    """Of the authority's history, which anybody can do on the way."""
    parts = parts_of(encoded)
    (payload, signature), *later = decode_untrusted(parts[1], bytes_max=10_000)
    parts[1] = encode([[payload, flip_bit(signature, 0)], *later])
    return encode(parts)


@pytest.mark.parametrize("known", ["its first change", "the hash of its last change"])
def test_nobody_puts_another_signature_in_place_of_one_of_the_authoritys(known: str) -> None:
    """Else the node would refuse whatever the authority signs next, lists of revoked included."""
    domain = Domain()
    before = domain.authority
    after = before.rotated(created_unix_s=NOW - 10, overlap_s=DAY_S)
    if known == "its first change":
        domain.hold(domain.issue(before))
    else:
        domain.seen.saw(after.history.identifier, after.history.pin)
    encoded = domain.issue(after, number=NOW + 1)

    changed = _with_a_bit_of_its_first_signature_flipped(encoded)

    assert refused(lambda: domain.take(changed)) is Code.CHANNEL_HISTORY_INVALID
    assert domain.take(encoded) is not None
    revoked = issue_revocations(after, domain.stranger.history.identifier)
    assert domain.verifier.learn_revocations_untrusted(revoked, unix_s=NOW) is not None


def test_what_is_of_the_future_is_refused() -> None:
    domain = Domain()
    far = NOW + NUMBER_AHEAD_MAX + 1

    assert refused(lambda: domain.take(domain.issue(number=far))) is Code.POLICY_BUNDLE_INVALID
    issued = domain.issue(issued_unix_s=NOW + DAY_S)
    assert refused(lambda: domain.take(issued)) is Code.CHANNEL_NOT_YET_VALID


def test_whatever_number_a_signer_takes_its_authority_has_higher_ones() -> None:
    domain = Domain()
    first = domain.hold(domain.issue())
    far = NOW + SIGNER_AHEAD_MAX
    code = refused(lambda: domain.take(domain.issue_under(first, number=far + 1)))
    domain.hold(domain.issue_under(first, number=far))

    assert code is Code.POLICY_BUNDLE_INVALID
    assert domain.hold(domain.issue(number=far + 1, signers=[])).number == far + 1


def test_another_authority_makes_no_policy_here() -> None:
    domain = Domain()
    other = Person()

    for encoded in (domain.issue(other), domain.issue(trust_domain="globex")):
        assert refused(lambda e=encoded: domain.take(e)) is Code.CHANNEL_WRONG_AUTHORITY


def test_every_flipped_bit_is_refused_or_changes_nothing_that_is_believed() -> None:
    domain = Domain()
    encoded = domain.issue_under(decode_signed_policy_untrusted(domain.issue()))
    believed = domain.verifier.verify_policy_untrusted(
        encoded, authority=domain.authority.history.identifier, held=None, unix_s=NOW
    )
    assert believed is not None
    for bit in range(len(encoded) * 8):
        with pytest.raises(IdentityError):
            Domain(domain.authority, domain.signer).take(flip_bit(encoded, bit))


def _again(fields_of: Callable[[dict[int, Any]], dict[int, Any]], part: int) -> bytes:
    """The authority's, with one part changed and signed again."""
    domain = Domain()
    parts = parts_of(domain.issue())
    kind = SignedType.POLICY_MANDATE if part == 0 else SignedType.POLICY_BUNDLE
    payload = payload_of(parts[part])
    fields = fields_of(decode_untrusted(payload, bytes_max=10_000, depth_max=3))
    parts[part] = sign(domain.authority.key, kind, encode(fields)).encode()
    return encode(parts)


def _mandate(**changes: Any) -> bytes:
    return _again(lambda fields: fields | {int(k[1:]): v for k, v in changes.items()}, 0)


def _bundle(**changes: Any) -> bytes:
    return _again(lambda fields: fields | {int(k[1:]): v for k, v in changes.items()}, 2)


def _without(fields: dict[int, Any], key: int) -> dict[int, Any]:
    return {k: v for k, v in fields.items() if k != key}


def _history_twice() -> bytes:
    parts = parts_of(Domain().issue())
    return encode([*parts, parts[1]])


def _beside_another_history() -> bytes:
    parts = parts_of(Domain().issue())
    return encode([parts[0], Person().history.encode(), parts[2]])


BAD = {
    "nothing": b"",
    "an empty array": encode([]),
    "a mandate alone": encode(parts_of(Domain().issue())[:1]),
    "the authority's history twice": _history_twice(),
    "a mandate beside the history of somebody else": _beside_another_history(),
    "a mandate without its number": _again(lambda fields: _without(fields, 3), 0),
    "a mandate with a key that is not defined": _mandate(k9=1),
    "a mandate that is number 0": _mandate(k3=0),
    "half a signer": _mandate(k6=b"x" * 16),
    "signers out of order": _mandate(k6=b"b" * 32 + b"a" * 32),
    "a signer twice": _mandate(k6=b"a" * 64),
    "too many signers": _mandate(k6=b"".join(bytes([n]) * 32 for n in range(SIGNERS_MAX + 1))),
    "a mandate of another domain than its bundle": _mandate(k2="globex"),
    "a mandate of what is no trust domain": _mandate(k2="A B"),
    "a bundle without its files": _again(lambda fields: _without(fields, 7), 2),
    "a bundle with a key that is not defined": _bundle(k8=1),
    "a bundle by somebody beside whom there is no history": _bundle(k6=b"a" * 32),
    "a file without a text": _bundle(k7=[["a"]]),
    "a file without a name": _bundle(k7=[["", "rules: []"]]),
    "a name of two lines": _bundle(k7=[["a\nb", "rules: []"]]),
    "a name that is too long": _bundle(k7=[["a" * 129, "rules: []"]]),
    "files out of order": _bundle(k7=[["b", ""], ["a", ""]]),
    "a file twice": _bundle(k7=[["a", ""], ["a", ""]]),
    "too many files": _bundle(k7=[[f"{n:03}", ""] for n in range(FILES_MAX + 1)]),
    "a text of bytes": _bundle(k7=[["a", b"rules: []"]]),
    "texts that are too long together": _bundle(
        k7=[["a", "x" * TEXT_BYTES_MAX], ["b", "x"]],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_signed_policy_is_refused(case: str) -> None:
    code = refused(lambda: decode_signed_policy_untrusted(BAD[case]))

    assert code is Code.POLICY_BUNDLE_INVALID


def test_a_signature_of_another_kind_is_none() -> None:
    domain = Domain()
    parts = parts_of(domain.issue())

    swapped = encode([parts[2], parts[1], parts[0]])

    assert refused(lambda: domain.take(swapped)) is Code.POLICY_BUNDLE_INVALID


@pytest.mark.parametrize("part", [0, 2])
def test_a_signature_by_another_key_is_none(part: int) -> None:
    domain = Domain()
    parts = parts_of(domain.issue())
    kind = SignedType.POLICY_MANDATE if part == 0 else SignedType.POLICY_BUNDLE
    payload = payload_of(parts[part])
    parts[part] = sign(SigningKey.generate(), kind, payload).encode()

    assert refused(lambda: domain.take(encode(parts))) is Code.POLICY_BUNDLE_INVALID


def test_what_every_node_would_refuse_is_not_issued() -> None:
    domain = Domain()
    long = PolicyFile("long.yaml", "x" * (TEXT_BYTES_MAX + 1))

    for changes in (
        {"files": [long]},
        {"files": [RULES, RULES]},
        {"number": 0},
        {"signers": [domain.authority.history.identifier]},
    ):
        with pytest.raises(IdentityError):
            domain.issue(**changes)
