"""Where an MCP client enters the mesh: an HTTP endpoint that acts as one named agent.

It authenticates the client, reads what policy needs, asks, and then moves bytes. It never
rewrites a body and never waits for the end of an answer.
"""

import asyncio
import hmac
import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from identity import AgentUri, Code, SidelinkError
from policy import Denial, Permit
from sidecar.mcp_answers import McpAnswer, denied, failed, sse_event
from sidecar.mcp_message import (
    McpAsk,
    McpNotification,
    McpRequest,
    MessageError,
    RpcCode,
    encode_error,
    parse_body_untrusted,
    unsupported_version,
)
from sidecar.mcp_standing import AskAgain, CallCutError, CallStanding, LiveCall
from sidecar.mcp_wire import (
    BODY_BYTES_MAX,
    ExchangeReader,
    Headers,
    RequestHead,
    ResponseHead,
    WireError,
    encode_request_head,
    end_to_end,
)
from sidecar.mesh_stream import MeshStream, OpenStream, StreamError

LOOPBACK_HOSTS: Final = ("127.0.0.1", "localhost", "[::1]")
REQUESTS_MAX: Final = 256
BODY_S_MAX: Final = 30.0
OPEN_S_MAX: Final = 10.0
ANSWER_S_MAX: Final = 120.0
STOP_S_MAX: Final = 1.0
LAST_WORDS_S: Final = 1.0
# An event ends with an empty line, and a line in one of three ways.
_EVENT_ENDS: Final = (b"\n\n", b"\r\n\r\n", b"\r\r")
_EVENT_END_BYTES: Final = max(map(len, _EVENT_ENDS))
HEADER_BYTES_MAX: Final = 16 * 1024

