"""Attestations: which Noise key an identity uses, and for what."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity import Code, IdentityError, Purpose, SignatureBudget, SigningKey, attest
from identity.cbor import encode
from identity.cose import SignedType, sign
from identity.purpose import ATTESTATION_LIFETIME_S_MAX, decode_attestation_untrusted
from tests.identity.helpers import DAY_S, NOW, Person, flip_bit

PURPOSE, NOISE_KEY, IDENTIFIER, CHANGE_NUMBER, NOT_BEFORE, EXPIRES, UNKNOWN = range(1, 8)


def test_an_attestation_reads_back_as_it_was_made() -> None:
    person = Person().rotated()

    attestation = decode_attestation_untrusted(person.attestation(Purpose.HOP))

    assert attestation.purpose is Purpose.HOP
    assert attestation.noise_public == person.noise.public
    assert attestation.identifier == person.history.identifier
    assert attestation.change_number == 1
    attestation.message.verify(
        person.key.verify_key, SignatureBudget(), Code.CHANNEL_ATTESTATION_INVALID
    )


def attestation(
    person: Person, *, signed_type: SignedType = SignedType.ATTESTATION, **changes: Any
) -> bytes:
    fields: dict[int, Any] = {
        PURPOSE: "channel",
        NOISE_KEY: person.noise.public.raw,
        IDENTIFIER: person.history.identifier.digest,
        CHANGE_NUMBER: 0,
        NOT_BEFORE: NOW,
        EXPIRES: NOW + DAY_S,
    }
    fields |= {globals()[name]: value for name, value in changes.items()}
    return sign(person.key, signed_type, encode(fields)).encode()


PERSON = Person()
WHAT_IS_NOT_AN_ATTESTATION = {
    "no bytes": b"",
    "not an array": encode({}),
    "three parts": encode([b"", {}, b""]),
    "a tag": b"\xd2" + attestation(PERSON),
    "a trailing byte": attestation(PERSON) + b"\x00",
    "signed as a credential": attestation(PERSON, signed_type=SignedType.CREDENTIAL),
    "signed as a change": attestation(PERSON, signed_type=SignedType.CHANGE),
    "an unprotected header": encode([b"\xa1\x01\x27", {4: b""}, b"", bytes(64)]),
    "an unknown purpose": attestation(PERSON, PURPOSE="stream"),
    "a purpose that is a number": attestation(PERSON, PURPOSE=1),
    "a key that is too short": attestation(PERSON, NOISE_KEY=bytes(31)),
    "an identifier that is too short": attestation(PERSON, IDENTIFIER=bytes(31)),
    "a change number below zero": attestation(PERSON, CHANGE_NUMBER=-1),
    "a change number of true": attestation(PERSON, CHANGE_NUMBER=True),
    "a life of no seconds": attestation(PERSON, EXPIRES=NOW),
    "a life that is too long": attestation(PERSON, EXPIRES=NOW + ATTESTATION_LIFETIME_S_MAX + 1),
    "an unknown field": attestation(PERSON, UNKNOWN=1),
    "more bytes than an attestation has": attestation(PERSON, PURPOSE="x" * 600),
}


@pytest.mark.parametrize(
    "data", WHAT_IS_NOT_AN_ATTESTATION.values(), ids=WHAT_IS_NOT_AN_ATTESTATION.keys()
)
def test_what_is_not_an_attestation_is_refused(data: bytes) -> None:
    with pytest.raises(IdentityError) as caught:
        decode_attestation_untrusted(data)

    assert caught.value.code is Code.CHANNEL_ATTESTATION_INVALID


@settings(max_examples=60)
@given(st.data())
def test_no_flipped_bit_of_an_attestation_goes_unnoticed(data: st.DataObject) -> None:
    encoded = PERSON.attestation()
    bit = data.draw(st.integers(0, 8 * len(encoded) - 1))

    with pytest.raises(IdentityError):
        decode_attestation_untrusted(flip_bit(encoded, bit)).message.verify(
            PERSON.key.verify_key, SignatureBudget(), Code.CHANNEL_ATTESTATION_INVALID
        )


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with pytest.raises(IdentityError):
        decode_attestation_untrusted(data)


def test_an_attestation_that_no_verifier_accepts_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="too long"):
        PERSON.attestation(expires_unix_s=NOW + 365 * DAY_S)
    with pytest.raises(ValueError, match="lacks"):
        attest(
            SigningKey.generate(),
            PERSON.history,
            PERSON.noise.public,
            Purpose.HOP,
            not_before_unix_s=NOW,
            expires_unix_s=NOW + 1,
        )
