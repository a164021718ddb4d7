"""What policy needs to know of an MCP request, read from the JSON-RPC body and only from there.

Headers are checked against the body (revision 2026-07-28) and never believed. Pure.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import msgspec

from policy import Action
from sidecar.mcp_wire import Headers

PROTOCOL_VERSION: Final = "2026-07-28"
META_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
META_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
META_SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"

ARGUMENT_DEPTH_MAX: Final = 32
ARGUMENT_VALUES_MAX: Final = 20_000
NAME_BYTES_MAX: Final = 2048
ID_BYTES_MAX: Final = 256
OBJECTS_MAX: Final = 50_000
SUBSCRIBED_RESOURCES_MAX: Final = 64


class RpcCode(IntEnum):
    """JSON-RPC error codes. -32000 to -32019 are ours to give; the SDKs use -32000 to -32002."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL = -32603
    POLICY_DENIED = -32010
    MESH_FAILED = -32011
    HEADER_MISMATCH = -32020
    CAPABILITY_MISSING = -32021
    VERSION_UNSUPPORTED = -32022


# A server's own errors (-32603, tool errors, a denial) are answers and travel with 200: several
# clients hide the body of an HTTP error.
HTTP_STATUS: Final[Mapping[int, int]] = {
    RpcCode.PARSE_ERROR: 400,
    RpcCode.INVALID_REQUEST: 400,
    RpcCode.INVALID_PARAMS: 400,
    RpcCode.HEADER_MISMATCH: 400,
    RpcCode.CAPABILITY_MISSING: 400,
    RpcCode.VERSION_UNSUPPORTED: 400,
    RpcCode.METHOD_NOT_FOUND: 404,
}


class MessageError(Exception):
    """This body is answered with an error instead of being passed on."""

    def __init__(
        self, code: RpcCode, message: str, request_id: bytes | None = None, data: object = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.request_id = request_id
        self.data = data

    @property
    def status(self) -> int:
        return HTTP_STATUS[self.code]

    def encode(self) -> bytes:
        return encode_error(self.request_id, self.code, self.message, self.data)


@dataclass(frozen=True, slots=True)
class McpAsk:
    """One question to policy. Every ask of a request has to be permitted."""

    action: Action
    method: str
    tool: str | None = None
    args: Mapping[str, Any] | None = None
    prompt: str | None = None
    uri: str | None = None
    result: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class McpRequest:
    """A request that is well-formed and whose headers agree with it.

    `request_id`, `params` and `progress_token` are the client's own bytes of JSON.
    """

    method: str
    request_id: bytes
    params: bytes
    progress_token: bytes | None
    asks: tuple[McpAsk, ...]


@dataclass(frozen=True, slots=True)
class McpNotification:
    """Revision 2026-07-28 has none that a server acts on: it is acknowledged and dropped."""

    method: str


class _Envelope(msgspec.Struct):
    jsonrpc: str
    method: str
    id: msgspec.Raw = msgspec.Raw()
    params: msgspec.Raw = msgspec.Raw()


class _Meta(msgspec.Struct):
    progressToken: msgspec.Raw = msgspec.Raw()  # noqa: N815 - the wire's spelling


class _Params(msgspec.Struct):
    meta: _Meta = msgspec.field(name="_meta", default_factory=_Meta)


_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_PARAMS: Final = msgspec.json.Decoder(_Params)


def parse_body_untrusted(body: bytes, headers: Headers) -> McpRequest | McpNotification:
    """Raises MessageError, and nothing else, for whatever a client can send."""
    value = _decode_untrusted(body)
    if not isinstance(value, dict) or "method" not in value:
        raise MessageError(RpcCode.INVALID_REQUEST, "the body is not one request or notification")
    _refuse_lookalikes(value, _TOP_KEYS)
    try:
        envelope = _ENVELOPE.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise MessageError(RpcCode.INVALID_REQUEST, "the body is not JSON-RPC 2.0") from None
    if value.get("jsonrpc") != "2.0" or "result" in value or "error" in value:
        raise MessageError(RpcCode.INVALID_REQUEST, "the body is not a JSON-RPC 2.0 request")
    if "id" not in value:
        return McpNotification(envelope.method)
    if not isinstance(value["id"], int | str) or isinstance(value["id"], bool):
        raise MessageError(RpcCode.INVALID_REQUEST, "the id is neither text nor an integer")
    request_id = one_line(bytes(envelope.id))
    if len(request_id) > ID_BYTES_MAX:
        raise MessageError(RpcCode.INVALID_REQUEST, f"the id is longer than {ID_BYTES_MAX} bytes")
    try:
        return _read_request(value, envelope, request_id, headers)
    except MessageError as error:
        error.request_id = request_id
        raise


def encode_error(request_id: bytes | None, code: int, message: str, data: object = None) -> bytes:
    """A JSON-RPC error; `request_id` is JSON, as it came."""
    error: dict[str, object] = {"code": int(code), "message": message}
    if data is not None:
        error["data"] = data
    encoded = msgspec.json.encode(error)
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (request_id or b"null", encoded)


def one_line(raw: bytes) -> bytes:
    """The same JSON without line breaks: they end a message on a stdio server's input.

    Within a JSON string a line break is always escaped, so those replaced are white space.
    """
    return raw.replace(b"\n", b" ").replace(b"\r", b" ")


def unsupported_version(requested: object) -> MessageError:
    shown = requested if isinstance(requested, str) else ""
    data = {"supported": [PROTOCOL_VERSION], "requested": shown[:64]}
    return MessageError(RpcCode.VERSION_UNSUPPORTED, "Unsupported protocol version", data=data)


_TOP_KEYS: Final = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_PARAM_KEYS: Final = frozenset(
    {"_meta", "name", "arguments", "uri", "ref", "notifications", "protocolVersion"}
)


def _read_request(
    value: dict[str, Any], envelope: _Envelope, request_id: bytes, headers: Headers
) -> McpRequest:
    method = envelope.method
    params = value.get("params", {})
    if not isinstance(params, dict):
        raise MessageError(RpcCode.INVALID_PARAMS, "params is not an object")
    _refuse_lookalikes(params, _PARAM_KEYS)
    if method != "initialize":
        _check_meta(method, params, headers)
    asks = _asks_of(method, params)
    raw_params = one_line(bytes(envelope.params)) or b"{}"
    token = b""
    if method != "initialize":
        try:
            token = bytes(_PARAMS.decode(raw_params).meta.progressToken)
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            raise MessageError(RpcCode.INVALID_PARAMS, "params._meta is malformed") from None
        _check_progress_token(params["_meta"])
    return McpRequest(method, request_id, raw_params, token or None, asks)


def _check_progress_token(meta: dict[str, Any]) -> None:
    token = meta.get("progressToken", 0)
    if not isinstance(token, int | str) or isinstance(token, bool) or len(str(token)) > 256:
        raise MessageError(RpcCode.INVALID_PARAMS, "progressToken is not a short text or integer")


def _check_meta(method: str, params: dict[str, Any], headers: Headers) -> None:
    """The revision's checks in its order: envelope, headers against body, version."""
    meta = params.get("_meta")
    if not isinstance(meta, dict):
        raise MessageError(RpcCode.INVALID_PARAMS, "params._meta is missing")
    for key in (META_VERSION, META_CAPABILITIES):
        if key not in meta:
            raise MessageError(RpcCode.INVALID_PARAMS, f"params._meta lacks {key}")
    _check_headers(method, params, meta[META_VERSION], headers)
    if meta[META_VERSION] != PROTOCOL_VERSION:
        raise unsupported_version(meta[META_VERSION])


_NAMED_BY: Final[Mapping[str, str]] = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
}


