"""Bodies: what goes in comes out, and what cannot be sent or read is a BodyError."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sidelink.bodies import MSGPACK, decode_body_untrusted, encode_body
from sidelink.errors import BodyError
from sidelink.wire import MESSAGE_BYTES_MAX

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_plain_values_come_back_equal(value: object) -> None:
    data, content_type = encode_body(value, None)

    assert content_type == MSGPACK
    assert decode_body_untrusted(data, content_type) == value


RAW = {
    "bytes": (b"\0\1", "application/octet-stream", b"\0\1"),
    "a bytearray": (bytearray(b"\0"), "image/png", b"\0"),
    "a memoryview": (memoryview(b"ab")[1:], "image/png", b"b"),
    "text": ("grüße", "text/plain", "grüße"),
    "JSON as text": ("{}", "application/json", b"{}"),
    "msgpack made elsewhere": (b"\x01", MSGPACK, 1),
}


@pytest.mark.parametrize(("body", "content_type", "received"), RAW.values(), ids=RAW.keys())
def test_bytes_and_text_travel_as_they_are(
    body: object, content_type: str, received: object
) -> None:
    assert decode_body_untrusted(*encode_body(body, content_type)) == received


def nested() -> Any:
    inner: list[Any] = []
    for _ in range(100_000):
        inner = [inner]
    return inner


UNSENDABLE: dict[str, tuple[Any, str | None]] = {
    "an object": (object(), None),
    "an integer beyond 64 bits": (2**64, None),
    "text that is no Unicode": ("\ud800", None),
    "raw text that is no Unicode": ("\ud800", "text/plain"),
    "values with a content type that is not msgpack": ({"a": 1}, "application/json"),
    "a content type that is too long": (b"", "x" * 129),
    "a content type that is not ASCII": (b"", "text/plän"),
    "more than a message may hold": (b"x" * (MESSAGE_BYTES_MAX + 1), "a/b"),
    "nesting without end": (nested(), None),
}


@pytest.mark.parametrize(("body", "content_type"), UNSENDABLE.values(), ids=UNSENDABLE.keys())
def test_what_cannot_be_sent_is_refused_before_it_is_queued(
    body: object, content_type: str | None
) -> None:
    with pytest.raises(BodyError):
        encode_body(body, content_type)


HOSTILE = {
    "nothing": b"",
    "two values": b"\x01\x02",
    "a cut map": b"\x82\xa1a",
    "nesting without end": b"\x91" * 500_000,
    "text that is not UTF-8": b"\xa1\xff",
    "a map whose key is a map": b"\x81\x80\x01",
    "a timestamp out of range": b"\xc7\x0c\xff\xff\xff\xff\xff" + b"\x7f" * 8,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_body_that_is_not_what_it_says_is_a_body_error(data: bytes) -> None:
    with pytest.raises(BodyError):
        decode_body_untrusted(data, MSGPACK)


@given(st.binary(max_size=100), st.sampled_from([MSGPACK, "text/plain", "a/b"]))
def test_reading_a_body_raises_nothing_else(data: bytes, content_type: str) -> None:
    try:
        decode_body_untrusted(data, content_type)
    except BodyError as error:
        assert error.code == "message.body_invalid"  # noqa: PT017
