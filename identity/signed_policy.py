"""Signed policies: what all nodes of a trust domain obey, and who may say so for its authority.

Two signatures. The mandate, by the authority, names the signers who may publish beside it. The
bundle, by the authority or by one of those, holds the files. Both are numbered, and numbers only
grow: no old bundle can take the place of a newer one, and no signer who was left out comes back.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from identity import cbor, cose
from identity.codes import Code
from identity.cose import SignatureBudget, SignedMessage, SignedType
from identity.errors import IdentityError
from identity.fields import UNIX_S_MAX, Reader
from identity.history import CHANGES_MAX, CLOCK_SKEW_S, HISTORY_BYTES_MAX, ChangeHistory
from identity.identifier import DIGEST_BYTES, Identifier
from identity.own import ROTATIONS_MAX, OwnIdentity
from identity.uri import SEGMENT_CHARS_MAX, validate_trust_domain

SIGNERS_MAX: Final = 32
FILES_MAX: Final = 64
FILE_NAME_CHARS_MAX: Final = 128
FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
"""Of ASCII: which other characters are printable changes with the versions of Unicode."""
TEXT_BYTES_MAX: Final = 1 << 20
"""Of all files of a bundle together."""
BUNDLE_BYTES_MAX: Final = TEXT_BYTES_MAX + FILES_MAX * (FILE_NAME_CHARS_MAX + 16) + 1_024
MANDATE_BYTES_MAX: Final = SIGNERS_MAX * DIGEST_BYTES + 1_024
SIGNED_POLICY_BYTES_MAX: Final = (
    MANDATE_BYTES_MAX + HISTORY_BYTES_MAX + BUNDLE_BYTES_MAX + HISTORY_BYTES_MAX + 64
)
# Numbers follow the clock. One far ahead of it would make every later bundle an older one.
NUMBER_AHEAD_MAX: Final = 86_400
# A signer may run ahead less far than its authority: whatever it publishes, that has room above it.
SIGNER_AHEAD_MAX: Final = 3_600
# Of a signer's history. An authority's is checked once, and remembered.
SIGNER_SIGNATURES_MAX: Final = 2 * (ROTATIONS_MAX + 1)

# Neighbours compare one number: the mandate's, and what the bundle's is above that. So much fits:
# a year in which the authority signs nothing, which no credential outlives.
_ABOVE_MANDATE_BITS: Final = 25
_ABOVE_MANDATE_MAX: Final = (1 << _ABOVE_MANDATE_BITS) - 1

assert CLOCK_SKEW_S < SIGNER_AHEAD_MAX < NUMBER_AHEAD_MAX // 2

assert UNIX_S_MAX << _ABOVE_MANDATE_BITS < 1 << 63

_AUTHORITY, _TRUST_DOMAIN, _NUMBER, _ISSUED, _CHANGE, _SIGNERS = range(1, 7)
_MANDATE_KEYS: Final = frozenset(range(1, 7))
_SIGNER, _FILES = 6, 7
_BUNDLE_KEYS: Final = frozenset(range(1, 8))
_READ: Final = Reader(Code.POLICY_BUNDLE_INVALID)


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """One text of a bundle. The name is for people: it stands in errors."""

    name: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Mandate:
    """Whom an authority lets publish policies for its trust domain, beside itself."""

    authority: Identifier
    trust_domain: str
    number: int
    issued_unix_s: int
    change_number: int
    """Of the authority's history: the key that signed."""
    signers: frozenset[Identifier]


@dataclass(frozen=True, slots=True)
class PolicyBundle:
    """What a whole trust domain obeys. Without files: nothing, beside each node's own policy."""

    authority: Identifier
    trust_domain: str
    number: int
    issued_unix_s: int
    change_number: int
    """Of the signer's history."""
    signer: Identifier
    files: tuple[PolicyFile, ...]


