"""What takes a new node to its authority: a ticket, which also lets it in, or an invitation, which
holds no secret and needs a workload token beside it. One string each."""

import re
from dataclasses import dataclass, field
from typing import Any, Final

from identity import cbor
from identity.codes import Code
from identity.errors import IdentityError
from identity.fields import UNIX_S_MAX, Reader
from identity.identifier import DIGEST_BYTES, Identifier
from identity.texts import from_text, to_text
from identity.uri import SEGMENT_CHARS_MAX, validate_trust_domain

TICKET_PREFIX: Final = "slt1"
INVITATION_PREFIX: Final = "sli1"
TICKET_CHARS_MAX: Final = 8192
TICKET_CODE_BYTES: Final = 16
GATEWAYS_MAX: Final = 16
HOST_CHARS_MAX: Final = 253
PORT_MAX: Final = 65_535

_TRUST_DOMAIN, _AUTHORITY, _GATEWAYS, _CODE, _EXPIRES = 1, 2, 3, 4, 5
_INVITATION_KEYS: Final = frozenset((_TRUST_DOMAIN, _AUTHORITY, _GATEWAYS))
_TICKET_KEYS: Final = _INVITATION_KEYS | {_CODE, _EXPIRES}
# A DNS name or an address; whatever it is, it cannot be mistaken for an option or a path.
_HOST: Final = re.compile(r"[A-Za-z0-9:][A-Za-z0-9:._-]{0,252}")
_READ: Final = Reader(Code.ENROL_TICKET_MALFORMED)


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """Where a gateway listens (UDP), and the only identifier that may answer there."""

    host: str
    port: int
    identifier: Identifier

    def __post_init__(self) -> None:
        if type(self.host) is not str or not _HOST.fullmatch(self.host):
            raise _READ.error(f"not a host: {ascii(self.host)[:80]}")
        _READ.integer(self.port, PORT_MAX, 1)


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket. Its code is a secret. Without gateways it is the ticket of a gateway itself."""

    trust_domain: str
    authority: Identifier
    gateways: tuple[GatewayAddress, ...]
    code: bytes = field(repr=False)
    expires_unix_s: int

    def encode(self) -> str:
        """The text `slt1…`. IdentityError for contents that no node would accept."""
        body = cbor.encode(
            _place(self) | {_CODE: self.code, _EXPIRES: self.expires_unix_s},
        )
        _read_ticket(body)
        return to_text(TICKET_PREFIX, body)

    @classmethod
    def parse_untrusted(cls, text: str) -> "Ticket":
        """Read a ticket. White space round it is allowed: it comes from files and clipboards."""
        return _read_ticket(_body_of(TICKET_PREFIX, text))


@dataclass(frozen=True, slots=True)
class Invitation:
    """Where an authority is reached, and who it is. Anybody may know it: it lets nobody in."""

    trust_domain: str
    authority: Identifier
    gateways: tuple[GatewayAddress, ...]

    def encode(self) -> str:
        """The text `sli1…`. IdentityError for contents that no node would accept."""
        body = cbor.encode(_place(self))
        _read_invitation(body)
        return to_text(INVITATION_PREFIX, body)

    @classmethod
    def parse_untrusted(cls, text: str) -> "Invitation":
        """Read an invitation, with white space round it or without."""
        return _read_invitation(_body_of(INVITATION_PREFIX, text))


def _place(entry: Ticket | Invitation) -> dict[int, Any]:
    return {
        _TRUST_DOMAIN: entry.trust_domain,
        _AUTHORITY: entry.authority.digest,
        _GATEWAYS: [
            [gateway.host, gateway.port, gateway.identifier.digest] for gateway in entry.gateways
        ],
    }


def _body_of(prefix: str, text: str) -> bytes:
    return from_text(prefix, text, read=_READ, what="a ticket", chars_max=TICKET_CHARS_MAX)


def _read_ticket(body: bytes) -> Ticket:
    fields = _read_fields(body, _TICKET_KEYS)
    return Ticket(
        *_read_place(fields),
        code=_READ.fixed_bytes(fields[_CODE], TICKET_CODE_BYTES),
        expires_unix_s=_READ.integer(fields[_EXPIRES], UNIX_S_MAX),
    )


def _read_invitation(body: bytes) -> Invitation:
    invitation = Invitation(*_read_place(_read_fields(body, _INVITATION_KEYS)))
    if not invitation.gateways:
        raise _READ.error("an invitation names at least one gateway")
    return invitation


def _read_fields(body: bytes, keys: frozenset[int]) -> dict[int, Any]:
    value = cbor.decode_untrusted(
        body, bytes_max=TICKET_CHARS_MAX, depth_max=3, code=Code.ENROL_TICKET_MALFORMED
    )
    return _READ.mapping(value, keys)


def _read_place(fields: dict[int, Any]) -> tuple[str, Identifier, tuple[GatewayAddress, ...]]:
    try:
        trust_domain = validate_trust_domain(_READ.text(fields[_TRUST_DOMAIN], SEGMENT_CHARS_MAX))
    except IdentityError as error:
        raise _READ.error(error.detail) from error
    gateways = _READ.array(fields[_GATEWAYS], GATEWAYS_MAX)
    return (
        trust_domain,
        _read_identifier(fields[_AUTHORITY]),
        tuple(_read_gateway(item) for item in gateways),
    )


def _read_gateway(item: Any) -> GatewayAddress:
    host, port, digest = _READ.array(item, 3, 3)
    return GatewayAddress(
        _READ.text(host, HOST_CHARS_MAX),
        _READ.integer(port, PORT_MAX, 1),
        _read_identifier(digest),
    )


def _read_identifier(digest: Any) -> Identifier:
    return Identifier(_READ.fixed_bytes(digest, DIGEST_BYTES))
