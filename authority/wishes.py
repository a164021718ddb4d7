"""Reads what an operator wants a ticket to be good for. It comes as JSON over the admin socket."""

from collections.abc import Mapping
from typing import Any, Final

from authority.terms import Terms, sidecar_delegable
from authority.tickets import TICKET_SECONDS_MAX, TICKET_USES_MAX, Offer
from identity import (
    AgentUri,
    AttributeValue,
    ChangeHistory,
    Code,
    Delegable,
    IdentityError,
    NamePrefix,
    SidelinkError,
    parse_card_untrusted,
)

ROLES: Final = ("sidecar", "gateway")
TICKET_SECONDS: Final = 3_600
VOUCHER_SECONDS: Final = 30 * 86_400
VOUCHER_SECONDS_MAX: Final = 366 * 86_400
# Gateways need no name of anybody's choice, and each needs one of its own.
GATEWAYS_BELOW: Final = "gateway"

_KNOWN: Final = frozenset(
    (
        "role",
        "name",
        "name_prefix",
        "prefixes",
        "attributes",
        "allowed_attributes",
        "uses",
        "replace",
        "expires_in_s",
    )
)


def read_wishes(trust_domain: str, wishes: Mapping[str, Any]) -> tuple[Offer, int]:
    """The ticket, and its life in seconds. Raises SidelinkError (local.bad_request)."""
    unknown = sorted(set(wishes) - _KNOWN)
    if unknown:
        raise bad_wish(f"unknown field {unknown[0]!r}")
    role = wishes.get("role", "sidecar")
    if role not in ROLES:
        raise bad_wish(f"role must be one of {', '.join(ROLES)}")
    name, names_below = _read_name(trust_domain, role, wishes)
    uses = _read_whole(wishes, "uses", 1, TICKET_USES_MAX)
    if uses > 1 and not names_below:
        raise bad_wish("several nodes cannot have one name: give a name_prefix")
    replaces = wishes.get("replace", False)
    if type(replaces) is not bool:
        raise bad_wish("replace must be true or false")
    if replaces and names_below:
        raise bad_wish("replace goes with a name, not with a name_prefix")
    try:
        terms = Terms(
            name=name,
            role=role,
            attributes=_read_attributes(wishes.get("attributes") or {}),
            delegable=_read_delegable(role, name, names_below, wishes),
        )
    except IdentityError as exc:
        raise bad_wish(exc.detail) from exc
    seconds = _read_whole(wishes, "expires_in_s", TICKET_SECONDS, TICKET_SECONDS_MAX)
    return Offer(terms, uses, names_below, replaces), seconds


def read_voucher_wishes(
    trust_domain: str, wishes: Mapping[str, Any]
) -> tuple[ChangeHistory, AgentUri, dict[str, AttributeValue], int]:
    """Of whom, under which name, what, and for how many seconds. Raises SidelinkError."""
    unknown = sorted(set(wishes) - {"card", "name", "attributes", "expires_in_s"})
    if unknown:
        raise bad_wish(f"unknown field {unknown[0]!r}")
    path = wishes.get("name")
    if not isinstance(path, str):
        raise bad_wish("name must be a path within the trust domain")
    try:
        history = parse_card_untrusted(wishes.get("card", ""))
        name = AgentUri.in_domain(trust_domain, path)
    except IdentityError as exc:
        raise bad_wish(exc.detail) from exc
    attributes = _read_attributes(wishes.get("attributes") or {})
    seconds = _read_whole(wishes, "expires_in_s", VOUCHER_SECONDS, VOUCHER_SECONDS_MAX)
    return history, name, attributes, seconds


def bad_wish(detail: str) -> SidelinkError:
    return SidelinkError(Code.LOCAL_BAD_REQUEST, detail)


def _read_name(trust_domain: str, role: str, wishes: Mapping[str, Any]) -> tuple[AgentUri, bool]:
    """The name, and whether nodes are named below it."""
    name, prefix = wishes.get("name") or None, wishes.get("name_prefix") or None
    if name is not None and prefix is not None:
        raise bad_wish("name and name_prefix are given; give one of them")
    if name is None and prefix is None and role == "gateway":
        prefix = GATEWAYS_BELOW
    path = prefix if name is None else name
    if not isinstance(path, str):
        raise bad_wish("a node needs a name or a name_prefix: a path within the trust domain")
    try:
        return AgentUri.in_domain(trust_domain, path), name is None
    except IdentityError as exc:
        raise bad_wish(exc.detail) from exc


def _read_delegable(
    role: str, name: AgentUri, names_below: bool, wishes: Mapping[str, Any]
) -> Delegable | None:
    if role == "gateway":
        return None
    if names_below and wishes.get("prefixes"):
        raise bad_wish("with name_prefix the prefix of each node is its own name")
    paths = wishes.get("prefixes") or ["/".join(name.path)]
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise bad_wish("prefixes must be a list of paths")
    domain = name.trust_domain
    allowed = wishes.get("allowed_attributes") or {}
    if not isinstance(allowed, Mapping):
        raise bad_wish("allowed_attributes must be an object")
    return sidecar_delegable(
        (NamePrefix(domain, AgentUri.in_domain(domain, path).path) for path in paths),
        {str(key): _read_allowed(values) for key, values in allowed.items()},
    )


def _read_whole(wishes: Mapping[str, Any], key: str, default: int, maximum: int) -> int:
    value = wishes.get(key, default)
    if type(value) is not int or not 1 <= value <= maximum:
        raise bad_wish(f"{key} must be from 1 to {maximum}")
    return value


def _read_attributes(given: Any) -> dict[str, AttributeValue]:
    if not isinstance(given, Mapping):
        raise bad_wish("attributes must be an object")
    return {str(key): _read_attribute(value) for key, value in given.items()}


def _read_allowed(values: Any) -> tuple[AttributeValue, ...] | None:
    if values is None:
        return None
    if not isinstance(values, list):
        raise bad_wish("the allowed values of an attribute are a list, or null for any")
    return tuple(_read_attribute(item) for item in values)


def _read_attribute(value: Any) -> AttributeValue:
    if isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise bad_wish(f"{value!r} is neither text, integer, boolean nor a list of text")
