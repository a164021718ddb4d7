"""Identifiers: the self-certifying name of an identity, printed as bech32m (BIP-350) `sl1…`."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from identity.codes import Code
from identity.errors import IdentityError

DIGEST_BYTES: Final = 32
HUMAN_PART: Final = "sl"
TEXT_CHARS: Final = 61  # "sl1", 52 characters of data, 6 of checksum.
# Texts of identifiers that were printed last are kept, at a third of a KiB each.
TEXTS_KEPT_MAX: Final = 1_024

_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_CHARACTERS: Final = frozenset(_ALPHABET)
_PAIRS: Final = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
# The digits of int(text, 32), in the order of the alphabet.
_TO_DIGITS: Final = str.maketrans(_ALPHABET, "0123456789abcdefghijklmnopqrstuv")

_PREFIX: Final = HUMAN_PART + "1"
_CHECKSUM_CHARS: Final = 6
_DATA_CHARS: Final = -(-DIGEST_BYTES * 8 // 5)
_PADDING_BITS: Final = _DATA_CHARS * 5 - DIGEST_BYTES * 8
_DATA_SHIFTS: Final = tuple(range((_DATA_CHARS - 2) * 5, -1, -10))
_BECH32M: Final = 0x2BC830A3
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)

assert len(_PREFIX) + _DATA_CHARS + _CHECKSUM_CHARS == TEXT_CHARS
# The checksum below takes two characters in each step.
assert _DATA_CHARS % 2 == 0
assert _CHECKSUM_CHARS % 2 == 0


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


def _step(state: int, value: int) -> int:
    """One step of the checksum of BIP-173: one character."""
    top = state >> 25
    state = (state & 0x1FFFFFF) << 5 ^ value
    for bit, term in enumerate(_GENERATOR):
        if top >> bit & 1:
            state ^= term
    return state


def _steps(state: int, values: list[int]) -> int:
    for value in values:
        state = _step(state, value)
    return state


# The human-readable part never changes, so its share of the checksum is a constant.
_START: Final = _steps(
    1, [ord(c) >> 5 for c in HUMAN_PART] + [0] + [ord(c) & 31 for c in HUMAN_PART]
)
# What the top ten bits fold back in over two steps: half the work for each identifier.
_FOLD: Final = tuple(_steps(top << 20, [0, 0]) for top in range(1024))


@lru_cache(maxsize=TEXTS_KEPT_MAX)
def _print(digest: bytes) -> str:
    number = int.from_bytes(digest, "big") << _PADDING_BITS
    state = _START
    parts = [_PREFIX]
    for shift in _DATA_SHIFTS:
        pair = number >> shift & 0x3FF
        parts.append(_PAIRS[pair])
        state = (state & 0xFFFFF) << 10 ^ pair ^ _FOLD[state >> 20]
    for _ in range(_CHECKSUM_CHARS // 2):
        state = (state & 0xFFFFF) << 10 ^ _FOLD[state >> 20]
    state ^= _BECH32M
    parts += [_PAIRS[state >> shift & 0x3FF] for shift in (20, 10, 0)]
    return "".join(parts)


def _parse(text: str) -> Identifier:
    if len(text) != TEXT_CHARS or not text.startswith(_PREFIX):
        raise _malformed(f"an identifier is {TEXT_CHARS} characters and starts with {_PREFIX}")
    if not _CHARACTERS.issuperset(text[len(_PREFIX) :]):
        raise _malformed("an identifier holds a character that is not in its alphabet")
    data = text[len(_PREFIX) : len(_PREFIX) + _DATA_CHARS]
    number = int(data.translate(_TO_DIGITS), 32) >> _PADDING_BITS
    digest = number.to_bytes(DIGEST_BYTES, "big")
    # One identifier, one text: this holds for the checksum and for the bits of padding.
    if _print(digest) != text:
        raise _malformed("the checksum of an identifier is wrong: look for a typing error")
    return Identifier(digest)


def _malformed(detail: str) -> IdentityError:
    return IdentityError(Code.CHANNEL_PROOF_INVALID, detail)