IngressDecide = Callable[[str, str, AgentUri, McpAsk], Awaitable[Permit | Denial]]
"""(agent name, service, to, ask) -> decision, on a far agent that has proved who it is. Also writes
the audit line. Raises SidelinkError when the far agent cannot be reached."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class IngressSettings:
    """One ingress is one agent. `services`: the name in the URL -> the agent that offers it.

    A client proves itself by `token`, or by reaching the Unix socket; `allow_any_local` lets
    every local process act as the agent and has to be asked for.
    """

    agent: str
    services: Mapping[str, AgentUri]
    token: str | None = field(default=None, repr=False)
    allow_any_local: bool = False
    hosts: tuple[str, ...] = LOOPBACK_HOSTS
    origins: tuple[str, ...] = ()


class McpIngress:
    """Start it on TCP or on a Unix socket, then close it."""

    def __init__(
        self,
        settings: IngressSettings,
        decide: IngressDecide,
        open_stream: OpenStream,
        ask_again: AskAgain | None = None,
    ) -> None:
        """``ask_again``: what ``decide`` is asked, about calls in flight; None where the egress is
        in this program too, and asks about the same calls."""
        self._settings = settings
        self._decide = decide
        self._open_stream = open_stream
        self._standing = CallStanding(ask_again)
        self._needs_token = True
        self._checks_host = True
        self._requests = 0
        self._runner: web.AppRunner | None = None

    async def start_tcp(self, host: str, port: int) -> int:
        """Returns the port. Raises SidelinkError without a token unless any may act."""
        self.guard_tcp()
        self._runner = await _start_runner(self.handle)
        return await _listen_tcp(self._runner, host, port)

    def guard_tcp(self) -> None:
        """Refuse to be reached over TCP by whoever, unless that was asked for."""
        if self._settings.token is None and not self._settings.allow_any_local:
            raise SidelinkError(
                Code.CONFIG_INVALID,
                f"the MCP ingress of {self._settings.agent} needs a token, a Unix socket or "
                "allow_any_local",
            )
        if self._settings.token is None:
            _log.warning("mcp_ingress_any_local_process_may_act", agent=self._settings.agent)
        self._needs_token = self._settings.token is not None

    @property
    def services(self) -> Collection[str]:
        return self._settings.services.keys()

    async def start_unix(self, path: Path) -> None:
        """The folder's mode 0700 is what keeps others out; the caller has made it."""
        self._needs_token = False
        # No web page reaches a Unix socket, and its clients put any host there.
        self._checks_host = False
        self._runner = await _start_runner(self.handle)
        await web.UnixSite(self._runner, str(path)).start()
        os.chmod(path, 0o600)

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def policy_changed(self) -> None:
        """Another policy is in force: calls in flight that it denies end."""
        self._standing.policy_changed()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One HTTP request to `/mcp/<service>`."""
        refusal = self._refusal(request)
        if refusal is not None:
            return _plain(refusal)
        to = self._settings.services.get(request.match_info["service"])
        if to is None:
            return _plain(McpAnswer(404, b""))
        if self._requests >= REQUESTS_MAX:
            limit = SidelinkError(Code.STREAM_LIMIT, f"{REQUESTS_MAX} requests are in flight")
            return _plain(failed(None, limit))
        self._requests += 1
        try:
            return await self._take(request, to)
        finally:
            self._requests -= 1

    async def _take(self, request: web.Request, to: AgentUri) -> web.StreamResponse:
        try:
            async with asyncio.timeout(BODY_S_MAX):
                body = await request.read()
        except TimeoutError:
            return _plain(McpAnswer(408, b""))
        except web.HTTPRequestEntityTooLarge:
            text = f"the body is longer than {BODY_BYTES_MAX} bytes"
            return _plain(McpAnswer(413, encode_error(None, RpcCode.INVALID_REQUEST, text)))
        headers = self._headers_of(request)
        changes = self._standing.changes
        message = await self._judge(request.match_info["service"], to, body, headers)
        if isinstance(message, McpAnswer):
            return _plain(message)
        live = LiveCall(request.match_info["service"], message.asks)
        # One of its asks may have been decided before another policy came.
        live.is_stale = self._standing.changes != changes
        head = RequestHead("POST", "", end_to_end(headers), len(body))
        reply = _Reply(request)
        try:
            with self._standing.serving(live):
                return await self._forward(reply, message, to, head, body, live)
        except CallCutError as cut:
            return await reply.end_denied(message.request_id, cut.denial)

    def _refusal(self, request: web.Request) -> McpAnswer | None:
        """Everything that is settled before a byte of the body is read."""
        if self._checks_host and not _is_host_allowed(
            request.headers.get("Host", ""), self._settings.hosts
        ):
            # A page whose name was made to resolve to this machine (DNS rebinding).
            return McpAnswer(421, b"")
        origin = request.headers.get("Origin")
        if origin is not None and origin not in self._settings.origins:
            return McpAnswer(403, b"")
        if self._needs_token and not self._is_token_right(request):
            return McpAnswer(401, b"", (("www-authenticate", 'Bearer realm="sidelink"'),))
        if request.method != "POST":
            return McpAnswer(405, b"", (("allow", "POST"),))
        if request.content_type != "application/json":
            return McpAnswer(415, b"")
        return None

    def _is_token_right(self, request: web.Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        expected = self._settings.token or ""
        # Bytes, as comparing text would raise for what is not ASCII; an empty token opens nothing.
        is_equal = hmac.compare_digest(
            given.strip().encode(errors="surrogateescape"), expected.encode()
        )
        return scheme.lower() == "bearer" and bool(expected) and is_equal

    def _headers_of(self, request: web.Request) -> Headers:
        """Without our own token: the far side is another principal and must not learn it."""
        return tuple(
            (name.decode("latin-1").lower(), value.decode("latin-1"))
            for name, value in request.raw_headers
            if not (self._needs_token and name.lower() == b"authorization")
        )

    async def _judge(
        self, service: str, to: AgentUri, body: bytes, headers: Headers
    ) -> McpRequest | McpAnswer:
        try:
            message = parse_body_untrusted(body, headers)
            if isinstance(message, McpNotification):
                return McpAnswer(202, b"")
            for ask in message.asks:
                try:
                    decision = await self._decide(self._settings.agent, service, to, ask)
                except SidelinkError as error:
                    return failed(message.request_id, error)
                if not isinstance(decision, Permit):
                    return denied(message.request_id, decision)
            if message.method == "initialize":
                # After the decision, so that one who is denied reads why and not about versions.
                unsupported = unsupported_version(None)
                unsupported.request_id = message.request_id
                raise unsupported
        except MessageError as error:
            return McpAnswer(error.status, error.encode())
        return message

    async def _forward(
        self,
        reply: "_Reply",
        message: McpRequest,
        to: AgentUri,
        head: RequestHead,
        body: bytes,
        live: LiveCall,
    ) -> web.StreamResponse:
        stream: MeshStream | None = None
        is_done = False
        try:
            async with asyncio.timeout(OPEN_S_MAX):
                stream = await self._open_stream(self._settings.agent, to, live.service)
            self._standing.found(live, stream.peer)
            reader = ExchangeReader(stream)
            async with asyncio.timeout(ANSWER_S_MAX):
                await stream.write(encode_request_head(head) + body)
                answer = await reader.response_head()
            response, is_done = await reply.relay(
                answer, reader, lambda: self._standing.check(live)
            )
            if is_done:
                await stream.finish()
            return response
        except TimeoutError:
            error: SidelinkError = StreamError(Code.STREAM_TIMEOUT, "no answer in time")
            return _plain(failed(message.request_id, error))
        except SidelinkError as error:
            _log.info("mcp_forward_failed", agent=self._settings.agent, code=error.code.text)
            return _plain(failed(message.request_id, error))
        finally:
            if stream is not None and not is_done:
                # To the far side too, that is the end of it: it cancels at the server.
                stream.reset(Code.STREAM_RESET if live.denial is None else live.denial.code)


class McpListener:
    """Several ingresses on one port, each with its own token: the service's name tells which."""

    def __init__(self, ingresses: Iterable[McpIngress]) -> None:
        self._by_service = {
            service: ingress for ingress in ingresses for service in ingress.services
        }
        self._runner: web.AppRunner | None = None

    async def start_tcp(self, host: str, port: int) -> int:
        """Returns the port. Raises as McpIngress.start_tcp does."""
        for ingress in self._by_service.values():
            ingress.guard_tcp()
        self._runner = await _start_runner(self._handle)
        return await _listen_tcp(self._runner, host, port)

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        ingress = self._by_service.get(request.match_info["service"])
        return _plain(McpAnswer(404, b"")) if ingress is None else await ingress.handle(request)


