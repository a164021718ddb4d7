"""The exchange on a mesh stream: heads byte by byte, limits, and heads that are refused."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import Code, cbor
from sidecar.mcp_wire import (
    BODY_BYTES_MAX,
    HEAD_BYTES_MAX,
    ExchangeReader,
    RequestHead,
    ResponseHead,
    WireError,
    decode_request_head_untrusted,
    decode_response_head_untrusted,
    encode_request_head,
    encode_response_head,
    end_to_end,
)
from tests.sidecar.mcp_memory import identity_of, memory_stream_pair

REQUEST = RequestHead("POST", "", (("a", "b"),), 5)


def test_a_request_head_is_these_bytes() -> None:
    # Length 15; array of 5: version 1, "POST", "", [["a", "b"]], 5.
    expected = "0000000f" + "8501" + "64504f5354" + "60" + "818261616162" + "05"
    assert encode_request_head(REQUEST).hex() == expected


def test_a_response_head_is_these_bytes() -> None:
    encoded = encode_response_head(ResponseHead(200, (("a", "b"),)))
    assert encoded.hex() == "0000000a" + "8301" + "18c8" + "818261616162"


REFUSED_REQUESTS: dict[str, object] = {
    "another version": [2, "POST", "", [], 0],
    "a version that is true": [True, "POST", "", [], 0],
    "a field too many": [1, "POST", "", [], 0, 0],
    "a map": {"method": "POST"},
    "a method in lower case": [1, "post", "", [], 0],
    "a method with a line break": [1, "POST\r\nX", "", [], 0],
    "a suffix with a space": [1, "POST", "/a b", [], 0],
    "a suffix with a line break": [1, "POST", "/a\r\n", [], 0],
    "a negative length": [1, "POST", "", [], -1],
    "a length that is true": [1, "POST", "", [], True],
    "a header of three parts": [1, "POST", "", [["a", "b", "c"]], 0],
    "a header name in upper case": [1, "POST", "", [["A", "b"]], 0],
    "a header name with a colon": [1, "POST", "", [["a:", "b"]], 0],
    "an empty header name": [1, "POST", "", [["", "b"]], 0],
    "a header value with a line break": [1, "POST", "", [["a", "b\r\nc: d"]], 0],
    "a header value with a zero": [1, "POST", "", [["a", "\0"]], 0],
    "a header value beyond one byte": [1, "POST", "", [["a", "€"]], 0],
    "too many headers": [1, "POST", "", [["a", "b"]] * 129, 0],
}


@pytest.mark.parametrize("case", REFUSED_REQUESTS)
def test_a_request_head_is_refused_for(case: str) -> None:
    with pytest.raises(WireError) as refused:
        decode_request_head_untrusted(cbor.encode(REFUSED_REQUESTS[case]))
    assert refused.value.code is Code.STREAM_BAD_HEAD


@pytest.mark.parametrize("status", [0, 100, 101, 199, 600, -1, True])
def test_a_status_that_is_not_final_is_refused(status: int) -> None:
    with pytest.raises(WireError):
        decode_response_head_untrusted(cbor.encode([1, status, []]))


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for decode in (decode_request_head_untrusted, decode_response_head_untrusted):
        with contextlib.suppress(WireError):
            decode(data)


@given(
    st.text("abcdefghij-", min_size=1),
    st.text(st.characters(min_codepoint=32, max_codepoint=126)),
    st.integers(0, 2**32),
)
def test_what_is_encoded_decodes_to_the_same(name: str, value: str, body_bytes: int) -> None:
    head = RequestHead("POST", "/x", ((name, value),), body_bytes)
    assert decode_request_head_untrusted(encode_request_head(head)[4:]) == head


def test_headers_of_one_hop_stay_behind_and_forged_ones_are_dropped() -> None:
    headers = (
        ("connection", "keep-alive, X-Private"),
        ("x-private", "1"),
        ("transfer-encoding", "chunked"),
        ("host", "localhost"),
        ("sidelink-identity", "agent://acme/boss"),
        ("mcp-param-region", "eu"),
        ("accept", "text/event-stream"),
    )
    assert end_to_end(headers) == (("mcp-param-region", "eu"), ("accept", "text/event-stream"))


async def test_a_head_that_is_too_long_is_refused_before_it_is_read() -> None:
    near, far = memory_stream_pair(identity_of("a"), identity_of("b", 2))
    await near.write((HEAD_BYTES_MAX + 1).to_bytes(4, "big"))
    with pytest.raises(WireError) as refused:
        await ExchangeReader(far).request_head()
    assert refused.value.code is Code.STREAM_BAD_HEAD


async def test_a_body_that_is_too_long_is_refused_before_it_is_read() -> None:
    _, far = memory_stream_pair(identity_of("a"), identity_of("b", 2))
    with pytest.raises(WireError) as refused:
        await ExchangeReader(far).body(BODY_BYTES_MAX + 1)
    assert refused.value.code is Code.STREAM_LIMIT


async def test_an_end_within_a_body_is_truncation_and_not_a_short_body() -> None:
    near, far = memory_stream_pair(identity_of("a"), identity_of("b", 2))
    await near.write(encode_request_head(REQUEST) + b"abc")
    await near.finish()
    reader = ExchangeReader(far)
    assert await reader.request_head() == REQUEST
    with pytest.raises(WireError) as refused:
        await reader.body(5)
    assert refused.value.code is Code.STREAM_TRUNCATED
