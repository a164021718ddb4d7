"""Wire format of one MCP exchange on a mesh stream: an HTTP-shaped head, then raw bytes.

Nothing here knows MCP: a head, a body, an answer. That is what lets the far side be a stdio
command today and an HTTP server tomorrow without a change to the ingress.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from identity import Code, SidelinkError, cbor
from sidecar.mesh_stream import MeshStream

EXCHANGE_VERSION: Final = 1
HEAD_BYTES_MAX: Final = 64 * 1024
BODY_BYTES_MAX: Final = 4 * 1024 * 1024
HEADERS_MAX: Final = 128
READ_BYTES: Final = 64 * 1024

_LENGTH_BYTES: Final = 4
_HEAD_DEPTH_MAX: Final = 4

# RFC 9110 section 7.6.1 and what the two ends of a hop settle between themselves.
HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
RESERVED_PREFIX: Final = "sidelink-"

Headers = tuple[tuple[str, str], ...]


class WireError(SidelinkError):
    """The peer's head or body is not what section 'MCP exchange' of the protocol says."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """Header names are lower case; each character of a value stands for one byte."""

    method: str
    suffix: str
    headers: Headers
    body_bytes: int


@dataclass(frozen=True, slots=True)
class ResponseHead:
    status: int
    headers: Headers


def end_to_end(headers: Headers) -> Headers:
    """What may cross the mesh: neither hop-by-hop headers nor any that only we may set."""
    named = {
        token.strip().lower()
        for name, value in headers
        if name == "connection"
        for token in value.split(",")
    }
    return tuple(
        (name, value)
        for name, value in headers
        if name not in HOP_BY_HOP and name not in named and not name.startswith(RESERVED_PREFIX)
    )


def encode_request_head(head: RequestHead) -> bytes:
    headers = [list(pair) for pair in head.headers]
    return _framed([EXCHANGE_VERSION, head.method, head.suffix, headers, head.body_bytes])


def encode_response_head(head: ResponseHead) -> bytes:
    return _framed([EXCHANGE_VERSION, head.status, [list(pair) for pair in head.headers]])


def decode_request_head_untrusted(data: bytes) -> RequestHead:
    match _decoded(data):
        case [version, str(method), str(suffix), list(headers), int(body_bytes)]:
            _check_version(version)
        case _:
            raise WireError(Code.STREAM_BAD_HEAD, "a request head has five known fields")
    if isinstance(body_bytes, bool) or body_bytes < 0:
        raise WireError(Code.STREAM_BAD_HEAD, "the body length is not a number")
    if not method.isascii() or not method.isupper() or not method.isalpha() or len(method) > 16:
        raise WireError(Code.STREAM_BAD_HEAD, "the method is not an HTTP method")
    if not suffix.isascii() or not suffix.isprintable() or " " in suffix:
        raise WireError(Code.STREAM_BAD_HEAD, "the path suffix is not printable ASCII")
    return RequestHead(method, suffix, _checked_headers(headers), body_bytes)


def decode_response_head_untrusted(data: bytes) -> ResponseHead:
    match _decoded(data):
        case [version, int(status), list(headers)]:
            _check_version(version)
        case _:
            raise WireError(Code.STREAM_BAD_HEAD, "a response head has three known fields")
    # 1xx and an upgrade would change how the bytes that follow are read.
    if isinstance(status, bool) or not 200 <= status <= 599:
        raise WireError(Code.STREAM_BAD_HEAD, "the status is not a final HTTP status")
    return ResponseHead(status, _checked_headers(headers))


class ExchangeReader:
    """Reads heads and bodies off a mesh stream; every read is bounded."""

    def __init__(self, stream: MeshStream) -> None:
        self._stream = stream
        self._held = b""

    async def request_head(self) -> RequestHead:
        return decode_request_head_untrusted(await self._head())

    async def response_head(self) -> ResponseHead:
        return decode_response_head_untrusted(await self._head())

    async def body(self, body_bytes: int) -> bytes:
        """Exactly that many bytes; longer than BODY_BYTES_MAX is refused before any is read."""
        if body_bytes > BODY_BYTES_MAX:
            raise WireError(Code.STREAM_LIMIT, f"a body of {body_bytes} bytes")
        return await self._exactly(body_bytes)

    async def rest(self) -> AsyncIterator[bytes]:
        """The answer's bytes as they arrive, until the sealed FIN."""
        chunk, self._held = self._held, b""
        if chunk:
            yield chunk
        while chunk := await self._stream.read(READ_BYTES):
            yield chunk

    async def wait_end(self) -> None:
        """Returns at the peer's FIN; raises StreamError when it resets the stream instead."""
        if self._held or await self._stream.read(1):
            raise WireError(Code.STREAM_BAD_HEAD, "bytes after the end of the body")

    async def _head(self) -> bytes:
        length = int.from_bytes(await self._exactly(_LENGTH_BYTES), "big")
        if not 0 < length <= HEAD_BYTES_MAX:
            raise WireError(Code.STREAM_BAD_HEAD, f"a head of {length} bytes")
        return await self._exactly(length)

    async def _exactly(self, count: int) -> bytes:
        parts = [self._held]
        held_bytes = len(self._held)
        while held_bytes < count:
            chunk = await self._stream.read(READ_BYTES)
            if not chunk:
                raise WireError(Code.STREAM_TRUNCATED, "the stream ended within a head or body")
            parts.append(chunk)
            held_bytes += len(chunk)
        joined = b"".join(parts)
        self._held = joined[count:]
        return joined[:count]


def _framed(fields: list[object]) -> bytes:
    encoded = cbor.encode(fields)
    if len(encoded) > HEAD_BYTES_MAX:
        raise WireError(Code.STREAM_LIMIT, f"a head of {len(encoded)} bytes")
    return len(encoded).to_bytes(_LENGTH_BYTES, "big") + encoded


def _decoded(data: bytes) -> object:
    try:
        return cbor.decode_untrusted(data, bytes_max=HEAD_BYTES_MAX, depth_max=_HEAD_DEPTH_MAX)
    except SidelinkError as error:
        raise WireError(Code.STREAM_BAD_HEAD, error.detail) from None


def _check_version(version: object) -> None:
    if version != EXCHANGE_VERSION or isinstance(version, bool):
        raise WireError(Code.STREAM_BAD_HEAD, "an exchange of another version")


def _checked_headers(pairs: list[object]) -> Headers:
    if len(pairs) > HEADERS_MAX:
        raise WireError(Code.STREAM_BAD_HEAD, f"{len(pairs)} headers")
    headers = []
    for pair in pairs:
        match pair:
            case [str(name), str(value)] if _is_header(name, value):
                headers.append((name, value))
            case _:
                raise WireError(Code.STREAM_BAD_HEAD, "a header that HTTP does not allow")
    return tuple(headers)


_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")


def _is_header(name: str, value: str) -> bool:
    # A carriage return or line feed here would write a second header, or a second answer, at the
    # far side.
    return (
        bool(name)
        and _TOKEN.issuperset(name)
        and all(character == "\t" or " " <= character <= "\xff" for character in value)
        and "\x7f" not in value
    )