def _check_headers(method: str, params: dict[str, Any], version: object, headers: Headers) -> None:
    found: dict[str, str] = {}
    for name, text in headers:
        if name in ("mcp-protocol-version", "mcp-method", "mcp-name"):
            if name in found:
                raise MessageError(RpcCode.HEADER_MISMATCH, f"{name} is given more than once")
            found[name] = text
    if found.get("mcp-protocol-version") != version:
        raise MessageError(RpcCode.HEADER_MISMATCH, "MCP-Protocol-Version differs from the body")
    if found.get("mcp-method") != method:
        raise MessageError(RpcCode.HEADER_MISMATCH, "Mcp-Method differs from the body")
    key = _NAMED_BY.get(method)
    if key is None:
        return
    if (named := params.get(key)) is not None and _header_text(found.get("mcp-name")) != named:
        raise MessageError(RpcCode.HEADER_MISMATCH, f"Mcp-Name differs from the body's {key}")


def _header_text(text: str | None) -> str | None:
    """Undo `=?base64?…?=`; what does not decode equals nothing."""
    if text is None or not (text.startswith("=?base64?") and text.endswith("?=")):
        return text
    payload = text[len("=?base64?") : -len("?=")]
    try:
        raw = base64.b64decode(payload, validate=True)
        return raw.decode() if base64.b64encode(raw).decode() == payload else None
    except (binascii.Error, ValueError):
        return None


_LISTS: Final = frozenset(
    {
        "initialize",
        "server/discover",
        "tools/list",
        "resources/list",
        "resources/templates/list",
        "prompts/list",
    }
)


