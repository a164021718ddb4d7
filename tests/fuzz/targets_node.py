"""Targets of node/, authority/ and cli/: enrolment, settings files, admin requests, words."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any, Final

import click

from authority.issuer import Issuer
from authority.tables import Tables
from cli.options import parse_attributes
from cli.tickets import parse_allowed, parse_lifetime
from identity import Code, GatewayAddress, Identifier, SidelinkError, Ticket
from node.addresses import SocketAddress, parse_host
from node.enrolment_wire import (
    EnrolGrant,
    EnrolmentError,
    EnrolRefusal,
    EnrolRequest,
    RenewRequest,
    TokenRequest,
    decode_answer_untrusted,
    decode_request_untrusted,
    encode_grant,
    encode_refusal,
    encode_request,
)
from node.errors import ConfigError
from node.http_servers import _json_object_untrusted
from node.settings import AuthoritySettings, GatewaySettings, SidecarSettings
from node.settings_load import load_settings
from policy.errors import YamlError
from tests.fuzz.decoders import decoder, tree_of
from tests.fuzz.program import text_of
from tests.fuzz.target import Target
from tests.simulation.people import authority

SIDECAR_YAML: Final = b"""\
listen: 127.0.0.1:7441
log_format: json
mailbox_messages_max: 100
mcp:
  ingress:
    - {service: weather, agent: laptop/planner, to: 'agent://acme/server/tools',
       allow_any_local: true, attributes: {role: planner}}
  servers:
    - service: files
      agent: laptop/tools
      command: [mcp-server, --root, /srv]
      env: {LANG: C}
"""
GATEWAY_YAML: Final = b"listen: '[::]:7440'\nhops_max: 10\nstop_grace_s: 1.5\n"
AUTHORITY_YAML: Final = b"trust_domain: acme\ngateways: [gw.acme.example:7440]\nops_port: 0\n"
_PROGRAMS: Final = (SidecarSettings, GatewaySettings, AuthoritySettings)


class _Request:
    """As much of an HTTP request as its reader looks at."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self) -> bytes:
        return self._body


def run_settings(data: bytes) -> None:
    """The first byte chooses the program; the rest is its config.yaml."""
    program = _PROGRAMS[data[0] % len(_PROGRAMS)] if data else _PROGRAMS[0]
    path = _scratch() / "config.yaml"
    path.write_bytes(data[1:])
    try:
        settings = load_settings(program, {"config": path}, variables={})
    except YamlError as error:
        raise ConfigError(error.code, error.detail) from error
    assert settings.config == path


_folders: list[Path] = []


def _scratch() -> Path:
    """In memory where there is such a place: a disk would be most of the time."""
    if not _folders:
        base = Path("/dev/shm")
        place = tempfile.mkdtemp(prefix="sidelink-fuzz-", dir=base if base.is_dir() else None)
        _folders.append(Path(place))
    return _folders[0]


def run_json_object(data: bytes) -> None:
    request: Any = _Request(data)
    assert isinstance(asyncio.run(_json_object_untrusted(request)), dict)


def run_wishes(data: bytes) -> None:
    """An admin's request for a ticket: what is given out can be read by the node it is for."""
    wishes = asyncio.run(_json_object_untrusted(_Request(data)))  # type: ignore[arg-type]
    tables = Tables(Path(":memory:"))
    try:
        issuer = Issuer(authority, "acme", tables, node_credential_ttl_s=86_400)
        ticket = issuer.create_ticket(wishes, _GATEWAYS, unix_s=1_900_000_000.0).ticket
    finally:
        tables.close()
    assert Ticket.parse_untrusted(ticket.encode()) == ticket


def run_address(data: bytes) -> None:
    address = SocketAddress.parse(text_of(data))
    assert SocketAddress.parse(str(address)) == address
    assert parse_host(address.host) == address.host


def run_words(data: bytes) -> None:
    """What people type behind --expires, --attribute and --allow."""
    kind, text = data[:1], text_of(data[1:])
    if kind == b"e":
        assert parse_lifetime(text) > 0
    elif kind == b"a":
        parse_attributes(tuple(text.split("\n")))
    else:
        parse_allowed(tuple(text.split("\n")))


def _encode_answer(answer: EnrolGrant | EnrolRefusal) -> bytes | None:
    if isinstance(answer, EnrolGrant):
        return encode_grant(answer)
    return None if answer.code is Code.PEER_ERROR_UNKNOWN else encode_refusal(answer)


_GATEWAYS: Final = (GatewayAddress("gw.acme.example", 7440, Identifier(bytes(range(32)))),)
_REQUEST: Final = decoder(
    "node.enrol_request",
    "a node's question for its credential",
    decode_request_untrusted,
    lambda: [
        encode_request(EnrolRequest(bytes(16), b"history", "pod-1")),
        encode_request(TokenRequest("e30.e30.e30", b"history")),
        encode_request(RenewRequest(b"history")),
    ],
    error=EnrolmentError,
    encode=encode_request,
)
_ANSWER: Final = decoder(
    "node.enrol_answer",
    "an authority's answer",
    decode_answer_untrusted,
    lambda: [
        encode_grant(EnrolGrant(b"credential", b"history", _GATEWAYS)),
        encode_refusal(EnrolRefusal(Code.ENROL_TICKET_EXPIRED)),
    ],
    error=EnrolmentError,
    encode=_encode_answer,
)


TARGETS: Final[list[Target]] = [
    _REQUEST,
    tree_of(_REQUEST),
    _ANSWER,
    tree_of(_ANSWER),
    Target(
        "node.settings",
        "config.yaml of each program",
        run_settings,
        lambda: [b"\0" + SIDECAR_YAML, b"\1" + GATEWAY_YAML, b"\2" + AUTHORITY_YAML],
        ConfigError,
        bytes_max=1_024,
        is_own_file=True,
    ),
    Target(
        "node.json_object",
        "the body of an admin request",
        run_json_object,
        lambda: [b'{"role":"sidecar","prefixes":[],"expires_in_s":3600}', b""],
        SidelinkError,
    ),
    Target(
        "authority.wishes",
        "an admin's request for a ticket",
        run_wishes,
        lambda: [
            b'{"role":"sidecar","name":"laptop","prefixes":["laptop","shared"],"expires_in_s":60,'
            b'"attributes":{"team":"a","n":1},"allowed_attributes":{"role":["x","y"],"any":null}}',
            b'{"role":"gateway"}',
        ],
        SidelinkError,
        bytes_max=1_024,
    ),
    Target(
        "node.address",
        "host and port, as a person writes them",
        run_address,
        lambda: [b"gw.acme.example:7440", b"[::1]:7440", b"127.0.0.1:0"],
        ValueError,
        bytes_max=512,
    ),
    Target(
        "cli.words",
        "what people type behind --expires, --attribute and --allow",
        run_words,
        lambda: [b"e90m", b"arole=planner\nclearance=2\nok=true", b"lrole=a,b\nteam"],
        click.BadParameter,
        bytes_max=512,
    ),
]