@dataclass(frozen=True, slots=True)
class SignedPolicy:
    """A bundle and its mandate, with the exact bytes of all. Nothing is verified."""

    mandate: Mandate
    authority_history: ChangeHistory
    bundle: PolicyBundle
    signer_history: ChangeHistory
    """The authority's, where it has signed the bundle itself."""
    encoded: bytes = field(repr=False)
    mandate_message: SignedMessage = field(repr=False)
    bundle_message: SignedMessage = field(repr=False)

    @property
    def number(self) -> int:
        return self.bundle.number

    @property
    def rank(self) -> int:
        """What neighbours tell each other: higher for whatever takes the place of another one."""
        above = min(self.number - self.mandate.number, _ABOVE_MANDATE_MAX)
        return (self.mandate.number << _ABOVE_MANDATE_BITS) + above

    @property
    def is_by_authority(self) -> bool:
        return self.bundle.signer == self.bundle.authority

    def check_numbers(self, unix_s: float) -> None:
        """Raise IdentityError for what nobody with a sane clock issues now."""
        for one in (self.mandate, self.bundle):
            if one.issued_unix_s > unix_s + CLOCK_SKEW_S:
                raise IdentityError(Code.CHANNEL_NOT_YET_VALID, "a policy of the future")
            if one.number > unix_s + NUMBER_AHEAD_MAX:
                raise _READ.error("a policy whose number is far ahead of the clock")
        if not self.is_by_authority and self.number > unix_s + SIGNER_AHEAD_MAX:
            raise _READ.error("a signer's policy whose number is ahead of the clock")

    def check_newer(self, held: "SignedPolicy") -> None:
        """Raise IdentityError (POLICY_BUNDLE_OUTDATED) unless this may take the other's place."""
        # The mandate counts first: what a signer publishes while it is left out, or before it has
        # heard what its authority signs, must not be in the way of that anywhere.
        if self.mandate.number == held.mandate.number and self.number <= held.number:
            raise IdentityError(
                Code.POLICY_BUNDLE_OUTDATED,
                f"policy number {self.number}, and {held.number} has been seen",
            )
        if self.mandate.number < held.mandate.number:
            raise IdentityError(
                Code.POLICY_BUNDLE_OUTDATED,
                f"a policy under mandate {self.mandate.number}, "
                f"and {held.mandate.number} has been seen",
            )

    def verify(self, authority_history: ChangeHistory, unix_s: float) -> None:
        """Check all signatures, by keys that are good at ``unix_s``. Raises IdentityError.

        ``authority_history`` is the authority's, verified, and the longest one known.
        """
        code = Code.POLICY_BUNDLE_INVALID
        key, _ = authority_history.key_for(self.mandate.change_number, unix_s)
        self.mandate_message.verify(key, SignatureBudget(1), code)
        signer_history = authority_history
        if not self.is_by_authority:
            if self.bundle.signer not in self.mandate.signers:
                raise _READ.error("a policy by somebody whom its mandate does not name")
            signer_history = self.signer_history
            signer_history.verify_signatures(SignatureBudget(SIGNER_SIGNATURES_MAX))
        key, _ = signer_history.key_for(self.bundle.change_number, unix_s)
        self.bundle_message.verify(key, SignatureBudget(1), code)


def issue_policy(
    own: OwnIdentity,
    trust_domain: str,
    *,
    number: int,
    issued_unix_s: int,
    files: Sequence[PolicyFile],
    signers: Iterable[Identifier],
) -> bytes:
    """An authority's bundle, encoded, under a new mandate of the same number.

    IdentityError for contents that every verifier would refuse.
    """
    mandate = {
        _AUTHORITY: own.identifier.digest,
        _TRUST_DOMAIN: trust_domain,
        _NUMBER: number,
        _ISSUED: issued_unix_s,
        _CHANGE: _change_number(own),
        _SIGNERS: b"".join(sorted({signer.digest for signer in signers})),
    }
    _read_mandate(mandate)
    message = cose.sign(own.signing_key, SignedType.POLICY_MANDATE, cbor.encode(mandate))
    bundle = _sign_bundle(own, own.identifier, trust_domain, number, issued_unix_s, files)
    return cbor.encode([message.encode(), own.history.encode(), bundle])


def issue_policy_under(
    own: OwnIdentity,
    held: SignedPolicy,
    *,
    number: int,
    issued_unix_s: int,
    files: Sequence[PolicyFile],
) -> bytes:
    """A signer's bundle, encoded, under the mandate of a policy that is held.

    IdentityError for contents that every verifier would refuse, and for who is no signer there.
    """
    if own.identifier not in held.mandate.signers:
        raise _READ.error("the mandate does not name this identity as a signer")
    mandate = held.mandate
    bundle = _sign_bundle(
        own, mandate.authority, mandate.trust_domain, number, issued_unix_s, files
    )
    return cbor.encode(
        [
            held.mandate_message.encode(),
            held.authority_history.encode(),
            bundle,
            own.history.encode(),
        ]
    )


