"""The wire format of sessions: prologue, records, and what sealed records hold. All of it.

A record is a header, which is authenticated but not hidden, and an AEAD ciphertext:

    offset  bytes  field
         0      1  type, one of RecordType
         1      1  flags: bit 0 MORE, the message continues in the next DATA record
         2      4  epoch: how often this direction was rekeyed
         6      8  sequence: how many records went before in this direction; the AEAD's nonce
        14      n  ciphertext and 16 bytes of tag

Integers are big-endian. Functions that touch bytes from a peer end in ``_untrusted`` and raise
ChannelError, nothing else.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum, unique
from typing import Any, Final, NamedTuple

from channel.errors import ChannelError
from channel.kem import KEM_NAME
from channel.limits import (
    ADDRESSES_BODY_BYTES_MAX,
    ADDRESSES_MAX,
    DENY_BODY_BYTES_MAX,
    DENY_REASON_BYTES_MAX,
    DENY_RULE_BYTES_MAX,
    FRAME_BODY_BYTES_MAX,
    HASH_BYTES,
    HOST_BYTES_MAX,
    MAC_BYTES,
    MOVE_BYTES,
    MOVED_BYTES,
    NONCE_BYTES,
    PROLOGUE_EXTRA_BYTES_MAX,
    PROLOGUE_EXTRA_MAX,
    PSK_BYTES,
    RECORD_HEADER_BYTES,
    RECORD_OVERHEAD_BYTES,
    SERVICE_BYTES_MAX,
    SESSION_ID_BYTES,
    STREAM_ID_MAX,
    STREAM_OPEN_BYTES_MAX,
    TARGET_BYTES_MAX,
    VERSIONS_MAX,
)
from identity import CborError, Code
from identity.cbor import decode_untrusted, encode

PROTOCOL_NAME: Final = "sidelink"
PROTOCOL_VERSION: Final = 1
PURPOSES: Final = frozenset({"hop", "channel"})

FLAG_MORE: Final = 0x01

_HEADER: Final = struct.Struct(">BBIQ")
_CODE: Final = struct.Struct(">H")
_POSITION: Final = struct.Struct(">Q")
_MOVE: Final = struct.Struct(f">{SESSION_ID_BYTES}sQQ{MAC_BYTES}s")
_MOVED: Final = struct.Struct(f">Q{MAC_BYTES}s")
assert _MOVE.size == MOVE_BYTES
assert _MOVED.size == MOVED_BYTES
assert _HEADER.size == RECORD_HEADER_BYTES


@unique
class RecordType(IntEnum):
    DATA = 1
    ACCEPT = 2
    DENY = 3
    REKEY = 4
    STREAM_OPEN = 5
    CLOSE = 6
    FIN = 7
    RESET = 8
    RENEW = 9
    ACK = 10
    ADDRESSES = 11
    REST = 12
    WAKE = 13
    LEAVING = 14


@unique
class Signal(IntEnum):
    """Records without a body, about the channel as a whole."""

    REST = RecordType.REST
    """There is nothing to say: the channel may be put away."""
    WAKE = RecordType.WAKE
    """It may not: there is."""
    LEAVING = RecordType.LEAVING
    """The sender's program is about to stop: say nothing new, and offer to rest when done."""


_TYPES: Final = {int(type_): type_ for type_ in RecordType}


class RecordHeader(NamedTuple):
    type: RecordType
    flags: int
    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Prologue:
    """What both sides must agree on before a byte authenticates. Raises ChannelError when the
    version is not among the offered ones, and ValueError for fields that the caller must have
    checked before."""

    purpose: str
    target: str
    """The agent URI or identifier that the initiator asks for, or empty: whoever answers."""
    nonce: bytes
    versions: tuple[int, ...] = (PROTOCOL_VERSION,)
    version: int = PROTOCOL_VERSION
    extra: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.purpose not in PURPOSES:
            raise ValueError(f"no such purpose: {self.purpose!r}")
        if len(self.nonce) != NONCE_BYTES:
            raise ValueError(f"the nonce is {NONCE_BYTES} bytes")
        if len(self.target.encode()) > TARGET_BYTES_MAX:
            raise ValueError(f"a target is at most {TARGET_BYTES_MAX} bytes")
        if len(self.versions) > VERSIONS_MAX:
            raise ValueError(f"at most {VERSIONS_MAX} versions are offered")
        if self.version not in self.versions:
            raise ChannelError(Code.CHANNEL_VERSION_UNSUPPORTED, f"the peer offers {self.versions}")
        if len(self.extra) > PROLOGUE_EXTRA_MAX or any(
            len(item) > PROLOGUE_EXTRA_BYTES_MAX for item in self.extra
        ):
            raise ValueError("too much in the prologue")

    def encode(self) -> bytes:
        return encode(
            [
                PROTOCOL_NAME,
                self.purpose,
                list(self.versions),
                self.version,
                KEM_NAME,
                self.target,
                self.nonce,
                *self.extra,
            ]
        )


