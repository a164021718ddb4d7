"""The wire format of sessions, byte by byte, and what is not it."""

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channel import (
    ChannelError,
    Prologue,
    RecordType,
    StreamOpen,
    choose_version_untrusted,
    decode_stream_open_untrusted,
    encode_stream_open,
)
from channel.limits import DENY_BODY_BYTES_MAX, RECORD_OVERHEAD_BYTES
from channel.wire import (
    Denial,
    RecordHeader,
    decode_addresses_untrusted,
    decode_code_untrusted,
    decode_denial_untrusted,
    decode_header_untrusted,
    decode_position_untrusted,
    encode_code,
    encode_denial,
    encode_header,
    encode_stream_prologue,
)
from identity import Code
from identity.cbor import encode

HEADERS = {
    "a first record": (RecordHeader(RecordType.DATA, 0, 0, 0), "01000000000000000000000000000000"),
    "a fragment that continues": (
        RecordHeader(RecordType.DATA, 1, 2, 3),
        "01010000000200000000000000030000",
    ),
    "a close far on": (
        RecordHeader(RecordType.CLOSE, 0, 0xFFFFFFFF, 2**64 - 2),
        "0600fffffffffffffffffffffffe0000",
    ),
}


@pytest.mark.parametrize(("header", "hex_"), HEADERS.values(), ids=HEADERS)
def test_a_header_has_these_bytes(header: RecordHeader, hex_: str) -> None:
    expected = bytes.fromhex(hex_)[:14]
    assert encode_header(header) == expected
    assert decode_header_untrusted(expected + bytes(16)) == header


BAD_RECORDS = {
    "nothing": b"",
    "a header alone": bytes([1]) + bytes(13),
    "a tag that is one byte short": bytes([1]) + bytes(RECORD_OVERHEAD_BYTES - 2),
    "more than a frame holds": bytes([1]) + bytes(65_535),
    "type 0": bytes(40),
    "type 15": bytes([15]) + bytes(39),
    "type 255": bytes([255]) + bytes(39),
    "an unknown flag": bytes([1, 2]) + bytes(38),
    "every flag": bytes([1, 255]) + bytes(38),
    "MORE on a record that is not DATA": bytes([2, 1]) + bytes(38),
}


