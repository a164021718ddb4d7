"""Bodies of the frames by which neighbours pass on revocation lists."""

from dataclasses import dataclass, field
from typing import Any, Final

from identity import (
    REVOCATIONS_WITH_HISTORY_BYTES_MAX,
    CborError,
    Identifier,
)
from identity.cbor import decode_untrusted, encode
from identity.identifier import DIGEST_BYTES
from link.errors import FrameError
from link.limits import FRAME_BODY_BYTES_MAX

HELD_LISTS_MAX: Final = 64
LIST_PART_BYTES_MAX: Final = 48 << 10
LIST_NUMBER_MAX: Final = (1 << 63) - 1

assert LIST_PART_BYTES_MAX + 128 <= FRAME_BODY_BYTES_MAX


@dataclass(frozen=True, slots=True)
class HeldList:
    """The newest list of one authority that the sender holds; number 0 for none."""

    authority: Identifier
    number: int


@dataclass(frozen=True, slots=True)
class ListPart:
    """A piece of a list that is longer than a frame. Pieces come in order, from offset 0."""

    authority: Identifier
    number: int
    total_bytes: int
    offset: int
    data: bytes = field(repr=False)


def encode_held_lists(held: tuple[HeldList, ...]) -> bytes:
    return encode([[one.authority.digest, one.number] for one in held])


def decode_held_lists_untrusted(body: bytes) -> tuple[HeldList, ...]:
    items = _array_untrusted(body)
    if len(items) > HELD_LISTS_MAX:
        raise FrameError(f"more than {HELD_LISTS_MAX} lists")
    held = []
    for item in items:
        if not isinstance(item, list) or len(item) != 2:
            raise FrameError("a list that is held has an authority and a number")
        held.append(
            HeldList(_authority_untrusted(item[0]), _uint_untrusted(item[1], LIST_NUMBER_MAX))
        )
    if len({one.authority for one in held}) != len(held):
        raise FrameError("an authority is named twice")
    return tuple(held)


def list_parts(authority: Identifier, number: int, encoded: bytes) -> list[ListPart]:
    """A whole list, cut to fit frames."""
    return [
        ListPart(
            authority, number, len(encoded), offset, encoded[offset : offset + LIST_PART_BYTES_MAX]
        )
        for offset in range(0, len(encoded), LIST_PART_BYTES_MAX)
    ]


def encode_list_part(part: ListPart) -> bytes:
    return encode([part.authority.digest, part.number, part.total_bytes, part.offset, part.data])


def decode_list_part_untrusted(body: bytes) -> ListPart:
    items = _array_untrusted(body)
    if len(items) != 5:
        raise FrameError("a part of a list has five fields")
    authority, number, total_bytes, offset, data = items
    part = ListPart(
        _authority_untrusted(authority),
        _uint_untrusted(number, LIST_NUMBER_MAX),
        _uint_untrusted(total_bytes, REVOCATIONS_WITH_HISTORY_BYTES_MAX),
        _uint_untrusted(offset, REVOCATIONS_WITH_HISTORY_BYTES_MAX),
        data,
    )
    if type(data) is not bytes or not 0 < len(data) <= LIST_PART_BYTES_MAX:
        raise FrameError(f"a part of a list has 1 to {LIST_PART_BYTES_MAX} bytes")
    if part.offset + len(data) > part.total_bytes:
        raise FrameError("a part beyond the end of its list")
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
