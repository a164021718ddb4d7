"""The single values of settings: each a type that checks itself and says what is wrong."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictInt
from pydantic_settings import NoDecode

from identity import (
    AgentUri,
    GatewayAddress,
    Identifier,
    IdentityError,
    NamePrefix,
    validate_trust_domain,
)
from node.addresses import PORT_MAX, SocketAddress, parse_host, parse_ip
from policy.patterns import NamePattern, PatternError

GATEWAYS_MAX: Final = 16
ATTRIBUTES_MAX: Final = 64
ACCOUNT_ID_MAX: Final = 2**32 - 2
"""One less than the number that stands for no user."""
SERVICE_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"

_ACCOUNT_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.@\\-]{0,254}\$?")


def _account(value: Any) -> int | str:
    """A user or a group, as a person names it. Whether there is one is asked at the start."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value)
    if type(value) is int and 0 <= value <= ACCOUNT_ID_MAX:
        return value
    if isinstance(value, str) and _ACCOUNT_NAME.fullmatch(value):
        return value
    raise ValueError(f"{value!r} is neither the number nor the name of a user or group")


def _address(value: Any) -> SocketAddress:
    if isinstance(value, SocketAddress):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not host:port")
    return SocketAddress.parse(value)


def _gateway(value: Any) -> GatewayAddress:
    """``sl1…@host:port``: who must answer there, as its operator's `sidelink status` shows it."""
    if isinstance(value, GatewayAddress):
        return value
    identifier, at, address = value.strip().partition("@") if isinstance(value, str) else ("",) * 3
    if not at:
        raise ValueError(f"{value!r} is not identifier@host:port")
    try:
        where = SocketAddress.parse(address)
        return GatewayAddress(where.host, where.port, Identifier.parse(identifier))
    except IdentityError as error:
        raise ValueError(error.detail) from None


def _address_list(value: Any) -> Any:
    """A list, or (from the environment) one text with commas."""
    if isinstance(value, str):
        return [part for part in value.split(",") if part.strip()]
    return value


def _agent_path(value: str) -> str:
    """A name within the trust domain, or a full agent URI."""
    if value.startswith("agent://"):
        return _agent_uri(value)
    try:
        AgentUri.in_domain("domain", value)
    except IdentityError as error:
        raise ValueError(error.detail) from None
    return value


def _agent_pattern(value: str) -> str:
    """Paths within the trust domain, where `*` stands for one segment and `**` for the rest."""
    try:
        NamePattern.parse(f"agent://domain/{value}")
    except PatternError as error:
        raise ValueError(f"{value!r}: {error}") from None
    return value


def _agent_uri(value: str) -> str:
    try:
        return str(AgentUri.parse(value))
    except IdentityError as error:
        raise ValueError(error.detail) from None


def _segment(value: str) -> str:
    try:
        NamePrefix("domain", (value,))
    except IdentityError as error:
        raise ValueError(error.detail) from None
    return value


def _trust_domain(value: str) -> str:
    try:
        return validate_trust_domain(value)
    except IdentityError as error:
        raise ValueError(error.detail) from None


def _loopback(value: str) -> str:
    address = parse_ip(value)
    if address is None or not address.is_loopback:
        raise ValueError(f"{value!r} is no loopback address, like 127.0.0.1 or ::1")
    return str(address)


def _no_tcp(value: Path) -> Path:
    """The SDK reads the same variable, and there it may be an address."""
    if value.parts[:1] == ("tcp:",):
        raise ValueError("a path is needed here; agents connect by TCP to agent_port")
    return value


def _no_boolean(value: Any) -> Any:
    """YAML's true is no number, though Python would take it for 1."""
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    return value


def _expanded(value: Path) -> Path:
    return value.expanduser()


Account = Annotated[int | str, BeforeValidator(_account)]
"""A number of the system's, or a name that it knows."""
Address = Annotated[SocketAddress, NoDecode, BeforeValidator(_address)]
AddressList = Annotated[
    tuple[Address, ...], NoDecode, BeforeValidator(_address_list), Field(max_length=GATEWAYS_MAX)
]
Gateway = Annotated[GatewayAddress, NoDecode, BeforeValidator(_gateway)]
GatewayList = Annotated[
    tuple[Gateway, ...], NoDecode, BeforeValidator(_address_list), Field(max_length=GATEWAYS_MAX)
]
AgentPath = Annotated[str, AfterValidator(_agent_path)]
AgentPattern = Annotated[str, AfterValidator(_agent_pattern)]
AgentUriText = Annotated[str, AfterValidator(_agent_uri)]
Host = Annotated[str, AfterValidator(parse_host)]
LocalPath = Annotated[Path, AfterValidator(_expanded)]
LoopbackHost = Annotated[str, AfterValidator(_loopback)]
SocketPath = Annotated[LocalPath, AfterValidator(_no_tcp)]
Seconds = Annotated[float, BeforeValidator(_no_boolean)]
Whole = Annotated[int, BeforeValidator(_no_boolean)]
Port = Annotated[Whole, Field(ge=0, le=PORT_MAX)]
SegmentText = Annotated[str, AfterValidator(_segment)]
ServiceName = Annotated[str, Field(pattern=SERVICE_PATTERN)]
TrustDomainText = Annotated[str, AfterValidator(_trust_domain)]

AgentAttributes = Annotated[
    Mapping[str, str | StrictInt | bool | tuple[str, ...]], Field(max_length=ATTRIBUTES_MAX)
]


class LocalModel(BaseModel):
    """A part of a program's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
