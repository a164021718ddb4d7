"""Identifiers: one text for each, and every slip of the pen is noticed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import Code, Identifier, IdentityError

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
ZERO = "sl1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqc96j3q"

digests = st.binary(min_size=32, max_size=32)


def reference_text(digest: bytes, *, constant: int = 0x2BC830A3, padding: int = 0) -> str:
    """BIP-350 as its authors' reference code has it, step by step."""
    number = int.from_bytes(digest, "big") << 4 | padding
    data = [number >> shift & 31 for shift in range(255, -1, -5)]
    expanded = [ord(c) >> 5 for c in "sl"] + [0] + [ord(c) & 31 for c in "sl"]
    check = 1
    for value in [*expanded, *data, 0, 0, 0, 0, 0, 0]:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, term in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= term if top >> bit & 1 else 0
    check ^= constant
    data += [check >> 5 * (5 - place) & 31 for place in range(6)]
    return "sl1" + "".join(ALPHABET[value] for value in data)


@given(digests)
def test_the_text_is_bech32m_and_reads_back(digest: bytes) -> None:
    identifier = Identifier(digest)

    assert str(identifier) == reference_text(digest)
    assert Identifier.parse(str(identifier)) == identifier


WHAT_IS_NOT_AN_IDENTIFIER = {
    "nothing": "",
    "the prefix alone": "sl1",
    "upper case": ZERO.upper(),
    "mixed case": ZERO.replace("q", "Q", 1),
    "another human part": "bc" + ZERO[2:],
    "too short": ZERO[:-1],
    "too long": ZERO + "q",
    "a character that bech32 leaves out": ZERO[:10] + "b" + ZERO[11:],
    "the separator within the data": ZERO[:10] + "1" + ZERO[11:],
    "white space at the end": ZERO[:-1] + "\n",
    "letters of another script": ZERO[:10] + "\u0430" + ZERO[11:],
    "a base32 letter": ZERO[:10] + "A" + ZERO[11:],
    "base32 padding": ZERO[:54] + "=" + ZERO[55:],
    "a bech32 checksum instead of bech32m": reference_text(bytes(32), constant=1),
    "padding that is not zero": reference_text(bytes(32), padding=1),
    "the empty checksum": ZERO[:-6] + "qqqqqq",
}


@pytest.mark.parametrize(
    "text", WHAT_IS_NOT_AN_IDENTIFIER.values(), ids=WHAT_IS_NOT_AN_IDENTIFIER.keys()
)
def test_what_is_not_an_identifier_is_refused(text: str) -> None:
    with pytest.raises(IdentityError) as caught:
        Identifier.parse(text)

    assert caught.value.code is Code.CHANNEL_PROOF_INVALID


@given(digests, st.integers(3, 60), st.sampled_from(ALPHABET))
def test_one_wrong_character_is_noticed(digest: bytes, place: int, character: str) -> None:
    text = str(Identifier(digest))
    if text[place] == character:
        return

    with pytest.raises(IdentityError):
        Identifier.parse(text[:place] + character + text[place + 1 :])


@given(st.text())
def test_no_text_raises_anything_else(text: str) -> None:
    with pytest.raises(IdentityError):
        Identifier.parse(text)


@pytest.mark.parametrize("value", [b"", bytes(31), bytes(33), bytearray(32), "x" * 32, None, 7])
def test_only_32_bytes_are_an_identifier(value: object) -> None:
    with pytest.raises(IdentityError):
        Identifier.from_bytes_untrusted(value)
    with pytest.raises(ValueError, match="32 bytes"):
        Identifier(value)  # type: ignore[arg-type]


def test_identifiers_sort_by_their_bytes() -> None:
    low, high = Identifier(b"\x00" * 31 + b"\x01"), Identifier(b"\x01" + b"\x00" * 31)

    assert sorted([high, low]) == [low, high]