def _asks_of(method: str, params: dict[str, Any]) -> tuple[McpAsk, ...]:
    """What policy is asked; a method that no action stands for is not there (deny by default)."""
    if method in _LISTS:
        return (McpAsk(Action.MCP_LIST, method),)
    match method:
        case "tools/call":
            tool, args = _name_of(params, "name"), _arguments_of(params)
            return (McpAsk(Action.MCP_CALL, method, tool=tool, args=args),)
        case "resources/read" | "resources/subscribe" | "resources/unsubscribe":
            return (McpAsk(Action.MCP_READ, method, uri=_name_of(params, "uri")),)
        case "prompts/get":
            prompt, args = _name_of(params, "name"), _arguments_of(params)
            return (McpAsk(Action.MCP_PROMPT, method, prompt=prompt, args=args),)
        case "completion/complete":
            return (_completion_ask(method, params),)
        case "subscriptions/listen":
            return _subscription_asks(method, params)
    raise MessageError(RpcCode.METHOD_NOT_FOUND, "Method not found", data=method[:128])


def _arguments_of(params: dict[str, Any]) -> dict[str, Any]:
    arguments = params.get("arguments")
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise MessageError(RpcCode.INVALID_PARAMS, "arguments is not an object")
    _check_bounds(arguments)
    return arguments


def _completion_ask(method: str, params: dict[str, Any]) -> McpAsk:
    """Completing an argument reveals what the prompt or resource would: the same permit."""
    ref = params.get("ref")
    kind = ref.get("type") if isinstance(ref, dict) else None
    if isinstance(ref, dict) and kind == "ref/prompt":
        return McpAsk(Action.MCP_PROMPT, method, prompt=_name_of(ref, "name"))
    if isinstance(ref, dict) and kind == "ref/resource":
        return McpAsk(Action.MCP_READ, method, uri=_name_of(ref, "uri"))
    raise MessageError(RpcCode.INVALID_PARAMS, "ref names neither a prompt nor a resource")


def _subscription_asks(method: str, params: dict[str, Any]) -> tuple[McpAsk, ...]:
    wanted = params.get("notifications", {})
    uris = wanted.get("resourceSubscriptions") if isinstance(wanted, dict) else ()
    uris = [] if uris is None else uris
    if not isinstance(uris, list) or len(uris) > SUBSCRIBED_RESOURCES_MAX:
        raise MessageError(RpcCode.INVALID_PARAMS, "notifications is malformed or too long")
    reads = (McpAsk(Action.MCP_READ, method, uri=_name_of({"uri": uri}, "uri")) for uri in uris)
    return (McpAsk(Action.MCP_LIST, method), *reads)


def _name_of(params: dict[str, Any], key: str) -> str:
    name = params.get(key)
    if not isinstance(name, str) or not name:
        raise MessageError(RpcCode.INVALID_PARAMS, f"{key} is missing")
    try:
        if len(name.encode()) > NAME_BYTES_MAX:
            raise MessageError(RpcCode.INVALID_PARAMS, f"{key} is too long")
    except UnicodeEncodeError:
        raise MessageError(RpcCode.INVALID_PARAMS, f"{key} is not text") from None
    return name


class _RefusedJsonError(ValueError):
    pass


def _decode_untrusted(body: bytes) -> object:
    """The body as plain data; duplicate keys, NaN and half surrogates are refused.

    msgspec keeps the last of two equal keys without a word, and a server behind us may keep the
    first: the standard decoder tells us of every object's pairs.
    """
    objects_left = OBJECTS_MAX

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal objects_left
        objects_left -= 1
        found = dict(pairs)
        if len(found) != len(pairs) or objects_left < 0:
            raise _RefusedJsonError("a key is given twice, or there are too many objects")
        return found

    def refuse(constant: str) -> object:
        raise _RefusedJsonError(f"{constant} is not JSON")

    try:
        return json.loads(body.decode(), object_pairs_hook=unique, parse_constant=refuse)
    except _RefusedJsonError as error:
        raise MessageError(RpcCode.INVALID_REQUEST, str(error)) from None
    except (ValueError, RecursionError):
        raise MessageError(RpcCode.PARSE_ERROR, "Parse error") from None


def _refuse_lookalikes(found: dict[str, Any], known: frozenset[str]) -> None:
    """Some servers match keys without regard to case; policy must not read another field."""
    for key in found:
        if key not in known and key.casefold() in known:
            raise MessageError(RpcCode.INVALID_REQUEST, "a key differs from a known one in case")


def _check_bounds(arguments: dict[str, Any]) -> None:
    """Depth and number of values, without recursion: policy walks them again."""
    level: list[Any] = [arguments]
    values = 0
    for _ in range(ARGUMENT_DEPTH_MAX):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
        values += len(below)
        if not below:
            return
        if values > ARGUMENT_VALUES_MAX:
            break
        level = below
    raise MessageError(RpcCode.INVALID_PARAMS, "arguments are nested too deep or too many")
