"""Bodies of the frames by which neighbours pass on signed documents, newest first.

Documents are revocation lists and mandatory policies: numbered, one authority's, and longer than a
frame.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from identity import CborError, Identifier
from identity.cbor import decode_untrusted, encode
from identity.identifier import DIGEST_BYTES
from link.errors import FrameError
from link.limits import FRAME_BODY_BYTES_MAX

HELD_MAX: Final = 64
PART_BYTES_MAX: Final = 48 << 10
NUMBER_MAX: Final = (1 << 63) - 1

assert PART_BYTES_MAX + 128 <= FRAME_BODY_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Held:
    """The newest document of one authority that the sender holds; number 0 for none."""

    authority: Identifier
    number: int


@dataclass(frozen=True, slots=True)
class DocumentPart:
    """A piece of a document that is longer than a frame. Pieces come in order, from offset 0."""

    authority: Identifier
    number: int
    total_bytes: int
    offset: int
    data: bytes = field(repr=False)


def encode_held(held: tuple[Held, ...]) -> bytes:
    return encode([[one.authority.digest, one.number] for one in held])


def decode_held_untrusted(body: bytes) -> tuple[Held, ...]:
    items = _array_untrusted(body)
    if len(items) > HELD_MAX:
        raise FrameError(f"more than {HELD_MAX} documents")
    held = []
    for item in items:
        if not isinstance(item, list) or len(item) != 2:
            raise FrameError("a document that is held has an authority and a number")
        held.append(Held(_authority_untrusted(item[0]), _uint_untrusted(item[1], NUMBER_MAX)))
    if len({one.authority for one in held}) != len(held):
        raise FrameError("an authority is named twice")
    return tuple(held)


def parts_of(authority: Identifier, number: int, encoded: bytes) -> list[DocumentPart]:
    """A whole document, cut to fit frames."""
    return [
        DocumentPart(
            authority, number, len(encoded), offset, encoded[offset : offset + PART_BYTES_MAX]
        )
        for offset in range(0, len(encoded), PART_BYTES_MAX)
    ]


def encode_part(part: DocumentPart) -> bytes:
    return encode([part.authority.digest, part.number, part.total_bytes, part.offset, part.data])


def decode_part_untrusted(body: bytes, total_bytes_max: int) -> DocumentPart:
    """``total_bytes_max`` is how long a document of this kind may be. Raises FrameError."""
    items = _array_untrusted(body)
    if len(items) != 5:
        raise FrameError("a part of a document has five fields")
    authority, number, total_bytes, offset, data = items
    part = DocumentPart(
        _authority_untrusted(authority),
        _uint_untrusted(number, NUMBER_MAX),
        _uint_untrusted(total_bytes, total_bytes_max),
        _uint_untrusted(offset, total_bytes_max),
        data,
    )
    if type(data) is not bytes or not 0 < len(data) <= PART_BYTES_MAX:
        raise FrameError(f"a part of a document has 1 to {PART_BYTES_MAX} bytes")
    if part.offset + len(data) > part.total_bytes:
        raise FrameError("a part beyond the end of its document")
    return part


def _array_untrusted(body: bytes) -> list[Any]:
    try:
        value = decode_untrusted(body, bytes_max=FRAME_BODY_BYTES_MAX, depth_max=2)
    except CborError as exc:
        raise FrameError(exc.detail) from exc
    if not isinstance(value, list):
        raise FrameError("expected an array")
    return value


def _authority_untrusted(value: object) -> Identifier:
    if type(value) is not bytes or len(value) != DIGEST_BYTES:
        raise FrameError("an authority is 32 bytes")
    return Identifier(value)


def _uint_untrusted(value: object, limit: int) -> int:
    if type(value) is not int or not 0 <= value <= limit:
        raise FrameError(f"expected an integer from 0 to {limit}")
    return value
