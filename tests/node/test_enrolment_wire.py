"""What a node and its authority say: round trips, and what is refused of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import Code, GatewayAddress, Identifier
from identity.cbor import encode
from node.enrolment_wire import (
    GATEWAYS_MAX,
    TOKEN_CHARACTERS_MAX,
    AnyRequest,
    EnrolGrant,
    EnrolmentError,
    EnrolRefusal,
    EnrolRequest,
    RenewRequest,
    TokenRequest,
    decode_answer_untrusted,
    decode_request_untrusted,
    encode_grant,
    encode_refusal,
    encode_request,
)

GATEWAY = GatewayAddress("127.0.0.1", 7400, Identifier(bytes(32)))
REQUEST = EnrolRequest(bytes(16), b"history")
GRANT = EnrolGrant(b"credential", b"authority", (GATEWAY,))
REFUSAL = EnrolRefusal(Code.ENROL_TICKET_USED)


REQUESTS: dict[str, AnyRequest] = {
    "by ticket": REQUEST,
    "by ticket, with a wish": EnrolRequest(bytes(16), b"history", "pod-1"),
    "by token": TokenRequest("e30.e30.x", b"history"),
    "by token of the longest kind": TokenRequest("x" * TOKEN_CHARACTERS_MAX, b""),
    "a renewal": RenewRequest(b"history"),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_a_request_is_read_as_it_was_written(request_: AnyRequest) -> None:
    assert decode_request_untrusted(encode_request(request_)) == request_


@pytest.mark.parametrize("secret", [REQUESTS["by ticket"], TokenRequest("sEcReT", b"")])
def test_what_lets_a_node_in_does_not_show_in_its_repr(secret: AnyRequest) -> None:
    assert "sEcReT" not in repr(secret)
    assert "code" not in repr(secret)


def test_both_answers_are_read_as_they_were_written() -> None:
    assert decode_answer_untrusted(encode_grant(GRANT)) == GRANT
    assert decode_answer_untrusted(encode_refusal(REFUSAL)) == REFUSAL


REFUSED_REQUESTS: dict[str, Any] = {
    "an array": [],
    "no fields": {},
    "another operation": {"op": "leave", "history": b""},
    "an operation that is a number": {"op": 1, "history": b""},
    "no operation": {"history": b""},
    "a renewal by ticket": {"op": "renew", "code": bytes(16), "history": b""},
    "a renewal without a history": {"op": "renew"},
    "a wish that is a number": {"op": "enrol", "code": bytes(16), "history": b"", "name": 1},
    "a wish that is null": {"op": "enrol", "code": bytes(16), "history": b"", "name": None},
    "a wish of nothing": {"op": "enrol", "code": bytes(16), "history": b"", "name": ""},
    "a wish of two segments": {"op": "enrol", "code": bytes(16), "history": b"", "name": "a/b"},
    "a wish that climbs": {"op": "enrol", "code": bytes(16), "history": b"", "name": ".."},
    "a wish in upper case": {"op": "enrol", "code": bytes(16), "history": b"", "name": "A"},
    "a wish that is too long": {
        "op": "enrol",
        "code": bytes(16),
        "history": b"",
        "name": "a" * 64,
    },
    "a token that is bytes": {"op": "enrol_token", "token": b"x", "history": b""},
    "a token that is too long": {
        "op": "enrol_token",
        "token": "x" * (TOKEN_CHARACTERS_MAX + 1),
        "history": b"",
    },
    "a token and a ticket": {
        "op": "enrol_token",
        "token": "x",
        "code": bytes(16),
        "history": b"",
    },
    "a token with a wish": {"op": "enrol_token", "token": "x", "history": b"", "name": "a"},
    "a field too many": {"op": "enrol", "code": bytes(16), "history": b"", "x": 1},
    "a field too few": {"op": "enrol", "code": bytes(16)},
    "keys that are numbers": {1: "enrol"},
    "a code that is short": {"op": "enrol", "code": bytes(15), "history": b""},
    "a code that is text": {"op": "enrol", "code": "x" * 16, "history": b""},
    "a history that is text": {"op": "enrol", "code": bytes(16), "history": ""},
}


@pytest.mark.parametrize("value", REFUSED_REQUESTS.values(), ids=REFUSED_REQUESTS)
def test_a_request_is_refused_that_is(value: Any) -> None:
    with pytest.raises(EnrolmentError) as caught:
        decode_request_untrusted(encode(value))
    assert caught.value.code is Code.ENROL_BAD_REQUEST


def grant(**changes: Any) -> dict[str, Any]:
    fields = {"op": "grant", "credential": b"c", "authority": b"a", "gateways": []}
    return fields | changes


REFUSED_ANSWERS: dict[str, Any] = {
    "an array": [],
    "a refusal without its code": {"op": "refuse"},
    "a refusal whose code is text": {"op": "refuse", "code": "202"},
    "a refusal whose code is true": {"op": "refuse", "code": True},
    "a grant without a credential": {"op": "grant"},
    "a credential that is text": grant(credential="c"),
    "an authority that is text": grant(authority="a"),
    "gateways that are a map": grant(gateways={}),
    "too many gateways": grant(gateways=[["h", 1, bytes(32)]] * (GATEWAYS_MAX + 1)),
    "a gateway that is text": grant(gateways=["h:1"]),
    "a gateway without its identifier": grant(gateways=[["h", 1]]),
    "a host that is a number": grant(gateways=[[1, 1, bytes(32)]]),
    "a host that could be an option": grant(gateways=[["-x", 1, bytes(32)]]),
    "a port that is nought": grant(gateways=[["h", 0, bytes(32)]]),
    "a port that is text": grant(gateways=[["h", "1", bytes(32)]]),
    "a port that is true": grant(gateways=[["h", True, bytes(32)]]),
    "an identifier that is short": grant(gateways=[["h", 1, bytes(31)]]),
    "an identifier that is text": grant(gateways=[["h", 1, "x" * 32]]),
}


@pytest.mark.parametrize("value", REFUSED_ANSWERS.values(), ids=REFUSED_ANSWERS)
def test_an_answer_is_refused_that_is(value: Any) -> None:
    with pytest.raises(EnrolmentError) as caught:
        decode_answer_untrusted(encode(value))
    assert caught.value.code is Code.ENROL_BAD_REQUEST


def test_a_code_that_nobody_knows_is_a_refusal_all_the_same() -> None:
    answer = decode_answer_untrusted(encode({"op": "refuse", "code": 1 << 62}))

    assert answer == EnrolRefusal(Code.PEER_ERROR_UNKNOWN)


WHOLE = {title: encode_request(request) for title, request in REQUESTS.items()} | {
    "a grant": encode_grant(GRANT)
}


def code_of_refusal(data: bytes) -> Code | None:
    for decode in (decode_request_untrusted, decode_answer_untrusted):
        try:
            decode(data)
        except EnrolmentError as error:
            if error.code is not Code.ENROL_BAD_REQUEST:
                return error.code
    return None


@given(st.binary(max_size=100))
def test_arbitrary_bytes_raise_nothing_but_an_enrolment_error(data: bytes) -> None:
    assert code_of_refusal(data) is None


@given(st.sampled_from(list(WHOLE.values())), st.integers(0, 10_000), st.integers(0, 7))
def test_a_flipped_bit_raises_nothing_but_an_enrolment_error(
    whole: bytes, at: int, bit: int
) -> None:
    changed = bytearray(whole)
    changed[at % len(changed)] ^= 1 << bit

    assert code_of_refusal(bytes(changed)) is None