_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def _start_runner(handle: _Handler) -> web.AppRunner:
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.router.add_route("*", "/mcp/{service}", handle)
    # Cancelled when the client is gone: in this revision that is how it cancels a request.
    runner = web.AppRunner(
        app,
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=STOP_S_MAX,
        max_field_size=HEADER_BYTES_MAX,
    )
    await runner.setup()
    return runner


async def _listen_tcp(runner: web.AppRunner, host: str, port: int) -> int:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise SidelinkError(Code.CONFIG_PORT_BUSY, f"{host}:{port}: {error}") from None
    bound: int = runner.addresses[0][1]
    return bound


class _Reply:
    """What goes back to the client, and how far it has got."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response: web.StreamResponse | None = None
        self._is_events = False
        self._last = b""
        """The last few bytes that the client was sent."""

    async def relay(
        self, head: ResponseHead, reader: ExchangeReader, check: Callable[[], None]
    ) -> tuple[web.StreamResponse, bool]:
        """Bytes as they come, each after a ``check``. An answer cut short must not look complete:
        the connection is cut."""
        check()
        response = web.StreamResponse(status=head.status)
        for name, value in end_to_end(head.headers):
            response.headers.add(name, value.encode("latin-1").decode("utf-8", "surrogateescape"))
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            response.headers.setdefault("x-accel-buffering", "no")
            self._is_events = True
        self._response = response
        await response.prepare(self._request)
        try:
            async for chunk in reader.rest():
                check()
                self._last = (self._last + chunk[-_EVENT_END_BYTES:])[-_EVENT_END_BYTES:]
                await response.write(chunk)
        except (StreamError, WireError):
            self._abort()
            return response, False
        await response.write_eof()
        return response, True

    async def end_denied(self, request_id: bytes, denial: Denial) -> web.StreamResponse:
        """Say so in the place of the answer. In the midst of one nothing can be said."""
        answer = denied(request_id, denial)
        response = self._response
        if response is None:
            return _plain(answer)
        if not self._is_events or not (self._last.endswith(_EVENT_ENDS) or not self._last):
            self._abort()
            return response
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                await response.write(sse_event(answer.body))
                await response.write_eof()
        except TimeoutError:
            self._abort()  # The client takes nothing.
        return response

    def _abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


def _is_host_allowed(host: str, allowed: tuple[str, ...]) -> bool:
    """With or without a port; an IPv6 address is in brackets."""
    try:
        parts = urlsplit(f"//{host}")
        name = parts.netloc.removesuffix(f":{parts.port}") if parts.port else parts.netloc
    except ValueError:
        return False
    return "@" not in name and name.lower() in allowed


def _plain(answer: McpAnswer) -> web.Response:
    headers = dict(answer.headers)
    if answer.body:
        headers["content-type"] = "application/json"
    return web.Response(status=answer.status, body=answer.body or None, headers=headers)
