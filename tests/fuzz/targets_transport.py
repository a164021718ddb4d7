"""Targets of transport/: what a datagram holds before any connection exists."""

from typing import Any, Final

from tests.fuzz.decoders import decoder
from tests.fuzz.program import Program
from tests.fuzz.target import Target
from transport import limits
from transport.errors import DatagramError
from transport.retry import (
    LongHeader,
    RetryTokens,
    decode_versions_untrusted,
    encode_retry,
    encode_version_negotiation,
    is_long,
    parse_long_header_untrusted,
    short_connection_id,
)

TOKENS: Final = RetryTokens(lifetime_s=limits.RETRY_LIFETIME_S, key=bytes(32))
SOURCE: Final = ("127.0.0.1", 7440)
ORIGINAL_ID: Final = bytes(range(8))
RETRY_ID: Final = bytes(range(8, 16))


def initial_of(token: bytes, version: int = limits.QUIC_VERSION) -> bytes:
    """The head of a client's Initial packet."""
    return b"".join(
        (
            b"\xc0",
            version.to_bytes(4, "big"),
            bytes([len(RETRY_ID)]) + RETRY_ID,
            bytes([len(ORIGINAL_ID)]) + ORIGINAL_ID,
            (0x4000 | len(token)).to_bytes(2, "big"),
            token,
            b"rest of the packet",
        )
    )


def run_long_header(data: bytes) -> None:
    short_connection_id(data)
    header = parse_long_header_untrusted(data)
    assert is_long(data)
    assert data[6 : 6 + len(header.destination_id)] == header.destination_id
    assert header.token in data
    # What we answer to it can be read as well.
    retry = parse_long_header_untrusted(encode_retry(header, RETRY_ID, b"token"))
    assert retry.destination_id == header.source_id
    offered = decode_versions_untrusted(encode_version_negotiation(header))
    assert limits.QUIC_VERSION in offered


def run_token(data: bytes) -> None:
    """A token of ours with changes, from an address and at a time that the input names."""
    program = Program(data)
    address = (program.choose(("127.0.0.1", "10.0.0.1", "::1")), 7_440 + program.below(2))
    retry_id = RETRY_ID[: 8 - program.below(2)]
    now_s = 100.0 * program.below(3)
    token = TOKENS.encode(SOURCE, original_id=ORIGINAL_ID, retry_id=RETRY_ID, now_s=0.0)
    changed = False
    while not program.is_over:
        at = program.below(len(token) + 1)
        before, token = token, token[:at] + program.blob() + token[at + program.byte() :]
        changed = changed or before != token
    original_id = TOKENS.decode_untrusted(token, address, retry_id=retry_id, now_s=now_s)
    assert original_id == ORIGINAL_ID, "a token that we did not make"
    assert (address, retry_id) == (SOURCE, RETRY_ID), "a token of somebody else"
    assert now_s <= limits.RETRY_LIFETIME_S, "a token that is over"


def _versions(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "version": 9,
        "destination_id": ORIGINAL_ID,
        "source_id": RETRY_ID,
        "is_initial": True,
        "token": b"",
    }
    return encode_version_negotiation(LongHeader(**(fields | changes)))


def _encode_versions(versions: tuple[int, ...]) -> None:
    assert versions
    assert all(0 <= version < 1 << 32 for version in versions)


TARGETS: Final[list[Target]] = [
    Target(
        "transport.long_header",
        "the long header of a datagram's first packet",
        run_long_header,
        lambda: [initial_of(b""), initial_of(bytes(48)), initial_of(b"", version=2)],
        DatagramError,
        bytes_max=1_500,
    ),
    decoder(
        "transport.versions",
        "a Version Negotiation packet",
        decode_versions_untrusted,
        lambda: [_versions(), _versions(source_id=b"")],
        error=DatagramError,
        encode=_encode_versions,
        bytes_max=1_500,
    ),
    Target(
        "transport.token",
        "a Retry token, changed, from elsewhere, or late",
        run_token,
        lambda: [b"", bytes(4), bytes([0, 0, 0, 0, 3, 1, 7, 1])],
        DatagramError,
        bytes_max=128,
        is_program=True,
    ),
]
