"""Retry tokens, Retry and Version Negotiation packets, and the long header, as pure functions."""

import os
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transport import retry
from transport.errors import DatagramError
from transport.limits import QUIC_VERSION

HERE = ("192.0.2.7", 4433)
ORIGINAL_ID = b"original"
RETRY_ID = b"retry-id"
LIFETIME_S = 30.0


def make_tokens() -> retry.RetryTokens:
    return retry.RetryTokens(lifetime_s=LIFETIME_S)


def initial(
    *,
    version: int = QUIC_VERSION,
    destination_id: bytes = ORIGINAL_ID,
    token: bytes = b"",
    first: int = 0xC0,
) -> bytes:
    """The start of a client's Initial, padded to a datagram that a server looks at."""
    head = bytes([first]) + version.to_bytes(4, "big")
    head += bytes([len(destination_id)]) + destination_id + b"\x08sourceid"
    head += (len(token) | 0x4000).to_bytes(2, "big") + token
    rest = 1200 - len(head) - 2
    return head + (rest | 0x4000).to_bytes(2, "big") + os.urandom(rest)


def test_a_token_gives_back_the_original_id_until_it_expires() -> None:
    tokens = make_tokens()
    token = tokens.encode(HERE, original_id=ORIGINAL_ID, retry_id=RETRY_ID, now_s=5.0)
    for now_s in (5.0, 5.0 + LIFETIME_S):
        assert tokens.decode_untrusted(token, HERE, retry_id=RETRY_ID, now_s=now_s) == ORIGINAL_ID


REFUSED_TOKENS = {
    "a moment too old": {"now_s": 5.0 + LIFETIME_S + 0.002},
    "from another host": {"address": ("192.0.2.8", 4433)},
    "from another port": {"address": ("192.0.2.7", 4434)},
    "from the same address as IPv6": {"address": ("::ffff:192.0.2.7", 4433)},
    "to another connection id": {"retry_id": b"another!"},
    "with the first bit flipped": {"flip": 0},
    "with a bit of the original id flipped": {"flip": 9},
    "with the last bit flipped": {"flip": -1},
    "cut short": {"cut": -1},
    "cut to the bare MAC": {"cut": 32},
    "with a tail": {"tail": b"x"},
    "of another process": {"tokens": retry.RetryTokens(lifetime_s=LIFETIME_S)},
}


@pytest.mark.parametrize("case", REFUSED_TOKENS.values(), ids=REFUSED_TOKENS.keys())
def test_a_token_is_refused(case: dict[str, object]) -> None:
    tokens = make_tokens()
    token = bytearray(tokens.encode(HERE, original_id=ORIGINAL_ID, retry_id=RETRY_ID, now_s=5.0))
    if "flip" in case:
        token[case["flip"]] ^= 1  # type: ignore[index]
    data = bytes(token)[: case.get("cut")] + case.get("tail", b"")  # type: ignore[misc, operator]
    judge = case.get("tokens", tokens)
    assert isinstance(judge, retry.RetryTokens)
    with pytest.raises(DatagramError):
        judge.decode_untrusted(
            data,
            case.get("address", HERE),  # type: ignore[arg-type]
            retry_id=case.get("retry_id", RETRY_ID),  # type: ignore[arg-type]
            now_s=case.get("now_s", 5.0),  # type: ignore[arg-type]
        )


@given(st.binary(max_size=128))
def test_no_token_of_a_stranger_is_believed_or_breaks_anything(token: bytes) -> None:
    with pytest.raises(DatagramError):
        make_tokens().decode_untrusted(token, HERE, retry_id=RETRY_ID, now_s=0.0)


def test_a_retry_packet_carries_the_integrity_tag_of_rfc_9001_appendix_a_4() -> None:
    header = retry.LongHeader(QUIC_VERSION, bytes.fromhex("8394c8f03e515708"), b"", True, b"")
    packet = retry.encode_retry(header, bytes.fromhex("f067a5502a4262b5"), b"token")
    expected = bytes.fromhex(
        "ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f0f2496ba"
    )
    # The low four bits of the first byte are free, and the tag covers them.
    pseudo = b"\x08" + header.destination_id + b"\xff" + packet[1:-16]
    tag = retry._INTEGRITY.encrypt(retry._INTEGRITY_NONCE, b"", pseudo)
    assert b"\xff" + packet[1:-16] + tag == expected
    assert packet[0] & 0xF0 == 0xF0


def test_version_negotiation_answers_with_the_ids_swapped_and_our_version() -> None:
    header = retry.parse_long_header_untrusted(initial(version=0x6B3343CF))
    packet = retry.encode_version_negotiation(header)
    answer = retry.parse_long_header_untrusted(packet)
    assert answer.version == 0
    assert (answer.destination_id, answer.source_id) == (header.source_id, header.destination_id)
    versions = retry.decode_versions_untrusted(packet)
    assert QUIC_VERSION in versions
    assert all(v == QUIC_VERSION or v & 0x0F0F0F0F == 0x0A0A0A0A for v in versions)


def test_an_initial_is_read_with_its_token() -> None:
    header = retry.parse_long_header_untrusted(initial(token=b"t" * 70))
    assert header == retry.LongHeader(QUIC_VERSION, ORIGINAL_ID, b"sourceid", True, b"t" * 70)


MALFORMED_HEADERS = {
    "nothing at all": b"",
    "a short header": b"\x40" * 30,
    "one byte": b"\xc0",
    "a connection id that is cut off": initial()[:9],
    "a connection id longer than twenty bytes": b"\xc0\0\0\0\x01\x15" + bytes(40),
    "no source id": b"\xc0\0\0\0\x01\x08" + ORIGINAL_ID,
    "no token length": b"\xc0\0\0\0\x01\x08" + ORIGINAL_ID + b"\0",
    "a token longer than the datagram": b"\xc0\0\0\0\x01\x08" + ORIGINAL_ID + b"\0\x7f\xffxx",
    "a token length that is cut off": b"\xc0\0\0\0\x01\x08" + ORIGINAL_ID + b"\0\xff",
    "a fixed bit of zero": initial(first=0x80),
}


@pytest.mark.parametrize("data", MALFORMED_HEADERS.values(), ids=MALFORMED_HEADERS.keys())
def test_a_malformed_long_header_is_refused(data: bytes) -> None:
    with pytest.raises(DatagramError):
        retry.parse_long_header_untrusted(data)


@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_parse_or_raise_one_error_type(data: bytes, as_initial: bool) -> None:
    for parse in (retry.parse_long_header_untrusted, retry.decode_versions_untrusted):
        with suppress(DatagramError):
            parse(b"\xc0\0\0\0\x01" + data if as_initial else data)
