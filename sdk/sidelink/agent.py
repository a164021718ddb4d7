"""An agent as its program holds it: it tells, it asks, and it reads its inbox."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

from sidelink import wire
from sidelink.bodies import encode_body
from sidelink.errors import LocalError, SidelinkError
from sidelink.inbox import INBOX_MESSAGES_HIGH
from sidelink.messages import Message, Reply
from sidelink.wire import ASK, MESSAGE_BYTES_MAX, TELL, AttributeValue

if TYPE_CHECKING:
    from sidelink.seat import Seat

TIMEOUT_S_DEFAULT: Final = 30.0

Spawn = Callable[
    [str, str, Mapping[str, AttributeValue | list[str]] | None, float | None, float],
    Awaitable["Agent"],
]
"""Parent's name, child's segment, attributes, time to live and time-out."""


class Agent:
    """Made by `Mesh.agent`, or by `spawn` of another agent.

    It stays usable while the sidecar restarts. What is asked, told or flushed meanwhile waits for
    the sidecar, within its own timeout, and goes in order when it is back; Unreachable then means
    that it was certainly not sent. What was sent before and had no answer yet when the connection
    was lost raises Unreachable with `outcome_unknown`.
    """

    def __init__(self, seat: "Seat", spawn: "Spawn") -> None:
        self._seat = seat
        self._spawn = spawn
        self._outbox = seat.outbox
        self._last_to = ""
        self._last_content_type: str | None = ""
        self.name: Final = seat.name

    def __repr__(self) -> str:
        return f"<Agent {self.uri}>"

    @property
    def uri(self) -> str:
        return self._seat.identity.uri

    @property
    def identifier(self) -> str:
        return self._seat.identity.identifier

    @property
    def attributes(self) -> Mapping[str, AttributeValue]:
        """What its credential says, which may be less than what was requested."""
        return self._seat.identity.attributes

    @property
    def connected(self) -> bool:
        """False while the sidecar is away, and once the agent is closed."""
        return self._seat.connected

    async def wait_connected(self) -> None:
        """Returns when the sidecar is there. Raises when the agent is over."""
        while not self._seat.connected:
            self._outbox.check_open()
            await self._seat.change()

    async def spawn(
        self,
        name: str,
        *,
        attributes: Mapping[str, AttributeValue | list[str]] | None = None,
        ttl: float | None = None,
        timeout: float = TIMEOUT_S_DEFAULT,  # noqa: ASYNC109
    ) -> "Agent":
        """Open an agent below this one: its name is this agent's and ``/name``.

        Its credential is signed by this agent, so that it is denied what this one is denied.
        Its attributes are none unless they are given, and each must be one of this agent's, with
        the same value. It ends after `ttl` seconds, or with this agent. Spawning it again is a new
        life of the same agent. Raises LocalError for more than this agent may pass on
        (``local.delegation_denied``), and for too many children; and like `Mesh.agent`. When its
        time is over, what it waits for raises LocalError (``local.agent_expired``).
        """
        return await self._spawn(self.name, name, attributes, ttl, timeout)

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
        if not 0 < timeout * 1000 <= wire.TIMEOUT_MS_MAX:
            raise LocalError("local.bad_request", f"a timeout of {timeout} s")
        _check_uri(to)
        data, content_type = encode_body(body, content_type)
        timeout_ms = max(1, int(timeout * 1000))
        outbox = self._outbox
        frame = wire.Send(
            next(outbox.requests), outbox.number, to, ASK, data, content_type, timeout_ms
        )
        answer = await outbox.carry(frame, len(data), timeout)
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
        _check_uri(to)
        data, content_type = encode_body(body, content_type)
        outbox = self._outbox
        frame = wire.Send(next(outbox.requests), outbox.number, to, TELL, data, content_type, 0)
        await outbox.carry(frame, len(data), timeout)

    def tell_nowait(self, to: str, body: object, *, content_type: str | None = None) -> None:
        """Queue a message without waiting for anything: the fastest way. At most once.

        What the sidecar refuses is raised by the next `flush`. While the sidecar is away, or reads
        too slowly, messages wait here and go in order. Raises MailboxFull when far too much waits:
        `if not agent.writable: await agent.wait_writable()` between messages.
        """
        if to is not self._last_to:
            _check_uri(to)
            self._last_to = to
        if (
            type(body) is bytes
            and content_type is self._last_content_type
            and content_type is not None
            and len(body) <= MESSAGE_BYTES_MAX
        ):
            data = body
        else:
            data, checked = encode_body(body, content_type)
            self._last_content_type = content_type = checked
        outbox = self._outbox
        connection = outbox.direct
        if connection is None:
            outbox.tell_later(to, content_type, data)
        else:
            connection.post_tell(outbox, to, content_type, data)

    @property
    def writable(self) -> bool:
        """False while the sidecar is away, or reads more slowly than this program sends."""
        return self._outbox.direct is not None

    async def wait_writable(self) -> None:
        """Returns when nothing waits here any more. Raises when the agent is over."""
        while self._outbox.direct is None:
            self._outbox.check_open()
            await self._seat.change()

    async def flush(self, *, timeout: float = TIMEOUT_S_DEFAULT) -> None:  # noqa: ASYNC109
        """Wait until the sidecar has accepted everything sent so far.

        Raises the first failure among the messages and answers that nobody waited for since the
        last flush, with the number of further ones in its notes.
        """
        outbox = self._outbox
        try:
            await outbox.carry(wire.Flush(next(outbox.requests), outbox.number), 0, timeout)
        except SidelinkError:
            error = outbox.take_failures()
            if error is None:
                raise
        else:
            error = outbox.take_failures()
        if error is not None:
            raise error

    async def close(self) -> None:
        """Give the agent up here. Its identity and its name stay with the sidecar.

        What `tell_nowait` left waiting for a sidecar that is away is not sent: flush before.
        """
        await self._seat.close()

    # The inbox.

    def inbox(self) -> AsyncIterator[Message]:
        """The messages for this agent, in order per sender, until the agent is closed.

        Delivery begins with the first use and does not end with it: what comes in between two
        uses waits, here up to a bound and then in the sidecar's mailbox. Several uses at once
        share the messages between them. It goes on when the sidecar has restarted, and raises
        when that stays away for too long.
        """
        return self._seat.inbox.messages(self)


def _check_uri(to: object) -> None:
    if type(to) is not str or len(to) > wire.URI_CHARACTERS_MAX or not to.isascii():
        raise LocalError("local.bad_request", f"not an agent URI: {to!r:.300}")


__all__ = ["INBOX_MESSAGES_HIGH", "TIMEOUT_S_DEFAULT", "Agent"]
