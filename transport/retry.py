"""What is answered before any connection exists: Retry and Version Negotiation. Pure.

Every client must come back with a token of ours before an engine hears of it. A token says: this
address received a Retry a moment ago. It is authenticated and holds no secret; nothing is kept.

    token    u64 expiry in milliseconds of our own clock ‖ original connection id ‖ HMAC-SHA256
    the HMAC covers label, address, port, the Retry's connection id, expiry, original id

The formats are RFC 9000, section 17.2, and RFC 9001, section 5.8.
"""

import hmac
import os
import struct
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from transport import limits
from transport.errors import DatagramError
from transport.path import Address

CONNECTION_ID_BYTES_MAX: Final = 20
ORIGINAL_ID_BYTES_MIN: Final = 8  # RFC 9000, section 7.2.
_MAC_BYTES: Final = 32
_TAG_BYTES: Final = 16
_TOKEN_LABEL: Final = b"sidelink retry token 1\0"
_INTEGRITY: Final = AESGCM(bytes.fromhex("be0c690b9f66575a1d766b54e368c84e"))
_INTEGRITY_NONCE: Final = bytes.fromhex("461599d35d632bf2239825bb")
_EXPIRY: Final = struct.Struct(">Q")

_LONG: Final = 0x80
_FIXED: Final = 0x40
_TYPE: Final = 0x30
_INITIAL: Final = 0x00
_RETRY: Final = 0xF0


@dataclass(frozen=True, slots=True)
class LongHeader:
    """The fields of a long header that do not depend on the version, and an Initial's token."""

    version: int
    destination_id: bytes
    source_id: bytes
    is_initial: bool
    token: bytes


def is_long(data: bytes) -> bool:
    return bool(data) and data[0] & _LONG != 0


def short_connection_id(data: bytes) -> bytes:
    """The destination of a short-header packet: our identifiers all have one length."""
    return data[1 : 1 + limits.CONNECTION_ID_BYTES]


def connection_id(data: bytes) -> bytes:
    """The destination of a datagram, for looking it up: of one that is malformed, anything."""
    if data[0] & _LONG:
        return data[6 : 6 + data[5]] if len(data) > 5 else b""
    return data[1 : 1 + limits.CONNECTION_ID_BYTES]


def is_version_negotiation(data: bytes) -> bool:
    return data[0] & _LONG != 0 and data[1:5] == bytes(4)


def parse_long_header_untrusted(data: bytes) -> LongHeader:
    """Read the first packet's long header. Raises DatagramError."""
    if len(data) < 7 or not data[0] & _LONG:
        raise DatagramError("not a long header")
    version = int.from_bytes(data[1:5], "big")
    destination_id, offset = _connection_id_untrusted(data, 5)
    source_id, offset = _connection_id_untrusted(data, offset)
    is_initial = version == limits.QUIC_VERSION and data[0] & _TYPE == _INITIAL
    token = b""
    if version == limits.QUIC_VERSION and not data[0] & _FIXED:
        raise DatagramError("the fixed bit is zero")
    if is_initial:
        length, offset = _varint_untrusted(data, offset)
        if length > len(data) - offset:
            raise DatagramError("the token is cut off")
        token = data[offset : offset + length]
    return LongHeader(version, destination_id, source_id, is_initial, token)


def encode_version_negotiation(header: LongHeader) -> bytes:
    """Answer a version that we do not speak (RFC 9000, section 17.2.1)."""
    greased = (int.from_bytes(os.urandom(4), "big") & 0xF0F0F0F0) | 0x0A0A0A0A
    return b"".join(
        (
            bytes([_LONG | os.urandom(1)[0]]),
            b"\0\0\0\0",
            _with_length(header.source_id),
            _with_length(header.destination_id),
            limits.QUIC_VERSION.to_bytes(4, "big"),
            greased.to_bytes(4, "big"),
        )
    )


def decode_versions_untrusted(data: bytes) -> tuple[int, ...]:
    """Return what a Version Negotiation packet offers. Raises DatagramError."""
    header = parse_long_header_untrusted(data)
    listed = data[7 + len(header.destination_id) + len(header.source_id) :]
    if header.version != 0 or not listed or len(listed) % 4:
        raise DatagramError("not a Version Negotiation packet")
    return tuple(int.from_bytes(listed[at : at + 4], "big") for at in range(0, len(listed), 4))


def encode_retry(header: LongHeader, retry_id: bytes, token: bytes) -> bytes:
    """Build the Retry that answers a client's first Initial (RFC 9000, section 17.2.5)."""
    packet = b"".join(
        (
            bytes([_RETRY | os.urandom(1)[0] & 0x0F]),
            header.version.to_bytes(4, "big"),
            _with_length(header.source_id),
            _with_length(retry_id),
            token,
        )
    )
    pseudo = _with_length(header.destination_id) + packet
    return packet + _INTEGRITY.encrypt(_INTEGRITY_NONCE, b"", pseudo)


class RetryTokens:
    """Makes and checks tokens under a key that dies with the process."""

    def __init__(self, *, lifetime_s: float, key: bytes | None = None) -> None:
        self._key = os.urandom(32) if key is None else key
        self._lifetime_s = lifetime_s

    def encode(
        self, address: Address, *, original_id: bytes, retry_id: bytes, now_s: float
    ) -> bytes:
        expiry = _EXPIRY.pack(int((now_s + self._lifetime_s) * 1000))
        return expiry + original_id + self._mac(address, retry_id, expiry, original_id)

    def decode_untrusted(
        self, token: bytes, address: Address, *, retry_id: bytes, now_s: float
    ) -> bytes:
        """Return the original connection id of a token that is ours, fresh and of this address.

        Raises DatagramError.
        """
        original_id = token[_EXPIRY.size : -_MAC_BYTES]
        if not ORIGINAL_ID_BYTES_MIN <= len(original_id) <= CONNECTION_ID_BYTES_MAX:
            raise DatagramError("a token of a wrong length")
        expiry = token[: _EXPIRY.size]
        expected = self._mac(address, retry_id, expiry, original_id)
        if not hmac.compare_digest(token[-_MAC_BYTES:], expected):
            raise DatagramError("a token that is not ours, or of another address")
        if _EXPIRY.unpack(expiry)[0] < now_s * 1000:
            raise DatagramError("a token that has expired")
        return original_id

    def _mac(self, address: Address, retry_id: bytes, expiry: bytes, original_id: bytes) -> bytes:
        host, port = address
        fields = (
            _TOKEN_LABEL,
            _with_length(host.encode()),  # The socket spells each address in one way.
            port.to_bytes(2, "big"),
            _with_length(retry_id),
            expiry,
            _with_length(original_id),
        )
        return hmac.digest(self._key, b"".join(fields), "sha256")


def _with_length(value: bytes) -> bytes:
    return bytes([len(value)]) + value


def _connection_id_untrusted(data: bytes, offset: int) -> tuple[bytes, int]:
    if offset >= len(data):
        raise DatagramError("a connection id is cut off")
    start, length = offset + 1, data[offset]
    if length > CONNECTION_ID_BYTES_MAX or start + length > len(data):
        raise DatagramError("a connection id of a wrong length")
    return data[start : start + length], start + length


def _varint_untrusted(data: bytes, offset: int) -> tuple[int, int]:
    if offset >= len(data):
        raise DatagramError("a length is cut off")
    size = 1 << (data[offset] >> 6)
    if offset + size > len(data):
        raise DatagramError("a length is cut off")
    value = int.from_bytes(data[offset : offset + size], "big") & ((1 << (8 * size - 2)) - 1)
    return value, offset + size
