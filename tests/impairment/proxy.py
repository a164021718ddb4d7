"""The proxy's body: sockets and a timer round the core. It decides nothing.

One socket listens. Each client has a socket of its own towards the target, so that the target sees
them apart. No socket asks for UDP_GRO, so the kernel hands over each datagram as it was sent.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, assert_never

from tests.impairment.core import (
    Direction,
    Drop,
    Forgotten,
    Impairer,
    Rebound,
    ToClient,
    ToTarget,
)
from tests.impairment.settings import NO_IMPAIRMENT, Impairment

Address = tuple[str, int]

DATAGRAM_BYTES_MAX: Final = 65_536
SOCKET_BUFFER_BYTES: Final = 4 << 20
# One readable socket may take this many reads before the loop has its turn again.
READS_PER_TURN_MAX: Final = 64
# Ports that clients had before a rebinding. They stay open, deaf, so that nobody else gets the
# port and with it what the target still sends there.
OLD_SOCKETS_MAX: Final = 64

_SO_MEMINFO: Final = 55  # linux/socket.h; the socket module does not name it.
_MEMINFO: Final = struct.Struct("=9I")
_MEMINFO_DROPS: Final = 8


class UdpProxy:
    """Between clients and one target. Make it with ``open``."""

    def __init__(self, core: Impairer, listening: socket.socket, target: Address) -> None:
        self.core = core
        self.target = target
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._upstream: dict[int, socket.socket] = {}
        self._old: deque[socket.socket] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0
        self._kernel_drops = 0
        self._is_closed = False
        self._loop.add_reader(listening.fileno(), self._read_clients)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        target: Address,
        *,
        listen: Address | None = None,
        up: Impairment = NO_IMPAIRMENT,
        down: Impairment = NO_IMPAIRMENT,
        seed: int = 0,
    ) -> AsyncIterator["UdpProxy"]:
        """In this event loop. By default it listens on loopback of the target's family."""
        listen = listen or ("::1" if ":" in target[0] else "127.0.0.1", 0)
        listening = _udp_socket(listen[0])
        try:
            listening.bind(listen)
            proxy = cls(Impairer(up, down, seed=seed), listening, target)
        except BaseException:
            listening.close()
            raise
        try:
            yield proxy
        finally:
            proxy.close()

    @property
    def address(self) -> Address:
        host, port = self._listening.getsockname()[:2]
        return (host, port)

    @property
    def upstream_ports(self) -> list[int]:
        """Of each client that has sent since the last rebinding."""
        return [sock.getsockname()[1] for sock in self._upstream.values()]

    def close(self) -> None:
        """At once: what is under way is gone."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        for sock in (self._listening, *self._upstream.values(), *self._old):
            self._close(sock)

    def look(self) -> None:
        """Do what is due, and set the timer. Call it after a change from outside."""
        self._turn()

    def stats(self) -> dict[str, Any]:
        """Numbers of both directions; what the kernel dropped before we saw it stands beside."""
        sockets = (self._listening, *self._upstream.values())
        told: dict[str, Any] = {
            "flows": self.core.flows,
            "rebound": self.core.rebound,
            "kernel_drops": self._kernel_drops + sum(map(_drops_of, sockets)),
        }
        for direction, way in self.core.ways.items():
            counters = way.counters
            told[direction.value] = {
                "received": counters.received,
                "duplicated": counters.duplicated,
                "delivered": counters.delivered,
                "reordered": counters.reordered,
                "corrupted": counters.corrupted,
                "truncated": counters.truncated,
                "held": way.held_datagrams,
                "dropped": {reason.value: n for reason, n in counters.dropped.items() if n},
            }
        return told

    # --- reading -----------------------------------------------------------------------------

    def _read_clients(self) -> None:
        now_s = self._loop.time()
        for datagram, client in _read(self._listening):
            self.core.receive_from_client(client, datagram, now_s)
        self._turn()

    def _read_target(self, flow: int, sock: socket.socket) -> None:
        now_s = self._loop.time()
        datagrams = _read(sock)
        if not datagrams:
            # Woken by word that nobody took an earlier datagram: uvloop then listens no more.
            self._loop.remove_reader(sock.fileno())
            self._loop.add_reader(sock.fileno(), self._read_target, flow, sock)
        for datagram, _ in datagrams:
            self.core.receive_from_target(flow, datagram, now_s)
        self._turn()

    def _read_late(self, sock: socket.socket) -> None:
        for _ in _read(sock):
            self.core.receive_late()

    # --- writing -----------------------------------------------------------------------------

    def _turn(self) -> None:
        if self._is_closed:
            return
        for step in self.core.take_steps(self._loop.time()):
            match step:
                case ToTarget():
                    self._send_up(step)
                case ToClient():
                    if not _send(self._listening, step.datagram, step.client):
                        self.core.ways[Direction.DOWN].take_back(Drop.REFUSED)
                case Rebound():
                    self._rebind(step.flow)
                case Forgotten():
                    sock = self._upstream.pop(step.flow, None)
                    if sock is not None:
                        self._close(sock)
                case _:
                    assert_never(step)
        self._arm()

    def _send_up(self, step: ToTarget) -> None:
        sock = self._upstream.get(step.flow)
        if sock is None:
            sock = self._upstream[step.flow] = _udp_socket(self.target[0])
            # Connected: nobody but the target is heard, and it costs less.
            sock.connect(self.target)
            self._loop.add_reader(sock.fileno(), self._read_target, step.flow, sock)
        if not _send(sock, step.datagram, self.target):
            self.core.ways[Direction.UP].take_back(Drop.REFUSED)

    def _rebind(self, flow: int) -> None:
        sock = self._upstream.pop(flow, None)
        if sock is None:
            return
        self._loop.add_reader(sock.fileno(), self._read_late, sock)
        self._old.append(sock)
        if len(self._old) > OLD_SOCKETS_MAX:
            self._close(self._old.popleft())

    def _arm(self) -> None:
        at_s = self.core.deadline_s
        if at_s is None:
            return
        if self._timer is not None:
            if self._timer_at_s <= at_s:
                return  # Waking too early is cheaper than a new timer for each datagram.
            self._timer.cancel()
        self._timer_at_s = at_s
        self._timer = self._loop.call_at(at_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._turn()

    def _close(self, sock: socket.socket) -> None:
        self._loop.remove_reader(sock.fileno())
        self._kernel_drops += _drops_of(sock)
        sock.close()


def _udp_socket(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        # The kernel silently gives less where its maximum is lower.
        sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
    return sock


def _read(sock: socket.socket) -> list[tuple[bytes, Any]]:
    taken = []
    for _ in range(READS_PER_TURN_MAX):
        try:
            taken.append(sock.recvfrom(DATAGRAM_BYTES_MAX))
        except (BlockingIOError, InterruptedError):
            break
        except OSError:
            continue  # Word of an earlier datagram that nobody took; the next read may be fine.
    return taken


def _send(sock: socket.socket, datagram: bytes, to: Any) -> bool:
    """Whether the system took it."""
    for _ in range(2):
        try:
            sock.sendto(datagram, to)
        except ConnectionRefusedError:
            continue  # Word of an earlier datagram: this one has not been tried yet.
        except OSError:
            return False
        return True
    return False


def _drops_of(sock: socket.socket) -> int:
    """Datagrams that found the socket's buffer full. 0 where the system does not tell."""
    try:
        told = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
    except OSError:
        return 0
    return int(_MEMINFO.unpack(told)[_MEMINFO_DROPS])
