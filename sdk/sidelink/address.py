"""Where a sidecar is reached: a Unix socket, or a TCP port of this machine."""

import asyncio
import ipaddress
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from sidelink.errors import LocalError

TCP_SCHEME: Final = "tcp://"
SOCKET_PATH_BYTES_MAX: Final = 107
PORT_MAX: Final = 65_535

_P = TypeVar("_P", bound=asyncio.Protocol)


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The path of a socket. Who connects, the kernel tells the sidecar."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def check(self) -> None:
        """Raises LocalError for a path that the system could not connect to."""
        length = len(os.fsencode(self.path))
        if length > SOCKET_PATH_BYTES_MAX:
            raise LocalError(
                "config.invalid",
                f"the socket path {self.path} has {length} bytes, not {SOCKET_PATH_BYTES_MAX}",
                remedy="Choose a shorter state folder for the sidecar.",
            )

    async def connect(self, make: Callable[[], _P]) -> _P:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_unix_connection(make, os.fspath(self.path))
        return protocol


@dataclass(frozen=True, slots=True)
class LoopbackAddress:
    """A TCP port of this machine, where a token is needed."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{TCP_SCHEME}{host}:{self.port}"

    def check(self) -> None:
        """Nothing to check before connecting."""

    async def connect(self, make: Callable[[], _P]) -> _P:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(make, self.host, self.port)
        return protocol


Address = UnixAddress | LoopbackAddress


def parse_address(given: str | os.PathLike[str]) -> Address:
    """``tcp://127.0.0.1:7450``, or else the path of a socket. Raises LocalError."""
    text = os.fspath(given)
    if not text.startswith(TCP_SCHEME):
        return UnixAddress(Path(given))
    host, colon, port = text.removeprefix(TCP_SCHEME).rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise _refused(text, "an address is needed, not a name") from None
    # A token, and what an agent says, would cross the network in clear.
    if not address.is_loopback:
        raise _refused(text, "the address is not of this machine")
    if not (colon and port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= PORT_MAX):
        raise _refused(text, f"the port is a number from 1 to {PORT_MAX}")
    return LoopbackAddress(str(address), int(port))


def _refused(text: str, why: str) -> LocalError:
    return LocalError(
        "config.invalid",
        f"{text[:100]!r}: {why}",
        remedy=f"Write {TCP_SCHEME}127.0.0.1:PORT, or the path of the sidecar's socket.",
    )
