"""Whose workload tokens an authority takes: one entry for each issuer and kind of workload.

A claim is named by a JSON pointer (RFC 6901), because names of claims hold dots and slashes:
``/sub``, ``/kubernetes.io/serviceaccount/name``; within a name ``~1`` is a slash, ``~0`` a tilde.
"""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictInt,
    model_validator,
)

from identity import AgentUri, IdentityError
from node.settings_fields import LocalModel, LocalPath

WORKLOADS_MAX: Final = 16
CLAIMS_MAX: Final = 32
CLAIM_DEPTH_MAX: Final = 8
TEXT_CHARACTERS_MAX: Final = 1_024
TOKEN_AGE_S: Final = 3_600
TOKEN_AGE_S_MAX: Final = 86_400

_POINTER: Final = re.compile(r"(?:/(?:[^/~{}]|~[01])+)+")
_PART: Final = re.compile(r"\{([^{}]*)\}|([^/{}]+)")

Claim = tuple[str, ...]
"""The keys that lead to a claim, from the outermost."""


def parse_claim(pointer: str) -> Claim:
    """Raises ValueError for what is no JSON pointer, and for the whole token."""
    if not _POINTER.fullmatch(pointer):
        raise ValueError(f"{pointer!r} names no claim: write /name, or /outer/inner")
    keys = tuple(key.replace("~1", "/").replace("~0", "~") for key in pointer[1:].split("/"))
    if len(keys) > CLAIM_DEPTH_MAX:
        raise ValueError(f"{pointer!r} goes deeper than {CLAIM_DEPTH_MAX}")
    return keys


def parse_template(text: str) -> tuple[str | Claim, ...]:
    """``k8s/{/kubernetes.io/namespace}``: each segment a word, or one claim and nothing beside it.

    Raises ValueError.
    """
    parts: list[str | Claim] = []
    place = 0
    while (found := _PART.match(text, place)) is not None:
        claim, word = found.groups()
        parts.append(word if claim is None else parse_claim(claim))
        place = found.end()
        if place < len(text) and text[place] == "/":
            place += 1
        else:
            break
    if place != len(text) or text.endswith("/"):
        raise ValueError(f"{text!r} is no name: a claim fills a whole segment")
    try:
        AgentUri("domain", tuple(part if isinstance(part, str) else "x" for part in parts))
    except IdentityError as error:
        raise ValueError(error.detail) from None
    return tuple(parts)


def parse_claim_value(value: object) -> Claim | None:
    """The claim that an attribute takes its value from, or None for a constant."""
    is_claim = isinstance(value, str) and value.startswith("{") and value.endswith("}")
    return parse_claim(value[1:-1]) if is_claim and isinstance(value, str) else None


def _pointer(value: str) -> str:
    parse_claim(value)
    return value


def _template(value: str) -> str:
    parse_template(value)
    return value


def _attribute(value: Any) -> Any:
    parse_claim_value(value)
    return value


def _keys_url(value: str) -> str:
    """Only what a key set can be at; what else an URL may carry would only mislead."""
    parts = urlsplit(value)
    try:
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        has_port = False
    if parts.scheme not in ("https", "http") or not parts.hostname or not has_port:
        raise ValueError("it must be an URL that begins with https://")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("it must not hold a user, a password or a fragment")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("an URL is printable ASCII")
    return value


def is_loopback_name(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


Algorithm = Literal["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures by a public key only: with a shared secret whoever verifies could also sign."""

Text = Annotated[str, Field(min_length=1, max_length=TEXT_CHARACTERS_MAX)]
Pointer = Annotated[str, Field(max_length=TEXT_CHARACTERS_MAX), AfterValidator(_pointer)]
Scalar = str | StrictInt | bool
Value = Scalar | tuple[str, ...]


class WorkloadSettings(LocalModel):
    """Whose tokens, which of them, and what a node that shows one becomes: a sidecar."""

    issuer: Text
    """The token's ``iss``, letter for letter."""
    audience: Text | None = None
    """The token's only ``aud``; ``sidelink:`` and the authority's identifier unless given."""
    jwks_file: LocalPath | None = None
    """The issuer's keys, as a file that somebody else keeps fresh."""
    jwks_url: Annotated[Text, AfterValidator(_keys_url)] | None = None
    """Where the issuer serves its keys."""
    ca_file: LocalPath | None = None
    """Certificates that ``jwks_url`` is checked against, instead of the system's."""
    allow_private_network: bool = False
    """Let ``jwks_url`` lead to an address that the public Internet has not."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("RS256", "ES256", "EdDSA")
    token_age_s_max: Annotated[StrictInt, Field(ge=60, le=TOKEN_AGE_S_MAX)] = TOKEN_AGE_S
    """Tokens that were issued longer ago are refused, however long they are good for."""
    match: Annotated[
        Mapping[Pointer, Scalar | tuple[Scalar, ...]], Field(min_length=1, max_length=CLAIMS_MAX)
    ]
    """Claims, each with the value or one of the values that it must have."""
    name: Annotated[str, Field(max_length=TEXT_CHARACTERS_MAX), AfterValidator(_template)]
    """The node's name, which is also the prefix of its agents' names."""
    replace: bool = False
    """Take the name from another node that holds it: for workloads that lose their state folder."""
    attributes: Annotated[
        Mapping[str, Annotated[Value, BeforeValidator(_attribute)]], Field(max_length=CLAIMS_MAX)
    ] = {}
    """The node's own: constants, or ``{/claim}``."""
    allowed_attributes: Annotated[
        Mapping[str, tuple[Value, ...] | None], Field(max_length=CLAIMS_MAX)
    ] = {}
    """What its agents may have: the values of each attribute, or null for any."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.jwks_file is None) == (self.jwks_url is None):
            raise ValueError("a workload needs exactly one of jwks_file and jwks_url")
        if self.jwks_url is None:
            if self.ca_file is not None or self.allow_private_network:
                raise ValueError("ca_file and allow_private_network go with jwks_url")
            return self
        parts = urlsplit(self.jwks_url)
        is_local = self.allow_private_network and is_loopback_name(parts.hostname or "")
        if parts.scheme == "http" and not is_local:
            raise ValueError(
                "jwks_url must be https; http is for loopback, with allow_private_network"
            )
        return self
