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
    __slots__ = ("_body", "_frame")

    def __init__(self, frame: wire.Deliver | wire.Reply) -> None:
        self._frame = frame
        self._body: object = _UNDECODED

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
    def raw_body(self) -> bytes:
        return self._frame.body

    @property
    def body(self) -> object:
        """The decoded body: values for msgpack, text for text/*, otherwise bytes.

        Raises BodyError when the sender sent something else than its content type says.
        """
        if self._body is _UNDECODED:
            self._body = decode_body_untrusted(self._frame.body, self._frame.content_type)
        return self._body

    def __repr__(self) -> str:
        return f"<{type(self).__name__} from {self.sender}, {len(self.raw_body)} bytes>"


class Reply(_Received):
    """The answer to an ask."""

    __slots__ = ()


class Message(_Received):
    """A message from an agent's inbox."""

    __slots__ = ("_answered", "_connection", "_deliver", "agent", "deadline_s")

    def __init__(self, agent: "Agent", connection: Connection, frame: wire.Deliver) -> None:
        super().__init__(frame)
        self._connection = connection
        self._deliver = frame
        self._answered = False
        self.agent = agent
        self.deadline_s: float | None = None
        """When the asker gives up, on the event loop's clock; None for a tell."""
        if frame.deadline_ms:
            self.deadline_s = asyncio.get_running_loop().time() + frame.deadline_ms / 1000

    @property
    def kind(self) -> Literal["tell", "ask"]:
        return "ask" if self._deliver.kind == ASK else "tell"

    async def reply(self, body: object, *, content_type: str | None = None) -> None:
        """Answer an ask, once. Waits only while the sidecar reads slowly; what becomes of the
        answer is told by `agent.flush()`. Raises BodyError, LocalError or AskTimeout (too late)."""
        self._check_answerable()
        data, content_type = encode_body(body, content_type)
        await self._post(
            wire.Answer(self._deliver.agent, self._deliver.delivery, data, content_type), len(data)
        )

    async def reject(self, reason: str) -> None:
        """Refuse an ask, once: the asker gets Rejected with the reason (cut at 512 characters)."""
        self._check_answerable()
        reason = reason[: wire.REASON_CHARACTERS_MAX].encode(errors="replace").decode()
        await self._post(wire.Refuse(self._deliver.agent, self._deliver.delivery, reason), 0)

    def _check_answerable(self) -> None:
        if self._deliver.kind != ASK:
            raise LocalError(
                "message.not_an_ask", "a tell has no reply", remedy="Check `message.kind` first."
            )
        if self._answered:
            raise LocalError("local.bad_request", "the message has been answered already")

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
