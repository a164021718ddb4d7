"""A program's place on the mesh: the connection to its sidecar, and its agents across restarts."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from sidelink import wire
from sidelink.address import TCP_SCHEME, Address, LoopbackAddress, parse_address
from sidelink.agent import Agent
from sidelink.connection import (
    CONNECT_WAIT_S,
    DRAINING,
    NO_SIDECAR,
    Connection,
    open_connection,
)
from sidelink.errors import LocalError, SidelinkError, Unreachable, copy_error
from sidelink.outbox import Backlog
from sidelink.seat import Birth, Seat
from sidelink.tokens import ReadToken, no_token, token_reader
from sidelink.wire import AttributeValue

RECONNECT_S_MAX_DEFAULT: Final = 600.0
RETRY_DELAY_S_MIN: Final = 0.05
RETRY_DELAY_S_MAX: Final = 2.0
ANNOUNCED_DELAY_S_MAX: Final = 30.0
OPEN_WAIT_S: Final = 30.0
SPAWN_SLACK_S: Final = 0.5
"""Whole seconds are sent: half a second more, so that a child does not lose one at once."""

# The sidecar said so, and it will say so again: coming back is of no use.
_FINAL_CODES: Final = frozenset({"local.unauthorized", "local.version_unsupported"})
# What an agent may be told while the sidecar is still starting, or has not noticed the old
# connection's end.
_PASSING_CODES: Final = frozenset(
    {"local.agent_busy", DRAINING, "local.unavailable", "message.timeout"}
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
    path: str | os.PathLike[str] | None = None,
    *,
    token: str | None = None,
    reconnect_s_max: float = RECONNECT_S_MAX_DEFAULT,
    wait_s: float = 0.0,
) -> "Mesh":
    """``async with sidelink.connect() as mesh:`` — the sidecar at `path`, or the default one.

    `path` is that of its socket, or ``tcp://127.0.0.1:7450``. A token says which agents this
    program may act as: `token`, or SIDELINK_AGENT_TOKEN, or what the file
    SIDELINK_AGENT_TOKEN_FILE holds.

    Raises LocalError for an address or a token that is none. Entering raises Unreachable when there
    is no sidecar, at once or after `wait_s` seconds: for programs that start beside it. If it goes
    away later, its agents are opened again as soon as it is back, for `reconnect_s_max` seconds.
    """
    if path is None:
        given = os.environ.get("SIDELINK_AGENT_SOCKET", "")
        path = given if given.startswith(TCP_SCHEME) else default_socket_path()
    address, read_token = parse_address(path), token_reader(token)
    if isinstance(address, LoopbackAddress) and read_token is no_token:
        raise LocalError(
            "local.unauthorized",
            f"a token is needed at {address}",
            remedy="Ask for one with `sidelink agent token create`, and give it to this program.",
        )
    return Mesh(address, read_token, reconnect_s_max, wait_s)


class Mesh:
    """Made by `connect`; use it as an async context manager."""

    def __init__(
        self, address: Address, read_token: ReadToken, reconnect_s_max: float, wait_s: float
    ) -> None:
        self._address = address
        self._read_token = read_token
        self._token: str | None = None
        self._reconnect_s_max = reconnect_s_max
        self._wait_s = wait_s
        self._connection: Connection | None = None
        self._seats: dict[Seat, None] = {}  # in the order of their opening
        self._backlog = Backlog()
        self._lost = asyncio.Event()
        self._changed = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._closed = False
        self._end: SidelinkError | None = None

    async def __aenter__(self) -> Self:
        if self._supervisor is not None:
            raise LocalError("local.bad_request", "connect() is used once; call it again")
        self._address.check()
        self._connection = await self._first_connection()
        if self._connection.lost is not None:
            self._lost.set()  # Behind its Welcome, when nobody was told yet.
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
            self._changed.set()
            for seat in list(self._seats):
                seat.end(None)
            if self._connection is not None:
                await self._connection.close()

    @property
    def connected(self) -> bool:
        """False while the sidecar is away."""
        return self._connection is not None and self._connection.accepting

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
        the sidecar may not issue that name or an attribute, or the agent is open elsewhere. Waits
        while the sidecar is away, and raises Unreachable after `timeout` seconds.
        """
        return await self._take_seat(name, attributes, timeout)

    async def _spawn(
        self,
        parent: str,
        segment: str,
        attributes: Mapping[str, AttributeValue | list[str]] | None,
        ttl: float | None,
        timeout: float,  # noqa: ASYNC109
    ) -> Agent:
        ends_s = None
        if ttl is not None:
            if not 1 <= ttl <= wire.TTL_S_MAX:
                raise LocalError("local.bad_request", f"a time to live of {ttl} s")
            ends_s = asyncio.get_running_loop().time() + ttl + SPAWN_SLACK_S
        birth = Birth(parent, segment, ends_s)
        return await self._take_seat(f"{parent}/{segment}", attributes, timeout, birth)

    async def _take_seat(
        self,
        name: str,
        attributes: Mapping[str, AttributeValue | list[str]] | None,
        timeout: float,  # noqa: ASYNC109
        birth: Birth | None = None,
    ) -> Agent:
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
        seat = Seat(name, requested, self._backlog, self._forget, birth)
        deadline_s = asyncio.get_running_loop().time() + timeout
        while not seat.connected:
            connection = await self._connection_before(deadline_s)
            left_s = deadline_s - asyncio.get_running_loop().time()
            try:
                await seat.open_on(connection, left_s)
            except SidelinkError as error:
                if error.code == DRAINING:
                    connection.stop_accepting()
                # To open twice does no harm, so a sidecar that goes away meanwhile is no error.
                if connection.accepting:
                    raise
        self._seats[seat] = None
        return Agent(seat, self._spawn)

    async def _connection_before(self, deadline_s: float) -> Connection:
        try:
            async with asyncio.timeout_at(deadline_s):
                while not (connection := self._open()).accepting:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise Unreachable(
                "local.unavailable", "the sidecar is away", remedy=NO_SIDECAR
            ) from None
        return connection

    def _open(self) -> Connection:
        if self._end is not None:
            raise copy_error(self._end)
        if self._closed or self._connection is None:
            raise LocalError("local.unavailable", "not connected: use `async with`")
        return self._connection

    def _forget(self, seat: Seat) -> None:
        self._seats.pop(seat, None)

    def _welcome(self) -> wire.Welcome:
        if self._connection is None:
            raise LocalError("local.unavailable", "not connected: use `async with`")
        return self._connection.welcome.result()

    # Coming, and coming back.

    async def _first_connection(self) -> Connection:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._wait_s
        delay_s = RETRY_DELAY_S_MIN
        while True:
            try:
                return await self._open_connection()
            except Unreachable:
                left_s = deadline_s - loop.time()
                if left_s <= 0:
                    raise
            await asyncio.sleep(min(delay_s, left_s))
            delay_s = min(2 * delay_s, RETRY_DELAY_S_MAX)

    async def _open_connection(self) -> Connection:
        self._token = self._read_token()
        return await open_connection(
            self._address, self._token, self._connection_lost, self._backlog.requests
        )

    def _connection_lost(self, connection: Connection) -> None:
        if connection is not self._connection or self._closed:
            return
        assert connection.lost is not None
        for seat in list(self._seats):
            seat.connection_lost(connection.lost)
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
            announced_s = min(connection.retry_at_s - loop.time(), ANNOUNCED_DELAY_S_MAX)
            delay_s = max(RETRY_DELAY_S_MIN, announced_s)
            while error is not None:
                if self._is_final(error) or loop.time() + delay_s > deadline_s:
                    self._give_up(error)
                    break
                await asyncio.sleep(delay_s)
                delay_s = min(max(2 * delay_s, RETRY_DELAY_S_MIN), RETRY_DELAY_S_MAX)
                error = await self._come_back()

    def _is_final(self, error: SidelinkError) -> bool:
        if error.code != "local.unauthorized":
            return error.code in _FINAL_CODES
        try:
            return self._read_token() == self._token
        except LocalError:
            return False  # Somebody is about to write another one.

    async def _come_back(self) -> SidelinkError | None:
        """One try. Returns what stands in the way, or None when all is as before."""
        connection = self._connection
        assert connection is not None
        try:
            if connection.lost is None and not connection.accepting:
                # What it still answers comes before what is sent on the next one.
                return Unreachable(DRAINING, "the sidecar is stopping")
            if connection.lost is not None:
                connection = await self._open_connection()
                self._connection = connection
                self._lost.clear()
                if connection.lost is not None:
                    return connection.lost
                self._changed.set()
        except SidelinkError as error:
            return error
        in_the_way: SidelinkError | None = None
        for seat in list(self._seats):
            if seat.connected:
                continue
            try:
                await seat.open_on(connection, CONNECT_WAIT_S)
            except SidelinkError as error:
                if connection.lost is not None:
                    return connection.lost
                if error.code in _PASSING_CODES:
                    in_the_way = error
                else:
                    seat.end(error)
        return in_the_way

    def _give_up(self, error: SidelinkError) -> None:
        if self.connected:
            for seat in list(self._seats):
                if not seat.connected:
                    seat.end(error)
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
        self._changed.set()
        for seat in list(self._seats):
            seat.end(error)


__all__ = ["Mesh", "connect", "default_socket_path"]
