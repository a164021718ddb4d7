"""Proofs as bytes: malformed, oversized, and every single flipped bit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity import (
    ChainLink,
    Code,
    IdentityError,
    Proof,
    Purpose,
    VerifiedPeer,
)
from identity.cbor import decode_untrusted, encode
from identity.proof import PROOF_BYTES_MAX
from tests.identity.helpers import (
    NOW,
    World,
    flip_bit,
    refused,
)

WORLD = World()
GOOD = WORLD.planner.proof(WORLD.planner_link(), WORLD.node_link())
PARTS = decode_untrusted(GOOD, bytes_max=PROOF_BYTES_MAX)
WHAT_IS_NOT_A_PROOF = {
    "no bytes": b"",
    "a trailing byte": GOOD + b"\x00",
    "half of a proof": GOOD[: len(GOOD) // 2],
    "not an array": encode({}),
    "three parts": encode(PARTS[:3]),
    "a version that is true": encode([True, *PARTS[1:]]),
    "a history that is text": encode([1, "x", *PARTS[2:]]),
    "a chain that is a map": encode([*PARTS[:3], {}]),
    "a link of one part": encode([*PARTS[:3], [[b""]]]),
    "five links": encode([*PARTS[:3], [PARTS[3][0]] * 5]),
    "a link that is null": encode([*PARTS[:3], [None]]),
    "an attestation that is too large": encode([*PARTS[:2], bytes(600), PARTS[3]]),
    "more bytes than a proof may have": encode([1, bytes(PROOF_BYTES_MAX), b"", []]),
}


@pytest.mark.parametrize("data", WHAT_IS_NOT_A_PROOF.values(), ids=WHAT_IS_NOT_A_PROOF.keys())
def test_what_is_not_a_proof_is_refused(data: bytes) -> None:
    assert refused(lambda: WORLD.verify(data, WORLD.planner)) is Code.CHANNEL_PROOF_INVALID


def test_a_proof_of_another_version_is_refused() -> None:
    proof = encode([2, *PARTS[1:]])

    assert refused(lambda: WORLD.verify(proof, WORLD.planner)) is Code.CHANNEL_VERSION_UNSUPPORTED


def test_a_proof_too_large_to_be_read_is_not_made() -> None:
    with pytest.raises(ValueError, match="too large"):
        Proof(bytes(PROOF_BYTES_MAX), b"", ()).encode()
    with pytest.raises(ValueError, match="too large"):
        Proof(b"", b"", (ChainLink(b"", b""),) * 9).encode()


def verify_fresh(proof: bytes) -> VerifiedPeer:
    """By a verifier that knows nothing yet: what the cache would spare is checked here."""
    return WORLD.new_verifier().verify(
        proof,
        purpose=Purpose.CHANNEL,
        noise_key=WORLD.planner.noise.public.raw,
        unix_s=NOW,
    )


BELIEVED = verify_fresh(GOOD)
# A pinned change needs no signature: the pin in a verified credential commits to its payload.
SPARED = frozenset(
    bit
    for person in (WORLD.planner, WORLD.node)
    for start in [8 * GOOD.index(person.history.changes[0].signature)]
    for bit in range(start, start + 8 * 64)
)


def check_flip(bit: int) -> None:
    if bit in SPARED:
        assert verify_fresh(flip_bit(GOOD, bit)) == BELIEVED
        return
    with pytest.raises(IdentityError):
        verify_fresh(flip_bit(GOOD, bit))


@settings(max_examples=150)
@given(st.integers(0, 8 * len(GOOD) - 1))
def test_a_flipped_bit_of_a_proof_is_refused_or_changes_nothing_that_is_believed(bit: int) -> None:
    check_flip(bit)


@pytest.mark.prove
def test_every_flipped_bit_of_a_proof_is_refused_or_changes_nothing_that_is_believed() -> None:
    for bit in range(8 * len(GOOD)):
        check_flip(bit)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with pytest.raises(IdentityError):
        WORLD.verify(data, WORLD.planner)


@settings(max_examples=60)
@given(st.integers(1, 3), st.binary(max_size=80))
def test_no_part_of_a_proof_raises_anything_else(place: int, part: bytes) -> None:
    parts = list(PARTS)
    parts[place] = [[part, part]] if place == 3 else part

    with pytest.raises(IdentityError):
        WORLD.verify(encode(parts), WORLD.planner)
