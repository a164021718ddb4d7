"""One UDP socket: reads with UDP_GRO, writes with UDP_SEGMENT, and without either where refused.

It knows nothing of QUIC. What the kernel will not take now waits here, in bounds, until the
socket is writable again; while anything waits, the caller asks no engine for more.
"""

import asyncio
import errno
import ipaddress
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from transport import limits
from transport.path import Address, ip_of

# linux/in.h, in6.h and udp.h; the socket module does not name them.
_IP_MTU: Final = 14
_IPV6_MTU: Final = 24
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_PMTUDISC_PROBE: Final = 3
_IP_PKTINFO: Final = 8
_IPV6_RECVPKTINFO: Final = 49
_IPV6_PKTINFO: Final = 50
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_U16: Final = struct.Struct("=H")
_INT: Final = struct.Struct("=i")
_PKTINFO: Final = struct.Struct("=i4s4s")  # Interface, address of ours, address of the header.
_PKTINFO_V6: Final = struct.Struct("=16si")
_ANCILLARY_BYTES: Final = 128
_WILDCARDS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104  # Only compared with.
# The kernel or a network driver that cannot segment says one of these.
_SEGMENTATION_REFUSED: Final = frozenset(
    {errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EMSGSIZE}
)


@dataclass(slots=True)
class UdpCounters:
    sent_datagrams: int = 0
    sent_batches: int = 0
    received_reads: int = 0
    received_bytes: int = 0
    dropped_full: int = 0
    """The queue of datagrams that wait for the socket was full."""
    dropped_error: int = 0
    """The kernel refused: no route, too long, forbidden. QUIC treats it as loss."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Datagrams to one address, all of one length but for the last, sent by one system call."""

    datagrams: Sequence[bytes]
    address: Address
    local: bytes | None
    """Which of our addresses they come from; None leaves that to the system."""


