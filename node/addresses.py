"""Host and port as a person writes them: ``gateway.acme.example:7440``, ``[::1]:7440``."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

PORT_MAX: Final = 65_535
HOST_CHARACTERS_MAX: Final = 253  # RFC 1035, section 2.3.4, without the root's dot.

_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_DIGITS: Final = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True, order=True)
class SocketAddress:
    """A host name or IP address, and a port. Port 0 asks the system for any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> "SocketAddress":
        """Raises ValueError with a sentence that says what is wrong."""
        host, colon, port_text = text.strip().rpartition(":")
        if not colon or not host:
            raise ValueError(f"{text!r} is not host:port")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{text!r}: an IPv6 address needs brackets: [{host}]:{port_text}")
        if _DIGITS.fullmatch(port_text) is None or int(port_text) > PORT_MAX:
            raise ValueError(f"{text!r}: the port must be a number from 0 to {PORT_MAX}")
        return cls(parse_host(host), int(port_text))


def parse_host(text: str) -> str:
    """``text`` if it is an IP address or a host name; ValueError otherwise."""
    address = parse_ip(text)
    if address is not None:
        return str(address)
    labels = text.split(".")
    is_name = all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit()
    if not is_name or len(text) > HOST_CHARACTERS_MAX:
        raise ValueError(f"{text!r} is neither an IP address nor a host name")
    return text.lower()


def parse_ip(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
