"""What the bodies of frames hold. One encode and one decode for each kind that has a shape.

Bodies with several fields are canonical CBOR arrays; fixed ones are big-endian integers.
LINK_ACCEPT, LINK_FINISH, HOP_FINISH and RECORD carry opaque bytes and are not here.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from identity import (
    AgentUri,
    CborError,
    Code,
    Identifier,
    IdentityError,
    NamePrefix,
)
from identity.cbor import decode_untrusted, encode
from link.errors import FrameError
from link.limits import (
    CREDIT_MAX,
    FRAME_BODY_BYTES_MAX,
    LINK_ID_MAX,
    LINK_NONCE_BYTES,
    MOVE_BYTES_MAX,
    NOISE_1_BYTES_MAX,
    RESTART_DELAY_MS_MAX,
    STREAM_PREAMBLE_BYTES,
)

PROTOCOL_VERSION: Final = 1
VERSIONS: Final = (PROTOCOL_VERSION,)
VERSIONS_OFFERED_MAX: Final = 8
EPOCH_MAX: Final = (1 << 63) - 1

_CREDIT: Final = struct.Struct(">QQ")
_CODE: Final = struct.Struct(">H")
_PREAMBLE: Final = struct.Struct(">BIQ")
_STREAM_MAGIC: Final = 0x53

LinkTarget = AgentUri | Identifier

assert _PREAMBLE.size == STREAM_PREAMBLE_BYTES


@dataclass(frozen=True, slots=True)
class LinkOpen:
    """The first frame of a link: where to, on whose behalf, and how the channel on it begins."""

    target: LinkTarget
    source: LinkTarget
    nonce: bytes
    source_node: Identifier | None
    """Who the gateway saw at the other end. Absent from the source, set by the gateway."""
    noise_1: bytes
    """The first handshake message; empty with ``move``."""
    versions: tuple[int, ...] = VERSIONS
    move: bytes | None = None
    """For a channel that is open already and goes on here: its wish, signed with its own key."""


@dataclass(frozen=True, slots=True)
class HopHello:
    """The first frame of a hop, from its dialler."""

    purpose: str
    target: str
    nonce: bytes
    noise_1: bytes
    versions: tuple[int, ...] = VERSIONS


@dataclass(frozen=True, slots=True)
class HopLimits:
    """What the sender of HOP_ACCEPT will take on this hop. Unknown keys are for later versions."""

    links: int


@dataclass(frozen=True, slots=True)
class Credit:
    """The sender may have sent ``limit`` bytes in all on ``stream`` (0 means the link itself)."""

    stream: int
    limit: int


@dataclass(frozen=True, slots=True)
class PrefixEpoch:
    prefix: NamePrefix
    epoch: int


@dataclass(frozen=True, slots=True)
class StreamPreamble:
    """The first 13 bytes of a byte stream: which stream of which link it is."""

    link: int
    stream: int


def parse_target_untrusted(text: object) -> LinkTarget:
    """Read an agent URI or an identifier. Raises FrameError."""
    if not isinstance(text, str):
        raise FrameError("a link's end must be text")
    try:
        return AgentUri.parse(text) if text.startswith("agent:") else Identifier.parse(text)
    except IdentityError as exc:
        raise FrameError(f"a link's end is malformed: {exc.detail}") from exc


def encode_link_open(message: LinkOpen) -> bytes:
    node = message.source_node
    return encode(
        [
            list(message.versions),
            str(message.target),
            str(message.source),
            message.nonce,
            None if node is None else node.digest,
            message.noise_1,
            message.move,
        ]
    )


def decode_link_open_untrusted(body: bytes) -> LinkOpen:
    versions, target, source, nonce, node, noise_1, move = _array_untrusted(body, 7)
    if move is not None and (noise_1 != b"" or len(_bytes_untrusted(move)) > MOVE_BYTES_MAX):
        raise FrameError("LINK_OPEN: a move stands alone, and is short")
    return LinkOpen(
        target=parse_target_untrusted(target),
        source=parse_target_untrusted(source),
        nonce=_bytes_untrusted(nonce, LINK_NONCE_BYTES),
        source_node=None if node is None else _identifier_untrusted(node),
        noise_1=_noise_1_untrusted(noise_1),
        move=move,
        versions=_versions_untrusted(versions),
    )


def encode_hop_hello(message: HopHello) -> bytes:
    return encode(
        [
            list(message.versions),
            message.purpose,
            message.target,
            message.nonce,
            message.noise_1,
        ]
    )


def decode_hop_hello_untrusted(body: bytes) -> HopHello:
    versions, purpose, target, nonce, noise_1 = _array_untrusted(body, 5)
    if not isinstance(purpose, str) or not isinstance(target, str):
        raise FrameError("HOP_HELLO: purpose and target must be text")
    return HopHello(
        purpose=purpose,
        target=target,
        nonce=_bytes_untrusted(nonce, LINK_NONCE_BYTES),
        noise_1=_noise_1_untrusted(noise_1),
        versions=_versions_untrusted(versions),
    )


def encode_hop_reply(noise_2: bytes, version: int = PROTOCOL_VERSION) -> bytes:
    return encode([version, noise_2])


def decode_hop_reply_untrusted(body: bytes) -> tuple[int, bytes]:
    """Return the version the acceptor chose and its Noise message."""
    version, noise_2 = _array_untrusted(body, 2)
    return _uint_untrusted(version, 255), _bytes_untrusted(noise_2)


def encode_hop_accept(epoch: int, limits: HopLimits, *, pad_bytes: int = 0) -> bytes:
    """``pad_bytes`` of nothing make the frame fill datagrams; a receiver ignores the key."""
    fields: dict[str, int | bytes] = {"links": limits.links}
    if pad_bytes:
        fields["pad"] = bytes(pad_bytes)
    return encode([epoch, fields])


def decode_hop_accept_untrusted(body: bytes) -> tuple[int, HopLimits]:
    epoch, fields = _array_untrusted(body, 2)
    if not isinstance(fields, Mapping):
        raise FrameError("HOP_ACCEPT: limits must be a map")
    limits = HopLimits(links=_uint_untrusted(fields.get("links"), LINK_ID_MAX))
    return _uint_untrusted(epoch, EPOCH_MAX), limits


def encode_credit(credit: Credit) -> bytes:
    return _CREDIT.pack(credit.stream, credit.limit)


def decode_credit_untrusted(body: bytes) -> Credit:
    if len(body) != _CREDIT.size:
        raise FrameError("CREDIT must be 16 bytes")
    stream, limit = _CREDIT.unpack(body)
    if limit > CREDIT_MAX:
        raise FrameError("CREDIT is beyond 2^63 - 1")
    return Credit(stream, limit)


def encode_code(code: Code) -> bytes:
    return _CODE.pack(code)


def decode_code_untrusted(body: bytes) -> Code:
    if len(body) != _CODE.size:
        raise FrameError("a code must be 2 bytes")
    return Code.from_number_untrusted(_CODE.unpack(body)[0])


def encode_prefix(prefix: NamePrefix) -> bytes:
    return encode([str(prefix)])


def decode_prefix_untrusted(body: bytes) -> NamePrefix:
    (text,) = _array_untrusted(body, 1)
    return _prefix_untrusted(text)


def encode_prefix_epoch(message: PrefixEpoch) -> bytes:
    return encode([str(message.prefix), message.epoch])


def decode_prefix_epoch_untrusted(body: bytes) -> PrefixEpoch:
    text, epoch = _array_untrusted(body, 2)
    return PrefixEpoch(_prefix_untrusted(text), _uint_untrusted(epoch, EPOCH_MAX))


def encode_restarting(delay_ms: int) -> bytes:
    return encode([delay_ms])


def decode_restarting_untrusted(body: bytes) -> int:
    (delay_ms,) = _array_untrusted(body, 1)
    return _uint_untrusted(delay_ms, RESTART_DELAY_MS_MAX)


def encode_stream_preamble(preamble: StreamPreamble) -> bytes:
    return _PREAMBLE.pack(_STREAM_MAGIC, preamble.link, preamble.stream)


def decode_stream_preamble_untrusted(data: bytes) -> StreamPreamble:
    if len(data) != STREAM_PREAMBLE_BYTES:
        raise FrameError("a stream's preamble must be 13 bytes")
    magic, link, stream = _PREAMBLE.unpack(data)
    if magic != _STREAM_MAGIC:
        raise FrameError("a byte stream must begin with its preamble")
    return StreamPreamble(link, stream)


def _array_untrusted(body: bytes, length: int) -> list[Any]:
    try:
        value = decode_untrusted(body, bytes_max=FRAME_BODY_BYTES_MAX, depth_max=4)
    except CborError as exc:
        raise FrameError(exc.detail) from exc
    if not isinstance(value, list) or len(value) != length:
        raise FrameError(f"expected an array of {length}")
    return value


def _uint_untrusted(value: object, limit: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
        raise FrameError(f"expected an integer from 0 to {limit}")
    return value


def _bytes_untrusted(value: object, length: int | None = None) -> bytes:
    if not isinstance(value, bytes) or (length is not None and len(value) != length):
        raise FrameError("expected bytes" if length is None else f"expected {length} bytes")
    return value


def _noise_1_untrusted(value: object) -> bytes:
    noise_1 = _bytes_untrusted(value)
    if len(noise_1) > NOISE_1_BYTES_MAX:
        raise FrameError(f"a first handshake message of more than {NOISE_1_BYTES_MAX} bytes")
    return noise_1


def _versions_untrusted(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= VERSIONS_OFFERED_MAX:
        raise FrameError(f"expected 1 to {VERSIONS_OFFERED_MAX} offered versions")
    return tuple(_uint_untrusted(item, 255) for item in value)


def _identifier_untrusted(value: object) -> Identifier:
    return Identifier(_bytes_untrusted(value, 32))


def _prefix_untrusted(text: object) -> NamePrefix:
    if not isinstance(text, str):
        raise FrameError("a prefix must be text")
    try:
        return NamePrefix.parse(text)
    except IdentityError as exc:
        raise FrameError(f"a prefix is malformed: {exc.detail}") from exc
