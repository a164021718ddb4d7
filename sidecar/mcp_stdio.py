"""One stdio MCP server shared by the requests of one caller: ids apart, bytes untouched.

Each request gets an id of ours, and so do its progress token and subscription: two clients of
one agent may well use the same ones. Everything else of `params` and `result` stays raw.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog

from identity import Code, SidelinkError
from sidecar.child import Child
from sidecar.mcp_message import META_SUBSCRIPTION, McpRequest, RpcCode, encode_error, one_line

IN_FLIGHT_MAX: Final = 64
STDIN_BYTES_MAX: Final = 8 * 1024 * 1024
NOTIFICATIONS_MAX: Final = 256
NOTIFICATION_BYTES_MAX: Final = 4 * 1024 * 1024

_log = structlog.get_logger(__name__)


class StdioError(SidelinkError):
    """The stdio server cannot take or did not answer a request."""


class _Line(msgspec.Struct):
    id: msgspec.Raw = msgspec.Raw()
    method: str = ""
    params: msgspec.Raw = msgspec.Raw()
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class _ErrorCode(msgspec.Struct):
    code: int


_RawObject = dict[str, msgspec.Raw]
_LINE: Final = msgspec.json.Decoder(_Line)
_ERROR: Final = msgspec.json.Decoder(_ErrorCode)
_OBJECT: Final = msgspec.json.Decoder(_RawObject)
_BAD_JSON: Final = (msgspec.MsgspecError, RecursionError, UnicodeError)


@dataclass(frozen=True, slots=True)
class Answer:
    """A final response: either `result` or `error` is JSON, the other is empty."""

    result: bytes
    error: bytes

    @property
    def error_code(self) -> int | None:
        if not self.error:
            return None
        try:
            return _ERROR.decode(self.error).code
        except _BAD_JSON:
            return RpcCode.INTERNAL

    def encode(self, request_id: bytes) -> bytes:
        if self.error:
            return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (request_id, self.error)
        return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (request_id, self.result)


@dataclass(slots=True, eq=False)
class Call:
    """One request on its way. `next` gives notifications, then the Answer, then is over."""

    request: McpRequest
    number: int
    _notifications: deque[bytes] = field(default_factory=deque)
    _held_bytes: int = 0
    _answer: Answer | None = None
    _failure: StdioError | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_settled(self) -> bool:
        return self._answer is not None or self._failure is not None

    async def next(self) -> bytes | Answer:
        """Raises StdioError when the server died first."""
        while True:
            if self._notifications:
                notification = self._notifications.popleft()
                self._held_bytes -= len(notification)
                return notification
            if self._answer is not None:
                return self._answer
            if self._failure is not None:
                raise self._failure
            self._changed.clear()
            await self._changed.wait()

    def notify(self, message: bytes) -> None:
        full = self._held_bytes + len(message) > NOTIFICATION_BYTES_MAX
        if full or len(self._notifications) >= NOTIFICATIONS_MAX:
            # A reader that does not keep up loses notifications, never the answer.
            _log.warning("mcp_notification_dropped", method=self.request.method)
            return
        self._notifications.append(message)
        self._held_bytes += len(message)
        self._changed.set()

    def settle(self, outcome: Answer | StdioError) -> None:
        if isinstance(outcome, Answer):
            self._answer = outcome
        else:
            self._failure = outcome
        self._changed.set()


class StdioServer:
    """Requests to, and answers from, one child. `run` owns its output until it ends."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._calls: dict[int, Call] = {}
        self._bad_lines = 0
        self._next_number = 1
        self._closed: StdioError | None = None

    @property
    def in_flight(self) -> int:
        return len(self._calls)

    @property
    def is_closed(self) -> bool:
        return self._closed is not None

    def begin(self, request: McpRequest) -> Call:
        """Pass a permitted request on. Raises StdioError when dead, or when it has too much."""
        if self._closed is not None:
            raise self._closed
        if len(self._calls) >= IN_FLIGHT_MAX:
            raise StdioError(Code.STREAM_LIMIT, f"{IN_FLIGHT_MAX} requests are in flight")
        number = self._next_number
        params = _with_own_token(request, number)
        self._send(number, request.method, params)
        self._next_number += 1
        call = self._calls[number] = Call(request, number)
        return call

    def end(self, call: Call) -> None:
        """Whoever began a call ends it; one without an answer is cancelled at the server."""
        if self._calls.pop(call.number, None) is None or call.is_settled or self._closed:
            return
        cancelled = b'{"requestId":%d,"reason":"nobody waits for it any more"}' % call.number
        try:
            self._send(None, "notifications/cancelled", cancelled)
        except StdioError:
            _log.warning("mcp_cancel_dropped", pid=self._child.pid)

    async def run(self) -> None:
        """Read until the server ends or misbehaves; then every call in flight fails."""
        reason = "the MCP server ended"
        try:
            while line := await self._child.stdout.readline():
                self._take_line_untrusted(line)
        except (ValueError, OSError):
            reason = "the MCP server wrote a line that is too long"
        finally:
            self._closed = StdioError(Code.STREAM_UPSTREAM_FAILED, reason)
            for call in self._calls.values():
                if not call.is_settled:
                    call.settle(self._closed)

    def _send(self, number: int | None, method: str, params: bytes) -> None:
        encoded = msgspec.json.encode(method)
        about = b"" if number is None else b'"id":%d,' % number
        line = b'{"jsonrpc":"2.0",%b"method":%b,"params":%b}\n' % (about, encoded, params)
        self._write(line)

    def _write(self, line: bytes) -> None:
        # A server that does not read must not fill our memory.
        if self._child.stdin.transport.get_write_buffer_size() + len(line) > STDIN_BYTES_MAX:
            raise StdioError(Code.STREAM_LIMIT, "the MCP server does not read its input")
        self._child.stdin.write(line)

    def _take_line_untrusted(self, line: bytes) -> None:
        try:
            # What stays raw is not looked into by the decoder, and would be passed on as it is.
            line.decode()
            message = _LINE.decode(line)
        except _BAD_JSON:
            self._bad_lines += 1
            if self._bad_lines & (self._bad_lines - 1) == 0:  # The 1st, 2nd, 4th, 8th …
                _log.warning(
                    "mcp_bad_line",
                    pid=self._child.pid,
                    line_bytes=len(line),
                    so_far=self._bad_lines,
                )
            return
        number = _number_of(bytes(message.id))
        if message.method and not bytes(message.id):
            self._take_notification(message)
        elif message.method:
            # This revision has no requests from server to client: tell it, or it would wait.
            error = encode_error(
                one_line(bytes(message.id)), RpcCode.METHOD_NOT_FOUND, "Method not found"
            )
            try:
                self._write(error + b"\n")
            except StdioError:
                _log.warning("mcp_server_request_dropped", pid=self._child.pid)
        elif number is not None and (call := self._calls.get(number)) and not call.is_settled:
            call.settle(_answer_of(message, call))

    def _take_notification(self, message: _Line) -> None:
        params = bytes(message.params)
        if message.method == "notifications/progress":
            call = self._named(params, "progressToken")
            if call is not None and call.request.progress_token is not None:
                own = {"progressToken": msgspec.Raw(call.request.progress_token)}
                call.notify(_notification(message.method, _merged(params, own)))
            return
        if message.method == "notifications/message":
            # Log lines name no request; all of these are the same caller's.
            for call in self._calls.values():
                call.notify(_notification(message.method, one_line(params)))
            return
        meta = _member(params, "_meta")
        call = self._named(meta, META_SUBSCRIPTION)
        if call is not None and call.request.method == "subscriptions/listen":
            call.notify(_notification(message.method, _with_own_subscription(params, call)))

    def _named(self, found: bytes, key: str) -> Call | None:
        number = _number_of(_member(found, key))
        return None if number is None else self._calls.get(number)


