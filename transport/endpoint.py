"""One UDP socket that dials and accepts: routes datagrams to connections, flushes once a turn."""

import asyncio
import errno
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from itertools import count

from identity import Code, Identifier
from transport import limits, retry
from transport.certificate import ThrowAwayCertificate
from transport.connection import HopConnection
from transport.contract import Hop, HopHandler, HopPurpose, IdentityProvider
from transport.counters import EndpointCounters
from transport.engines import make_engine
from transport.errors import DatagramError, TransportError
from transport.half_open import HalfOpen
from transport.hop import CarriedHop
from transport.lobby import Lobby, Waiting
from transport.path import Address, Paths
from transport.settings import TransportSettings
from transport.strangers import Opening, Strangers
from transport.udp import (
    UdpCounters,
    UdpSocket,
    find_mtu_bytes,
    normalise_address,
    source_group,
)

_log = logging.getLogger("sidelink.transport")


@dataclass(slots=True)
class _Lingering:
    """The last words of a connection that is gone, for a peer that missed them."""

    datagrams: list[tuple[bytes, Address]]
    local: bytes | None
    until_s: float
    replies_left: int = limits.LINGER_REPLIES_MAX


class Endpoint:
    """Dials and accepts hops on one address. Make it with ``bind``; end it with ``close``."""

    def __init__(
        self,
        udp: UdpSocket,
        loop: asyncio.AbstractEventLoop,
        *,
        identity: IdentityProvider,
        handler: HopHandler,
        settings: TransportSettings,
    ) -> None:
        certificate = ThrowAwayCertificate.generate()
        self.loop = loop
        self.udp = udp
        self.own_certificate_hash = certificate.certificate_hash
        self.counters = EndpointCounters()
        self._engine = make_engine(certificate, settings)
        self._identity = identity
        self._handler = handler
        self.settings = settings
        self._paths = Paths(settings, find_mtu_bytes)
        self._strangers = Strangers(settings, self.counters, udp.send)
        self._by_id: dict[bytes, HopConnection] = {}
        self._connections: dict[HopConnection, None] = {}
        self._half_open: HalfOpen[HopConnection] = HalfOpen(settings, self.now_s())
        self._lobby = Lobby(self.counters, self.now_s())
        self._attend_handle: asyncio.Handle | None = None
        self._attend_from_s = 0.0
        self._served_s = 0.0  # When an open hop last spoke.
        self._lingering: OrderedDict[bytes, _Lingering] = OrderedDict()
        self._hop_ids = count(1)
        self._dirty: dict[HopConnection, None] = {}
        self._flush_handle: asyncio.Handle | None = None
        self._is_in_turn = False
        self._is_closed = False
        self._resolving: set[asyncio.Task[None]] = set()
        self._drained = asyncio.Event()
        self._next_failure_log_s = 0.0

    @classmethod
    async def bind(
        cls,
        host: str,
        port: int,
        *,
        identity: IdentityProvider,
        handler: HopHandler,
        settings: TransportSettings | None = None,
    ) -> "Endpoint":
        """Bind a socket and listen. ``host`` is a literal address; ``::`` takes both families.

        Raises TransportError with CONFIG_PORT_BUSY or CONFIG_INVALID.
        """
        loop = asyncio.get_running_loop()
        settings = TransportSettings() if settings is None else settings
        try:
            udp = UdpSocket.bind(host, port, loop, segmentation=settings.segmentation)
        except OSError as error:
            busy = error.errno in (errno.EADDRINUSE, errno.EACCES)
            code = Code.CONFIG_PORT_BUSY if busy else Code.CONFIG_INVALID
            raise TransportError(code, f"udp {host}:{port}: {error.strerror}") from error
        endpoint = cls(udp, loop, identity=identity, handler=handler, settings=settings)
        udp.start(endpoint._on_readable, endpoint._on_writable)
        return endpoint

    @property
    def address(self) -> Address:
        return self.udp.address

    @property
    def engine_name(self) -> str:
        return self._engine.name

    @property
    def udp_counters(self) -> UdpCounters:
        return self.udp.counters

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    @property
    def half_open_count(self) -> int:
        return len(self._half_open)

    def dial(
        self,
        host: str,
        port: int,
        *,
        purpose: HopPurpose,
        target: Identifier | None,
        handler: HopHandler | None = None,
    ) -> Hop:
        """Begin a hop and return it at once. All that follows, failure too, comes to the handler.

        ``target`` is who must answer; None leaves the judgement to the handler.
        """
        if self._is_closed:
            raise RuntimeError("the endpoint is closed")
        connection = HopConnection(self, is_dialler=True)
        hop = self._make_hop(
            connection, self._handler if handler is None else handler, purpose, target
        )
        try:
            self._connect(connection, normalise_address(host, port, is_v6=self.udp.is_v6))
        except OSError as error:
            hop.lose(Code.HOP_UNREACHABLE, str(error))
        except ValueError:
            task = self.loop.create_task(self._resolve(host, port, connection))
            self._resolving.add(task)
            task.add_done_callback(self._resolving.discard)
        return hop

    async def close(self, code: Code = Code.HOP_CLOSED) -> None:
        """Close every hop with ``code``, tell each owner, and free the socket and all timers."""
        if self._is_closed:
            return
        self._is_closed = True
        for task in self._resolving:
            task.cancel()
        if self._resolving:
            await asyncio.gather(*self._resolving, return_exceptions=True)
        for connection in list(self._connections):
            connection.hop.end(code, "closed by this node")
        self._flush()
        try:
            async with asyncio.timeout(limits.CLOSE_DRAIN_S):
                while self._connections or self.udp.is_blocked:
                    self._drained.clear()
                    await self._drained.wait()
        except TimeoutError:
            _log.info("closed with datagrams unsent")
        for connection in list(self._connections):
            connection.finish(self.now_s())
        for handle in (self._flush_handle, self._attend_handle):
            if handle is not None:
                handle.cancel()
        self._flush_handle = self._attend_handle = None
        self._lobby.clear()
        self._lingering.clear()
        self.udp.close()

    @staticmethod
    def now_s() -> float:
        """The clock of the loop without uvloop's rounding to milliseconds: engines pace by it."""
        return time.monotonic()  # noqa: TID251  # Endpoints are where the core is told the time.

    # --- what connections call ---------------------------------------------------------------

    def flush_later(self, connection: HopConnection) -> None:
        self._dirty[connection] = None
        if self._flush_handle is None and not self._is_in_turn:
            self._flush_handle = self.loop.call_soon(self._flush)

    def add_id(self, connection_id: bytes, connection: HopConnection) -> None:
        self._by_id[connection_id] = connection
        connection.ids.add(connection_id)

    def drop_id(self, connection_id: bytes) -> None:
        self._by_id.pop(connection_id, None)

    def let_in(self, connection: HopConnection) -> None:
        self._half_open.remove(connection)

    def note_progress(self, connection: HopConnection) -> None:
        self._half_open.note_progress(connection, self.now_s())

    def forget(self, connection: HopConnection, last_words: list[tuple[bytes, Address]]) -> None:
        self._half_open.remove(connection)
        self._lobby.forget(connection)
        until_s = self.now_s() + limits.LINGER_S
        lingering = _Lingering(last_words, connection.local, until_s)
        for connection_id in connection.ids:
            self._by_id.pop(connection_id, None)
            if last_words and not self._is_closed:
                self._lingering[connection_id] = lingering
        while len(self._lingering) > limits.LINGERING_MAX:
            self._lingering.popitem(last=False)
        self._connections.pop(connection, None)
        if not self._connections:
            self._drained.set()

    def note_stall(self, address: Address) -> None:
        self._paths.note_stall(address, self.now_s())

    def note_failure(self, error: BaseException) -> None:
        """Count an exception of an engine or a handler, and log it, but not at a peer's pace."""
        self.counters.failed_connections += 1
        now_s = self.now_s()
        if now_s >= self._next_failure_log_s:
            self._next_failure_log_s = now_s + limits.FAILURE_LOG_INTERVAL_S
            _log.error("connection failed", exc_info=error)

    # --- reading -----------------------------------------------------------------------------

    def _on_readable(self) -> None:
        now_s = self.now_s()
        self._is_in_turn = True
        touched: dict[HopConnection, None] = {}
        for data, segment_bytes, source, local in self.udp.receive():
            self._route(data, segment_bytes, source, local, now_s, touched)
        self._dispatch(touched)
        if touched:
            self._served_s = now_s
        # Open hops have been served. Now those who would like to be one.
        if self._lobby and self._attend_handle is None:
            if self._must_wait(now_s):
                self._attend_handle = self.loop.call_at(self._attend_from_s, self._attend)
            else:
                self._attend()

    def _must_wait(self, now_s: float) -> bool:
        """Whether strangers and handshakes have had their share, and there are others to serve."""
        # While more comes than is read, an open hop may be silent because its words wait, or are
        # lost, in the socket.
        served_s = self.settings.idle_timeout_s if self.udp.is_behind else limits.SERVED_S
        return now_s < min(self._attend_from_s, self._served_s + served_s)

    def _dispatch(self, touched: dict[HopConnection, None]) -> None:
        for connection in touched:
            connection.dispatch()
        self._dirty.update(touched)
        self._is_in_turn = False
        self._flush()

    def _route(
        self,
        data: bytes,
        segment_bytes: int,
        source: Address,
        local: bytes | None,
        now_s: float,
        touched: dict[HopConnection, None],
    ) -> None:
        if not data:
            return
        if segment_bytes and segment_bytes < len(data) and not _is_one_flow(data, segment_bytes):
            for start in range(0, len(data), segment_bytes):
                piece = data[start : start + segment_bytes]
                self._route(piece, 0, source, local, now_s, touched)
            return
        connection_id = retry.connection_id(data)
        connection = self._by_id.get(connection_id)
        if connection is None:
            self._drop_or_hold(data, connection_id, source, local, now_s)
        elif connection.is_half_open:
            self._lobby.hold_handshake(connection, data, segment_bytes, source, local)
        elif data[0] & 0x80 and retry.is_version_negotiation(data):
            # An engine never sees these: qh3 would answer one with another.
            connection.receive_versions(data)
        else:
            connection.receive(data, segment_bytes, source, now_s)
            touched[connection] = None

    def _drop_or_hold(
        self,
        data: bytes,
        connection_id: bytes,
        source: Address,
        local: bytes | None,
        now_s: float,
    ) -> None:
        if connection_id in self._lingering:
            self._answer_for_the_gone(connection_id, now_s)
        elif retry.is_long(data):
            self._lobby.hold_stranger(data, source, local, now_s)
        else:
            self.counters.dropped_unknown += 1

    def _attend(self) -> None:
        """Spend a slice of time on who waits in the lobby; the rest waits for the next turn."""
        self._attend_handle = None
        now_s = self.now_s()
        until_s = now_s + limits.STRANGERS_TURN_S
        self._is_in_turn = True
        touched: dict[HopConnection, None] = {}
        while self._lobby and self.now_s() < until_s:
            waiting = self._lobby.take()
            connection = waiting.connection
            if connection is None:
                connection = self._meet(waiting, now_s)
            if connection is not None:
                connection.receive(waiting.data, waiting.segment_bytes, waiting.source, now_s)
                connection.dispatch()
                touched[connection] = None
        self._dispatch(touched)
        self.udp.expect_more()  # Else nothing would show that more comes than is read.
        ended_s = self.now_s()
        behind = self.udp.is_behind
        share = limits.STRANGERS_SHARE_BEHIND if behind else limits.STRANGERS_SHARE
        self._attend_from_s = ended_s + (ended_s - now_s) * (1 / share - 1)
        if not self._lobby or self._is_closed:
            return
        if self._must_wait(ended_s):
            self._attend_handle = self.loop.call_at(self._attend_from_s, self._attend)
        else:
            self._attend_handle = self.loop.call_soon(self._attend)

    def _meet(self, waiting: Waiting, now_s: float) -> HopConnection | None:
        try:
            header = retry.parse_long_header_untrusted(waiting.data)
        except DatagramError:
            self.counters.dropped_malformed += 1
            return None
        connection = self._by_id.get(header.destination_id)
        if connection is not None:
            return connection  # It was made for another datagram of the same flight.
        if self._is_closed or self.udp.is_blocked:
            self.counters.dropped_flood += 1
            return None
        opening = self._strangers.answer(
            header, len(waiting.data), waiting.source, waiting.local, now_s
        )
        return None if opening is None else self._accept(opening, waiting, now_s)

    def _accept(self, opening: Opening, waiting: Waiting, now_s: float) -> HopConnection | None:
        group = source_group(waiting.source)
        half_open = self._half_open
        if len(self._connections) >= self.settings.connections_max:
            self.counters.dropped_connections += 1
            return None
        idle = None if half_open.has_room(group) else half_open.find_idle(group, now_s)
        if idle is None and not half_open.has_room(group):
            self.counters.dropped_half_open += 1
            return None
        if not half_open.may_begin(group, now_s):
            self.counters.dropped_rate += 1
            return None
        if idle is not None:
            self.counters.shed += 1
            idle.hop.end(Code.HOP_LIMIT_EXCEEDED, "it stood still and others wanted in")
            half_open.remove(idle)
        connection = self._make_accepted(opening, waiting, now_s)
        half_open.add(connection, group, now_s)
        return connection

    def _make_accepted(self, opening: Opening, waiting: Waiting, now_s: float) -> HopConnection:
        source = waiting.source
        plan = self._paths.plan(source, now_s)
        engine = self._engine.accept(
            original_id=opening.original_id, retry_id=opening.retry_id, plan=plan
        )
        connection = HopConnection(self, is_dialler=False)
        local = self.udp.choose_local(source, waiting.local)
        connection.begin(engine, plan, source, local)
        self.counters.accepted += 1
        self._make_hop(connection, self._handler, None, None)
        self.add_id(opening.retry_id, connection)
        self.add_id(engine.connection_id, connection)
        return connection

    def _make_hop(
        self,
        connection: HopConnection,
        handler: HopHandler,
        purpose: HopPurpose | None,
        target: Identifier | None,
    ) -> CarriedHop:
        connection.hop = CarriedHop(
            next(self._hop_ids),
            carrier=connection,
            handler=handler,
            identity=self._identity,
            settings=self.settings,
            dial=None if purpose is None else (purpose, target),
        )
        self._connections[connection] = None
        return connection.hop

    def _answer_for_the_gone(self, connection_id: bytes, now_s: float) -> None:
        lingering = self._lingering[connection_id]
        if lingering.until_s < now_s or not lingering.replies_left:
            del self._lingering[connection_id]
            self.counters.dropped_unknown += 1
        else:
            lingering.replies_left -= 1
            self.udp.send(lingering.datagrams, lingering.local)

    # --- writing -----------------------------------------------------------------------------

    def _flush(self) -> None:
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        now_s = self.now_s()
        self._is_in_turn = True
        blocked: list[HopConnection] = []
        # What an owner does when it is told something may make another connection dirty.
        while self._dirty:
            connection, _ = self._dirty.popitem()
            if self.udp.is_blocked and connection.hop.closing is None:
                blocked.append(connection)  # Its bytes wait in the engine, not in a queue here.
            else:
                connection.flush(now_s)
        self._dirty.update(dict.fromkeys(blocked))
        self._is_in_turn = False

    def _on_writable(self) -> None:
        self._drained.set()
        self._flush()

    async def _resolve(self, host: str, port: int, connection: HopConnection) -> None:
        try:
            async with asyncio.timeout(self.settings.handshake_timeout_s):
                found = await self.loop.getaddrinfo(host, port)
            address = _first_usable([item[4][0] for item in found], port, is_v6=self.udp.is_v6)
        except (OSError, UnicodeError) as error:
            connection.hop.lose(Code.HOP_UNREACHABLE, f"{host}: {error}")
            return
        if connection.hop.closing is None:
            self._connect(connection, address)

    def _connect(self, connection: HopConnection, address: Address) -> None:
        plan = self._paths.plan(address, self.now_s())
        connection.begin(self._engine.dial(plan), plan, address)
        connection.connect()


def _is_one_flow(data: bytes, segment_bytes: int) -> bool:
    """Whether all segments are short-header packets to one connection id: the usual case."""
    if retry.is_long(data):
        return False
    connection_id = retry.short_connection_id(data)
    end = limits.CONNECTION_ID_BYTES + 1
    for start in range(segment_bytes, len(data), segment_bytes):
        if data[start] & 0x80 or data[start + 1 : start + end] != connection_id:
            return False
    return True


def _first_usable(hosts: list[str | int], port: int, *, is_v6: bool) -> Address:
    for host in hosts:
        try:
            return normalise_address(str(host), port, is_v6=is_v6)
        except (OSError, ValueError):
            continue
    raise OSError(errno.EHOSTUNREACH, "no address of a family that this node has")