class UdpSocket:
    """A bound, non-blocking socket. Call ``start`` with what to do when it can be read."""

    def __init__(
        self, sock: socket.socket, loop: asyncio.AbstractEventLoop, *, segmentation: bool
    ) -> None:
        self._socket = sock
        self._loop = loop
        self._is_v6 = sock.family == socket.AF_INET6
        self._waiting: deque[_Batch] = deque()
        self._waiting_datagrams = 0
        self._on_writable: Callable[[], None] | None = None
        self._is_writing = False
        self._is_closed = False
        self.segments_out = segmentation
        self.segments_in = segmentation and _try_gro(sock)
        self._read_s = 0.0  # When reading ended early.
        self._expects_more = False
        self.is_behind = False
        """More has come than one turn reads."""
        self.counters = UdpCounters()
        _forbid_fragments(sock, is_v6=self._is_v6)
        if sock.getsockname()[0] in _WILDCARDS:
            _ask_for_local(sock, is_v6=self._is_v6)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            # The kernel silently gives less where its maximum is lower.
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, option, limits.SOCKET_BUFFER_BYTES)

    @classmethod
    def bind(
        cls, host: str, port: int, loop: asyncio.AbstractEventLoop, *, segmentation: bool
    ) -> "UdpSocket":
        """Bind to a literal address. ``::`` takes both families. Raises OSError."""
        is_v6 = ":" in host
        sock = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            if is_v6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
            sock.setblocking(False)
            sock.bind((host, port))
            return cls(sock, loop, segmentation=segmentation)
        except BaseException:
            sock.close()
            raise

    @property
    def address(self) -> Address:
        host, port = self._socket.getsockname()[:2]
        return (host, port)

    @property
    def is_v6(self) -> bool:
        return self._is_v6

    @property
    def is_blocked(self) -> bool:
        """True while datagrams wait for the kernel."""
        return bool(self._waiting)

    def start(self, on_readable: Callable[[], None], on_writable: Callable[[], None]) -> None:
        self._on_writable = on_writable
        self._loop.add_reader(self._socket.fileno(), on_readable)

    def close(self) -> None:
        """Stop at once; whatever still waits is dropped."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._socket.fileno())
        if self._is_writing:
            self._loop.remove_writer(self._socket.fileno())
        self._waiting.clear()
        self._socket.close()

    def expect_more(self) -> None:
        """Read all that is there next time: what was read took long to digest."""
        self._expects_more = True

    def receive(self) -> Iterator[tuple[bytes, int, Address, bytes | None]]:
        """Yield (bytes, segment length or 0, source, local) until nothing is left, or for one turn.

        ``local`` is our address that it was sent to, packed, if the socket is bound to all of them.
        """
        receive = self._socket.recvmsg
        left_bytes = limits.READ_BYTES_PER_TURN_MAX
        self.is_behind = False
        # A lone datagram is the usual case when little is said, and asking whether there is another
        # costs as much as reading it. If there is, the loop calls again at once; then it is busy.
        is_busy = self._expects_more or time.perf_counter() - self._read_s < limits.BUSY_S
        self._expects_more = False
        for _ in range(limits.READS_PER_TURN_MAX):
            if self._is_closed:
                return
            if left_bytes <= 0:
                break
            try:
                data, ancillary, _, source = receive(limits.RECEIVE_BYTES, _ANCILLARY_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # An ICMP error of an earlier datagram; the next read may be fine.
            self.counters.received_reads += 1
            self.counters.received_bytes += len(data)
            left_bytes -= len(data)
            segment_bytes, local = _read_ancillary(ancillary) if ancillary else (0, None)
            host = source[0]
            if "%" in host:
                host = host.partition("%")[0]
            yield data, segment_bytes, (host, source[1]), local
            if not is_busy and not segment_bytes:
                self._read_s = time.perf_counter()
                return
        self.is_behind = True

    def choose_local(self, address: Address, local: bytes | None) -> bytes | None:
        """Return ``local`` if the system would answer ``address`` from another address of ours.

        A dialler takes no answer from elsewhere than where it dialled. Asked once for a connection.
        """
        if local is None:
            return None
        ip = ip_of(address[0])
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((str(ip), address[1] or 9))
            usual = ip_of(sock.getsockname()[0].partition("%")[0]).packed
            return None if usual == local[-len(usual) :] else local
        return local

    def send(self, datagrams: Sequence[tuple[bytes, Address]], local: bytes | None = None) -> None:
        """Send now what the kernel takes; keep the rest, up to a limit."""
        for batch in _batches(datagrams, self.segments_out, local):
            if self._waiting or not self._send_batch(batch):
                self._keep(batch)
        if self._waiting and not self._is_writing and not self._is_closed:
            self._is_writing = True
            self._loop.add_writer(self._socket.fileno(), self._write_waiting)

    def _send_batch(self, batch: _Batch) -> bool:
        """Return False if the kernel's buffer is full."""
        if self._is_closed:
            return True
        datagrams = batch.datagrams
        if len(datagrams) > 1 and not self.segments_out:
            return self._send_singly(batch)
        try:
            if len(datagrams) == 1 and batch.local is None:
                self._socket.sendto(datagrams[0], batch.address)
            else:
                self._socket.sendmsg(datagrams, _ancillary_of(batch), 0, batch.address)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if len(datagrams) > 1 and error.errno in _SEGMENTATION_REFUSED:
                return self._send_unsegmented(batch)
            self.counters.dropped_error += len(datagrams)
            return True
        self.counters.sent_datagrams += len(datagrams)
        self.counters.sent_batches += 1
        return True

    def _send_unsegmented(self, batch: _Batch) -> bool:
        """The kernel refused a run. If it takes the datagrams singly, runs are what it refuses."""
        counters = self.counters
        refused, sent = counters.dropped_error, counters.sent_datagrams
        is_done = self._send_singly(batch)
        if counters.dropped_error == refused and counters.sent_datagrams > sent:
            self.segments_out = False
        return is_done

    def _send_singly(self, batch: _Batch) -> bool:
        singles = [_Batch((data,), batch.address, batch.local) for data in batch.datagrams]
        for index, single in enumerate(singles):
            if not self._send_batch(single):
                for rest in singles[index:]:
                    self._keep(rest)
                return True  # The rest is kept, in order, ahead of what follows.
        return True

    def _keep(self, batch: _Batch) -> None:
        if self._waiting_datagrams + len(batch.datagrams) > limits.SEND_RETRIES_MAX:
            self.counters.dropped_full += len(batch.datagrams)
            return
        self._waiting.append(batch)
        self._waiting_datagrams += len(batch.datagrams)

    def _write_waiting(self) -> None:
        # Each batch is tried once: what ``_send_singly`` puts back goes to the end of the queue.
        for _ in range(len(self._waiting)):
            batch = self._waiting[0]
            if not self._send_batch(batch):
                return
            self._waiting.popleft()
            self._waiting_datagrams -= len(batch.datagrams)
        if not self._waiting:
            self._is_writing = False
            self._loop.remove_writer(self._socket.fileno())
            if self._on_writable is not None:
                self._on_writable()


