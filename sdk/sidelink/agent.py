"""An agent as its program holds it: it tells, it asks, and it reads its inbox."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Final, cast

from sidelink import wire
from sidelink.bodies import encode_body
from sidelink.connection import Connection
from sidelink.errors import AskTimeout, LocalError, SidelinkError, Unreachable
from sidelink.messages import Message, Reply
from sidelink.wire import ASK, TELL, AttributeValue

if TYPE_CHECKING:
    from sidelink.mesh import Mesh

TIMEOUT_S_DEFAULT: Final = 30.0

# At the high marks the sidecar is asked to hold back, and to go on at the low ones. What was under
# way by then still fits below the hard marks; beyond them nothing more is read from the socket.
# Only the hard marks stop replies too, so a handler that asks while its inbox is full gets one.
INBOX_MESSAGES_LOW: Final = 256
INBOX_MESSAGES_HIGH: Final = 1024
INBOX_MESSAGES_HARD: Final = 32_768
INBOX_BYTES_LOW: Final = 1024 * 1024
INBOX_BYTES_HIGH: Final = 4 * 1024 * 1024
INBOX_BYTES_HARD: Final = 16 * 1024 * 1024

assert INBOX_MESSAGES_LOW < INBOX_MESSAGES_HIGH < INBOX_MESSAGES_HARD
assert INBOX_BYTES_LOW < INBOX_BYTES_HIGH < INBOX_BYTES_HARD - wire.BATCH_BYTES_MAX


class Agent:
    """Made by `Mesh.agent`. It stays usable while the sidecar restarts; calls fail meanwhile."""

    def __init__(
        self, mesh: "Mesh", name: str, requested_attributes: dict[str, AttributeValue]
    ) -> None:
        self._mesh = mesh
        self._requested_attributes = requested_attributes
        self._connection: Connection | None = None
        self._number = 0
        self._opened: wire.Opened | None = None
        self._listening = False
        self._held_back = False
        self._inbox: deque[Message] = deque()
        self._inbox_bytes = 0
        self._arrived = asyncio.Event()
        self._back = asyncio.Event()
        self._closed = False
        self._end: SidelinkError | None = None
        self._posted = 0
        self._confirmed = 0
        self._failures = 0
        self._first_failure: SidelinkError | None = None
        self._last_to = ""
        self.name: Final = name

    def __repr__(self) -> str:
        return f"<Agent {self.uri}>"

    @property
    def uri(self) -> str:
        return self._identity().uri

    @property
    def identifier(self) -> str:
        return self._identity().identifier

    @property
    def attributes(self) -> Mapping[str, AttributeValue]:
        """What its credential says, which may be less than what was requested."""
        return self._identity().attributes

    @property
    def connected(self) -> bool:
        connection = self._connection
        return connection is not None and connection.lost is None and not self._closed

    async def wait_connected(self) -> None:
        """Returns when calls can be made again. Raises when the agent is over."""
        while not self.connected:
            if self._closed:
                self._live_connection()
            self._back.clear()
            await self._back.wait()

    # Sending.

    async def ask(
        self,
        to: str,
        body: object,
        *,
        timeout: float = TIMEOUT_S_DEFAULT,  # noqa: ASYNC109  # a deadline that travels
        content_type: str | None = None,
    ) -> Reply:
        """Send a message and return its reply.

        Raises PolicyDenied, Unreachable, Rejected, MailboxFull, BodyError or Untrusted; and
        AskTimeout after `timeout` seconds, when the outcome is unknown. The sidecar is told the
        timeout, and the time left travels with the message. A cancelled ask may still be answered
        by the other side; the answer is dropped.
        """
        connection = self._live_connection()
        frame = self._frame(connection.new_request(), to, ASK, body, content_type, timeout)
        answer = await connection.call(frame.request, frame, len(frame.body), timeout)
        if not isinstance(answer, wire.Reply):
            raise LocalError("local.bad_request", f"an ask was answered by {type(answer).__name__}")
        return Reply(answer)

    async def tell(
        self,
        to: str,
        body: object,
        *,
        content_type: str | None = None,
        timeout: float = TIMEOUT_S_DEFAULT,  # noqa: ASYNC109
    ) -> None:
        """Send a message; returns when the sidecar has accepted it. At most once.

        Await many at once with `asyncio.gather`, and they share batches. Raises like `ask`.
        """
        connection = self._live_connection()
        frame = self._frame(connection.new_request(), to, TELL, body, content_type, None)
        await self._receipt(connection, frame, len(frame.body), timeout)

    def tell_nowait(self, to: str, body: object, *, content_type: str | None = None) -> None:
        """Queue a message without waiting for anything: the fastest way. At most once.

        What the sidecar refuses is raised by the next `flush`. Raises MailboxFull when far too
        much is queued: `if not agent.writable: await agent.wait_writable()` between messages.
        """
        connection = self._live_connection()
        if not connection.writable:
            connection.check_unsent()
        if to is not self._last_to:
            _check_uri(to)
            self._last_to = to
        data, content_type = encode_body(body, content_type)
        connection.post_tell(self._number, to, content_type, data)
        self._posted += 1

    @property
    def writable(self) -> bool:
        """False while the sidecar reads more slowly than this program sends."""
        return self._connection is not None and self._connection.writable

    async def wait_writable(self) -> None:
        await self._live_connection().wait_writable()

    async def flush(self, *, timeout: float = TIMEOUT_S_DEFAULT) -> None:  # noqa: ASYNC109
        """Wait until the sidecar has accepted everything sent so far.

        Raises the first failure among the messages and answers that nobody waited for since the
        last flush, with the number of further ones in its notes.
        """
        posted = self._posted
        try:
            connection = self._live_connection()
            frame = wire.Flush(connection.new_request(), self._number)
            await self._receipt(connection, frame, 0, timeout)
            self._confirmed = posted
        except SidelinkError:
            if self._first_failure is None:
                raise
        error, self._first_failure = self._first_failure, None
        failures, self._failures = self._failures, 0
        if error is not None:
            if failures > 1:
                error.add_note(f"and {failures - 1} further failures since the last flush")
            raise error

    async def close(self) -> None:
        """Give the agent up here. Its identity and its name stay with the sidecar."""
        if self._closed:
            return
        connection, number = self._connection, self._number
        self.end(None)
        if connection is not None and connection.lost is None:
            frame = wire.CloseAgent(connection.new_request(), number)
            await self._receipt(connection, frame, 0, TIMEOUT_S_DEFAULT)

    # The inbox.

    async def inbox(self) -> AsyncIterator[Message]:
        """The messages for this agent, in order per sender, until the agent is closed.

        Delivery begins with the first use and does not end with it: what comes in between two
        uses waits, here up to a bound and then in the sidecar's mailbox. Several uses at once
        share the messages between them. Raises when the sidecar stays away for too long.
        """
        self._listen()
        while True:
            if self._inbox:
                yield self._take()
            elif self._closed:
                if self._end is not None:
                    raise self._end
                return
            else:
                self._arrived.clear()
                await self._arrived.wait()

    def _take(self) -> Message:
        message = self._inbox.popleft()
        self._inbox_bytes -= len(message.raw_body)
        if (
            self._held_back
            and len(self._inbox) <= INBOX_MESSAGES_LOW
            and self._inbox_bytes <= INBOX_BYTES_LOW
        ):
            self._held_back = False
            if self.connected and self._connection is not None:
                self._connection.release_reading(self)
                self._connection.post(wire.Listen(self._number, True))
        return message

    def _listen(self) -> None:
        if self._listening or self._closed:
            return
        self._listening = True
        if self._connection is not None and self._connection.lost is None:
            self._connection.post(wire.Listen(self._number, True))

    # What the connection and the mesh call.

    def delivered(self, connection: Connection, frame: wire.Deliver | wire.DeliverRun) -> None:
        if isinstance(frame, wire.DeliverRun):
            self._inbox.extend([Message(self, connection, frame, body) for body in frame.bodies])
            self._inbox_bytes += sum(map(len, frame.bodies))
        else:
            self._inbox.append(Message(self, connection, frame, frame.body))
            self._inbox_bytes += len(frame.body)
        if not self._arrived.is_set():
            self._arrived.set()
        count, count_bytes = len(self._inbox), self._inbox_bytes
        if count < INBOX_MESSAGES_HIGH and count_bytes < INBOX_BYTES_HIGH:
            return
        if not self._held_back:
            self._held_back = True
            connection.post(wire.Listen(self._number, False))
        if count >= INBOX_MESSAGES_HARD or count_bytes >= INBOX_BYTES_HARD:
            connection.hold_reading(self)

    def failed_unasked(self, error: SidelinkError) -> None:
        self._failures += 1
        if self._first_failure is None:
            self._first_failure = error

    async def open_on(self, connection: Connection, timeout_s: float) -> None:
        """Open, or open again, on this connection. Raises what the sidecar says."""
        request = connection.new_request()
        frame = wire.OpenAgent(request, self.name, self._requested_attributes)
        opened = await connection.call(request, frame, 0, timeout_s)
        if not isinstance(opened, wire.Opened):
            raise LocalError("local.bad_request", "OpenAgent was not answered by Opened")
        if self._closed:
            connection.post(wire.CloseAgent(connection.new_request(), opened.agent))
            return
        self._opened = opened
        self._number = opened.agent
        self._connection = connection
        connection.receivers[opened.agent] = self
        self._back.set()
        if self._listening and not self._held_back:
            connection.post(wire.Listen(opened.agent, True))

    def connection_lost(self, error: SidelinkError) -> None:
        if self._posted > self._confirmed:
            self._confirmed = self._posted
            self.failed_unasked(
                Unreachable(
                    "local.unavailable",
                    f"the connection to the sidecar was lost before a flush ({error})",
                    outcome_unknown=True,
                )
            )

    def end(self, error: SidelinkError | None) -> None:
        """The agent is over: iterations of the inbox end, with `error` if there is one."""
        if self._closed:
            return
        self._closed = True
        self._end = error
        self._arrived.set()
        self._back.set()
        if self._connection is not None:
            self._connection.receivers.pop(self._number, None)
            self._connection.release_reading(self)
        self._mesh.forget(self)

    # Helpers.

    def _identity(self) -> wire.Opened:
        assert self._opened is not None, "Mesh.agent returns opened agents only"
        return self._opened

    def _live_connection(self) -> Connection:
        connection = self._connection
        if connection is not None and connection.lost is None and not self._closed:
            return connection
        if self._closed:
            raise self._end or LocalError("local.agent_unknown", f"{self.name} is closed")
        assert connection is not None
        raise connection.lost_before_sending()

    def _frame(
        self,
        request: int,
        to: str,
        kind: wire.MessageKind,
        body: object,
        content_type: str | None,
        timeout_s: float | None,
    ) -> wire.Send:
        _check_uri(to)
        timeout_ms = 0
        if timeout_s is not None:
            if not 0 < timeout_s * 1000 <= wire.TIMEOUT_MS_MAX:
                raise LocalError("local.bad_request", f"a timeout of {timeout_s} s")
            timeout_ms = max(1, int(timeout_s * 1000))
        data, content_type = encode_body(body, content_type)
        return wire.Send(request, self._number, to, kind, data, content_type, timeout_ms)

    async def _receipt(
        self,
        connection: Connection,
        frame: wire.Send | wire.Flush | wire.CloseAgent,
        body_bytes: int,
        timeout_s: float,
    ) -> None:
        try:
            answer = await connection.call(frame.request, frame, body_bytes, timeout_s)
        except AskTimeout as error:
            raise AskTimeout(
                error.code,
                "the sidecar gave no receipt in time: the outcome is unknown",
                outcome_unknown=True,
            ) from None
        if not cast("wire.Receipt", answer).ok:
            raise Unreachable("local.draining", "the sidecar is stopping and did not accept it")


def _check_uri(to: object) -> None:
    if type(to) is not str or len(to) > wire.URI_CHARACTERS_MAX or not to.isascii():
        raise LocalError("local.bad_request", f"not an agent URI: {to!r:.300}")
