"""What one agent sends: straight away while its sidecar keeps up, else in line until it does.

The line outlives connections. What waits in it has certainly not been sent; it goes in order, and
what comes later goes behind it.
"""

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec

from sidelink import wire
from sidelink.connection import (
    BATCH_BYTES_TARGET,
    BODY_COST_BYTES,
    FRAME_OVERHEAD_BYTES,
    NO_SIDECAR,
    Connection,
    no_receipt,
)
from sidelink.errors import AskTimeout, MailboxFull, SidelinkError, Unreachable, copy_error
from sidelink.roles import Call
from sidelink.wire import ASK, ServerFrame, TellRun

UNSENT_BYTES_MAX: Final = 16 * 1024 * 1024
"""How much may wait that nobody waits for, in all agents of a program."""
CALLS_MAX: Final = 65_536
"""How many calls may wait, in all agents of a program: in line or for their answers."""

assert UNSENT_BYTES_MAX > wire.MESSAGE_BYTES_MAX + FRAME_OVERHEAD_BYTES + BODY_COST_BYTES


class Backlog:
    """What all agents of a program share: how much waits, and the numbers of requests.

    A request keeps its number on a later connection, for none is used twice on any.
    """

    __slots__ = ("calls", "requests", "unsent_bytes")

    def __init__(self) -> None:
        self.calls = 0
        self.requests: Final = itertools.count(1)
        self.unsent_bytes = 0


class _Run:
    """Tells in line, consecutive ones to one receiver. They become one frame."""

    __slots__ = ("bodies", "body_bytes", "content_type", "to")

    def __init__(self, to: str, content_type: str, bodies: list[bytes]) -> None:
        self.to = to
        self.content_type = content_type
        self.bodies = bodies
        self.body_bytes = sum(map(len, bodies))

    @property
    def cost_bytes(self) -> int:
        return FRAME_OVERHEAD_BYTES + self.body_bytes + BODY_COST_BYTES * len(self.bodies)


