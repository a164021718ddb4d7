"""How large datagrams to an address may be: what is known before the first one, and what was seen.

A path is not asked what it carries, it is tried. The handshake shows whole datagrams both ways, so
a hop that opens has proved its size; one that stalls is dialled again with the smallest size.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from transport import limits
from transport.settings import TransportSettings

Address = tuple[str, int]
"""Host (a literal, without a zone) and UDP port."""

_SMALL_PATHS_MAX: Final = 1_024
_WINDOW_DATAGRAMS_MIN: Final = 2  # RFC 9002, section 7.2; both engines.
_LOOKS_PER_STALL: Final = 10
_IPV4_AND_UDP_BYTES: Final = 28
_IPV6_AND_UDP_BYTES: Final = 48


@dataclass(frozen=True, slots=True)
class PathPlan:
    """How one connection uses its path."""

    datagram_bytes: int
    """UDP payload: the most that is sent, and that the peer is told to send."""
    is_loopback: bool
    """The path ends on this machine: it loses nothing and has no length."""
    is_guessed: bool
    """Nobody has said that the path carries this much."""

    @property
    def shown_bytes(self) -> int:
        """How much the handshake adds to what it says, so that a whole datagram must pass."""
        is_large = self.datagram_bytes > limits.DATAGRAM_BYTES_MIN
        return self.datagram_bytes if self.is_guessed and is_large else 0


class Paths:
    """Plans each connection of an endpoint, and remembers where large datagrams got lost."""

    def __init__(
        self, settings: TransportSettings, find_mtu_bytes: Callable[[str], int | None]
    ) -> None:
        """``find_mtu_bytes`` asks the system what the first link towards a host carries."""
        self._settings = settings
        self._find_mtu_bytes = find_mtu_bytes
        self._small: OrderedDict[Address, float] = OrderedDict()

    def plan(self, address: Address, now_s: float) -> PathPlan:
        host = address[0]
        loopback = is_loopback(host)
        if self._settings.datagram_bytes is not None:
            return PathPlan(self._settings.datagram_bytes, loopback, is_guessed=False)
        if loopback:
            return PathPlan(limits.LOOPBACK_DATAGRAM_BYTES, loopback, is_guessed=False)
        size = limits.DATAGRAM_BYTES
        if self._small.get(address, 0.0) > now_s:
            size = limits.DATAGRAM_BYTES_MIN
        mtu_bytes = self._find_mtu_bytes(host)
        if mtu_bytes is not None:
            is_v4 = ip_of(host).version == 4
            headers_bytes = _IPV4_AND_UDP_BYTES if is_v4 else _IPV6_AND_UDP_BYTES
            size = max(limits.DATAGRAM_BYTES_MIN, min(size, mtu_bytes - headers_bytes))
        return PathPlan(size, loopback, is_guessed=True)

    def note_stall(self, address: Address, now_s: float) -> None:
        """A handshake with datagrams above the smallest was answered and then got no further."""
        self._small[address] = now_s + limits.SMALL_PATH_S
        self._small.move_to_end(address)
        if len(self._small) > _SMALL_PATHS_MAX:
            self._small.popitem(last=False)


class StallWatch:
    """Notices that whole datagrams no longer arrive: the path became narrower under an open hop.

    Small packets still pass, so neither side seems dead, and all that is large is lost again and
    again: the congestion window stays at its minimum of two datagrams while something waits. A path
    that merely loses much looks the same; there the hop is opened anew with small datagrams, once.
    """

    __slots__ = ("_bytes_min", "_look_at_s", "_since_s")

    def __init__(self, datagram_bytes: int, now_s: float) -> None:
        self._bytes_min = _WINDOW_DATAGRAMS_MIN * datagram_bytes
        self._look_at_s = now_s
        self._since_s: float | None = None

    def is_due(self, now_s: float) -> bool:
        return now_s >= self._look_at_s

    def look(self, window_bytes: int, *, has_waiting: bool, now_s: float) -> bool:
        """Return whether nothing large has arrived for so long that nothing will."""
        self._look_at_s = now_s + limits.STALL_S / _LOOKS_PER_STALL
        if window_bytes > self._bytes_min or not has_waiting:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = now_s
        return self._since_s is not None and now_s - self._since_s >= limits.STALL_S


def ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address that a literal names, without the IPv6 form of an IPv4 one."""
    ip = ipaddress.ip_address(host)
    return getattr(ip, "ipv4_mapped", None) or ip


def is_loopback(host: str) -> bool:
    return ip_of(host).is_loopback
