"""What an agent receives: messages with a sender that was proved, and replies."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import msgspec

from sidelink import wire
from sidelink.bodies import decode_body_untrusted, encode_body
from sidelink.connection import Connection
from sidelink.errors import AskTimeout, LocalError
from sidelink.wire import AttributeValue

if TYPE_CHECKING:
    from sidelink.agent import Agent

_UNDECODED = object()


class _Received:
    """What the frame says about a body. It holds nothing itself: its two heirs are made apart."""

    __slots__ = ()

    if TYPE_CHECKING:
        raw_body: bytes
        _frame: wire.Deliver | wire.DeliverRun | wire.Reply
        _body: object

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
            # The heirs have the slot.
            self._body = decode_body_untrusted(  # type: ignore[misc]
                self.raw_body, self._frame.content_type
            )
        return self._body

    def __repr__(self) -> str:
        return f"<{type(self).__name__} from {self.sender}, {len(self.raw_body)} bytes>"


class Reply(_Received):
    """The answer to an ask."""

    __slots__ = ("_body", "_frame", "raw_body")

    def __init__(self, frame: wire.Reply) -> None:
        self._frame = frame
        self._body = _UNDECODED
        self.raw_body = frame.body
        """The body as it was sent."""


# A struct for its constructor, which is msgspec's and not Python's: 0.1 µs less for each message.
class Message(_Received, msgspec.Struct, eq=False):
    """A message from an agent's inbox."""

    raw_body: bytes
    """The body as it was sent."""
    _frame: wire.Deliver | wire.DeliverRun
    agent: "Agent"
    _asked_by: Connection | None = None
    deadline_s: float | None = None
    """When the asker gives up, on the event loop's clock; None for a tell."""
    _answered: bool = False
    _body: object = _UNDECODED

    @property
    def kind(self) -> Literal["tell", "ask"]:
        return "tell" if self._asked_by is None else "ask"

    async def reply(self, body: object, *, content_type: str | None = None) -> None:
        """Answer an ask, once. Waits only while the sidecar reads slowly; what becomes of the
        answer is told by `agent.flush()`. Raises BodyError, LocalError, or AskTimeout when it is
        too late: the sidecar that delivered the ask has stopped, and its asker has been told."""
        ask = self._answerable()
        data, content_type = encode_body(body, content_type)
        await self._post(wire.Answer(ask.agent, ask.delivery, data, content_type), len(data))

    async def reject(self, reason: str) -> None:
        """Refuse an ask, once: the asker gets Rejected with the reason (cut at 512 characters)."""
        ask = self._answerable()
        reason = reason[: wire.REASON_CHARACTERS_MAX].encode(errors="replace").decode()
        await self._post(wire.Refuse(ask.agent, ask.delivery, reason), 0)

    def _answerable(self) -> wire.Deliver:
        if self._asked_by is None or not isinstance(self._frame, wire.Deliver):
            raise LocalError(
                "message.not_an_ask", "a tell has no reply", remedy="Check `message.kind` first."
            )
        if self._answered:
            raise LocalError("local.bad_request", "the message has been answered already")
        return self._frame

    async def _post(self, frame: wire.Answer | wire.Refuse, body_bytes: int) -> None:
        connection = self._asked_by
        assert connection is not None
        self._answered = True
        if not connection.writable:
            try:
                await connection.wait_writable()
            except asyncio.CancelledError:
                self._answered = False
                raise
        if connection.lost is not None:
            # Deliveries are numbered by connection: another one would take it for something else.
            raise AskTimeout(
                "message.expired", "the connection it came by is gone", outcome_unknown=True
            )
        connection.post_answer(frame, body_bytes)
