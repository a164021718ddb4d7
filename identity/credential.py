"""Credentials: a signed statement that an identifier holds a name and attributes until then.

A CWT (RFC 8392) in COSE_Sign1. `attributes` describe the subject; `delegable`, apart from them,
says what the subject may pass on in credentials that it issues itself.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from identity import cbor, cose
from identity.codes import Code
from identity.cose import SignedMessage, SignedType
from identity.errors import IdentityError
from identity.fields import UNIX_S_MAX, Reader
from identity.history import CHANGES_MAX, CLOCK_SKEW_S, HASH_BYTES, ChangeHistory, Pin
from identity.identifier import TEXT_CHARS, Identifier
from identity.keys import SigningKey
from identity.uri import URI_BYTES_MAX, AgentUri, NamePrefix, validate_trust_domain

AttributeValue = str | int | bool | tuple[str, ...]
Kind = Literal["node", "agent"]
NodeRole = Literal["sidecar", "gateway"]

CREDENTIAL_BYTES_MAX: Final = 16 * 1024
CREDENTIAL_ID_BYTES: Final = 16
ATTRIBUTES_MAX: Final = 64
ATTRIBUTE_TEXT_BYTES_MAX: Final = 1024
ATTRIBUTE_LIST_ITEMS_MAX: Final = 64
ATTRIBUTE_INTEGER_MAX: Final = 2**63 - 1
ATTRIBUTE_INTEGER_MIN: Final = -(2**63)
DELEGABLE_ITEMS_MAX: Final = 64
CHAIN_LINKS_MAX: Final = 8
RESERVED_ATTRIBUTES: Final = frozenset(
    ("identifier", "name", "trust_domain", "issuer", "kind", "role_of_node", "from")
)

_ATTRIBUTE_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_ACTION: Final = re.compile(r"[a-z][a-z0-9_]{0,30}\.[a-z][a-z0-9_]{0,30}")
# Attributes end up in headers, logs and terminals, where these begin a new line or worse.
_CONTROL_CHARACTER: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

# Registered claims (RFC 8392), then ours, from the range for private use.
_ISS, _SUB, _AUD, _EXP, _NBF, _IAT, _CTI = 1, 2, 3, 4, 5, 6, 7
_NAME, _KIND, _ROLE, _ATTRIBUTES, _DELEGABLE, _PIN, _ISSUER_CHANGE = range(-65537, -65544, -1)
_REQUIRED: Final = frozenset(
    (_ISS, _SUB, _AUD, _EXP, _NBF, _IAT, _CTI, _NAME, _KIND, _ATTRIBUTES, _PIN, _ISSUER_CHANGE)
)
_OPTIONAL: Final = frozenset((_ROLE, _DELEGABLE))

_PREFIXES, _VALUES, _ACTIONS, _DEPTH, _LIFETIME = 1, 2, 3, 4, 5
_DELEGABLE_KEYS: Final = frozenset((_PREFIXES, _VALUES, _ACTIONS, _DEPTH, _LIFETIME))

_KINDS: Final[Mapping[str, Kind]] = {"node": "node", "agent": "agent"}
_ROLES: Final[Mapping[str, NodeRole]] = {"sidecar": "sidecar", "gateway": "gateway"}
_READ: Final = Reader(Code.CHANNEL_CREDENTIAL_INVALID)


@dataclass(frozen=True, slots=True)
class Delegable:
    """What the holder may pass on. An attribute that maps to None may have any value."""

    name_prefixes: tuple[NamePrefix, ...]
    attributes: Mapping[str, tuple[AttributeValue, ...] | None]
    actions: tuple[str, ...]
    depth: int
    lifetime_s_max: int


@dataclass(frozen=True, slots=True)
class Credential:
    """What a credential says. Times are Unix seconds; it is valid from nbf until before exp."""

    issuer: Identifier
    subject: Identifier
    name: AgentUri
    trust_domain: str
    credential_id: bytes
    issued_unix_s: int
    not_before_unix_s: int
    expires_unix_s: int
    kind: Kind
    role_of_node: NodeRole | None
    attributes: Mapping[str, AttributeValue]
    delegable: Delegable | None
    pin: Pin
    issuer_change_number: int

    def check_times(self, unix_s: float) -> None:
        if unix_s < self.not_before_unix_s - CLOCK_SKEW_S:
            raise IdentityError(Code.CHANNEL_NOT_YET_VALID, f"the credential of {self.name}")
        if unix_s >= self.expires_unix_s:
            raise IdentityError(Code.CHANNEL_CREDENTIAL_EXPIRED, f"the credential of {self.name}")


@dataclass(frozen=True, slots=True)
class SignedCredential:
    """A credential with its exact bytes. That one exists does not mean that it was verified."""

    credential: Credential
    encoded: bytes
    message: SignedMessage


def issue_credential(
    issuer_key: SigningKey,
    issuer_history: ChangeHistory,
    subject_history: ChangeHistory,
    *,
    name: AgentUri,
    trust_domain: str,
    kind: Kind,
    role_of_node: NodeRole | None,
    attributes: Mapping[str, AttributeValue],
    delegable: Delegable | None,
    not_before_unix_s: int,
    expires_unix_s: int,
) -> SignedCredential:
    """Sign a credential for the head of a history whose signatures the caller has verified.

    Whoever verifies the credential takes the pinned history on the issuer's word. Raises
    IdentityError for contents that every verifier would refuse, ValueError for a wrong key.
    """
    issuer_change_number = issuer_history.number_of(issuer_key.verify_key)
    claims: dict[int, Any] = {
        _ISS: str(issuer_history.identifier),
        _SUB: str(subject_history.identifier),
        _AUD: trust_domain,
        _EXP: expires_unix_s,
        _NBF: not_before_unix_s,
        _IAT: not_before_unix_s,
        _CTI: os.urandom(CREDENTIAL_ID_BYTES),
        _NAME: str(name),
        _KIND: kind,
        _ATTRIBUTES: _attributes_to_cbor(attributes),
        _PIN: [subject_history.change_number, subject_history.head_hash],
        _ISSUER_CHANGE: issuer_change_number,
    }
    if role_of_node is not None:
        claims[_ROLE] = role_of_node
    if delegable is not None:
        claims[_DELEGABLE] = _delegable_to_cbor(delegable)
    # What we issue passes the same checks as what we receive.
    credential = _read_claims(claims)
    message = cose.sign(issuer_key, SignedType.CREDENTIAL, cbor.encode(claims))
    encoded = message.encode()
    if len(encoded) > CREDENTIAL_BYTES_MAX:
        raise _READ.error(f"a credential is at most {CREDENTIAL_BYTES_MAX} bytes")
    return SignedCredential(credential, encoded, message)


def decode_credential_untrusted(encoded: bytes) -> SignedCredential:
    """Read a credential and check its structure, but not its signature, times or chain."""
    message = cose.decode_untrusted(
        encoded,
        SignedType.CREDENTIAL,
        bytes_max=CREDENTIAL_BYTES_MAX,
        code=Code.CHANNEL_CREDENTIAL_INVALID,
    )
    claims = cbor.decode_untrusted(
        message.payload,
        bytes_max=CREDENTIAL_BYTES_MAX,
        depth_max=5,
        code=Code.CHANNEL_CREDENTIAL_INVALID,
    )
    return SignedCredential(_read_claims(claims), encoded, message)


def _read_claims(value: Any) -> Credential:
    claims = _READ.mapping(value, _REQUIRED, _OPTIONAL)
    try:
        trust_domain = validate_trust_domain(claims[_AUD])
        name = AgentUri.parse(_READ.text(claims[_NAME], URI_BYTES_MAX))
        issuer = Identifier.parse(_READ.text(claims[_ISS], TEXT_CHARS))
        subject = Identifier.parse(_READ.text(claims[_SUB], TEXT_CHARS))
        delegable = _read_delegable(claims[_DELEGABLE]) if _DELEGABLE in claims else None
    except IdentityError as error:
        raise _READ.error(error.detail) from error
    kind = _KINDS.get(_READ.text(claims[_KIND], 16))
    role = _ROLES.get(_READ.text(claims[_ROLE], 16)) if _ROLE in claims else None
    if kind is None or (kind == "node") != (role is not None) or (_ROLE in claims and role is None):
        raise _READ.error("a kind and a role of node that do not go together")
    change_number, head_hash = _READ.array(claims[_PIN], 2, 2)
    credential = Credential(
        issuer=issuer,
        subject=subject,
        name=name,
        trust_domain=trust_domain,
        credential_id=_READ.fixed_bytes(claims[_CTI], CREDENTIAL_ID_BYTES),
        issued_unix_s=_READ.integer(claims[_IAT]),
        not_before_unix_s=_READ.integer(claims[_NBF]),
        expires_unix_s=_READ.integer(claims[_EXP]),
        kind=kind,
        role_of_node=role,
        attributes=_read_attributes(claims[_ATTRIBUTES]),
        delegable=delegable,
        pin=Pin(
            _READ.integer(change_number, CHANGES_MAX - 1),
            _READ.fixed_bytes(head_hash, HASH_BYTES),
        ),
        issuer_change_number=_READ.integer(claims[_ISSUER_CHANGE], CHANGES_MAX - 1),
    )
    _check_whole(credential)
    return credential


def _check_whole(credential: Credential) -> None:
    if credential.expires_unix_s <= credential.not_before_unix_s:
        raise _READ.error("a credential that expires before it begins")
    if credential.issuer == credential.subject:
        raise _READ.error("a credential that its subject issued to itself")
    trust_domains = {credential.name.trust_domain}
    if credential.delegable is not None:
        trust_domains.update(prefix.trust_domain for prefix in credential.delegable.name_prefixes)
    if trust_domains != {credential.trust_domain}:
        raise _READ.error("a credential that names another trust domain")


def _read_attributes(value: Any) -> Mapping[str, AttributeValue]:
    _check_attribute_names(value)
    return MappingProxyType({name: _read_attribute_value(item) for name, item in value.items()})


def _check_attribute_names(value: Any) -> None:
    if type(value) is not dict or len(value) > ATTRIBUTES_MAX:
        raise _READ.error(f"attributes are a map of at most {ATTRIBUTES_MAX}")
    for name in value:
        if type(name) is not str or not _ATTRIBUTE_NAME.fullmatch(name):
            raise _READ.error(f"not a name of an attribute: {ascii(name)[:80]}")
        if name in RESERVED_ATTRIBUTES:
            raise _READ.error(f"`{name}` is reserved and cannot be an attribute")


def _read_attribute_value(value: Any) -> AttributeValue:
    if type(value) is bool:
        return value
    if type(value) is int:
        return _READ.integer(value, ATTRIBUTE_INTEGER_MAX, ATTRIBUTE_INTEGER_MIN)
    if type(value) is str:
        return _read_attribute_text(value)
    items = _READ.array(value, ATTRIBUTE_LIST_ITEMS_MAX)
    return tuple(_read_attribute_text(item) for item in items)


def _read_attribute_text(value: Any) -> str:
    text = _READ.text(value, ATTRIBUTE_TEXT_BYTES_MAX)
    if _CONTROL_CHARACTER.search(text):
        raise _READ.error("an attribute with a control character")
    return text


def _read_delegable(value: Any) -> Delegable:
    fields = _READ.mapping(value, _DELEGABLE_KEYS)
    _check_attribute_names(fields[_VALUES])
    attributes = {
        name: None
        if values is None
        else tuple(_read_attribute_value(item) for item in _READ.array(values, DELEGABLE_ITEMS_MAX))
        for name, values in fields[_VALUES].items()
    }
    actions = tuple(
        _READ.text(action, 63) for action in _READ.array(fields[_ACTIONS], DELEGABLE_ITEMS_MAX)
    )
    if not all(_ACTION.fullmatch(action) for action in actions):
        raise _READ.error("not the name of an action")
    return Delegable(
        name_prefixes=tuple(
            NamePrefix.parse(_READ.text(prefix, URI_BYTES_MAX))
            for prefix in _READ.array(fields[_PREFIXES], DELEGABLE_ITEMS_MAX)
        ),
        attributes=MappingProxyType(attributes),
        actions=actions,
        depth=_READ.integer(fields[_DEPTH], CHAIN_LINKS_MAX),
        lifetime_s_max=_READ.integer(fields[_LIFETIME], UNIX_S_MAX),
    )


def _attributes_to_cbor(attributes: Mapping[str, AttributeValue]) -> dict[str, Any]:
    return {name: _value_to_cbor(value) for name, value in attributes.items()}


def _value_to_cbor(value: AttributeValue) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _values_to_cbor(values: Iterable[AttributeValue] | None) -> Any:
    return None if values is None else [_value_to_cbor(value) for value in values]


def _delegable_to_cbor(delegable: Delegable) -> dict[int, Any]:
    return {
        _PREFIXES: [str(prefix) for prefix in delegable.name_prefixes],
        _VALUES: {name: _values_to_cbor(values) for name, values in delegable.attributes.items()},
        _ACTIONS: list(delegable.actions),
        _DEPTH: delegable.depth,
        _LIFETIME: delegable.lifetime_s_max,
    }