def decode_signed_policy_untrusted(encoded: bytes) -> SignedPolicy:
    """Read a mandate, a bundle and the histories beside them: structure only, no signature."""
    value = cbor.decode_untrusted(
        encoded, bytes_max=SIGNED_POLICY_BYTES_MAX, depth_max=1, code=_READ.code
    )
    parts = _READ.array(value, 4, 3)
    mandate_message, mandate_fields = _signed_untrusted(
        parts[0], SignedType.POLICY_MANDATE, MANDATE_BYTES_MAX, depth_max=1
    )
    mandate = _read_mandate(mandate_fields)
    authority_history = ChangeHistory.decode_untrusted(
        _READ.byte_string(parts[1], HISTORY_BYTES_MAX)
    )
    bundle_message, bundle_fields = _signed_untrusted(
        parts[2], SignedType.POLICY_BUNDLE, BUNDLE_BYTES_MAX, depth_max=3
    )
    bundle = _read_bundle(bundle_fields)
    signer_history = authority_history
    if len(parts) == 4:
        if bundle.signer == bundle.authority:
            raise _READ.error("the authority's history twice")
        signer_history = ChangeHistory.decode_untrusted(
            _READ.byte_string(parts[3], HISTORY_BYTES_MAX)
        )
    if (mandate.authority, mandate.trust_domain) != (bundle.authority, bundle.trust_domain):
        raise _READ.error("a policy under the mandate of another authority or trust domain")
    if bundle.number < mandate.number:
        raise _READ.error("a policy from before its mandate")
    if authority_history.identifier != mandate.authority:
        raise _READ.error("a mandate beside the history of somebody else")
    if signer_history.identifier != bundle.signer:
        raise _READ.error("a policy beside the history of somebody else")
    return SignedPolicy(
        mandate,
        authority_history,
        bundle,
        signer_history,
        encoded,
        mandate_message,
        bundle_message,
    )


def _change_number(own: OwnIdentity) -> int:
    # While a rotation is announced, the key before it still signs.
    return own.history.number_of(own.signing_key.verify_key)


def _sign_bundle(
    own: OwnIdentity,
    authority: Identifier,
    trust_domain: str,
    number: int,
    issued_unix_s: int,
    files: Sequence[PolicyFile],
) -> bytes:
    payload = {
        _AUTHORITY: authority.digest,
        _TRUST_DOMAIN: trust_domain,
        _NUMBER: number,
        _ISSUED: issued_unix_s,
        _CHANGE: _change_number(own),
        _SIGNER: own.identifier.digest,
        _FILES: [[file.name, file.text] for file in sorted(files, key=lambda one: one.name)],
    }
    _read_bundle(payload)
    return cose.sign(own.signing_key, SignedType.POLICY_BUNDLE, cbor.encode(payload)).encode()


def _signed_untrusted(
    value: Any, signed_type: SignedType, bytes_max: int, *, depth_max: int
) -> tuple[SignedMessage, Any]:
    message = cose.decode_untrusted(
        _READ.byte_string(value, bytes_max), signed_type, bytes_max=bytes_max, code=_READ.code
    )
    fields = cbor.decode_untrusted(
        message.payload, bytes_max=bytes_max, depth_max=depth_max, code=_READ.code
    )
    return message, fields


def _read_mandate(value: Any) -> Mandate:
    fields = _READ.mapping(value, _MANDATE_KEYS)
    joined = _READ.byte_string(fields[_SIGNERS], SIGNERS_MAX * DIGEST_BYTES)
    if len(joined) % DIGEST_BYTES:
        raise _READ.error("signers that are not whole")
    digests = [
        joined[start : start + DIGEST_BYTES] for start in range(0, len(joined), DIGEST_BYTES)
    ]
    if any(first >= second for first, second in pairwise(digests)):
        raise _READ.error("signers that are not in order")
    authority, trust_domain, number, issued_unix_s, change_number = _read_head(fields)
    signers = frozenset(map(Identifier, digests))
    if authority in signers:
        raise _READ.error("an authority that names itself as a signer")
    return Mandate(authority, trust_domain, number, issued_unix_s, change_number, signers)


def _read_bundle(value: Any) -> PolicyBundle:
    fields = _READ.mapping(value, _BUNDLE_KEYS)
    head = _read_head(fields)
    signer = Identifier(_READ.fixed_bytes(fields[_SIGNER], DIGEST_BYTES))
    files: list[PolicyFile] = []
    left_bytes = TEXT_BYTES_MAX
    for item in _READ.array(fields[_FILES], FILES_MAX):
        name, text = _READ.array(item, 2, 2)
        file = PolicyFile(_READ.text(name, FILE_NAME_CHARS_MAX), _READ.text(text, left_bytes))
        left_bytes -= len(file.text.encode())
        if not FILE_NAME.fullmatch(file.name):
            raise _READ.error("a file whose name is not of letters, digits, ., _ and -")
        files.append(file)
    if any(first.name >= second.name for first, second in pairwise(files)):
        raise _READ.error("files that are not in order")
    return PolicyBundle(*head, signer, tuple(files))


def _read_head(fields: dict[int, Any]) -> tuple[Identifier, str, int, int, int]:
    """What a mandate and a bundle begin with."""
    try:
        trust_domain = validate_trust_domain(_READ.text(fields[_TRUST_DOMAIN], SEGMENT_CHARS_MAX))
    except IdentityError as error:
        raise _READ.error(error.detail) from error
    return (
        Identifier(_READ.fixed_bytes(fields[_AUTHORITY], DIGEST_BYTES)),
        trust_domain,
        _READ.integer(fields[_NUMBER], UNIX_S_MAX, 1),
        _READ.integer(fields[_ISSUED]),
        _READ.integer(fields[_CHANGE], CHANGES_MAX - 1),
    )
