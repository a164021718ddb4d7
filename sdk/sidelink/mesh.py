"""A program's place on the mesh: the connection to its sidecar, and its agents across restarts."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from sidelink import wire
from sidelink.agent import Agent
from sidelink.connection import CONNECT_WAIT_S, Connection, open_connection
from sidelink.errors import LocalError, SidelinkError, Unreachable
from sidelink.wire import AttributeValue

SOCKET_PATH_BYTES_MAX: Final = 107
RECONNECT_S_MAX_DEFAULT: Final = 600.0
RETRY_DELAY_S_MIN: Final = 0.05
RETRY_DELAY_S_MAX: Final = 2.0
ANNOUNCED_DELAY_S_MAX: Final = 30.0
OPEN_WAIT_S: Final = 30.0

# The sidecar said so, and it will say so again: coming back is of no use.
_FINAL_CODES: Final = frozenset({"local.unauthorized", "local.version_unsupported"})
# What an agent may be told while the sidecar is still starting, or has not noticed the old
# connection's end.
_PASSING_CODES: Final = frozenset(
    {"local.agent_busy", "local.draining", "local.unavailable", "message.timeout"}
)


def default_socket_path(environment: Mapping[str, str] | None = None) -> Path:
    """SIDELINK_AGENT_SOCKET, or else where a sidecar listens that was started without settings."""
    environment = os.environ if environment is None else environment
    if path := environment.get("SIDELINK_AGENT_SOCKET"):
        return Path(path)
    if state := environment.get("SIDELINK_STATE"):
        folder = Path(state)
    elif state_home := environment.get("XDG_STATE_HOME"):
        folder = Path(state_home) / "sidelink"
    else:
        folder = Path.home() / ".local" / "state" / "sidelink"
    return folder / "sidecar" / "run" / "agent.sock"


def connect(
    path: str | os.PathLike[str] | None = None, *, reconnect_s_max: float = RECONNECT_S_MAX_DEFAULT
) -> "Mesh":
    """``async with sidelink.connect() as mesh:`` — the sidecar at `path`, or the default one.

    Entering raises Unreachable when there is none. If the sidecar goes away later, its agents are
    opened again as soon as it is back, for `reconnect_s_max` seconds.
    """
    return Mesh(default_socket_path() if path is None else Path(path), reconnect_s_max)


class Mesh:
    """Made by `connect`; use it as an async context manager."""

    def __init__(self, path: Path, reconnect_s_max: float) -> None:
        self._path = path
        self._reconnect_s_max = reconnect_s_max
        self._connection: Connection | None = None
        self._agents: dict[Agent, None] = {}  # in the order of their opening
        self._lost = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._closed = False
        self._end: SidelinkError | None = None

    async def __aenter__(self) -> Self:
        if self._supervisor is not None:
            raise LocalError("local.bad_request", "connect() is used once; call it again")
        length = len(os.fsencode(self._path))
        if length > SOCKET_PATH_BYTES_MAX:
            raise LocalError(
                "config.invalid",
                f"the socket path {self._path} has {length} bytes, not {SOCKET_PATH_BYTES_MAX}",
                remedy="Choose a shorter state folder for the sidecar.",
            )
        self._connection = await open_connection(self._path, self._connection_lost)
        self._supervisor = asyncio.create_task(self._supervise(), name="sidelink reconnect")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed = True
        supervisor = self._supervisor
        assert supervisor is not None
        supervisor.cancel()
        try:
            await asyncio.wait([supervisor])
        finally:
            for agent in list(self._agents):
                agent.end(None)
            if self._connection is not None:
                await self._connection.close()

    @property
    def connected(self) -> bool:
        return self._connection is not None and self._connection.lost is None

    @property
    def trust_domain(self) -> str:
        return self._welcome().trust_domain

    @property
    def node(self) -> str:
        """The sidecar's own name or identifier."""
        return self._welcome().node

    async def agent(
        self,
        name: str,
        *,
        attributes: Mapping[str, AttributeValue | list[str]] | None = None,
        timeout: float = OPEN_WAIT_S,  # noqa: ASYNC109
    ) -> Agent:
        """Open an agent of this sidecar by its path, for example ``finance/planner``.

        Its identity is made when the name is new, and kept by the sidecar. Raises LocalError when
        the sidecar may not issue that name or an attribute, or the agent is open elsewhere.
        """
        connection = self._connection
        if self._closed or self._end is not None or connection is None:
            raise self._end or LocalError("local.unavailable", "not connected: use `async with`")
        if connection.lost is not None:
            raise connection.lost_before_sending()
        try:
            msgspec.convert(name, wire.Uri)
            requested = msgspec.convert(dict(attributes or {}), wire.Attributes)
            msgspec.msgpack.encode((name, requested))  # Refuses text that is not Unicode.
        except (msgspec.ValidationError, TypeError, ValueError) as error:
            raise LocalError(
                "local.bad_request",
                f"agent {name!r:.300}: {error}",
                remedy="Attributes are text, integers, booleans or lists of text.",
            ) from error
        agent = Agent(self, name, requested)
        await agent.open_on(connection, timeout)
        self._agents[agent] = None
        return agent

    def forget(self, agent: Agent) -> None:
        self._agents.pop(agent, None)

    def _welcome(self) -> wire.Welcome:
        if self._connection is None:
            raise LocalError("local.unavailable", "not connected: use `async with`")
        return self._connection.welcome.result()

    # Coming back.

    def _connection_lost(self, connection: Connection) -> None:
        if connection is not self._connection or self._closed:
            return
        assert connection.lost is not None
        for agent in list(self._agents):
            agent.connection_lost(connection.lost)
        self._lost.set()

    async def _supervise(self) -> None:
        try:
            await self._keep_connected()
        except Exception as error:
            # A fault of ours must not leave agents waiting for ever.
            self._end_all(LocalError("local.internal", repr(error)))
            raise

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        while self._end is None:
            await self._lost.wait()
            self._lost.clear()
            connection = self._connection
            assert connection is not None
            error = connection.lost
            deadline_s = loop.time() + self._reconnect_s_max
            delay_s = max(RETRY_DELAY_S_MIN, min(connection.retry_delay_s, ANNOUNCED_DELAY_S_MAX))
            while error is not None:
                if error.code in _FINAL_CODES or loop.time() + delay_s > deadline_s:
                    self._give_up(error)
                    break
                await asyncio.sleep(delay_s)
                delay_s = min(max(2 * delay_s, RETRY_DELAY_S_MIN), RETRY_DELAY_S_MAX)
                error = await self._come_back()

    async def _come_back(self) -> SidelinkError | None:
        """One try. Returns what stands in the way, or None when all is as before."""
        connection = self._connection
        assert connection is not None
        try:
            if connection.lost is not None:
                connection = await open_connection(self._path, self._connection_lost)
                self._connection = connection
                self._lost.clear()
                if connection.lost is not None:
                    return connection.lost
        except SidelinkError as error:
            return error
        in_the_way: SidelinkError | None = None
        for agent in list(self._agents):
            if agent.connected:
                continue
            try:
                await agent.open_on(connection, CONNECT_WAIT_S)
            except SidelinkError as error:
                if connection.lost is not None:
                    return connection.lost
                if error.code in _PASSING_CODES:
                    in_the_way = error
                else:
                    agent.end(error)
        return in_the_way

    def _give_up(self, error: SidelinkError) -> None:
        if self.connected:
            for agent in list(self._agents):
                if not agent.connected:
                    agent.end(error)
            return
        self._end_all(
            Unreachable(
                "local.unavailable",
                f"no way back to the sidecar in {self._reconnect_s_max:g} s ({error})",
                remedy="Start the sidecar, then connect again.",
            )
        )

    def _end_all(self, error: SidelinkError) -> None:
        self._end = error
        for agent in list(self._agents):
            agent.end(error)


__all__ = ["Mesh", "connect", "default_socket_path"]
