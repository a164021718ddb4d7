"""An agent's seat at its sidecar: taken again on each connection, until the agent is over."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sidelink import wire
from sidelink.connection import Connection
from sidelink.errors import LocalError, SidelinkError
from sidelink.inbox import Inbox
from sidelink.outbox import Backlog, Outbox
from sidelink.roles import Call
from sidelink.wire import AttributeValue

CLOSE_WAIT_S: Final = 30.0


@dataclass(slots=True)
class Birth:
    """How a child comes to be: spawned below this agent, to live until then on the loop's clock."""

    parent: str
    segment: str
    ends_s: float | None

    def left_s(self) -> int:
        """Whole seconds, 0 for a child without an end. Raises LocalError when its time is over."""
        if self.ends_s is None:
            return 0
        left_s = int(self.ends_s - asyncio.get_running_loop().time())
        if left_s <= 0:
            raise LocalError(
                "local.agent_expired",
                f"the time to live of {self.parent}/{self.segment} is over",
                remedy="Spawn the agent again.",
            )
        return left_s


class Seat:
    """Fits `roles.Receiver`. Its outbox and its inbox outlive connections."""

    def __init__(
        self,
        name: str,
        requested_attributes: dict[str, AttributeValue],
        backlog: Backlog,
        on_end: Callable[["Seat"], None],
        birth: Birth | None = None,
    ) -> None:
        self._birth = birth
        self._requested_attributes = requested_attributes
        self._on_end = on_end
        self._changed = asyncio.Event()
        self._connection: Connection | None = None
        self._number = 0
        self._opened: wire.Opened | None = None
        self._ended = False
        self.name: Final = name
        self.inbox: Final = Inbox()
        self.outbox: Final = Outbox(backlog, self._changed)

    @property
    def identity(self) -> wire.Opened:
        assert self._opened is not None, "Mesh.agent returns opened agents only"
        return self._opened

    @property
    def connected(self) -> bool:
        connection = self._connection
        return connection is not None and connection.accepting and not self._ended

    async def change(self) -> None:
        """Returns when sending may have become possible, or over."""
        self._changed.clear()
        await self._changed.wait()

    async def open_on(self, connection: Connection, timeout_s: float) -> None:
        """Open, or open again, on this connection. Raises what the sidecar says."""
        request = next(connection.requests)
        frame = self._opening(request)
        opened = await connection.request(request, frame, timeout_s)
        if not isinstance(opened, wire.Opened):
            raise LocalError("local.bad_request", "OpenAgent was not answered by Opened")
        if self._ended:
            connection.post(wire.CloseAgent(next(connection.requests), opened.agent))
            return
        self._opened = opened
        self._number = opened.agent
        self._connection = connection
        connection.join(opened.agent, self)
        self.inbox.opened(connection, opened.agent)
        self.outbox.opened(connection, opened.agent)
        self._changed.set()

    def _opening(self, request: int) -> wire.OpenAgent | wire.SpawnAgent:
        birth = self._birth
        if birth is None:
            return wire.OpenAgent(request, self.name, self._requested_attributes)
        ttl_s = birth.left_s()
        attributes = self._requested_attributes
        return wire.SpawnAgent(request, birth.parent, birth.segment, attributes, ttl_s)

    async def close(self) -> None:
        """The agent is over here, and then at the sidecar, unless that is away."""
        if self._ended:
            return
        connection, number = self._connection, self._number
        self.end(None)
        if connection is None or connection.lost is not None:
            return
        request = next(connection.requests)
        try:
            await connection.request(request, wire.CloseAgent(request, number), CLOSE_WAIT_S)
        except SidelinkError:
            # The end of a connection closes its agents too.
            if connection.lost is None:
                raise

    def end(self, error: SidelinkError | None) -> None:
        """The agent is over, because of `error` or because its program closes it."""
        if self._ended:
            return
        self._ended = True
        self.inbox.end(error)
        self.outbox.end(error or LocalError("local.agent_unknown", f"{self.name} is closed"))
        if self._connection is not None:
            self._connection.part(self._number, self)
        self._changed.set()
        self._on_end(self)

    # What the connection and the mesh tell.

    def delivered(self, connection: Connection, frame: wire.Deliver | wire.DeliverRun) -> None:
        self.inbox.delivered(connection, frame)

    def failed_unasked(self, error: SidelinkError) -> None:
        self.outbox.failed_unasked(error)

    def over(self, error: SidelinkError) -> None:
        self.end(error)

    def posted_answer(self) -> None:
        self.outbox.posted += 1

    def held(self, unsent: Sequence[wire.TellRun | Call]) -> None:
        self.outbox.held(unsent)

    def resumed(self) -> None:
        self.outbox.resumed()

    def leaving(self, connection: Connection) -> None:
        self.outbox.leaving(connection)

    def connection_lost(self, error: SidelinkError) -> None:
        self.outbox.connection_lost(error)
