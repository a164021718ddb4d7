"""What the bodies of frames hold: round trips, and what is refused of each."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity import AgentUri, Code, Identifier, NamePrefix
from identity.cbor import encode
from link import (
    Credit,
    FrameError,
    HopHello,
    HopLimits,
    LinkOpen,
    PrefixEpoch,
    StreamPreamble,
    encode_frame,
)
from link.limits import CREDIT_MAX, MOVE_BYTES_MAX, NOISE_1_BYTES_MAX, RESTART_DELAY_MS_MAX
from link.messages import (
    decode_code_untrusted,
    decode_credit_untrusted,
    decode_hop_accept_untrusted,
    decode_hop_hello_untrusted,
    decode_hop_reply_untrusted,
    decode_link_open_untrusted,
    decode_prefix_epoch_untrusted,
    decode_prefix_untrusted,
    decode_restarting_untrusted,
    decode_stream_preamble_untrusted,
    encode_code,
    encode_credit,
    encode_hop_accept,
    encode_hop_hello,
    encode_hop_reply,
    encode_link_open,
    encode_prefix,
    encode_prefix_epoch,
    encode_restarting,
    encode_stream_preamble,
)
from tests.link.helpers import code_of_refusal

URI = AgentUri.parse("agent://acme/finance/planner")
PREFIX = NamePrefix.parse("agent://acme/finance")
IDENTIFIER = Identifier(bytes(range(32)))
NONCE = bytes(16)
OPENING = LinkOpen(URI, IDENTIFIER, NONCE, IDENTIFIER, b"noise", (1, 2))
HELLO = HopHello("admit", str(IDENTIFIER), NONCE, b"noise")

Codec = tuple[Callable[[Any], bytes], Callable[[bytes], Any], Any]
CODECS: dict[str, Codec] = {
    "LINK_OPEN": (encode_link_open, decode_link_open_untrusted, OPENING),
    "LINK_OPEN with a move": (
        encode_link_open,
        decode_link_open_untrusted,
        LinkOpen(URI, URI, NONCE, None, b"", move=b"move"),
    ),
    "HOP_HELLO": (encode_hop_hello, decode_hop_hello_untrusted, HELLO),
    "HOP_REPLY": (lambda value: encode_hop_reply(*value), decode_hop_reply_untrusted, (b"n", 1)),
    "HOP_ACCEPT": (
        lambda value: encode_hop_accept(*value),
        decode_hop_accept_untrusted,
        (7, HopLimits(links=3)),
    ),
    "CREDIT": (encode_credit, decode_credit_untrusted, Credit(5, 70_000)),
    "a code": (encode_code, decode_code_untrusted, Code.ROUTE_UNKNOWN),
    "REGISTER": (encode_prefix, decode_prefix_untrusted, PREFIX),
    "REGISTERED": (encode_prefix_epoch, decode_prefix_epoch_untrusted, PrefixEpoch(PREFIX, 3)),
    "RESTARTING": (encode_restarting, decode_restarting_untrusted, 500),
    "a stream's preamble": (
        encode_stream_preamble,
        decode_stream_preamble_untrusted,
        StreamPreamble(9, 4),
    ),
}
ORDER_DIFFERS = {"HOP_REPLY": (1, b"n")}


@pytest.mark.parametrize("name", CODECS)
def test_a_body_is_read_as_it_was_written(name: str) -> None:
    write, read, value = CODECS[name]

    assert read(write(value)) == ORDER_DIFFERS.get(name, value)


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


def opening(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "versions": [1],
        "target": str(URI),
        "source": str(IDENTIFIER),
        "nonce": NONCE,
        "node": None,
        "noise_1": b"noise",
        "move": None,
    }
    return encode(list((fields | changes).values()))


REFUSED_OPENINGS = {
    "no version": {"versions": []},
    "nine versions": {"versions": list(range(9))},
    "a version that is true": {"versions": [True]},
    "a version beyond a byte": {"versions": [256]},
    "versions that are no array": {"versions": 1},
    "a target that is no text": {"target": 5},
    "a target that is no name": {"target": "agent://acme"},
    "a target that is empty": {"target": ""},
    "an identifier with a typo": {"target": str(IDENTIFIER)[:-1] + "x"},
    "a source in upper case": {"source": "agent://ACME/x"},
    "a source that is far too long": {"source": "agent://acme/" + "x" * 400},
    "a nonce that is short": {"nonce": bytes(15)},
    "a nonce that is text": {"nonce": "x" * 16},
    "a node that is short": {"node": bytes(31)},
    "a node that is text": {"node": "x" * 32},
    "a handshake that is text": {"noise_1": "noise"},
    "a move that is text": {"noise_1": b"", "move": "move"},
    "a move beside a handshake": {"move": b"move"},
    "a move that is too long": {"noise_1": b"", "move": bytes(MOVE_BYTES_MAX + 1)},
    "a handshake that would not fit once attested": {"noise_1": bytes(NOISE_1_BYTES_MAX + 1)},
}


@pytest.mark.parametrize("changes", REFUSED_OPENINGS.values(), ids=REFUSED_OPENINGS)
def test_an_opening_is_refused_with(changes: dict[str, Any]) -> None:
    with pytest.raises(FrameError):
        decode_link_open_untrusted(opening(**changes))


def test_the_largest_opening_still_fits_a_frame_once_its_source_is_attested() -> None:
    longest = AgentUri.in_domain("d" * 63, "/".join(["s" * 20] * 8))
    received = decode_link_open_untrusted(
        opening(target=str(longest), source=str(longest), noise_1=bytes(NOISE_1_BYTES_MAX))
    )
    attested = LinkOpen(
        received.target,
        received.source,
        received.nonce,
        IDENTIFIER,
        received.noise_1,
        tuple(range(200, 208)),
    )

    assert encode_frame(1, 1, encode_link_open(attested))


REFUSED_BODIES: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "a grant beyond the largest": (
        decode_credit_untrusted,
        bytes(8) + (CREDIT_MAX + 1).to_bytes(8, "big"),
    ),
    "a restart that is too far away": (
        decode_restarting_untrusted,
        encode([RESTART_DELAY_MS_MAX + 1]),
    ),
    "a restart in the past": (decode_restarting_untrusted, encode([-1])),
    "a restart at true": (decode_restarting_untrusted, encode([True])),
    "an epoch beyond 63 bits": (decode_prefix_epoch_untrusted, encode([str(PREFIX), 1 << 63])),
    "a prefix that is bytes": (decode_prefix_untrusted, encode([b"agent://acme"])),
    "a prefix with an empty segment": (decode_prefix_untrusted, encode(["agent://acme//x"])),
    "limits that are no map": (decode_hop_accept_untrusted, encode([1, 5])),
    "limits without links": (decode_hop_accept_untrusted, encode([1, {}])),
    "another magic": (decode_stream_preamble_untrusted, bytes(13)),
    "CBOR that is not canonical": (decode_restarting_untrusted, bytes.fromhex("811801")),
    "an array without an end": (decode_restarting_untrusted, bytes.fromhex("9f01ff")),
    "a purpose that is a number": (
        decode_hop_hello_untrusted,
        encode([[1], 5, "", NONCE, b""]),
    ),
}


@pytest.mark.parametrize(("read", "body"), REFUSED_BODIES.values(), ids=REFUSED_BODIES)
def test_a_body_is_refused_with(read: Callable[[bytes], Any], body: bytes) -> None:
    with pytest.raises(FrameError):
        read(body)


def test_limits_of_later_versions_are_ignored() -> None:
    _, limits = decode_hop_accept_untrusted(encode([1, {"links": 2, "later": 5}]))

    assert limits == HopLimits(links=2)


def test_a_code_that_nobody_knows_is_read_as_unknown() -> None:
    assert decode_code_untrusted(b"\xff\xfe") is Code.PEER_ERROR_UNKNOWN