# A struct for its constructor, like `Message`.
class OutboxCall(msgspec.Struct, eq=False):
    """A call of an agent, of which the connection is told what becomes. Fits `roles.Call`."""

    outbox: "Outbox"
    answer: asyncio.Future[ServerFrame]
    deadline_s: float
    frame: wire.Send | wire.Flush
    body_bytes: int
    connection: Connection | None = None
    """Where it was sent; None while it waits in line."""
    posted: int = 0
    """For a flush: how much of `Outbox.posted` it confirms."""

    def readdress(self) -> None:
        """Before it leaves the line: the agent's number may have changed, and time has passed."""
        frame, number = self.frame, self.outbox.number
        if isinstance(frame, wire.Flush):
            self.frame = wire.Flush(frame.request, number)
            return
        timeout_ms = frame.timeout_ms
        if timeout_ms:
            left_s = self.deadline_s - self.answer.get_loop().time()
            timeout_ms = max(1, int(left_s * 1000))
        self.frame = wire.Send(
            frame.request, number, frame.to, frame.kind, frame.body, frame.content_type, timeout_ms
        )

    def answered(self, frame: ServerFrame) -> None:
        if not self.answer.done():
            self.answer.set_result(frame)
        if type(self.frame) is wire.Flush:
            # At once, and not when the caller runs again: the connection may be lost in between.
            self.outbox.confirm(self.posted)

    def failed(self, error: SidelinkError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def refused(self, error: SidelinkError) -> None:
        if not self.answer.done():
            self.outbox.take_back(self)

    def lost(self, error: SidelinkError) -> None:
        # A flush that has nothing to confirm is as good on the next connection.
        if type(self.frame) is wire.Flush and not self.outbox.unconfirmed:
            self.outbox.held([self])
        else:
            self.failed(error)

    def expire(self) -> None:
        if self.connection is None:
            self.failed(self.outbox.unsent())
        elif isinstance(self.frame, wire.Send) and self.frame.kind == ASK:
            self.failed(
                AskTimeout(
                    "message.timeout",
                    "no answer in time: the outcome is unknown",
                    remedy="Ask again only what may be done twice, or allow more time.",
                    outcome_unknown=True,
                )
            )
        else:
            self.failed(no_receipt())


class _LastFlush:
    """The flush before a Leave. Nobody waits for it, and nothing is lost if it has no answer."""

    def __init__(self, outbox: "Outbox") -> None:
        self._outbox = outbox
        self._posted = outbox.posted

    def answered(self, _frame: ServerFrame) -> None:
        self._outbox.confirm(self._posted)

    def failed(self, _error: SidelinkError) -> None:
        pass

    refused = lost = failed


class Outbox:
    """Fits `roles.Sender`. `changed` is set whenever sending has become possible, or over."""

    def __init__(self, backlog: Backlog, changed: asyncio.Event) -> None:
        self._backlog = backlog
        self.requests: Final = backlog.requests
        self._changed = changed
        self._connection: Connection | None = None
        self._line: OrderedDict[_Run | OutboxCall, None] = OrderedDict()
        self._last_run: _Run | None = None
        self._refused: dict[int, OutboxCall] = {}
        self._confirmed = 0
        self._end: SidelinkError | None = None
        self._failures = 0
        self._first_failure: SidelinkError | None = None
        self.number = 0
        self.posted = 0
        """How many runs of tells, and answers, have been handed to connections."""
        self.direct: Connection | None = None
        """Where to post what is new; None when that must wait its turn."""

    @property
    def unconfirmed(self) -> bool:
        return self.posted > self._confirmed

    # What the agent calls.

    def tell_later(self, to: str, content_type: str, body: bytes) -> None:
        """Put a tell in line. Raises MailboxFull, or why nothing more can be sent."""
        self.check_open()
        run = self._last_run
        cost_bytes = len(body) + BODY_COST_BYTES
        if (
            run is None
            or run.to != to
            or run.content_type != content_type
            or run.body_bytes >= BATCH_BYTES_TARGET
        ):
            run = None
            cost_bytes += FRAME_OVERHEAD_BYTES
        if self._backlog.unsent_bytes + cost_bytes > UNSENT_BYTES_MAX:
            raise MailboxFull(
                "message.queue_full",
                f"{UNSENT_BYTES_MAX} bytes wait for the sidecar already",
                remedy="Await `wait_writable()` between messages.",
            )
        self._backlog.unsent_bytes += cost_bytes
        if run is None:
            run = _Run(to, content_type, [])
            self._line[run] = None
            self._last_run = run
        run.bodies.append(body)
        run.body_bytes += len(body)

    async def carry(
        self, frame: wire.Send | wire.Flush, body_bytes: int, timeout_s: float
    ) -> ServerFrame:
        """Send the frame, now or when its turn comes, and wait for its answer."""
        self.check_open()
        backlog = self._backlog
        if backlog.calls >= CALLS_MAX:
            raise MailboxFull("message.queue_full", f"{CALLS_MAX} calls wait for an answer already")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[ServerFrame] = loop.create_future()
        call = OutboxCall(self, answer, loop.time() + timeout_s, frame, body_bytes)
        timer = loop.call_at(call.deadline_s, call.expire)
        backlog.calls += 1
        try:
            if self.direct is not None:
                self._send(self.direct, call)
            else:
                self._line[call] = None
                self._last_run = None
            return await answer
        except BaseException:
            self._forget(call)
            raise
        finally:
            timer.cancel()
            backlog.calls -= 1

    def check_open(self) -> None:
        if self._end is not None:
            raise copy_error(self._end)

    def unsent(self) -> SidelinkError:
        """Why a call waited in vain. It left nothing behind."""
        connection = self._connection
        if connection is not None and connection.accepting:
            return MailboxFull("message.queue_full", "not sent: the sidecar reads too slowly")
        lost = "" if connection is None else f" ({connection.lost or 'it is stopping'})"
        return Unreachable(
            "local.unavailable", f"not sent: the sidecar is away{lost}", remedy=NO_SIDECAR
        )

    def take_failures(self) -> SidelinkError | None:
        """The first failure that nobody waited for; how many followed stands in its notes."""
        error, self._first_failure = self._first_failure, None
        failures, self._failures = self._failures, 0
        if error is not None and failures > 1:
            error.add_note(f"and {failures - 1} further failures since the last flush")
        return error

    # What calls and connections tell.

    def take_back(self, call: OutboxCall) -> None:
        """A stopping sidecar refused the call: it goes first on the next connection."""
        if call.connection is not None:
            call.connection.stop_accepting()
        if self._end is not None:
            call.failed(copy_error(self._end))
            return
        call.connection = None
        self._refused[call.frame.request] = call

    def confirm(self, posted: int) -> None:
        self._confirmed = max(self._confirmed, posted)

    def failed_unasked(self, error: SidelinkError, count: int = 1) -> None:
        self._failures += count
        if self._first_failure is None:
            self._first_failure = error

    def held(self, unsent: Sequence[TellRun | Call]) -> None:
        self.direct = None
        for item in reversed(unsent):
            if isinstance(item, TellRun):
                run = _Run(item.to, item.content_type, item.bodies)
                self._backlog.unsent_bytes += run.cost_bytes
                self.posted -= 1
                self._put_first(run)
            elif isinstance(item, OutboxCall):
                item.connection = None
                self._put_first(item)

    def resumed(self) -> None:
        """Send what is in line, as far as the sidecar keeps up."""
        connection = self._connection
        if connection is None or self._end is not None:
            return
        while self._line and connection.accepting and connection.writable:
            item, _ = self._line.popitem(last=False)
            if isinstance(item, _Run):
                self._post_run(connection, item)
            elif not item.answer.done():
                item.readdress()
                self._send(connection, item)
        if not self._line:
            self._last_run = None
            if connection.accepting and connection.writable:
                self.direct = connection
                self._changed.set()

    def opened(self, connection: Connection, number: int) -> None:
        self._connection = connection
        self.number = number
        for request in sorted(self._refused, reverse=True):
            self._put_first(self._refused[request])
        self._refused.clear()
        self.resumed()

    def leaving(self, connection: Connection) -> None:
        if self.unconfirmed:
            request = next(self.requests)
            connection.post_call(request, wire.Flush(request, self.number), _LastFlush(self))

    def connection_lost(self, error: SidelinkError) -> None:
        if self.unconfirmed:
            self._confirmed = self.posted
            self.failed_unasked(
                Unreachable(
                    "local.unavailable",
                    f"the connection to the sidecar was lost before a flush ({error})",
                    outcome_unknown=True,
                )
            )

    def end(self, error: SidelinkError) -> None:
        """Nothing more is taken. What waits for a slow sidecar still goes to it."""
        connection = self._connection
        away = connection is None or not connection.accepting
        waiting = [*self._refused.values(), *self._line]
        self._refused.clear()
        self._line.clear()
        self._last_run = None
        self.direct = None
        self._end = error
        for item in waiting:
            if isinstance(item, OutboxCall):
                item.failed(copy_error(error))
            elif connection is None or away:
                self._backlog.unsent_bytes -= item.cost_bytes
                failure = Unreachable("local.unavailable", f"not sent: {error}")
                self.failed_unasked(failure, len(item.bodies))
            else:
                self._post_run(connection, item)
        self._changed.set()

    # Helpers.

    def _post_run(self, connection: Connection, run: _Run) -> None:
        self._backlog.unsent_bytes -= run.cost_bytes
        frame = TellRun(self.number, run.to, run.content_type, run.bodies)
        connection.post_run(self, frame, run.body_bytes)

    def _send(self, connection: Connection, call: OutboxCall) -> None:
        call.connection = connection
        call.posted = self.posted
        connection.post_call(call.frame.request, call.frame, call, call.body_bytes)

    def _put_first(self, item: _Run | OutboxCall) -> None:
        self._line[item] = None
        self._line.move_to_end(item, last=False)

    def _forget(self, call: OutboxCall) -> None:
        request = call.frame.request
        if call.connection is not None:
            call.connection.forget_call(request, call)
        self._line.pop(call, None)
        if self._refused.get(request) is call:
            del self._refused[request]
