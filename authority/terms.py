"""What a node gets with its credential, and how that is written down to be granted again."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from identity import AgentUri, AttributeValue, Delegable, Identifier, NamePrefix
from policy import Action

# Of an identifier's text: sixty bits, enough that nobody finds two that share them.
NAME_FROM_IDENTIFIER_CHARS: Final = 12
_IDENTIFIER_PREFIX: Final = "sl1"

NODE_DEPTH: Final = 3
"""authority → node → agent → subagent: what a node may pass on reaches two generations."""
AGENT_LIFETIME_SECONDS: Final = 7 * 86_400

# What agents may ever be allowed to do. Whether they are, policy decides each time.
AGENT_ACTIONS: Final = tuple(
    str(action)
    for action in Action
    if action not in (Action.HOP_ADMIT, Action.NODE_ENROL, Action.ROUTE_REGISTER, Action.LINK_RELAY)
)


@dataclass(frozen=True, slots=True)
class Terms:
    """Name, role, attributes, and what may be passed on."""

    name: AgentUri
    role: str
    attributes: Mapping[str, AttributeValue]
    delegable: Delegable | None

    def below(self, segment: str) -> "Terms":
        """The same for a node below this name: it may name its own agents and nobody else's.

        Raises IdentityError for what is no segment, and for a name that becomes too long.
        """
        name = AgentUri(self.name.trust_domain, (*self.name.path, segment))
        own = NamePrefix(name.trust_domain, name.path)
        delegable = self.delegable and replace(self.delegable, name_prefixes=(own,))
        return replace(self, name=name, delegable=delegable)


def sidecar_delegable(
    prefixes: Iterable[NamePrefix], allowed: Mapping[str, tuple[AttributeValue, ...] | None]
) -> Delegable:
    """What a sidecar may pass on to its agents: names below these, and these attributes."""
    return Delegable(
        name_prefixes=tuple(prefixes),
        attributes=allowed,
        actions=AGENT_ACTIONS,
        depth=NODE_DEPTH,
        lifetime_s_max=AGENT_LIFETIME_SECONDS,
    )


def segment_of(node: Identifier) -> str:
    """The segment for a node that wished for none that is free."""
    start = len(_IDENTIFIER_PREFIX)
    return str(node)[start : start + NAME_FROM_IDENTIFIER_CHARS]


class _StoredTerms(msgspec.Struct, frozen=True):
    name: str
    role: str
    attributes: dict[str, Any]
    prefixes: list[str]
    allowed: dict[str, list[Any] | None]
    actions: list[str]
    depth: int
    lifetime_s_max: int


def encode_terms(terms: Terms) -> bytes:
    passed_on = terms.delegable
    stored = _StoredTerms(
        name=str(terms.name),
        role=terms.role,
        attributes=dict(terms.attributes),
        prefixes=[str(prefix) for prefix in passed_on.name_prefixes] if passed_on else [],
        allowed={key: None if v is None else list(v) for key, v in passed_on.attributes.items()}
        if passed_on
        else {},
        actions=list(passed_on.actions) if passed_on else [],
        depth=passed_on.depth if passed_on else 0,
        lifetime_s_max=passed_on.lifetime_s_max if passed_on else 0,
    )
    return msgspec.msgpack.encode(stored)


def decode_terms(data: bytes) -> Terms:
    stored = msgspec.msgpack.decode(data, type=_StoredTerms)
    delegable = Delegable(
        name_prefixes=tuple(NamePrefix.parse(prefix) for prefix in stored.prefixes),
        attributes={
            key: None if values is None else tuple(_value(item) for item in values)
            for key, values in stored.allowed.items()
        },
        actions=tuple(stored.actions),
        depth=stored.depth,
        lifetime_s_max=stored.lifetime_s_max,
    )
    return Terms(
        name=AgentUri.parse(stored.name),
        role=stored.role,
        attributes={key: _value(value) for key, value in stored.attributes.items()},
        delegable=delegable if stored.prefixes else None,
    )


def _value(stored: Any) -> AttributeValue:
    return tuple(stored) if isinstance(stored, list) else stored
