"""What an agent receives: messages with a sender that was proved, and replies."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from sidelink import wire
from sidelink.bodies import decode_body_untrusted, encode_body
from sidelink.connection import Connection
from sidelink.errors import AskTimeout, LocalError
from sidelink.wire import ASK, AttributeValue

if TYPE_CHECKING:
    from sidelink.agent import Agent

_UNDECODED = object()


class _Received:
    __slots__ = ("_body", "_frame", "raw_body")

    def __init__(self, frame: wire.Deliver | wire.DeliverRun | wire.Reply, body: bytes) -> None:
        self._frame = frame
        self._body: object = _UNDECODED
        self.raw_body = body
        """The body as it was sent."""

    @property
    def sender(self) -> str:
        """The agent URI that the sender proved to this sidecar."""
        return self._frame.sender

    @property
    def sender_identifier(self) -> str:
        """The sender's self-certifying identifier (`sl1…`); it outlives names."""
        return self._frame.sender_identifier

    @property
    def attributes(self) -> Mapping[str, AttributeValue]:
        """The sender's attributes, from its verified credential."""
        return self._frame.attributes

    @property
    def content_type(self) -> str:
        return self._frame.content_type

    @property
    def body(self) -> object:
        """The decoded body: values for msgpack, text for text/*, otherwise bytes.

        Raises BodyError when the sender sent something else than its content type says.
        """
        if self._body is _UNDECODED:
            self._body = decode_body_untrusted(self.raw_body, self._frame.content_type)
        return self._body

    def __repr__(self) -> str:
        return f"<{type(self).__name__} from {self.sender}, {len(self.raw_body)} bytes>"


class Reply(_Received):
    """The answer to an ask."""

    __slots__ = ()

    def __init__(self, frame: wire.Reply) -> None:
        super().__init__(frame, frame.body)


class Message(_Received):
    """A message from an agent's inbox."""

    __slots__ = ("_answered", "_ask", "_connection", "agent", "deadline_s")

    def __init__(
        self,
        agent: "Agent",
        connection: Connection,
        frame: wire.Deliver | wire.DeliverRun,
        body: bytes,
    ) -> None:
        # Not by super(): of all that a message costs its reader, that call was a fifth.
        self._frame = frame
        self._body = _UNDECODED
        self.raw_body = body
        self._connection = connection
        self._answered = False
        self._ask: wire.Deliver | None = None
        self.agent = agent
        self.deadline_s: float | None = None
        """When the asker gives up, on the event loop's clock; None for a tell."""
        if type(frame) is wire.Deliver and frame.kind == ASK:
            self._ask = frame
            self.deadline_s = asyncio.get_running_loop().time() + frame.deadline_ms / 1000

    @property
    def kind(self) -> Literal["tell", "ask"]:
        return "tell" if self._ask is None else "ask"

    async def reply(self, body: object, *, content_type: str | None = None) -> None:
        """Answer an ask, once. Waits only while the sidecar reads slowly; what becomes of the
        answer is told by `agent.flush()`. Raises BodyError, LocalError or AskTimeout (too late)."""
        ask = self._answerable()
        data, content_type = encode_body(body, content_type)
        await self._post(wire.Answer(ask.agent, ask.delivery, data, content_type), len(data))

    async def reject(self, reason: str) -> None:
        """Refuse an ask, once: the asker gets Rejected with the reason (cut at 512 characters)."""
        ask = self._answerable()
        reason = reason[: wire.REASON_CHARACTERS_MAX].encode(errors="replace").decode()
        await self._post(wire.Refuse(ask.agent, ask.delivery, reason), 0)

    def _answerable(self) -> wire.Deliver:
        if self._ask is None:
            raise LocalError(
                "message.not_an_ask", "a tell has no reply", remedy="Check `message.kind` first."
            )
        if self._answered:
            raise LocalError("local.bad_request", "the message has been answered already")
        return self._ask

    async def _post(self, frame: wire.Answer | wire.Refuse, body_bytes: int) -> None:
        self._answered = True
        connection = self._connection
        if connection.lost is None and not connection.writable:
            await connection.wait_writable()
        if connection.lost is not None:
            # Deliveries are numbered by connection: another one would take it for something else.
            raise AskTimeout(
                "message.expired", "the connection it came by is gone", outcome_unknown=True
            )
        connection.post(frame, body_bytes)
