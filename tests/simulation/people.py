"""Who takes part: an authority and its nodes, real keys and credentials, made once for all."""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from identity import (
    AgentUri,
    ChainLink,
    Delegable,
    Identifier,
    NamePrefix,
    OwnIdentity,
    ProofVerifier,
    Purpose,
    TrustAnchor,
    VerifiedIdentity,
    VerifiedPeer,
    issue_credential,
    new_identity,
)
from node.clocks import ManualClock
from policy import Action, PolicyEngine
from sidecar.agents import AgentRegistry

START_UNIX_S = ManualClock().unix_s()
DAY_S = 86_400
ACTIONS = tuple(
    str(action)
    for action in Action
    if action not in (Action.HOP_ADMIT, Action.NODE_ENROL, Action.ROUTE_REGISTER, Action.LINK_RELAY)
)

OPEN_POLICY = """\
apiVersion: sidelink/v1
kind: Policy
metadata: {name: open}
attributes: {role: text}
rules:
  - name: agents write to each other
    effect: allow
    actions: [message.tell, message.ask, stream.open]
    from: {kind: agent}
    to: {kind: agent}
  - name: the quiet are not asked
    effect: deny
    actions: [message.ask]
    to: {role: quiet}
  - name: no word from outcasts
    effect: deny
    actions: [channel.open, message.tell, message.ask]
    from: {role: outcast}
  - name: short words only
    effect: deny
    actions: [message.tell]
    when: message.size > 2097152
"""


class MemoryKeystore:
    """As much of a Keystore as an AgentRegistry needs."""

    def __init__(self, rows: Mapping[str, OwnIdentity] | None = None) -> None:
        self.rows = dict(rows or {})

    def load(
        self, name: str, issuer: Callable[[str], OwnIdentity | None] = lambda _: None
    ) -> OwnIdentity | None:
        own = self.rows.get(name)
        if own is None or own.issued_by is None:
            return own
        above = issuer(own.issued_by) or self.load(own.issued_by, issuer)
        assert above is not None
        return own.below(above, own.chain[0].credential)

    def save(self, own: OwnIdentity) -> None:
        self.save_many([own])

    def save_many(self, identities: Iterable[OwnIdentity]) -> None:
        self.rows.update((own.name, own) for own in identities)

    def children(self, name: str) -> int:
        return sum(own.issued_by == name for own in self.rows.values())

    def children_names(self, name: str, after: str = "", limit: int = 1_000) -> tuple[str, ...]:
        below = sorted(own.name for own in self.rows.values() if own.issued_by == name)
        return tuple(one for one in below if one > after)[:limit]

    def children_after(
        self, issuer: str, name: str, limit: int = 1_000
    ) -> tuple[tuple[str, str], ...]:
        pairs = sorted((own.issued_by, own.name) for own in self.rows.values() if own.issued_by)
        return tuple(pair for pair in pairs if pair > (issuer, name))[:limit]

    def remove_many(self, names: Iterable[str]) -> int:
        return sum(self.rows.pop(name, None) is not None for name in list(names))

    def names(self, after: str = "", limit: int = 1_000) -> tuple[str, ...]:
        return tuple(sorted(name for name in self.rows if name > after)[:limit])


def authority(trust_domain: str = "acme") -> OwnIdentity:
    return _authority(trust_domain)


@functools.cache
def _authority(trust_domain: str) -> OwnIdentity:
    return new_identity(".node", unix_s=START_UNIX_S, purposes=tuple(Purpose))


@dataclass(frozen=True)
class Node:
    """A node with its credential, and what others see of it."""

    own: OwnIdentity
    identity: VerifiedIdentity

    @property
    def peer(self) -> VerifiedPeer:
        key = self.own.purpose_keys[Purpose.HOP].key.public
        return VerifiedPeer(self.identity, key)

    @property
    def prefixes(self) -> tuple[NamePrefix, ...]:
        delegable = self.identity.delegable
        return () if delegable is None else delegable.name_prefixes

    def new_keystore(self) -> MemoryKeystore:
        return MemoryKeystore({self.own.name: self.own})

    def new_registry(self, keystore: MemoryKeystore | None = None, **options: Any) -> AgentRegistry:
        """As after a start: nothing in memory, everything in the keystore."""
        kept: Any = keystore or self.new_keystore()
        return AgentRegistry(kept, lambda: self.own, lambda: self.identity, **options)


@functools.cache
def node(
    name: str, *, role: str = "sidecar", trust_domain: str = "acme", lifetime_s: int = 30 * DAY_S
) -> Node:
    """The node of this name; its agents are below its name."""
    issuer = authority(trust_domain)
    own = new_identity(".node", unix_s=START_UNIX_S, purposes=tuple(Purpose))
    uri = AgentUri.in_domain(trust_domain, name)
    prefix = NamePrefix(trust_domain, uri.path)
    delegable = None
    if role == "sidecar":
        delegable = Delegable(
            name_prefixes=(prefix,),
            attributes={"role": None},
            actions=ACTIONS,
            depth=3,
            lifetime_s_max=7 * DAY_S,
        )
    signed = issue_credential(
        issuer.signing_key,
        issuer.history,
        own.history,
        name=uri,
        trust_domain=trust_domain,
        kind="node",
        role_of_node=role,  # type: ignore[arg-type]
        attributes={},
        delegable=delegable,
        not_before_unix_s=int(START_UNIX_S),
        expires_unix_s=int(START_UNIX_S) + lifetime_s,
    )
    own = own.with_chain((ChainLink(signed.encoded, issuer.history.encode()),))
    return Node(own, _seen(own, signed.credential))


def _seen(own: OwnIdentity, held: Any) -> VerifiedIdentity:
    return VerifiedIdentity(
        identifier=own.identifier,
        name=held.name,
        kind=held.kind,
        role_of_node=held.role_of_node,
        trust_domain=held.trust_domain,
        issuer=held.issuer,
        attributes=held.attributes,
        delegable=held.delegable,
        expires_unix_s=held.expires_unix_s,
    )


@functools.cache
def stranger(number: int = 0) -> Node:
    """A node that has no credential yet."""
    own = new_identity(".node", unix_s=START_UNIX_S, purposes=tuple(Purpose))
    identity = VerifiedIdentity(
        identifier=own.identifier,
        name=None,
        kind="unenrolled",
        role_of_node=None,
        trust_domain=None,
        issuer=None,
        attributes={},
        delegable=None,
        expires_unix_s=0,
    )
    return Node(own, identity)


@functools.cache
def authority_node(trust_domain: str = "acme") -> Node:
    own = authority(trust_domain)
    identity = VerifiedIdentity(
        identifier=own.identifier,
        name=None,
        kind="authority",
        role_of_node="authority",
        trust_domain=trust_domain,
        issuer=None,
        attributes={},
        delegable=None,
        expires_unix_s=int(START_UNIX_S) + 10 * 365 * DAY_S,
    )
    return Node(own, identity)


@functools.cache
def verifier_of(own: Identifier) -> ProofVerifier:
    anchors = [TrustAnchor(authority(domain).identifier, domain) for domain in ("acme", "globex")]
    return ProofVerifier(anchors, own=own)


@functools.cache
def engine(text: str = OPEN_POLICY) -> PolicyEngine:
    return PolicyEngine.load(text, file="policy.yaml")
