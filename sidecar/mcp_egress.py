"""Where MCP exchanges leave the mesh: decides again, then asks a stdio server on this machine."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

import structlog

from identity import Code, Identifier, SidelinkError, VerifiedIdentity
from policy import Action, Denial, Obligations, Permit
from sidecar.child import Child, ChildSettings, start_child
from sidecar.mcp_answers import (
    McpAnswer,
    denied,
    failed,
    filter_list,
    fulfilled,
    response_of,
    result_of,
    sse_event,
    wants_both,
    withheld,
)
from sidecar.mcp_message import (
    McpAsk,
    McpNotification,
    McpRequest,
    MessageError,
    parse_body_untrusted,
    unsupported_version,
)
from sidecar.mcp_standing import AskAgain, CallCutError, CallStanding, LiveCall
from sidecar.mcp_stdio import Answer, Call, StdioError, StdioServer
from sidecar.mcp_wire import (
    ExchangeReader,
    ResponseHead,
    WireError,
    encode_response_head,
)
from sidecar.mesh_stream import MeshStream, StreamError

REQUEST_S_MAX: Final = 30.0
KEEP_ALIVE_S: Final = 15.0
BACK_OFF_S_MIN: Final = 0.5
BACK_OFF_S_MAX: Final = 30.0
BACK_OFF_FORGIVEN_S: Final = 60.0
LAST_WORDS_S: Final = 1.0
CALLERS_REMEMBERED_MAX: Final = 1024
# Requests being read or answered. A node may name agents without end, so what counts is the node.
EXCHANGES_MAX: Final = 256
EXCHANGES_PER_NODE_MAX: Final = 64

SSE_HEADERS: Final = (
    ("content-type", "text/event-stream"),
    ("cache-control", "no-cache, no-transform"),
    ("x-accel-buffering", "no"),
)
SSE_KEEP_ALIVE: Final = b": ping\r\n\r\n"

EgressDecide = Callable[[VerifiedIdentity, str, McpAsk], Permit | Denial]
"""(verified caller, service, ask) -> decision. Also writes the audit line."""
MayOffer = Callable[[VerifiedIdentity, str, McpAsk], bool]
"""May this caller ever be permitted that ask? For lists: no audit line, arguments unknown."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StdioService:
    """One stdio MCP server that this sidecar offers to the mesh."""

    name: str
    child: ChildSettings
    children_max: int = 16
    idle_s: float = 300.0
    call_s_max: float = 3600.0


@dataclass(frozen=True, slots=True)
class _Permitted:
    """A request that may go to the server, and what its permits ask of the answer."""

    request: McpRequest
    obligations: Obligations


@dataclass(slots=True, eq=False)
class _Running:
    """A caller's own child; `users` counts exchanges, so that one in use is never put away."""

    caller: Identifier
    node: Identifier
    server: StdioServer
    task: asyncio.Task[None]
    idle_since_s: float
    users: int = 0