def choose_version_untrusted(offered: tuple[int, ...]) -> int:
    """The version to speak with a peer that offers these."""
    if PROTOCOL_VERSION not in offered:
        raise ChannelError(Code.CHANNEL_VERSION_UNSUPPORTED, f"the peer offers {offered}")
    return PROTOCOL_VERSION


def encode_header(header: RecordHeader) -> bytes:
    return _HEADER.pack(*header)


def decode_header_untrusted(record: bytes) -> RecordHeader:
    """Read the header of a whole record. Nothing in it is authentic until the record is opened."""
    if not RECORD_OVERHEAD_BYTES <= len(record) <= FRAME_BODY_BYTES_MAX:
        raise ChannelError(Code.CHANNEL_BAD_RECORD, f"a record of {len(record)} bytes")
    type_number, flags, epoch, sequence = _HEADER.unpack_from(record)
    type_ = _TYPES.get(type_number)
    if type_ is None:
        raise ChannelError(Code.CHANNEL_BAD_RECORD, f"record type {type_number}")
    if flags & ~FLAG_MORE or (flags and type_ is not RecordType.DATA):
        raise ChannelError(Code.CHANNEL_BAD_RECORD, f"flags {flags:#04x} on {type_.name}")
    return RecordHeader(type_, flags, epoch, sequence)


def encode_code(code: Code) -> bytes:
    return _CODE.pack(code)


def decode_code_untrusted(body: bytes) -> Code:
    if len(body) != _CODE.size:
        raise ChannelError(Code.CHANNEL_BAD_RECORD, "a code is 2 bytes")
    return Code.from_number_untrusted(_CODE.unpack(body)[0])


@dataclass(frozen=True, slots=True)
class Denial:
    """The body of DENY: what policy said, for the one that was refused."""

    code: Code
    rule: str
    reason: str


def encode_denial(denial: Denial) -> bytes:
    """Texts that are too long are cut: a denial must not fail for its explanation."""
    rule = _cut(denial.rule, DENY_RULE_BYTES_MAX)
    return encode([int(denial.code), rule, _cut(denial.reason, DENY_REASON_BYTES_MAX)])


def decode_denial_untrusted(body: bytes) -> Denial:
    code, rule, reason = _array_untrusted(body, 3, DENY_BODY_BYTES_MAX)
    return Denial(
        Code.from_number_untrusted(_uint_untrusted(code, 0xFFFF)),
        _text_untrusted(rule, DENY_RULE_BYTES_MAX),
        _text_untrusted(reason, DENY_REASON_BYTES_MAX),
    )


@dataclass(frozen=True, slots=True)
class StreamOpen:
    """The body of STREAM_OPEN: what the opener wants, and the secret that proves it is the one."""

    stream: int
    service: str
    secret: bytes = field(repr=False)


def encode_stream_open(message: StreamOpen) -> bytes:
    return encode([message.stream, message.service, message.secret])


def decode_stream_open_untrusted(body: bytes) -> StreamOpen:
    stream, service, secret = _array_untrusted(body, 3, STREAM_OPEN_BYTES_MAX)
    if not isinstance(secret, bytes) or len(secret) != PSK_BYTES:
        raise ChannelError(Code.STREAM_SECRET_INVALID, f"a stream's secret is {PSK_BYTES} bytes")
    return StreamOpen(
        _uint_untrusted(stream, STREAM_ID_MAX),
        _text_untrusted(service, SERVICE_BYTES_MAX),
        secret,
    )


def encode_position(position: int) -> bytes:
    return _POSITION.pack(position)


def decode_position_untrusted(body: bytes) -> int:
    if len(body) != _POSITION.size:
        raise ChannelError(Code.CHANNEL_BAD_RECORD, "a position is 8 bytes")
    position: int = _POSITION.unpack(body)[0]
    return position


