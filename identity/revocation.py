"""Revocation lists: who of its domain an authority no longer vouches for.

A list is whole: it names every revoked identity, by identifier, so no other encoding of a
credential or a signature leads round it. Its number only grows, and a verifier refuses a list older
than the newest that it has seen. A revoked identity takes everybody below it along.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final

from identity import cbor, cose
from identity.codes import Code
from identity.cose import SignatureBudget, SignedMessage, SignedType
from identity.errors import IdentityError
from identity.fields import UNIX_S_MAX, Reader
from identity.history import CHANGES_MAX, CLOCK_SKEW_S, HISTORY_BYTES_MAX, ChangeHistory
from identity.identifier import DIGEST_BYTES, Identifier
from identity.own import OwnIdentity
from identity.uri import SEGMENT_CHARS_MAX, validate_trust_domain

REVOKED_MAX: Final = 16_384
REVOCATIONS_BYTES_MAX: Final = REVOKED_MAX * DIGEST_BYTES + 1_024
# A list and the history of the authority that signed it.
REVOCATIONS_WITH_HISTORY_BYTES_MAX: Final = REVOCATIONS_BYTES_MAX + HISTORY_BYTES_MAX + 64
NEXT_UPDATE_S_MAX: Final = 30 * 86_400
# Numbers follow the clock. One far ahead of it would make every later list an older one.
NUMBER_AHEAD_MAX: Final = 86_400
GRACE_S: Final = 3 * 86_400

_ISSUER, _TRUST_DOMAIN, _CHANGE, _NUMBER, _ISSUED, _NEXT_UPDATE, _REVOKED = range(1, 8)
_KEYS: Final = frozenset(range(1, 8))
_READ: Final = Reader(Code.CHANNEL_REVOCATIONS_INVALID)


@dataclass(frozen=True, slots=True)
class RevocationList:
    """What a list says. Times are Unix seconds."""

    issuer: Identifier
    trust_domain: str
    issuer_change_number: int
    number: int
    issued_unix_s: int
    next_update_unix_s: int
    revoked: frozenset[bytes] = field(repr=False)
    """Digests of identifiers: a set of 16,384 of them is looked at for each proof."""

    def __contains__(self, identifier: Identifier) -> bool:
        return identifier.digest in self.revoked


@dataclass(frozen=True, slots=True)
class SignedRevocations:
    """A list with its exact bytes, and the history of whoever signed it. Nothing is verified."""

    content: RevocationList
    issuer_history: ChangeHistory
    encoded: bytes = field(repr=False)
    message: SignedMessage = field(repr=False)

    def check_numbers(self, unix_s: float) -> None:
        """Raise IdentityError for a list that no authority with a sane clock issues now."""
        content = self.content
        if content.issued_unix_s > unix_s + CLOCK_SKEW_S:
            raise IdentityError(Code.CHANNEL_NOT_YET_VALID, "a revocation list of the future")
        if content.number > unix_s + NUMBER_AHEAD_MAX:
            raise _READ.error("a revocation list whose number is far ahead of the clock")

    def verify(self, history: ChangeHistory, unix_s: float) -> None:
        """Check the signature by a key of this verified history that is good at ``unix_s``."""
        key, _ = history.key_for(self.content.issuer_change_number, unix_s)
        self.message.verify(key, SignatureBudget(1), Code.CHANNEL_REVOCATIONS_INVALID)


def issue_revocations(
    own: OwnIdentity,
    trust_domain: str,
    *,
    number: int,
    issued_unix_s: int,
    next_update_unix_s: int,
    revoked: Iterable[Identifier],
) -> bytes:
    """The encoded list of an authority, its history beside it.

    IdentityError for contents that every verifier would refuse.
    """
    digests = sorted({identifier.digest for identifier in revoked})
    payload = {
        _ISSUER: own.identifier.digest,
        _TRUST_DOMAIN: trust_domain,
        _CHANGE: own.history.number_of(own.signing_key.verify_key),
        _NUMBER: number,
        _ISSUED: issued_unix_s,
        _NEXT_UPDATE: next_update_unix_s,
        _REVOKED: b"".join(digests),
    }
    _read_list(payload)
    message = cose.sign(own.signing_key, SignedType.REVOCATIONS, cbor.encode(payload))
    return cbor.encode([message.encode(), own.history.encode()])


def decode_revocations_untrusted(encoded: bytes) -> SignedRevocations:
    """Read a list and its issuer's history: structure only, no signature."""
    value = cbor.decode_untrusted(
        encoded,
        bytes_max=REVOCATIONS_WITH_HISTORY_BYTES_MAX,
        depth_max=1,
        code=Code.CHANNEL_REVOCATIONS_INVALID,
    )
    signed, history_bytes = _READ.array(value, 2, 2)
    message = cose.decode_untrusted(
        _READ.byte_string(signed, REVOCATIONS_BYTES_MAX),
        SignedType.REVOCATIONS,
        bytes_max=REVOCATIONS_BYTES_MAX,
        code=Code.CHANNEL_REVOCATIONS_INVALID,
    )
    content = _read_list(
        cbor.decode_untrusted(
            message.payload,
            bytes_max=REVOCATIONS_BYTES_MAX,
            depth_max=1,
            code=Code.CHANNEL_REVOCATIONS_INVALID,
        )
    )
    history = ChangeHistory.decode_untrusted(_READ.byte_string(history_bytes, HISTORY_BYTES_MAX))
    if history.identifier != content.issuer:
        raise _READ.error("a revocation list beside the history of somebody else")
    return SignedRevocations(content, history, encoded, message)


