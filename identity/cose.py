"""COSE_Sign1 (RFC 9052) with EdDSA: one payload, one signature, one declared type.

The protected header is fixed for each type: {1: -8, 16: type} (`typ` is RFC 9596). So a signature
made for one kind of object can never be read as another. Messages are untagged and their
unprotected header is empty; there is nothing in them that is not signed but the signature.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from identity import cbor
from identity.codes import Code
from identity.errors import IdentityError
from identity.fields import Reader
from identity.keys import SIGNATURE_BYTES, SigningKey, VerifyKey

SIGNATURE_CHECKS_MAX: Final = 16

_HEADER_ALGORITHM: Final = 1
_HEADER_TYPE: Final = 16
_EDDSA: Final = -8
_PROTECTED_BYTES_MAX: Final = 128


class SignedType(StrEnum):
    CHANGE = "application/sidelink-change+cbor"
    ATTESTATION = "application/sidelink-attestation+cbor"
    CREDENTIAL = "application/sidelink-credential+cwt"
    REVOCATIONS = "application/sidelink-revocations+cbor"
    CHECKPOINT = "application/sidelink-checkpoint+cbor"
    POLICY_MANDATE = "application/sidelink-policy-mandate+cbor"
    POLICY_BUNDLE = "application/sidelink-policy-bundle+cbor"


_PROTECTED: Final = {
    signed_type: cbor.encode({_HEADER_ALGORITHM: _EDDSA, _HEADER_TYPE: signed_type.value})
    for signed_type in SignedType
}
# ["Signature1", protected, no external data, payload] without its last item, an empty byte string.
_SIG_STRUCTURE_HEAD: Final = {
    signed_type: cbor.encode(["Signature1", protected, b"", b""])[:-1]
    for signed_type, protected in _PROTECTED.items()
}


class SignatureBudget:
    """Counts signature checks, so that a peer's proof cannot cost more than it may."""

    __slots__ = ("checks_max", "spent")

    def __init__(self, checks_max: int = SIGNATURE_CHECKS_MAX) -> None:
        self.checks_max = checks_max
        self.spent = 0

    def charge(self, checks: int) -> None:
        """Called before the checks are made. Raises IdentityError when they are too many."""
        if self.spent + checks > self.checks_max:
            raise IdentityError(
                Code.CHANNEL_TOO_MANY_SIGNATURES, f"more than {self.checks_max} signatures"
            )
        self.spent += checks


@dataclass(frozen=True, slots=True)
class SignedMessage:
    """A payload and a signature that nobody has checked yet."""

    signed_type: SignedType
    payload: bytes
    signature: bytes

    def encode(self) -> bytes:
        """The COSE_Sign1 message."""
        return cbor.encode([_PROTECTED[self.signed_type], {}, self.payload, self.signature])

    def verify(self, key: VerifyKey, budget: SignatureBudget, code: Code) -> None:
        """Check the signature over the exact bytes received, or raise with the given code."""
        verify_detached(self.signed_type, self.payload, self.signature, key, budget, code)


def sign(key: SigningKey, signed_type: SignedType, payload: bytes) -> SignedMessage:
    return SignedMessage(signed_type, payload, sign_detached(key, signed_type, payload))


def sign_detached(key: SigningKey, signed_type: SignedType, payload: bytes) -> bytes:
    """The signature alone, for an object that carries two of them over one payload."""
    return key.sign(_to_be_signed(signed_type, payload))


def verify_detached(
    signed_type: SignedType,
    payload: bytes,
    signature: bytes,
    key: VerifyKey,
    budget: SignatureBudget,
    code: Code,
) -> None:
    budget.charge(1)
    try:
        key.verify(signature, _to_be_signed(signed_type, payload))
    except IdentityError as error:
        raise IdentityError(code, f"wrong signature on {signed_type.value}") from error


def decode_untrusted(
    data: bytes, signed_type: SignedType, *, bytes_max: int, code: Code
) -> SignedMessage:
    """Take a COSE_Sign1 message of the expected type apart. The signature is not checked."""
    read = Reader(code)
    value = cbor.decode_untrusted(data, bytes_max=bytes_max, depth_max=2, code=code)
    protected, unprotected, payload, signature = read.array(value, 4, 4)
    if read.byte_string(protected, _PROTECTED_BYTES_MAX) != _PROTECTED[signed_type]:
        raise read.error(f"not an EdDSA signature on {signed_type.value}")
    if unprotected != {}:
        raise read.error("an unprotected header that is not empty")
    return SignedMessage(
        signed_type,
        read.byte_string(payload, bytes_max),
        read.fixed_bytes(signature, SIGNATURE_BYTES),
    )


def _to_be_signed(signed_type: SignedType, payload: bytes) -> bytes:
    """The Sig_structure of RFC 9052, section 4.4: its first three items are fixed for a type."""
    return _SIG_STRUCTURE_HEAD[signed_type] + cbor.encode(payload)
