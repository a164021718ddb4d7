"""Bodies by which neighbours pass on revocation lists: round trips, and what is refused."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity import REVOCATIONS_WITH_HISTORY_BYTES_MAX, Code, Identifier
from identity.cbor import encode
from link import FrameError, FrameKind, encode_frame
from link.trust_messages import (
    HELD_MAX,
    NUMBER_MAX,
    PART_BYTES_MAX,
    DocumentPart,
    Held,
    decode_held_untrusted,
    decode_part_untrusted,
    encode_held,
    encode_part,
    parts_of,
)
from tests.link.helpers import code_of_refusal

ACME = Identifier(bytes(range(32)))
GLOBEX = Identifier(bytes(32))
PART = DocumentPart(ACME, 7, 300, 200, b"x" * 100)

read_part = partial(decode_part_untrusted, total_bytes_max=REVOCATIONS_WITH_HISTORY_BYTES_MAX)
Codec = tuple[Callable[[Any], bytes], Callable[[bytes], Any], Any]
CODECS: dict[str, Codec] = {
    "LISTS_HELD": (
        encode_held,
        decode_held_untrusted,
        (Held(ACME, 0), Held(GLOBEX, NUMBER_MAX)),
    ),
    "LISTS_HELD of nobody": (encode_held, decode_held_untrusted, ()),
    "LIST": (encode_part, read_part, PART),
}


@pytest.mark.parametrize("name", CODECS)
def test_a_body_is_read_as_it_was_written(name: str) -> None:
    write, read, value = CODECS[name]

    assert read(write(value)) == value


@pytest.mark.parametrize("name", CODECS)
def test_a_body_that_is_cut_anywhere_or_has_a_tail_is_refused(name: str) -> None:
    write, read, value = CODECS[name]
    whole = write(value)

    for wrong in [whole[:at] for at in range(len(whole))] + [whole + b"\0"]:
        with pytest.raises(FrameError):
            read(wrong)


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=40)
@given(data=st.binary(max_size=80))
def test_arbitrary_bytes_raise_nothing_but_a_frame_error(name: str, data: bytes) -> None:
    _, read, _ = CODECS[name]

    assert code_of_refusal(lambda: read(data)) in (None, Code.HOP_BAD_FRAME)


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=40)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_raises_nothing_but_a_frame_error(name: str, at: int, bit: int) -> None:
    write, read, value = CODECS[name]
    changed = bytearray(write(value))
    changed[at % len(changed)] ^= 1 << bit

    assert code_of_refusal(lambda: read(bytes(changed))) in (None, Code.HOP_BAD_FRAME)


REFUSED_HELD: dict[str, Any] = {
    "a map": {},
    "an authority alone": [[ACME.digest]],
    "three fields": [[ACME.digest, 1, 2]],
    "an item that is no array": [7],
    "an authority of 31 bytes": [[bytes(31), 1]],
    "an authority that is text": [["x" * 32, 1]],
    "a number that is true": [[ACME.digest, True]],
    "a number below zero": [[ACME.digest, -1]],
    "a number beyond 63 bits": [[ACME.digest, 1 << 63]],
    "an authority twice": [[ACME.digest, 1], [ACME.digest, 2]],
    "more than it may name": [[n.to_bytes(32, "big"), 1] for n in range(HELD_MAX + 1)],
    "a deeper array": [[[ACME.digest], 1]],
}


@pytest.mark.parametrize("value", REFUSED_HELD.values(), ids=REFUSED_HELD)
def test_what_is_held_is_refused_with(value: Any) -> None:
    with pytest.raises(FrameError) as refused:
        decode_held_untrusted(encode(value))

    assert refused.value.code is Code.HOP_BAD_FRAME


def test_as_many_as_it_may_name_are_read() -> None:
    held = tuple(Held(Identifier(n.to_bytes(32, "big")), n) for n in range(HELD_MAX))

    assert decode_held_untrusted(encode_held(held)) == held


def part(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "authority": ACME.digest,
        "number": 7,
        "total_bytes": 300,
        "offset": 200,
        "data": b"x" * 100,
    }
    return encode(list((fields | changes).values()))


REFUSED_PARTS: dict[str, bytes] = {
    "a map": encode({}),
    "four fields": encode([ACME.digest, 7, 300, 200]),
    "six fields": encode([ACME.digest, 7, 300, 200, b"x", 0]),
    "an authority of 33 bytes": part(authority=bytes(33)),
    "a number that is true": part(number=True),
    "a number beyond 63 bits": part(number=1 << 63),
    "a total below zero": part(total_bytes=-1),
    "a total beyond the longest list": part(total_bytes=REVOCATIONS_WITH_HISTORY_BYTES_MAX + 1),
    "an offset below zero": part(offset=-1),
    "an offset behind the end": part(offset=301, data=b"x"),
    "data behind the end": part(offset=201),
    "no data": part(data=b""),
    "data that is text": part(data="x"),
    "data that is an array": part(data=[]),
    "more data than a part may have": part(
        total_bytes=PART_BYTES_MAX + 1, offset=0, data=bytes(PART_BYTES_MAX + 1)
    ),
}


@pytest.mark.parametrize("body", REFUSED_PARTS.values(), ids=REFUSED_PARTS)
def test_a_part_is_refused_with(body: bytes) -> None:
    with pytest.raises(FrameError) as refused:
        read_part(body)

    assert refused.value.code is Code.HOP_BAD_FRAME


def test_the_table_of_parts_starts_from_one_that_is_read() -> None:
    assert read_part(part()) == PART


@pytest.mark.parametrize("size", [1, PART_BYTES_MAX, PART_BYTES_MAX + 1, 1 << 20])
def test_the_parts_of_a_list_are_the_list_and_each_fits_a_frame(size: int) -> None:
    encoded = bytes(index % 251 for index in range(size))

    parts = parts_of(ACME, NUMBER_MAX, encoded)

    assert b"".join(one.data for one in parts) == encoded
    assert [one.offset for one in parts] == list(range(0, size, PART_BYTES_MAX))
    assert {one.total_bytes for one in parts} == {size}
    for one in parts:
        assert encode_frame(0, FrameKind.LIST, encode_part(one))