def _answer_of(message: _Line, call: Call) -> Answer:
    result, error = one_line(bytes(message.result)), one_line(bytes(message.error))
    if bool(result) == bool(error):
        broken = msgspec.json.encode(
            {"code": int(RpcCode.INTERNAL), "message": "the MCP server's answer is malformed"}
        )
        return Answer(b"", broken)
    if result and call.request.method == "subscriptions/listen":
        result = _with_own_subscription(result, call)
    return Answer(result, error)


def _notification(method: str, params: bytes) -> bytes:
    encoded = msgspec.json.encode(method)
    return b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (encoded, params or b"{}")


def _with_own_token(request: McpRequest, number: int) -> bytes:
    if request.progress_token is None:
        return request.params
    meta = _merged(_member(request.params, "_meta"), {"progressToken": _raw_number(number)})
    return _merged(request.params, {"_meta": msgspec.Raw(meta)})


def _with_own_subscription(found: bytes, call: Call) -> bytes:
    """Give back the client's id where the server put ours."""
    meta = _member(found, "_meta")
    if not _member(meta, META_SUBSCRIPTION):
        return one_line(found)
    own = _merged(meta, {META_SUBSCRIPTION: msgspec.Raw(call.request.request_id)})
    return _merged(found, {"_meta": msgspec.Raw(own)})


def _merged(found: bytes, over: _RawObject) -> bytes:
    """The object with members replaced in place; the others keep their bytes."""
    return one_line(msgspec.json.encode(_OBJECT.decode(found) | over))


def _member(found: bytes, key: str) -> bytes:
    try:
        return bytes(_OBJECT.decode(found).get(key, b"")) if found else b""
    except _BAD_JSON:
        return b""


def _raw_number(number: int) -> msgspec.Raw:
    return msgspec.Raw(b"%d" % number)


def _number_of(raw: bytes) -> int | None:
    """Our own ids only: what a server makes up is nobody's."""
    return int(raw) if raw.isdigit() and len(raw) <= 18 else None
