"""Purpose keys: one X25519 Noise static key per identity and purpose, attested by the identity."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from identity import cbor, cose
from identity.codes import Code
from identity.cose import SignedMessage, SignedType
from identity.errors import IdentityError
from identity.fields import Reader
from identity.history import CHANGES_MAX, CLOCK_SKEW_S, ChangeHistory
from identity.identifier import DIGEST_BYTES, Identifier
from identity.keys import KEY_BYTES, NoiseKey, NoisePublicKey, SigningKey

ATTESTATION_BYTES_MAX: Final = 512
# An attestation is short-lived, because nothing but time takes a Noise key out of use.
ATTESTATION_LIFETIME_S_MAX: Final = 90 * 86_400

_PURPOSE, _NOISE_KEY, _IDENTIFIER, _CHANGE_NUMBER, _NOT_BEFORE, _EXPIRES = 1, 2, 3, 4, 5, 6
_KEYS: Final = frozenset((_PURPOSE, _NOISE_KEY, _IDENTIFIER, _CHANGE_NUMBER, _NOT_BEFORE, _EXPIRES))
_READ: Final = Reader(Code.CHANNEL_ATTESTATION_INVALID)


class Purpose(StrEnum):
    """What a Noise key may be used for. A key of one purpose is refused for the other."""

    HOP = "hop"
    CHANNEL = "channel"


_PURPOSES: Final = {purpose.value: purpose for purpose in Purpose}


@dataclass(frozen=True, slots=True)
class PurposeKey:
    """A Noise key of our own with the encoded attestation that binds it to our identity."""

    purpose: Purpose
    key: NoiseKey
    attestation: bytes

    @property
    def since_unix_s(self) -> int:
        """When it was attested."""
        return decode_attestation_untrusted(self.attestation).not_before_unix_s


@dataclass(frozen=True, slots=True)
class Attestation:
    """What an attestation says. `message` carries the signature, which is still to be checked."""

    purpose: Purpose
    noise_public: NoisePublicKey
    identifier: Identifier
    change_number: int
    not_before_unix_s: int
    expires_unix_s: int
    message: SignedMessage

    def check_times(self, unix_s: float) -> None:
        if unix_s < self.not_before_unix_s - CLOCK_SKEW_S:
            raise IdentityError(Code.CHANNEL_NOT_YET_VALID, "an attestation of the future")
        if unix_s >= self.expires_unix_s:
            raise IdentityError(Code.CHANNEL_ATTESTATION_INVALID, "an attestation has expired")


def attest(
    signing_key: SigningKey,
    history: ChangeHistory,
    noise_public: NoisePublicKey,
    purpose: Purpose,
    *,
    not_before_unix_s: int,
    expires_unix_s: int,
) -> bytes:
    """An encoded attestation by a key of the identity's history. ValueError for a wrong argument.

    Of the current key, or, while a rotation is announced, of the one before it.
    """
    change_number = history.number_of(signing_key.verify_key)
    if not 0 < expires_unix_s - not_before_unix_s <= ATTESTATION_LIFETIME_S_MAX:
        raise ValueError("an attestation lives too long or not at all")
    payload = cbor.encode(
        {
            _PURPOSE: purpose.value,
            _NOISE_KEY: noise_public.raw,
            _IDENTIFIER: history.identifier.digest,
            _CHANGE_NUMBER: change_number,
            _NOT_BEFORE: not_before_unix_s,
            _EXPIRES: expires_unix_s,
        }
    )
    return cose.sign(signing_key, SignedType.ATTESTATION, payload).encode()


def decode_attestation_untrusted(encoded: bytes) -> Attestation:
    """Read an attestation and check its structure, but not its signature."""
    message = cose.decode_untrusted(
        encoded,
        SignedType.ATTESTATION,
        bytes_max=ATTESTATION_BYTES_MAX,
        code=Code.CHANNEL_ATTESTATION_INVALID,
    )
    value = cbor.decode_untrusted(
        message.payload,
        bytes_max=ATTESTATION_BYTES_MAX,
        depth_max=1,
        code=Code.CHANNEL_ATTESTATION_INVALID,
    )
    fields = _READ.mapping(value, _KEYS)
    purpose = _PURPOSES.get(_READ.text(fields[_PURPOSE], 16))
    if purpose is None:
        raise _READ.error("an attestation for an unknown purpose")
    attestation = Attestation(
        purpose=purpose,
        noise_public=NoisePublicKey(_READ.fixed_bytes(fields[_NOISE_KEY], KEY_BYTES)),
        identifier=Identifier(_READ.fixed_bytes(fields[_IDENTIFIER], DIGEST_BYTES)),
        change_number=_READ.integer(fields[_CHANGE_NUMBER], CHANGES_MAX - 1),
        not_before_unix_s=_READ.integer(fields[_NOT_BEFORE]),
        expires_unix_s=_READ.integer(fields[_EXPIRES]),
        message=message,
    )
    lifetime_s = attestation.expires_unix_s - attestation.not_before_unix_s
    if not 0 < lifetime_s <= ATTESTATION_LIFETIME_S_MAX:
        raise _READ.error("an attestation that lives too long or not at all")
    return attestation
