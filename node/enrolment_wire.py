"""What a node and its authority say to each other, inside their sealed channel. Canonical CBOR.

by ticket {"op": "enrol", "code": bytes 16, "history": bytes} and, if the node has a wish,
          "name": one segment below the prefix that the ticket names
by token  {"op": "enrol_token", "token": text, "history": bytes}
renewal   {"op": "renew", "history": bytes}
grant     {"op": "grant", "credential": bytes, "authority": bytes,
           "gateways": [[host, port, identifier bytes 32], …]}
refusal   {"op": "refuse", "code": uint}
"""

from dataclasses import dataclass, field
from typing import Any, Final, assert_never

from identity import (
    CborError,
    Code,
    GatewayAddress,
    Identifier,
    IdentityError,
    NamePrefix,
    SidelinkError,
)
from identity.cbor import decode_untrusted, encode

ENROLMENT_BYTES_MAX: Final = 768 << 10
TICKET_CODE_BYTES: Final = 16
TOKEN_CHARACTERS_MAX: Final = 16 << 10
GATEWAYS_MAX: Final = 16


class EnrolmentError(SidelinkError):
    """What came is not the enrolment protocol, or is a refusal."""


@dataclass(frozen=True, slots=True)
class EnrolRequest:
    """By ticket. ``name`` is the segment that the node would like to be called."""

    code: bytes = field(repr=False)
    history: bytes
    name: str | None = None


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """By workload token: a JWT, which anybody who holds it could use."""

    token: str = field(repr=False)
    history: bytes


@dataclass(frozen=True, slots=True)
class RenewRequest:
    """By the credential that the channel proved. ``history`` is the node's as it is now."""

    history: bytes


AnyRequest = EnrolRequest | TokenRequest | RenewRequest


@dataclass(frozen=True, slots=True)
class EnrolGrant:
    credential: bytes
    authority_history: bytes
    gateways: tuple[GatewayAddress, ...]


@dataclass(frozen=True, slots=True)
class EnrolRefusal:
    code: Code


def encode_request(request: AnyRequest) -> bytes:
    match request:
        case EnrolRequest():
            wish = {} if request.name is None else {"name": request.name}
            fields = {"op": "enrol", "code": request.code, "history": request.history} | wish
        case TokenRequest():
            fields = {"op": "enrol_token", "token": request.token, "history": request.history}
        case RenewRequest():
            fields = {"op": "renew", "history": request.history}
        case _:
            assert_never(request)
    return encode(fields)


def encode_grant(grant: EnrolGrant) -> bytes:
    gateways = [[g.host, g.port, g.identifier.digest] for g in grant.gateways]
    return encode(
        {
            "op": "grant",
            "credential": grant.credential,
            "authority": grant.authority_history,
            "gateways": gateways,
        }
    )


def encode_refusal(refusal: EnrolRefusal) -> bytes:
    return encode({"op": "refuse", "code": int(refusal.code)})


def decode_request_untrusted(data: bytes) -> AnyRequest:
    """Raises EnrolmentError (enrol.bad_request)."""
    fields = _map_untrusted(data)
    history = fields.get("history")
    if not isinstance(history, bytes):
        raise _bad("a history must be bytes")
    keys = set(fields) - {"op", "history"}
    match fields.get("op"):
        case "enrol" if keys in ({"code"}, {"code", "name"}):
            code, name = fields["code"], fields.get("name")
            if not isinstance(code, bytes) or len(code) != TICKET_CODE_BYTES:
                raise _bad("a ticket's code has 16 bytes")
            if "name" in fields:
                _check_segment_untrusted(name)
            return EnrolRequest(code, history, name)
        case "enrol_token" if keys == {"token"}:
            token = fields["token"]
            if not isinstance(token, str) or len(token) > TOKEN_CHARACTERS_MAX:
                raise _bad(f"a token is text of at most {TOKEN_CHARACTERS_MAX} characters")
            return TokenRequest(token, history)
        case "renew" if not keys:
            return RenewRequest(history)
        case _:
            raise _bad("not a request of the enrolment protocol")


def _check_segment_untrusted(name: object) -> None:
    """One segment of a name: a slash would put the node elsewhere."""
    if not isinstance(name, str):
        raise _bad("a wished name is text")
    try:
        NamePrefix("domain", (name,))
    except IdentityError as exc:
        raise _bad(exc.detail) from exc


def decode_answer_untrusted(data: bytes) -> EnrolGrant | EnrolRefusal:
    """Raises EnrolmentError (enrol.bad_request)."""
    fields = _map_untrusted(data)
    if fields.get("op") == "refuse" and set(fields) == {"op", "code"}:
        number = fields["code"]
        if isinstance(number, bool) or not isinstance(number, int):
            raise _bad("a code must be a number")
        return EnrolRefusal(Code.from_number_untrusted(number))
    if fields.get("op") != "grant" or set(fields) != {"op", "credential", "authority", "gateways"}:
        raise _bad("neither a grant nor a refusal")
    credential, authority, gateways = (
        fields["credential"],
        fields["authority"],
        fields["gateways"],
    )
    if not isinstance(credential, bytes) or not isinstance(authority, bytes):
        raise _bad("a grant holds bytes")
    if not isinstance(gateways, list) or len(gateways) > GATEWAYS_MAX:
        raise _bad(f"a grant names at most {GATEWAYS_MAX} gateways")
    return EnrolGrant(credential, authority, tuple(_gateway_untrusted(item) for item in gateways))


def _gateway_untrusted(item: Any) -> GatewayAddress:
    if not isinstance(item, list) or len(item) != 3:
        raise _bad("a gateway is host, port and identifier")
    try:
        return GatewayAddress(item[0], item[1], Identifier.from_bytes_untrusted(item[2]))
    except IdentityError as exc:
        raise _bad(exc.detail) from exc


def _map_untrusted(data: bytes) -> dict[str, Any]:
    try:
        value = decode_untrusted(data, bytes_max=ENROLMENT_BYTES_MAX, depth_max=4)
    except CborError as exc:
        raise _bad(exc.detail) from exc
    if not isinstance(value, dict):
        raise _bad("expected a map")
    return value


def _bad(detail: str) -> EnrolmentError:
    return EnrolmentError(Code.ENROL_BAD_REQUEST, detail)
