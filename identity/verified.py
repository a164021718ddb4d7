"""What a verifier has found out: who somebody is, by whose word, and until when."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal

from identity.credential import AttributeValue, Credential, Delegable, NodeRole
from identity.fields import UNIX_S_MAX
from identity.identifier import Identifier
from identity.keys import NoisePublicKey
from identity.uri import AgentUri

_NO_ATTRIBUTES: Final[Mapping[str, AttributeValue]] = MappingProxyType({})
_NOTHING_FURTHER: Final[Mapping[Identifier, Mapping[str, AttributeValue]]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TrustAnchor:
    """An authority that this node trusts, and the one trust domain that it is trusted for."""

    identifier: Identifier
    trust_domain: str


@dataclass(frozen=True, slots=True)
class VerifiedIdentity:
    """Who somebody was proved to be. `expires_unix_s` is when the first part of the proof lapses.

    `ancestors` are the issuers, nearest first, without the authority; `authority` is the trust
    anchor that the chain hangs on. `attributes` come from the chain that proves the name, and from
    nowhere else; what other issuers say of the same identity stays apart, by issuer, in `further`.
    """

    identifier: Identifier
    name: AgentUri | None
    kind: Literal["agent", "node", "authority", "unenrolled"]
    role_of_node: NodeRole | Literal["authority"] | None
    trust_domain: str | None
    issuer: Identifier | None
    attributes: Mapping[str, AttributeValue]
    delegable: Delegable | None
    expires_unix_s: int
    ancestors: tuple["VerifiedIdentity", ...] = ()
    authority: Identifier | None = None
    further: Mapping[Identifier, Mapping[str, AttributeValue]] = field(
        default_factory=lambda: _NOTHING_FURTHER
    )
    further_links: tuple[tuple[Identifier, Identifier], ...] = ()
    """Of the chains of ``further``: each identity, behind the authority that its chain hangs on."""
    authority_change_number: int | None = None
    """The change of the authority's history that named the key on which its chain hangs."""

    @property
    def allowed_actions(self) -> tuple[str, ...] | None:
        """The actions that the issuer could pass on; None without a limit (no delegated name)."""
        if not self.ancestors:
            return None
        delegable = self.ancestors[0].delegable
        return () if delegable is None else delegable.actions

    @property
    def node(self) -> Identifier | None:
        """The node whose agent this is, as its chain proves."""
        return next((one.identifier for one in self.ancestors if one.kind == "node"), None)

    @property
    def depends_on(self) -> tuple[tuple[Identifier, Identifier], ...]:
        """Authority and identity for each link of its chains: revoking any of them revokes it."""
        if self.authority is None:
            return ()
        ancestors = ((self.authority, ancestor.identifier) for ancestor in self.ancestors)
        return ((self.authority, self.identifier), *ancestors, *self.further_links)


@dataclass(frozen=True, slots=True)
class VerifiedPeer:
    """A verified identity that also holds this Noise key."""

    identity: VerifiedIdentity
    noise_key: NoisePublicKey

    @property
    def identifier(self) -> Identifier:
        return self.identity.identifier

    @property
    def name(self) -> AgentUri | None:
        return self.identity.name

    def until(self, unix_s: int) -> "VerifiedPeer":
        """The same, but no longer than this."""
        ends_unix_s = min(self.identity.expires_unix_s, unix_s)
        return replace(self, identity=replace(self.identity, expires_unix_s=ends_unix_s))


def credential_identity(
    credential: Credential,
    parent: VerifiedIdentity | None,
    authority: Identifier,
    key_until_unix_s: int,
) -> VerifiedIdentity:
    """Whom a verified credential proves. ``key_until_unix_s``: when its issuer's key lapses."""
    expires_unix_s = min(credential.expires_unix_s, key_until_unix_s)
    if parent is not None:
        expires_unix_s = min(expires_unix_s, parent.expires_unix_s)
    return VerifiedIdentity(
        identifier=credential.subject,
        name=credential.name,
        kind=credential.kind,
        role_of_node=credential.role_of_node,
        trust_domain=credential.trust_domain,
        issuer=credential.issuer,
        attributes=credential.attributes,
        delegable=credential.delegable,
        expires_unix_s=expires_unix_s,
        ancestors=() if parent is None else (parent, *parent.ancestors),
        authority=authority,
        authority_change_number=(
            credential.issuer_change_number if parent is None else parent.authority_change_number
        ),
    )


def anchor_identity(anchor: TrustAnchor) -> VerifiedIdentity:
    return VerifiedIdentity(
        identifier=anchor.identifier,
        name=None,
        kind="authority",
        role_of_node="authority",
        trust_domain=anchor.trust_domain,
        issuer=None,
        attributes=_NO_ATTRIBUTES,
        delegable=None,
        expires_unix_s=UNIX_S_MAX,
        authority=anchor.identifier,
    )


def unenrolled_identity(identifier: Identifier) -> VerifiedIdentity:
    return VerifiedIdentity(
        identifier=identifier,
        name=None,
        kind="unenrolled",
        role_of_node=None,
        trust_domain=None,
        issuer=None,
        attributes=_NO_ATTRIBUTES,
        delegable=None,
        expires_unix_s=UNIX_S_MAX,
    )
