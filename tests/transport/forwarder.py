"""A router between two endpoints: narrow, slow, or with another port on its far side."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

Address = tuple[str, int]
_DATAGRAM_BYTES_MAX = 65_536
_BUFFER_BYTES = 4 << 20


def make_socket(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
    sock.bind((host, 0))
    return sock


class Forwarder:
    """Passes datagrams from one dialler to ``target`` and back, from a port of its own.

    ``up`` is towards the target. What is larger than ``…_bytes_max`` gets lost, without a word.
    """

    def __init__(self, target: Address, *, delay_s: float = 0.0) -> None:
        self.target = target
        self.delay_s = delay_s
        self.up_bytes_max = self.down_bytes_max = _DATAGRAM_BYTES_MAX
        self.lost_up = self.lost_down = 0
        self.passed_up = self.passed_down = 0
        self.at_old_ports = 0
        """Datagrams that came for a port which this router has given up."""
        self.watch_up: Callable[[bytes], None] | None = None
        """Sees each datagram of the dialler before the target does."""
        self._loop = asyncio.get_running_loop()
        self._near = make_socket(target[0])
        self._far = make_socket(target[0])
        self._old: list[socket.socket] = []
        self._dialler: Address | None = None
        self._loop.add_reader(self._near, self._read_near)
        self._loop.add_reader(self._far, self._read_far, self._far)

    @property
    def address(self) -> Address:
        host, port = self._near.getsockname()[:2]
        return host, port

    @property
    def far_address(self) -> Address:
        host, port = self._far.getsockname()[:2]
        return host, port

    def rebind(self) -> None:
        """Speak to the target from another port, as a NAT does that forgot its mapping."""
        self._old.append(self._far)
        self._far = make_socket(self.target[0])
        self._loop.add_reader(self._far, self._read_far, self._far)

    def close(self) -> None:
        for sock in (self._near, self._far, *self._old):
            self._loop.remove_reader(sock)
            sock.close()

    def _read_near(self) -> None:
        for data, source in _read(self._near):
            self._dialler = source
            if len(data) > self.up_bytes_max:
                self.lost_up += 1
                continue
            if self.watch_up is not None:
                self.watch_up(data)
            self.passed_up += 1
            self._later(lambda data=data: _send(self._far, data, self.target))  # type: ignore[misc]

    def _read_far(self, sock: socket.socket) -> None:
        for data, _ in _read(sock):
            if sock is not self._far:
                self.at_old_ports += 1
            elif len(data) > self.down_bytes_max:
                self.lost_down += 1
            elif self._dialler is not None:
                self.passed_down += 1
                to = self._dialler
                self._later(lambda data=data, to=to: _send(self._near, data, to))  # type: ignore[misc]

    def _later(self, send: Callable[[], None]) -> None:
        if self.delay_s:
            self._loop.call_later(self.delay_s, send)
        else:
            send()


def _read(sock: socket.socket) -> list[tuple[bytes, Address]]:
    found: list[tuple[bytes, Address]] = []
    while len(found) < 256:
        try:
            data, source = sock.recvfrom(_DATAGRAM_BYTES_MAX)
        except OSError:
            break
        found.append((data, source[:2]))
    return found


def _send(sock: socket.socket, data: bytes, to: Address) -> None:
    try:
        sock.sendto(data, to)
    except OSError:
        return  # A full buffer, or closed meanwhile: lost, as on any network.


@asynccontextmanager
async def forwarder(target: Address, *, delay_s: float = 0.0) -> AsyncIterator[Forwarder]:
    made = Forwarder(target, delay_s=delay_s)
    try:
        yield made
    finally:
        made.close()