class McpEgress:
    """Serves the mesh streams of one service. Use as an async context manager."""

    def __init__(
        self,
        service: StdioService,
        decide: EgressDecide,
        may_offer: MayOffer,
        judges_results: Callable[[], bool] = lambda: False,
        ask_again: AskAgain | None = None,
    ) -> None:
        """``ask_again``: what ``decide`` is asked, about calls in flight. No limit is charged."""
        self._service = service
        self._judges_results = judges_results
        self._decide = decide
        self._may_offer = may_offer
        self._standing = CallStanding(ask_again)
        self._running: dict[Identifier, _Running] = {}
        self._exchanges: Counter[Identifier] = Counter()
        # Per caller: the pause before the next start, and when it is over.
        self._back_off: dict[Identifier, tuple[float, float]] = {}
        # One start at a time, so that `children_max` holds while one is under way.
        self._start_lock = asyncio.Lock()
        self._sweeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "McpEgress":
        self._sweeper = asyncio.create_task(self._sweep())
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [running.task for running in self._running.values()]
        if self._sweeper is not None:
            tasks.append(self._sweeper)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def children(self) -> int:
        return len(self._running)

    def policy_changed(self) -> None:
        """Another policy is in force: calls in flight that it denies end."""
        self._standing.policy_changed()

    async def serve(self, stream: MeshStream) -> None:
        """One exchange, from its head to the end of the answer. Never raises for a peer."""
        node = _node_of(stream.peer)
        if (
            self._exchanges[node] >= EXCHANGES_PER_NODE_MAX
            or self._exchanges.total() >= EXCHANGES_MAX
        ):
            stream.reset(Code.STREAM_LIMIT)
            return
        self._exchanges[node] += 1
        try:
            await self._serve(stream)
        finally:
            self._exchanges[node] -= 1
            if not self._exchanges[node]:
                del self._exchanges[node]

    async def _serve(self, stream: MeshStream) -> None:
        reader = ExchangeReader(stream)
        try:
            answer = await self._read_and_decide(reader, stream.peer)
            if isinstance(answer, _Permitted):
                await self._answer(reader, stream, answer.request, answer.obligations)
            else:
                await _Reply(stream).write_whole(answer)
                await stream.finish()
        except TimeoutError:
            stream.reset(Code.STREAM_TIMEOUT)
        except SidelinkError as error:
            # The caller is gone, or broke the rules of the exchange: nobody to tell.
            _log.info("mcp_exchange_ended", service=self._service.name, code=error.code.text)
            stream.reset(error.code)
        except BaseException:
            stream.reset(Code.STREAM_RESET)
            raise

    async def _read_and_decide(
        self, reader: ExchangeReader, caller: VerifiedIdentity
    ) -> _Permitted | McpAnswer:
        async with asyncio.timeout(REQUEST_S_MAX):
            head = await reader.request_head()
            if head.method != "POST" or head.suffix:
                status = 404 if head.suffix else 405
                return McpAnswer(status, b"", (("allow", "POST"),))
            try:
                body = await reader.body(head.body_bytes)
            except WireError as error:
                if error.code is Code.STREAM_LIMIT:
                    return McpAnswer(413, b"")
                raise
        try:
            message = parse_body_untrusted(body, head.headers)
            if isinstance(message, McpNotification):
                return McpAnswer(202, b"")
            obligations = Obligations()
            for ask in message.asks:
                decision = self._decide(caller, self._service.name, ask)
                if not isinstance(decision, Permit):
                    return denied(message.request_id, decision)
                obligations = obligations.joined(decision.obligations)
            if message.method == "initialize":
                raise unsupported_version(None)
        except MessageError as error:
            return McpAnswer(error.status, error.encode())
        if not wants_both(head.headers):
            return McpAnswer(406, b"")
        return _Permitted(message, obligations)

    async def _answer(
        self,
        reader: ExchangeReader,
        stream: MeshStream,
        request: McpRequest,
        obligations: Obligations,
    ) -> None:
        """The answer, for as long as policy allows it."""
        reply = _Reply(stream)
        live = LiveCall(self._service.name, request.asks, obligations, stream.peer)
        try:
            with self._standing.serving(live):
                await self._answer_while_allowed(reader, reply, request, live)
        except CallCutError as cut:
            await reply.end_denied(request.request_id, cut.denial)

    async def _answer_while_allowed(
        self, reader: ExchangeReader, reply: "_Reply", request: McpRequest, live: LiveCall
    ) -> None:
        """A reset by the caller cancels at once."""
        try:
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(reader.wait_end())
                await self._exchange(reply, request, live)
                await reply.stream.finish()
                watch.cancel()
        except BaseExceptionGroup as group:
            # What ended it first is what is told; the rest is its consequence.
            raise group.exceptions[0] from None

    async def _exchange(self, reply: "_Reply", request: McpRequest, live: LiveCall) -> None:
        seconds = min(self._service.call_s_max, live.obligations.max_seconds or math.inf)
        try:
            async with self._server_for(reply.stream.peer) as server:
                self._standing.check(live)
                call = server.begin(request)
                try:
                    async with asyncio.timeout(seconds):
                        await self._relay(reply, call, live)
                finally:
                    server.end(call)
        except SidelinkError as error:
            if isinstance(error, StreamError | WireError):
                raise
            await reply.write_whole(failed(request.request_id, error))

    async def _relay(self, reply: "_Reply", call: Call, live: LiveCall) -> None:
        """JSON when the first thing said is the answer; else events as they come."""
        request_id = call.request.request_id
        first = await _next_within(call, KEEP_ALIVE_S)
        self._standing.check(live)
        if isinstance(first, Answer):
            answer = self._filtered(reply.stream.peer, call, first, live.obligations)
            await reply.write_whole(response_of(answer, request_id))
            return
        await reply.write(encode_response_head(ResponseHead(200, SSE_HEADERS)))
        said: bytes | Answer | None = first
        while not isinstance(said, Answer):
            # What a server says on the way may be what its result must not.
            if said is None or live.obligations.redact:
                await reply.write(SSE_KEEP_ALIVE)
            else:
                await reply.write(sse_event(said))
            try:
                said = await _next_within(call, KEEP_ALIVE_S)
            except StdioError as error:
                # The status is on its way already: the error has to be the last event.
                await reply.write(sse_event(failed(request_id, error).body))
                return
            self._standing.check(live)
        answer = self._filtered(reply.stream.peer, call, said, live.obligations)
        await reply.write(sse_event(answer.encode(request_id)))

    def _filtered(
        self, caller: VerifiedIdentity, call: Call, answer: Answer, obligations: Obligations
    ) -> Answer:
        def may_offer(ask: McpAsk) -> bool:
            return self._may_offer(caller, self._service.name, ask)

        if answer.result and call.request.method == "tools/call" and self._judges_results():
            denial = self._judge_result(caller, call, answer)
            if denial is not None:
                return withheld(denial)
        return fulfilled(filter_list(call.request.method, answer, may_offer), obligations)

    def _judge_result(self, caller: VerifiedIdentity, call: Call, answer: Answer) -> Denial | None:
        """What a rule says against what the call gave back. None that can be read is an error to
        the rules that look at it."""
        result = result_of(answer)
        for ask in call.request.asks:
            asked = replace(ask, action=Action.MCP_RESULT, result=result)
            decision = self._decide(caller, self._service.name, asked)
            if isinstance(decision, Denial):
                return decision
        return None

    @asynccontextmanager
    async def _server_for(self, peer: VerifiedIdentity) -> AsyncIterator[StdioServer]:
        caller = peer.identifier
        running = self._live(caller)
        if running is None:
            async with self._start_lock:
                running = self._live(caller) or await self._start(caller, _node_of(peer))
        running.users += 1
        try:
            yield running.server
        finally:
            running.users -= 1
            running.idle_since_s = asyncio.get_running_loop().time()

    def _live(self, caller: Identifier) -> _Running | None:
        running = self._running.get(caller)
        return None if running is None or running.server.is_closed else running

    async def _start(self, caller: Identifier, node: Identifier) -> _Running:
        now_s = asyncio.get_running_loop().time()
        _, not_before_s = self._back_off.get(caller, (0.0, 0.0))
        if now_s < not_before_s:
            wait_s = not_before_s - now_s
            raise StdioError(
                Code.STREAM_UPSTREAM_FAILED, f"the MCP server ended; next start in {wait_s:.1f} s"
            )
        await self._make_room(node)
        child = await start_child(self._service.child)
        server = StdioServer(child)
        task = asyncio.create_task(self._own(caller, child, server))
        running = _Running(caller, node, server, task, idle_since_s=now_s)
        self._running[caller] = running
        _log.info("mcp_child_started", service=self._service.name, pid=child.pid)
        return running

    async def _make_room(self, node: Identifier) -> None:
        """Put away whoever has been idle longest; if all are busy, say so.

        One node's agents may have three quarters of the children, so that some are left.
        """
        most = self._service.children_max
        for those, places in (
            ([one for one in self._running.values() if one.node == node], max(1, 3 * most // 4)),
            (list(self._running.values()), most),
        ):
            if len(those) < places:
                continue
            idle = [one for one in those if one.users == 0]
            if not idle:
                raise StdioError(Code.STREAM_LIMIT, f"{len(those)} MCP servers are running")
            await self._put_away(min(idle, key=lambda one: one.idle_since_s))
            return

    async def _own(self, caller: Identifier, child: Child, server: StdioServer) -> None:
        """The one task that ends a child, however it comes to its end."""
        started_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.TaskGroup() as tasks:
                errors = tasks.create_task(child.log_stderr(service=self._service.name))
                await server.run()
                self._note_death(caller, started_s)
                # Why it ended is in its last words; what it left running may hold the pipe.
                await asyncio.wait([errors], timeout=LAST_WORDS_S)
                errors.cancel()
        finally:
            if (running := self._running.get(caller)) and running.server is server:
                del self._running[caller]
            await child.stop()

    def _note_death(self, caller: Identifier, started_s: float) -> None:
        now_s = asyncio.get_running_loop().time()
        pause_s, _ = self._back_off.pop(caller, (0.0, 0.0))
        if now_s - started_s >= BACK_OFF_FORGIVEN_S:
            pause_s = 0.0
        pause_s = min(max(BACK_OFF_S_MIN, 2 * pause_s), BACK_OFF_S_MAX)
        self._back_off[caller] = (pause_s, now_s + pause_s)
        while len(self._back_off) > CALLERS_REMEMBERED_MAX:
            self._back_off.pop(next(iter(self._back_off)))
        _log.warning("mcp_child_ended", service=self._service.name, pause_s=pause_s)

    async def _sweep(self) -> None:
        """Put children away that nobody has used for a while."""
        idle_s = self._service.idle_s
        while True:
            await asyncio.sleep(idle_s / 4)
            now_s = asyncio.get_running_loop().time()
            for running in list(self._running.values()):
                if running.users == 0 and now_s - running.idle_since_s >= idle_s:
                    await self._put_away(running)

    async def _put_away(self, running: _Running) -> None:
        # Out of the table first: a call that comes now gets a child of its own.
        if self._running.get(running.caller) is running:
            del self._running[running.caller]
        running.task.cancel()
        await asyncio.gather(running.task, return_exceptions=True)


def _node_of(peer: VerifiedIdentity) -> Identifier:
    """Who answers for a caller: the node at the root of its chain."""
    return peer.ancestors[-1].identifier if peer.ancestors else peer.identifier


async def _next_within(call: Call, seconds: float) -> bytes | Answer | None:
    """None when nothing was said in that time."""
    try:
        async with asyncio.timeout(seconds):
            return await call.next()
    except TimeoutError:
        return None


class _Reply:
    """What goes back to the caller, and how far it has got."""

    def __init__(self, stream: MeshStream) -> None:
        self.stream = stream
        self._has_begun = False
        self._is_writing = False

    async def write(self, data: bytes) -> None:
        """The head, or one whole event."""
        self._has_begun = self._is_writing = True
        await self.stream.write(data)
        self._is_writing = False

    async def write_whole(self, answer: McpAnswer) -> None:
        headers = answer.headers
        if answer.body:
            headers = (("content-type", "application/json"), *headers)
        await self.write(encode_response_head(ResponseHead(answer.status, headers)) + answer.body)

    async def end_denied(self, request_id: bytes, denial: Denial) -> None:
        """Say so in the place of the answer. In the midst of an event nothing can be said."""
        answer = denied(request_id, denial)
        if self._is_writing:
            self.stream.reset(denial.code)
            return
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                if self._has_begun:
                    await self.write(sse_event(answer.body))
                else:
                    await self.write_whole(answer)
                await self.stream.finish()
        except TimeoutError:
            self.stream.reset(denial.code)  # The caller takes nothing.
