"""Enrolment tickets: one string that takes a new node to its authority, and lets it in once."""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, Final

from identity import cbor
from identity.codes import Code
from identity.errors import IdentityError
from identity.fields import UNIX_S_MAX, Reader
from identity.identifier import DIGEST_BYTES, Identifier
from identity.uri import SEGMENT_CHARS_MAX, validate_trust_domain

TICKET_PREFIX: Final = "slt1"
TICKET_CHARS_MAX: Final = 8192
TICKET_CODE_BYTES: Final = 16
GATEWAYS_MAX: Final = 16
HOST_CHARS_MAX: Final = 253
PORT_MAX: Final = 65_535

_CHECKSUM_BYTES: Final = 4
_TRUST_DOMAIN, _AUTHORITY, _GATEWAYS, _CODE, _EXPIRES = 1, 2, 3, 4, 5
_KEYS: Final = frozenset((_TRUST_DOMAIN, _AUTHORITY, _GATEWAYS, _CODE, _EXPIRES))
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
            {
                _TRUST_DOMAIN: self.trust_domain,
                _AUTHORITY: self.authority.digest,
                _GATEWAYS: [
                    [gateway.host, gateway.port, gateway.identifier.digest]
                    for gateway in self.gateways
                ],
                _CODE: self.code,
                _EXPIRES: self.expires_unix_s,
            }
        )
        _read_ticket(body)
        return TICKET_PREFIX + _to_base64(body + _checksum(body))

    @classmethod
    def parse_untrusted(cls, text: str) -> "Ticket":
        """Read a ticket. White space round it is allowed: it comes from files and clipboards."""
        if type(text) is not str or len(text) > TICKET_CHARS_MAX:
            raise _READ.error(f"a ticket is a text of at most {TICKET_CHARS_MAX} characters")
        text = text.strip(" \t\r\n")
        if not text.startswith(TICKET_PREFIX):
            raise _READ.error(f"a ticket starts with {TICKET_PREFIX}")
        encoded = text[len(TICKET_PREFIX) :]
        data = _from_base64(encoded)
        body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        if _to_base64(data) != encoded or checksum != _checksum(body):
            raise _READ.error("the checksum of the ticket is wrong: part of it is missing")
        return _read_ticket(body)


def _read_ticket(body: bytes) -> Ticket:
    value = cbor.decode_untrusted(
        body, bytes_max=TICKET_CHARS_MAX, depth_max=3, code=Code.ENROL_TICKET_MALFORMED
    )
    fields = _READ.mapping(value, _KEYS)
    try:
        trust_domain = validate_trust_domain(_READ.text(fields[_TRUST_DOMAIN], SEGMENT_CHARS_MAX))
    except IdentityError as error:
        raise _READ.error(error.detail) from error
    return Ticket(
        trust_domain=trust_domain,
        authority=_read_identifier(fields[_AUTHORITY]),
        gateways=tuple(
            _read_gateway(item) for item in _READ.array(fields[_GATEWAYS], GATEWAYS_MAX)
        ),
        code=_READ.fixed_bytes(fields[_CODE], TICKET_CODE_BYTES),
        expires_unix_s=_READ.integer(fields[_EXPIRES], UNIX_S_MAX),
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


def _checksum(body: bytes) -> bytes:
    # Against slips of the mouse, not against forgery: the code and the authority see to that.
    return hashlib.sha256(body).digest()[:_CHECKSUM_BYTES]


def _to_base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise _READ.error("a ticket holds characters that do not belong") from error
