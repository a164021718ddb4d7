"""Where this sidecar may be reached without a gateway, and which of a peer's addresses to try."""

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from channel.limits import ADDRESSES_MAX
from node.addresses import SocketAddress

# Addresses of documentation (RFC 5737, RFC 3849): asking which way they would go sends nothing.
_ANYWHERE: Final = (("192.0.2.1", 9), ("2001:db8::1", 9))

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class AddressRules:
    """What an operator allows. Multicast and unspecified addresses are never used."""

    is_v6: bool
    """Whether our socket reaches both families, or IPv4 only."""
    allow_loopback: bool = False
    """Loopback and link-local addresses, which mean another machine to each that reads them."""


def usable_untrusted(addresses: Iterable[Address], rules: AddressRules) -> list[Address]:
    """Those of a peer's addresses that may be tried. Names are none: nobody else decides what we
    look up."""
    found: list[Address] = []
    for host, port in addresses:
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            continue
        ip = getattr(ip, "ipv4_mapped", None) or ip
        local = ip.is_loopback or ip.is_link_local
        if ip.is_multicast or ip.is_unspecified or (local and not rules.allow_loopback):
            continue
        if ip.version == 4 and not ip.is_loopback and ip.is_reserved:
            continue
        if (ip.version == 4 or rules.is_v6) and (str(ip), port) not in found:
            found.append((str(ip), port))
    return found[:ADDRESSES_MAX]


def own_addresses(
    bound: Address,
    gateways: Sequence[Address],
    advertised: Sequence[SocketAddress],
    rules: AddressRules,
) -> tuple[Address, ...]:
    """What to tell a peer: what was configured, then the addresses that we speak from."""
    host, port = bound
    found = [(address.host, address.port) for address in advertised]
    if not ipaddress.ip_address(host).is_unspecified:
        found.append((host, port))
    else:
        found += [
            (local, port) for local in map(_address_towards, (*gateways, *_ANYWHERE)) if local
        ]
    return tuple(usable_untrusted(found, rules))


def _address_towards(remote: Address) -> str | None:
    """The address that datagrams to ``remote`` would leave from. Nothing is sent."""
    with suppress(OSError, ValueError):
        version = ipaddress.ip_address(remote[0]).version
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(remote)
            local: str = probe.getsockname()[0]
            return local.partition("%")[0]
    return None