def _read_list(value: Any) -> RevocationList:
    fields = _READ.mapping(value, _KEYS)
    joined = _READ.byte_string(fields[_REVOKED], REVOKED_MAX * DIGEST_BYTES)
    digests = [
        joined[start : start + DIGEST_BYTES] for start in range(0, len(joined), DIGEST_BYTES)
    ]
    if len(joined) % DIGEST_BYTES:
        raise _READ.error("revoked identifiers that are not whole")
    if any(first >= second for first, second in pairwise(digests)):
        raise _READ.error("revoked identifiers that are not in order")
    try:
        trust_domain = validate_trust_domain(_READ.text(fields[_TRUST_DOMAIN], SEGMENT_CHARS_MAX))
    except IdentityError as error:
        raise _READ.error(error.detail) from error
    content = RevocationList(
        issuer=Identifier(_READ.fixed_bytes(fields[_ISSUER], DIGEST_BYTES)),
        trust_domain=trust_domain,
        issuer_change_number=_READ.integer(fields[_CHANGE], CHANGES_MAX - 1),
        number=_READ.integer(fields[_NUMBER], UNIX_S_MAX),
        issued_unix_s=_READ.integer(fields[_ISSUED]),
        next_update_unix_s=_READ.integer(fields[_NEXT_UPDATE]),
        revoked=frozenset(digests),
    )
    if not 0 < content.next_update_unix_s - content.issued_unix_s <= NEXT_UPDATE_S_MAX:
        raise _READ.error("a revocation list that is good for too long or not at all")
    if content.issuer in content:
        raise _READ.error("an authority that revokes itself")
    return content


class RevocationLists:
    """The newest verified list of each authority, and whether it is too old to let anybody in.

    Pure, and shared by all verifiers of a node. ``expected_since`` tells from when on an authority
    that has never shown a list is waited for: whoever withholds the first gains no more than who
    withholds a later one.
    """

    def __init__(
        self, *, grace_s: int = GRACE_S, expected_since: Mapping[Identifier, int] | None = None
    ) -> None:
        self._grace_s = grace_s
        self._lists: dict[Identifier, RevocationList] = {}
        self._expected_since: Mapping[Identifier, int] = MappingProxyType(
            dict(expected_since or {})
        )

    def expect(self, since: Mapping[Identifier, int]) -> None:
        """From when on each trusted authority owes a list; lists of others are forgotten."""
        self._expected_since = MappingProxyType(dict(since))
        self._lists = {issuer: one for issuer, one in self._lists.items() if issuer in since}

    def newest(self, issuer: Identifier) -> RevocationList | None:
        return self._lists.get(issuer)

    def number(self, issuer: Identifier) -> int:
        """The number of the newest list; 0 without one."""
        known = self._lists.get(issuer)
        return 0 if known is None else known.number

    def take(self, verified: RevocationList) -> bool:
        """Keep a verified list. False for the one that is held already.

        Raises IdentityError (CHANNEL_REVOCATIONS_OUTDATED) for an older one, and for another of
        the same number.
        """
        known = self._lists.get(verified.issuer)
        if known is not None:
            if known == verified:
                return False
            if verified.number <= known.number:
                raise IdentityError(
                    Code.CHANNEL_REVOCATIONS_OUTDATED,
                    f"revocation list {verified.number}, and {known.number} has been seen",
                )
        self._lists[verified.issuer] = verified
        return True

    def check(self, authority: Identifier, identifier: Identifier) -> None:
        """Raise IdentityError (CHANNEL_REVOKED) if this authority has revoked this identity."""
        known = self._lists.get(authority)
        if known is not None and identifier.digest in known.revoked:
            raise IdentityError(
                Code.CHANNEL_REVOKED, f"{identifier}, by revocation list {known.number}"
            )

    def check_fresh(self, authority: Identifier, unix_s: float) -> None:
        """Raise IdentityError (CHANNEL_REVOCATIONS_STALE) once the grace of a list is over."""
        if unix_s >= self.good_until_unix_s(authority):
            raise IdentityError(
                Code.CHANNEL_REVOCATIONS_STALE,
                f"no revocation list of {authority} since its last one went out of date",
            )

    def good_until_unix_s(self, authority: Identifier) -> int:
        """When new channels to this authority's members stop, unless a newer list comes."""
        known = self._lists.get(authority)
        if known is not None:
            return known.next_update_unix_s + self._grace_s
        since = self._expected_since.get(authority)
        return UNIX_S_MAX if since is None else since + self._grace_s