def find_mtu_bytes(host: str) -> int | None:
    """What the first link towards an address carries, as the system knows it; None if it does not.

    It knows of a tunnel that begins on this machine, and of nothing farther away.
    """
    ip = ip_of(host)
    is_v4 = ip.version == 4
    family = socket.AF_INET if is_v4 else socket.AF_INET6
    option = (socket.IPPROTO_IP, _IP_MTU) if is_v4 else (socket.IPPROTO_IPV6, _IPV6_MTU)
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((str(ip), 9))  # Chooses a route; nothing is sent.
        return sock.getsockopt(*option)
    return None


def normalise_address(host: str, port: int, *, is_v6: bool) -> Address:
    """Write an address as the socket's own family reports it. Raises ValueError or OSError."""
    ip = ipaddress.ip_address(host)
    if is_v6 and ip.version == 4:
        return (f"::ffff:{ip}", port)
    if not is_v6 and ip.version == 6:
        raise OSError(errno.EAFNOSUPPORT, "an IPv6 address on a socket for IPv4")
    return (str(ip), port)


def source_group(address: Address) -> str:
    """What counts as one source: an IPv4 address, or the /64 that one IPv6 host may choose from."""
    ip = ip_of(address[0])
    return str(ip) if ip.version == 4 else ip.packed[:8].hex()


def _forbid_fragments(sock: socket.socket, *, is_v6: bool) -> None:
    """RFC 9000, section 14: a datagram that is too large for the path gets lost as a whole."""
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
    if is_v6:
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)


def _try_gro(sock: socket.socket) -> bool:
    try:
        sock.setsockopt(socket.SOL_UDP, _UDP_GRO, 1)
    except (OSError, AttributeError):
        return False
    return True


def _ask_for_local(sock: socket.socket, *, is_v6: bool) -> None:
    with suppress(OSError):
        if is_v6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


def _read_ancillary(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, bytes | None]:
    """Return the length of segments, or 0, and which of our addresses was meant, or None."""
    segment_bytes, local = 0, None
    for level, kind, value in ancillary:
        if level == socket.SOL_UDP and kind == _UDP_GRO:
            # The kernel writes an int; older ones wrote a u16 in the same place.
            size: Any = _INT.unpack(value)[0] if len(value) == 4 else _U16.unpack(value[:2])[0]
            segment_bytes = int(size)
        elif level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            local = _PKTINFO.unpack(value)[1]
        elif level == socket.IPPROTO_IPV6 and kind == _IPV6_PKTINFO:
            local = _PKTINFO_V6.unpack(value)[0]
    return segment_bytes, local


def _ancillary_of(batch: _Batch) -> list[tuple[int, int, bytes]]:
    ancillary: list[tuple[int, int, bytes]] = []
    if len(batch.datagrams) > 1:
        ancillary.append((socket.SOL_UDP, _UDP_SEGMENT, _U16.pack(len(batch.datagrams[0]))))
    if batch.local is not None and len(batch.local) == 4:
        info = _PKTINFO.pack(0, batch.local, bytes(4))
        ancillary.append((socket.IPPROTO_IP, _IP_PKTINFO, info))
    elif batch.local is not None:
        info = _PKTINFO_V6.pack(batch.local, 0)
        ancillary.append((socket.IPPROTO_IPV6, _IPV6_PKTINFO, info))
    return ancillary


def _batches(
    datagrams: Sequence[tuple[bytes, Address]], segments: bool, local: bytes | None
) -> Iterator[_Batch]:
    """Cut a flight into runs that one UDP_SEGMENT send may carry."""
    start, count = 0, len(datagrams)
    while start < count:
        first, address = datagrams[start]
        length = total = len(first)
        end = start + 1
        while (
            segments
            and end < count
            and end - start < limits.SEGMENTS_PER_SEND_MAX
            and len(datagrams[end][0]) <= length
            and total + length <= limits.BYTES_PER_SEND_MAX
            and datagrams[end][1] == address
        ):
            size = len(datagrams[end][0])
            total += size
            end += 1
            if size < length:
                break  # Only the last segment may be shorter.
        yield _Batch([data for data, _ in datagrams[start:end]], address, local)
        start = end