@pytest.mark.parametrize("record", BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_what_is_no_record_is_refused(record: bytes) -> None:
    with pytest.raises(ChannelError) as caught:
        decode_header_untrusted(record)
    assert caught.value.code is Code.CHANNEL_BAD_RECORD


def test_a_prologue_has_these_bytes() -> None:
    prologue = Prologue("channel", "agent://acme/bob", bytes(16), extra=(b"\xaa",))
    assert prologue.encode().hex() == (
        "88"  # An array of 8:
        "68736964656c696e6b"  # "sidelink",
        "676368616e6e656c"  # the purpose,
        "8101"  # the versions offered,
        "01"  # the version chosen,
        "6a4d4c2d4b454d2d373638"  # "ML-KEM-768",
        "706167656e743a2f2f61636d652f626f62"  # the target,
        "5000000000000000000000000000000000"  # the nonce,
        "41aa"  # what the hop adds.
    )


def test_a_streams_prologue_has_these_bytes() -> None:
    assert (
        encode_stream_prologue(bytes(32), 4, "mcp", opened_by_initiator=True).hex()
        == (
            "89"
            "68736964656c696e6b"  # "sidelink",
            "6673747265616d"  # "stream",
            "8101"
            "01"
            "60"  # No KEM.
            "636d6370"  # the service,
            "5820" + "00" * 32 + "04"  # the channel, the stream's number,
            "69696e69746961746f72"  # and which side of the channel opened it.
        )
    )


def test_versions_are_chosen_from_what_is_offered_or_refused() -> None:
    assert choose_version_untrusted((1, 7)) == 1
    with pytest.raises(ChannelError) as caught:
        choose_version_untrusted((2, 3))
    assert caught.value.code is Code.CHANNEL_VERSION_UNSUPPORTED


def test_a_denial_is_what_was_said() -> None:
    denial = Denial(Code.POLICY_NO_RULE, "no rule", "nothing allows it")
    assert decode_denial_untrusted(encode_denial(denial)) == denial


def test_a_denial_too_long_is_cut_between_characters() -> None:
    denial = Denial(Code.POLICY_DENIED, "é" * 500, "ü" * 5_000)
    body = encode_denial(denial)
    decoded = decode_denial_untrusted(body)
    assert len(body) <= DENY_BODY_BYTES_MAX
    assert decoded.rule == "é" * 128
    assert decoded.reason == "ü" * 512


def test_an_unknown_code_of_a_denial_stays_a_denial() -> None:
    decoded = decode_denial_untrusted(encode([65_000, "r", "s"]))
    assert decoded.code is Code.PEER_ERROR_UNKNOWN


def test_a_stream_open_is_what_was_said_and_hides_its_secret() -> None:
    message = StreamOpen(9, "weather", b"\x07" * 32)
    assert decode_stream_open_untrusted(encode_stream_open(message)) == message
    assert "07" not in repr(message)


Decode = Callable[[bytes], object]
BAD_BODIES: dict[str, tuple[Decode, bytes]] = {
    "an empty denial": (decode_denial_untrusted, b""),
    "a denial of two fields": (decode_denial_untrusted, encode([501, "rule"])),
    "a denial of four fields": (decode_denial_untrusted, encode([501, "rule", "reason", 1])),
    "a denial that is a map": (decode_denial_untrusted, encode({"code": 501})),
    "a denial with a negative code": (decode_denial_untrusted, encode([-1, "", ""])),
    "a denial with a code beyond 16 bits": (decode_denial_untrusted, encode([65_536, "", ""])),
    "a denial with a true code": (decode_denial_untrusted, encode([True, "", ""])),
    "a denial with a rule of bytes": (decode_denial_untrusted, encode([501, b"", ""])),
    "a denial with a long rule": (decode_denial_untrusted, encode([501, "a" * 257, ""])),
    "a denial with a long reason": (decode_denial_untrusted, encode([501, "", "a" * 1_025])),
    "a denial with a tail": (decode_denial_untrusted, encode([501, "", ""]) + b"\x00"),
    "a denial that is not canonical": (decode_denial_untrusted, b"\x83\x19\x00\x01\x60\x60"),
    "a denial nested too deeply": (decode_denial_untrusted, b"\x81" * 200 + b"\x00"),
    "a position of 7 bytes": (decode_position_untrusted, bytes(7)),
    "a position of 9 bytes": (decode_position_untrusted, bytes(9)),
    "addresses that are no array": (decode_addresses_untrusted, encode("127.0.0.1:1")),
    "nine addresses": (decode_addresses_untrusted, encode([["h", 1]] * 9)),
    "an address without a port": (decode_addresses_untrusted, encode([["h"]])),
    "an address without a host": (decode_addresses_untrusted, encode([["", 1]])),
    "an address of port 0": (decode_addresses_untrusted, encode([["h", 0]])),
    "an address of a port beyond 16 bits": (decode_addresses_untrusted, encode([["h", 65_536]])),
    "an address of a long host": (decode_addresses_untrusted, encode([["h" * 254, 1]])),
    "addresses with a tail": (decode_addresses_untrusted, encode([["h", 1]]) + b"\x00"),
    "a code of no bytes": (decode_code_untrusted, b""),
    "a code of one byte": (decode_code_untrusted, b"\x01"),
    "a code of three bytes": (decode_code_untrusted, b"\x01\x02\x03"),
    "a stream without a secret": (decode_stream_open_untrusted, encode([1, "mcp"])),
    "a stream with a short secret": (
        decode_stream_open_untrusted,
        encode([1, "mcp", bytes(31)]),
    ),
    "a stream with a secret of text": (
        decode_stream_open_untrusted,
        encode([1, "mcp", "a" * 32]),
    ),
    "a stream with a number beyond QUIC": (
        decode_stream_open_untrusted,
        encode([1 << 62, "mcp", bytes(32)]),
    ),
    "a stream with a long service": (
        decode_stream_open_untrusted,
        encode([1, "a" * 256, bytes(32)]),
    ),
}


@pytest.mark.parametrize(("decode", "body"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_malformed_body_is_a_channel_error(decode: Decode, body: bytes) -> None:
    with pytest.raises(ChannelError):
        decode(body)


def test_a_code_is_two_bytes_and_an_unknown_one_stays_known_as_unknown() -> None:
    assert encode_code(Code.CHANNEL_CLOSED) == b"\x01\x3d"
    assert decode_code_untrusted(b"\x01\x3d") is Code.CHANNEL_CLOSED
    assert decode_code_untrusted(b"\xff\xff") is Code.PEER_ERROR_UNKNOWN


@given(st.binary(max_size=200))
def test_no_arbitrary_body_raises_anything_but_channel_error(body: bytes) -> None:
    decoders: tuple[Decode, ...] = (
        decode_header_untrusted,
        decode_denial_untrusted,
        decode_code_untrusted,
        decode_stream_open_untrusted,
    )
    for decode in decoders:
        with contextlib.suppress(ChannelError):
            decode(body)