@dataclass(frozen=True, slots=True)
class Move:
    """What asks, on a new link, to go on with a session there."""

    session_id: bytes
    attempt: int
    position: int
    mac: bytes


@dataclass(frozen=True, slots=True)
class Moved:
    """The answer: where the one that answers stands."""

    position: int
    mac: bytes


def encode_move(move: Move) -> bytes:
    return _MOVE.pack(move.session_id, move.attempt, move.position, move.mac)


def decode_move_untrusted(message: bytes) -> Move:
    if len(message) != MOVE_BYTES:
        raise ChannelError(Code.CHANNEL_MOVE_INVALID, f"a MOVE of {len(message)} bytes")
    return Move(*_MOVE.unpack(message))


def encode_moved(moved: Moved) -> bytes:
    return _MOVED.pack(moved.position, moved.mac)


def decode_moved_untrusted(message: bytes) -> Moved:
    if len(message) != MOVED_BYTES:
        raise ChannelError(Code.CHANNEL_MOVE_INVALID, f"a MOVED of {len(message)} bytes")
    return Moved(*_MOVED.unpack(message))


Address = tuple[str, int]
"""Host, a literal or a name, and UDP port."""


def encode_addresses(addresses: tuple[Address, ...]) -> bytes:
    return encode([[host, port] for host, port in addresses])


def decode_addresses_untrusted(body: bytes) -> tuple[Address, ...]:
    """Read the body of ADDRESSES: at most ADDRESSES_MAX pairs of host and UDP port."""
    try:
        value = decode_untrusted(
            body, bytes_max=ADDRESSES_BODY_BYTES_MAX, depth_max=3, code=Code.CHANNEL_BAD_RECORD
        )
    except CborError as exc:
        raise ChannelError(Code.CHANNEL_BAD_RECORD, exc.detail) from exc
    if not isinstance(value, list) or len(value) > ADDRESSES_MAX:
        raise ChannelError(Code.CHANNEL_BAD_RECORD, f"more than {ADDRESSES_MAX} addresses, or none")
    return tuple(_address_untrusted(item) for item in value)


def encode_stream_prologue(
    channel_hash: bytes, stream: int, service: str, opened_by_initiator: bool
) -> bytes:
    """Bind a stream to its channel, its number, its service, and to who opened it."""
    assert len(channel_hash) == HASH_BYTES
    opener = "initiator" if opened_by_initiator else "responder"
    versions = [PROTOCOL_VERSION]
    return encode(
        [
            PROTOCOL_NAME,
            "stream",
            versions,
            PROTOCOL_VERSION,
            "",  # No KEM: the secret came through a channel that had one.
            service,
            channel_hash,
            stream,
            opener,
        ]
    )


def _address_untrusted(value: object) -> Address:
    if not isinstance(value, list) or len(value) != 2:
        raise ChannelError(Code.CHANNEL_BAD_RECORD, "an address is a host and a port")
    host = _text_untrusted(value[0], HOST_BYTES_MAX)
    port = _uint_untrusted(value[1], 0xFFFF)
    if not host or not port:
        raise ChannelError(Code.CHANNEL_BAD_RECORD, "an address without a host, or port 0")
    return host, port


def _cut(text: str, bytes_max: int) -> str:
    return text.encode(errors="replace")[:bytes_max].decode(errors="ignore")


def _array_untrusted(body: bytes, length: int, bytes_max: int) -> list[Any]:
    try:
        value = decode_untrusted(
            body, bytes_max=bytes_max, depth_max=2, code=Code.CHANNEL_BAD_RECORD
        )
    except CborError as exc:
        raise ChannelError(Code.CHANNEL_BAD_RECORD, exc.detail) from exc
    if not isinstance(value, list) or len(value) != length:
        raise ChannelError(Code.CHANNEL_BAD_RECORD, f"expected an array of {length}")
    return value


def _uint_untrusted(value: object, limit: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
        raise ChannelError(Code.CHANNEL_BAD_RECORD, f"expected an integer from 0 to {limit}")
    return value


def _text_untrusted(value: object, bytes_max: int) -> str:
    if not isinstance(value, str) or len(value.encode()) > bytes_max:
        raise ChannelError(Code.CHANNEL_BAD_RECORD, f"expected text of at most {bytes_max} bytes")
    return value
