"""What policy is asked: an action, by whom, on what."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Literal

from identity import AgentUri, AttributeValue, Identifier, NamePrefix, VerifiedIdentity

Kind = Literal["agent", "node", "authority", "unenrolled", "unproved"]

_NO_ATTRIBUTES: Final[Mapping[str, AttributeValue]] = MappingProxyType({})
_NOTHING_FURTHER: Final[Mapping[str, Mapping[str, AttributeValue]]] = MappingProxyType({})


class Action(StrEnum):
    """Everything that needs a permit."""

    HOP_ADMIT = "hop.admit"
    NODE_ENROL = "node.enrol"
    ROUTE_REGISTER = "route.register"
    LINK_RELAY = "link.relay"
    CHANNEL_OPEN = "channel.open"
    PATH_DIRECT = "path.direct"
    MESSAGE_TELL = "message.tell"
    MESSAGE_ASK = "message.ask"
    STREAM_OPEN = "stream.open"
    MCP_LIST = "mcp.list"
    MCP_CALL = "mcp.call"
    MCP_READ = "mcp.read"
    MCP_PROMPT = "mcp.prompt"
    MCP_RESULT = "mcp.result"


MESSAGE_ACTIONS: Final = frozenset({Action.MESSAGE_TELL, Action.MESSAGE_ASK})
SERVICE_ACTIONS: Final = frozenset(
    {
        Action.STREAM_OPEN,
        Action.MCP_LIST,
        Action.MCP_CALL,
        Action.MCP_READ,
        Action.MCP_PROMPT,
        Action.MCP_RESULT,
    }
)
ARGUMENT_ACTIONS: Final = frozenset(
    {Action.MCP_CALL, Action.MCP_READ, Action.MCP_PROMPT, Action.MCP_RESULT}
)
RESULT_ACTIONS: Final = frozenset({Action.MCP_CALL, Action.MCP_READ, Action.MCP_PROMPT})
"""Those whose answer passes through the sidecar that permits them."""

# A permit for any action on the right is a permit for the action on the left, as far as it goes:
# what an action needs to happen at all need not be written down beside it.
IMPLIED_BY: Final[Mapping[Action, tuple[Action, ...]]] = MappingProxyType(
    {
        Action.CHANNEL_OPEN: (
            Action.MESSAGE_TELL,
            Action.MESSAGE_ASK,
            Action.STREAM_OPEN,
            Action.MCP_LIST,
            Action.MCP_CALL,
            Action.MCP_READ,
            Action.MCP_PROMPT,
        ),
        Action.STREAM_OPEN: (
            Action.MCP_LIST,
            Action.MCP_CALL,
            Action.MCP_READ,
            Action.MCP_PROMPT,
        ),
        Action.MCP_LIST: (Action.MCP_CALL, Action.MCP_READ, Action.MCP_PROMPT),
        # The result of a permitted call goes back, unless a rule denies it for what it holds.
        Action.MCP_RESULT: (Action.MCP_CALL,),
    }
)


@dataclass(frozen=True, slots=True)
class Party:
    """Somebody in a request. Unless ``verified``, only name and trust domain are known.

    ``ancestors`` are the issuers, nearest first, without the authority. ``allowed_actions`` is
    what the issuer was allowed to pass on; None is without a limit.
    """

    identifier: Identifier | None
    name: AgentUri | None
    kind: Kind
    role_of_node: str | None
    trust_domain: str | None
    issuer: Identifier | None
    attributes: Mapping[str, AttributeValue]
    ancestors: tuple["Party", ...] = ()
    verified: bool = True
    allowed_actions: tuple[str, ...] | None = None
    further: Mapping[str, Mapping[str, AttributeValue]] = field(
        default_factory=lambda: _NOTHING_FURTHER
    )
    """What other issuers say of it, by the issuer's identifier: never mixed with ``attributes``."""

    @classmethod
    def from_verified(cls, identity: VerifiedIdentity) -> "Party":
        """Somebody who proved who they are."""
        return cls(
            identifier=identity.identifier,
            name=identity.name,
            kind=identity.kind,
            role_of_node=identity.role_of_node,
            trust_domain=identity.trust_domain,
            issuer=identity.issuer,
            attributes=identity.attributes,
            # Each ancestor lists its own ancestors too; for a decision one list is enough.
            ancestors=tuple(cls._from_ancestor(one) for one in identity.ancestors),
            allowed_actions=identity.allowed_actions,
            further={str(issuer): said for issuer, said in identity.further.items()},
        )

    @classmethod
    def _from_ancestor(cls, identity: VerifiedIdentity) -> "Party":
        return cls(
            identifier=identity.identifier,
            name=identity.name,
            kind=identity.kind,
            role_of_node=identity.role_of_node,
            trust_domain=identity.trust_domain,
            issuer=identity.issuer,
            attributes=identity.attributes,
        )

    @classmethod
    def unproved(cls, name: AgentUri) -> "Party":
        """Somebody who is only named so far: the far end of a channel that is not open yet."""
        return cls(
            identifier=None,
            name=name,
            kind="unproved",
            role_of_node=None,
            trust_domain=name.trust_domain,
            issuer=None,
            attributes=_NO_ATTRIBUTES,
            verified=False,
        )

    def __str__(self) -> str:
        return str(self.name or self.identifier or "somebody unknown")


@dataclass(frozen=True, slots=True)
class Request:
    """One question. What an action does not have is None.

    ``message_bytes`` is the size of a message's body; ``prefix`` is what route.register asks for;
    ``tool`` is the name of a tool or a prompt, ``uri`` that of a resource. ``args`` are the
    arguments of mcp.call and mcp.prompt, None while they are not known; those of mcp.read are its
    `uri`, and those of mcp.result what the call had. ``again``
    is whether the same was permitted before, and is asked anew because policy or proofs changed,
    or because both sides decide in one program: then no limit is charged.
    """

    action: Action
    subject: Party
    object: Party
    service: str | None = None
    message_bytes: int | None = None
    prefix: NamePrefix | None = None
    mcp_method: str | None = None
    tool: str | None = None
    args: Mapping[str, Any] | None = None
    uri: str | None = None
    result: Mapping[str, Any] | None = None
    again: bool = False

    @property
    def shown_uri(self) -> str | None:
        """The URI without its query, which may hold what nobody should read in a log."""
        return None if self.uri is None else self.uri.partition("?")[0]
