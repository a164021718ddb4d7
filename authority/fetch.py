"""Fetches one small document by HTTPS from where a setting says, and from nowhere else.

The address is looked up once, judged, and dialled as judged: a name that resolves to something else
a moment later gains nothing. No redirects, no proxy, no compression.
"""

import asyncio
import socket
import ssl
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from authority.jose import keys_unavailable

FETCH_SECONDS_MAX: Final = 5.0

# The well-known prefix by which IPv6-only networks reach IPv4 (RFC 6052).
_NAT64: Final = IPv6Network("64:ff9b::/96")


async def fetch(
    url: str, *, bytes_max: int, ca_file: Path | None, allow_private_network: bool
) -> bytes:
    """The body of a 200. Raises SidelinkError (enrol.keys_unavailable) for all else, in time."""
    try:
        async with asyncio.timeout(FETCH_SECONDS_MAX):
            return await _fetch(url, bytes_max, ca_file, allow_private_network)
    except TimeoutError:
        raise keys_unavailable(f"{url}: nothing within {FETCH_SECONDS_MAX} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise keys_unavailable(f"{url}: {type(error).__name__}: {error}") from None


def is_allowed_address(text: str, *, allow_private_network: bool, is_plain: bool) -> bool:
    """Whether keys may be fetched there. ``is_plain`` is http, which is for loopback only."""
    try:
        address = _meant_by(ip_address(text.partition("%")[0]))
    except ValueError:
        return False
    if is_plain:
        return allow_private_network and address.is_loopback
    # Never, whatever is allowed: services that answer whoever asks from this machine live there.
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    if address.is_reserved and not address.is_loopback:
        return False
    return address.is_global or allow_private_network


def _meant_by(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 one leads to, if it is of those that do."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, address))[1]


async def _fetch(
    url: str, bytes_max: int, ca_file: Path | None, allow_private_network: bool
) -> bytes:
    parts = urlsplit(url)
    host, is_plain = parts.hostname or "", parts.scheme == "http"
    port = parts.port or (80 if is_plain else 443)
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    for address in addresses:
        if not is_allowed_address(
            address, allow_private_network=allow_private_network, is_plain=is_plain
        ):
            raise keys_unavailable(f"{host} is {address}, where no keys are fetched from")
    context = await asyncio.to_thread(_tls_context, ca_file)
    connector = aiohttp.TCPConnector(
        resolver=_Pinned(addresses), use_dns_cache=False, ssl=context, limit=1, force_close=True
    )
    async with (
        aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
        session.get(
            url, allow_redirects=False, headers={"Accept-Encoding": "identity"}
        ) as response,
    ):
        if response.status != 200:
            raise keys_unavailable(f"{url}: status {response.status}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise keys_unavailable(f"{url}: an encoding that was not asked for")
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > bytes_max:
                raise keys_unavailable(f"{url}: more than {bytes_max} bytes")
        return bytes(body)


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))


class _Pinned(AbstractResolver):
    """Answers with the addresses that were judged. One that the URL spells out is never asked."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: Any = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is kept."""
