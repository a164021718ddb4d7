"""What is known of the path to an address before the first datagram."""

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PathPlan:
    """How one connection uses its path."""

    datagram_bytes: int
    """UDP payload: the most that is sent, and that the peer is told to send."""
    is_loopback: bool
    """The path ends on this machine: it loses nothing and has no length."""


def is_loopback(host: str) -> bool:
    """Whether an address, or a name, is this machine's own."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback
