"""Identifiers: the self-certifying name of an identity, printed as bech32m (BIP-350) `sl1…`."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from identity.codes import Code
from identity.errors import IdentityError

DIGEST_BYTES: Final = 32
HUMAN_PART: Final = "sl"
TEXT_CHARS: Final = 61  # "sl1", 52 characters of data, 6 of checksum.

_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES: Final = {character: value for value, character in enumerate(_ALPHABET)}
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
# What the top five bits fold back in, for each of their 32 values.
_FOLD: Final = tuple(
    _GENERATOR[0] * (top & 1)
    ^ _GENERATOR[1] * (top >> 1 & 1)
    ^ _GENERATOR[2] * (top >> 2 & 1)
    ^ _GENERATOR[3] * (top >> 3 & 1)
    ^ _GENERATOR[4] * (top >> 4 & 1)
    for top in range(32)
)
_BECH32M: Final = 0x2BC830A3
_CHECKSUM_CHARS: Final = 6
_DATA_CHARS: Final = -(-DIGEST_BYTES * 8 // 5)
_PADDING_BITS: Final = _DATA_CHARS * 5 - DIGEST_BYTES * 8

assert len(HUMAN_PART) + 1 + _DATA_CHARS + _CHECKSUM_CHARS == TEXT_CHARS


@dataclass(frozen=True, slots=True, order=True)
class Identifier:
    """The SHA-256 of the payload of change 0. Raises ValueError unless it is 32 bytes."""

    digest: bytes

    def __post_init__(self) -> None:
        if type(self.digest) is not bytes or len(self.digest) != DIGEST_BYTES:
            raise ValueError(f"an identifier is {DIGEST_BYTES} bytes")

    def __str__(self) -> str:
        return _print(self.digest)

    def __repr__(self) -> str:
        return f"Identifier({_print(self.digest)})"

    @classmethod
    def parse(cls, text: str) -> "Identifier":
        """Read `sl1…`. Only the lowercase spelling: one identifier, one text."""
        if type(text) is not str:
            raise _malformed("an identifier is text")
        return _parse(text)

    @classmethod
    def from_bytes_untrusted(cls, digest: object) -> "Identifier":
        if type(digest) is not bytes or len(digest) != DIGEST_BYTES:
            raise IdentityError(Code.CHANNEL_PROOF_INVALID, "an identifier is 32 bytes")
        return cls(digest)


def _polymod(values: list[int], state: int = 1) -> int:
    for value in values:
        state = ((state & 0x1FFFFFF) << 5) ^ value ^ _FOLD[state >> 25]
    return state


# The human-readable part is always the same, so its share of the checksum is a constant.
_AFTER_HUMAN_PART: Final = _polymod(
    [ord(c) >> 5 for c in HUMAN_PART] + [0] + [ord(c) & 31 for c in HUMAN_PART]
)


@lru_cache(maxsize=8192)
def _print(digest: bytes) -> str:
    number = int.from_bytes(digest, "big") << _PADDING_BITS
    values = [(number >> shift) & 31 for shift in range((_DATA_CHARS - 1) * 5, -1, -5)]
    checksum = _polymod([*values, *[0] * _CHECKSUM_CHARS], _AFTER_HUMAN_PART) ^ _BECH32M
    values += [(checksum >> shift) & 31 for shift in range(25, -1, -5)]
    return HUMAN_PART + "1" + "".join([_ALPHABET[value] for value in values])


@lru_cache(maxsize=8192)
def _parse(text: str) -> Identifier:
    # The length comes first: what follows, and what the cache keeps, is then bounded.
    if len(text) != TEXT_CHARS or not text.startswith(HUMAN_PART + "1"):
        raise _malformed(f"an identifier is {TEXT_CHARS} characters and starts with {HUMAN_PART}1")
    values = [_VALUES.get(character, -1) for character in text[len(HUMAN_PART) + 1 :]]
    if -1 in values:
        raise _malformed("an identifier holds a character that is not in its alphabet")
    if _polymod(values, _AFTER_HUMAN_PART) != _BECH32M:
        raise _malformed("the checksum of an identifier is wrong: look for a typing error")
    number = 0
    for value in values[:_DATA_CHARS]:
        number = number << 5 | value
    if number & ((1 << _PADDING_BITS) - 1):
        raise _malformed("an identifier has padding that is not zero")
    return Identifier((number >> _PADDING_BITS).to_bytes(DIGEST_BYTES, "big"))


def _malformed(detail: str) -> IdentityError:
    return IdentityError(Code.CHANNEL_PROOF_INVALID, detail)
