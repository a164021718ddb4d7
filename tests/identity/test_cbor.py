"""Canonical CBOR: what does not encode to itself is refused, and nothing else is raised."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import CborError, Code
from identity.cbor import decode_untrusted, encode

plain = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.binary(max_size=40)
    | st.text(st.characters(codec="utf-8"), max_size=40)
)
keys = st.integers(-(2**64), 2**64 - 1) | st.text("abc\u00e9", max_size=4)
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


def decode(data: bytes) -> Any:
    return decode_untrusted(data, bytes_max=4096, depth_max=16)


@given(values)
def test_a_value_reads_back_and_has_one_encoding(value: Any) -> None:
    try:
        encoded = encode(value)
    except ValueError:
        return  # Nested more deeply than the limit.

    assert decode(encoded) == value
    assert encode(decode(encoded)) == encoded


def test_keys_are_in_the_order_of_their_encoded_bytes() -> None:
    keys_in_order = [10, 100, 1000, -1, -100, "z", "aa", "\u00e9"]

    encoded = encode(dict.fromkeys(reversed(keys_in_order), 0))

    assert encoded.hex() == "a80a001864001903e8002000386300617a00626161" + "00" + "62c3a900"


WHAT_IS_NOT_CANONICAL = {
    "nothing": "",
    "a number in a long form": "1801",
    "a length in a long form": "58016a",
    "a text length in a long form": "780161",
    "a trailing byte": "0100",
    "a whole second value": "0101",
    "a map in the wrong order": "a202000100",
    "a shorter text after a longer one": "a26261610061620 0".replace(" ", ""),
    "a key twice": "a201000100",
    "an array of indefinite length": "9fff",
    "a map of indefinite length": "bfff",
    "a byte string in pieces": "5f4101ff",
    "a lone break": "ff",
    "a float": "f93c00",
    "a float that is whole": "fa3f800000",
    "not a number": "f97e00",
    "undefined": "f7",
    "an unassigned simple value": "e5",
    "false in the long form": "f814",
    "a big number": "c249010000000000000000",
    "a date": "c101",
    "a regular expression": "d8236128",
    "a shared value": "d81c01",
    "a reference to a shared value": "d81d00",
    "a value that contains itself": "d81c81d81d00",
    "an unknown tag": "d9123401",
    "the COSE tag": "d280",
    "a key that is a byte string": "a1410100",
    "a key that is an array": "a18000",
    "a key that is a map": "a1a000",
    "a key that is true": "a1f500",
    "a key that is null": "a1f600",
    "a text that is not UTF-8": "62c328",
    "a text that encodes a surrogate": "63eda080",
    "a string longer than the data": "5a7fffffff00",
    "an array longer than the data": "9b7fffffffffffffff",
    "a map longer than memory": "bbffffffffffffffff",
    "reserved additional information": "1c",
    "nested too deeply": "81" * 17 + "01",
    "nested far too deeply": "81" * 4000 + "01",
}


@pytest.mark.parametrize("data", WHAT_IS_NOT_CANONICAL.values(), ids=WHAT_IS_NOT_CANONICAL.keys())
def test_what_is_not_canonical_is_refused(data: str) -> None:
    with pytest.raises(CborError):
        decode(bytes.fromhex(data))


def test_the_error_carries_the_code_that_the_caller_named() -> None:
    with pytest.raises(CborError) as caught:
        decode_untrusted(b"", bytes_max=10, code=Code.ENROL_TICKET_MALFORMED)

    assert caught.value.code is Code.ENROL_TICKET_MALFORMED


def test_more_bytes_than_allowed_are_refused_before_they_are_read() -> None:
    assert decode_untrusted(encode(b"12"), bytes_max=3) == b"12"
    with pytest.raises(CborError):
        decode_untrusted(encode(b"123"), bytes_max=3)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        value = decode(data)
    except CborError:
        return
    assert encode(value) == data


@pytest.mark.parametrize("value", [1.0, {1}, object(), {b"k": 1}, {None: 1}, bytearray(1)])
def test_what_has_no_canonical_encoding_is_our_own_mistake(value: Any) -> None:
    with pytest.raises(TypeError):
        encode(value)


@pytest.mark.parametrize("value", [2**64, -(2**64) - 1, [[[[[[[[[1]]]]]]]]]])
def test_what_is_too_large_or_deep_is_our_own_mistake(value: Any) -> None:
    with pytest.raises(ValueError, match=r"64 bits|deeply"):
        encode(value)
