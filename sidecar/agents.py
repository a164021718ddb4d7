"""The agents of this sidecar: minted on first use, loaded when somebody calls, idle as rows."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import structlog
from sidelink.wire import Attributes

from identity import (
    AgentUri,
    AttributeValue,
    Code,
    IdentityError,
    Keystore,
    NoiseKey,
    NoisePublicKey,
    OwnIdentity,
    Purpose,
    SidelinkError,
    SigningKey,
    VerifiedIdentity,
    new_identity,
)
from policy import Party
from sidecar.further import shown_further
from sidecar.issuing import Issuer, credential_of, due_of, keys_until
from sidecar.mailbox import MAILBOX_BYTES_MAX, MAILBOX_MESSAGES_MAX, Mailbox, SharedRoom

_log = structlog.get_logger("sidecar.agents")

# Beyond so many agents with their keys in memory, those that nobody holds are rows in the keystore
# until somebody calls. To wake one takes a tenth of the handshake that it is woken for.
AGENTS_AWAKE_MAX: Final = 1_024
# Of those that were called longest ago, so many are looked at for each that wakes or is let go.
LOOKED_AT_MAX: Final = 8
NAMES_MAX: Final = 1_000
"""The most names that one page of them has."""


@dataclass(slots=True, eq=False)
class LocalAgent:
    """One agent that is awake: its keys are in memory, its mailbox exists."""

    handle: int
    uri: AgentUri
    noise_key: NoiseKey
    proof: bytes
    """What proves its name to anybody who opens a channel to it."""
    full_proof: bytes
    """The same and its further credentials, for those who have proved who they are."""
    identity: VerifiedIdentity
    party: Party
    expires_unix_s: float
    renew_unix_s: float
    issuer: Issuer
    """This node, or its parent, as it was when it made the proof."""
    parent: "LocalAgent | None"
    """The agent that spawned it, if one did."""
    ends_unix_s: int | None
    """When its time to live is over."""
    mailbox: Mailbox
    issuing: Issuer | None = None
    """Itself, as its children's issuer, since it was last asked for."""
    users: int = 0
    """Sessions, services and channels that hold it open; while any does, it stays awake."""

    @property
    def attributes(self) -> Attributes:
        return dict(self.identity.attributes)


@dataclass(frozen=True, slots=True)
class _Fitted:
    """An identity that serves, and by whose word."""

    own: OwnIdentity
    issuer: Issuer
    parent: LocalAgent | None
    is_changed: bool
    """Whether it is not as its row has it."""


class AgentRegistry:
    """Finds and mints the agents under this node's prefixes.

    ``node`` and ``node_identity`` are asked each time: the node's key and credential change while
    it runs.
    """

    def __init__(
        self,
        keystore: Keystore,
        node: Callable[[], OwnIdentity],
        node_identity: Callable[[], VerifiedIdentity],
        *,
        messages_max: int = MAILBOX_MESSAGES_MAX,
        bytes_max: int = MAILBOX_BYTES_MAX,
        mailbox_room: SharedRoom | None = None,
        awake_max: int = AGENTS_AWAKE_MAX,
    ) -> None:
        self.keystore = keystore
        self._node = node
        self._node_identity = node_identity
        self._node_seen, self._identity_seen = node(), node_identity()
        self._issuer = Issuer.of(self._node_seen, self._identity_seen)
        self._trust_domain = self._issuer.credential.trust_domain
        self._awake: OrderedDict[AgentUri, LocalAgent] = OrderedDict()
        self._next_handle = 1
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self.mailbox_room = mailbox_room or SharedRoom()
        assert awake_max > 0, "the one that was just called is always kept"
        self._awake_max = awake_max

    @property
    def trust_domain(self) -> str:
        return self._trust_domain

    @property
    def node_key(self) -> str:
        """The name of the node's own row."""
        return self._node_seen.name

    @property
    def awake(self) -> int:
        return len(self._awake)

    def awake_agents(self) -> list[LocalAgent]:
        return list(self._awake.values())

    def named(self, path: str) -> AgentUri:
        """The name of this path. Raises SidelinkError (local.bad_request) if it is none."""
        try:
            return AgentUri.in_domain(self._trust_domain, path)
        except IdentityError as exc:
            raise SidelinkError(Code.LOCAL_BAD_REQUEST, exc.detail) from exc

    def covers(self, name: AgentUri) -> bool:
        return any(prefix.covers(name) for prefix in self.issuer.delegable.name_prefixes)

    @property
    def issuer(self) -> Issuer:
        """This node as it signs now."""
        own, identity = self._node(), self._node_identity()
        if own is not self._node_seen or identity is not self._identity_seen:
            if not self._issuer.is_still(own) or identity != self._issuer.identity:
                self._issuer = Issuer.of(own, identity)
            self._node_seen, self._identity_seen = own, identity
        return self._issuer

    def names(self, after: str = "", limit: int = NAMES_MAX) -> list[str]:
        """A page of the URIs of all agents, awake or not, in order.

        The next page comes after the last name of this one; an empty page is the end.
        """
        base = f"agent://{self._trust_domain}/"
        # One more, since the node's own row is among them.
        rows = self.keystore.names(after.removeprefix(base), limit + 1)
        return [base + row for row in rows if row != self._node_seen.name][:limit]

    def find(self, name: AgentUri, unix_s: float) -> LocalAgent | None:
        """The agent of this name, woken if it sleeps; None if this sidecar has none.

        When its credential cannot be renewed the one that it has serves until it ends.
        """
        agent = self._awake.get(name)
        if agent is not None and self._is_as_it_should_be(agent, unix_s):
            self._called(agent)
            return agent
        if not self.covers(name):
            return None
        try:
            own = self.load("/".join(name.path))
            return None if own is None else self.wake(name, own, _attributes_of(own), unix_s)
        except SidelinkError as exc:
            # Peers' openings lead here: one damaged row, or this node's own credential at its end,
            # must cost no more than this agent.
            _log.warning("agent_unavailable", agent=str(name), code=exc.code.text, why=exc.detail)
            return agent if agent is not None and unix_s < agent.expires_unix_s else None

    def open(
        self, path: str, attributes: Mapping[str, AttributeValue], unix_s: float
    ) -> LocalAgent:
        """Return the agent of this name with these attributes, minting what is missing.

        One that was spawned stays its parent's child. Raises SidelinkError: local.bad_request for a
        malformed name, local.name_outside_prefix, local.attribute_denied; for a child
        local.delegation_denied and local.agent_expired.
        """
        name = self.named(path)
        self._check(name)
        agent = self._awake.get(name)
        same = agent is not None and dict(agent.identity.attributes) == dict(attributes)
        if agent is not None and same and self._is_as_it_should_be(agent, unix_s):
            self._called(agent)
            return agent
        own = self.load(path)
        if own is None:
            own = new_identity(path, unix_s=unix_s, purposes=(Purpose.CHANNEL,))
        return self.wake(name, own, attributes, unix_s)

    def is_child(self, path: str) -> bool:
        """Whether an agent of this name was spawned by another one."""
        own = self.load(path)
        return own is not None and own.issued_by not in (None, self._node_seen.name)

    def parent(self, path: str, unix_s: float) -> LocalAgent:
        """The agent of this path, awake and with the right to have children.

        Raises SidelinkError: local.agent_unknown, local.delegation_denied, and what waking raises.
        """
        name = self.named(path)
        agent = self._awake.get(name)
        may = agent is not None and agent.identity.delegable is not None
        if agent is None or not may or not self._is_as_it_should_be(agent, unix_s):
            own = self._existing(path)
            agent = self.wake(name, own, _attributes_of(own), unix_s, delegates=True)
        if agent.identity.delegable is None:
            raise SidelinkError(Code.LOCAL_DELEGATION_DENIED, f"depth: {name} may have no children")
        return agent

    def forget(self, agent: LocalAgent) -> None:
        """Drop an agent from memory, whoever holds it: it is to be nobody any more."""
        self._awake.pop(agent.uri, None)

    def forget_path(self, path: str) -> None:
        """The same, by its path. Its row is gone."""
        self._awake.pop(self.named(path), None)

    def proof_for(self, agent: LocalAgent, noise_key: bytes, unix_s: float) -> bytes:
        """What this agent shows now where a handshake has shown this Noise key of it."""
        if noise_key == agent.noise_key.public.raw:
            return agent.full_proof
        own = self._existing("/".join(agent.uri.path))
        further = shown_further(own, unix_s).chains
        return own.proof_for(NoisePublicKey(noise_key), Purpose.CHANNEL, further, unix_s=unix_s)

    def look_up(self, path: str, unix_s: float) -> tuple[OwnIdentity, VerifiedIdentity]:
        """An agent as it is on the disk, for an operator. Raises SidelinkError: local.bad_request,
        local.agent_unknown."""
        name, own = self.named(path), self._existing(path)
        agent = self._awake.get(name)
        if agent is not None:
            return own, agent.identity
        issuer, _ = self._issuer_of(own, unix_s)
        return own, issuer.verified(own, unix_s)

    def reissue(self, agents: Iterable[LocalAgent], unix_s: float) -> list[LocalAgent]:
        """Bring the proofs of these agents up to what this node is now; returns those changed.

        For when the node's credential was renewed or its key rotated: who sleeps is brought up to
        date when it wakes. Saved in one transaction, before any of it is shown. An agent of which
        the node may no longer say what it said keeps the proof that it has, until that ends.
        """
        reissued: list[LocalAgent] = []
        # Parents before their children, whose names are longer.
        for _, level in groupby(sorted(agents, key=_depth), key=_depth):
            reissued += self._reissue_level(level, unix_s)
        return reissued

    def _reissue_level(self, agents: Iterable[LocalAgent], unix_s: float) -> list[LocalAgent]:
        due: list[tuple[LocalAgent, _Fitted]] = []
        rows: list[OwnIdentity] = []
        for agent in agents:
            if self._is_as_it_should_be(agent, unix_s):
                continue
            try:
                own = self._existing("/".join(agent.uri.path))
                fitted = self._fitted(agent.uri, own, _attributes_of(own), unix_s)
            except SidelinkError as exc:
                _log.warning(
                    "agent_not_renewed", agent=str(agent.uri), code=exc.code.text, why=exc.detail
                )
                continue
            due.append((agent, fitted))
            if fitted.is_changed:
                rows.append(fitted.own)
        if rows:
            self.keystore.save_many(rows)
        for agent, fitted in due:
            self._show(agent, fitted, unix_s)
        return [agent for agent, _ in due]

    def rotate(self, path: str, unix_s: float, overlap_s: int) -> LocalAgent | None:
        """Announce another signing key for the agent, awake or not; it signs nothing yet.

        A rotation that is announced already stays as it is. Returns the agent if it is awake: its
        proof has changed. Raises SidelinkError: local.agent_unknown, local.bad_request.
        """
        name, own = self.named(path), self._existing(path)
        if own.next_key is None:
            try:
                own = own.with_next_key(SigningKey.generate(), unix_s=unix_s, overlap_s=overlap_s)
            except ValueError as exc:
                raise SidelinkError(Code.LOCAL_BAD_REQUEST, str(exc)) from exc
            return self._save_changed(name, own, unix_s)
        return self._awake.get(name)

    def change(
        self, path: str, unix_s: float, changed: Callable[[OwnIdentity], OwnIdentity]
    ) -> None:
        """Let an agent be another version of itself. Raises what ``changed`` raises."""
        self._save_changed(self.named(path), changed(self._existing(path)), unix_s)

    def complete_rotation(self, path: str, unix_s: float) -> LocalAgent | None:
        """Let the announced key sign from now on. One that was completed at a wake stays so.

        Returns the agent if it is awake. Raises SidelinkError: local.agent_unknown.
        """
        name, own = self.named(path), self._existing(path)
        if own.next_key is None:
            return self._awake.get(name)
        return self._save_changed(name, own.using_next_key(unix_s=unix_s), unix_s)

    def put_to_sleep(self, let_go: int = 1) -> None:
        """Drop from memory some that were not called for longest and that nobody holds.

        Called when one has woken, or when so many were let go. It looks at a few for each: however
        many are held, that costs the same, and those that nobody holds are soon found. The one that
        was called last is not among them.
        """
        awake = self._awake
        for _ in range(min(len(awake) - self._awake_max, LOOKED_AT_MAX * let_go)):
            oldest = next(iter(awake.values()))
            if oldest.users or len(oldest.mailbox):
                awake.move_to_end(oldest.uri)
            else:
                del awake[oldest.uri]

    def _check(self, name: AgentUri) -> None:
        if not self.covers(name):
            prefixes = ", ".join(str(prefix) for prefix in self.issuer.delegable.name_prefixes)
            raise SidelinkError(
                Code.LOCAL_NAME_OUTSIDE_PREFIX, f"{name}: this sidecar may name {prefixes}"
            )

    def _is_as_it_should_be(self, agent: LocalAgent, unix_s: float) -> bool:
        if unix_s >= agent.renew_unix_s:
            return False
        parent = agent.parent
        if parent is None:
            return agent.issuer is self.issuer
        return (
            agent.issuer is parent.issuing
            and self._awake.get(parent.uri) is parent
            and self._is_as_it_should_be(parent, unix_s)
        )

    def _called(self, agent: LocalAgent) -> None:
        """It is the last of those that may sleep, and those that vouch for it with it."""
        above: LocalAgent | None = agent
        while above is not None:
            self._awake.move_to_end(above.uri)
            above = above.parent

    def _issuer_of(self, own: OwnIdentity, unix_s: float) -> tuple[Issuer, LocalAgent | None]:
        """Who signs this identity's credential: the agent that spawned it, woken, or this node.

        Raises SidelinkError when that one cannot be woken: who is gone takes its children along.
        """
        if own.issued_by is None or own.issued_by == self._node_seen.name:
            return self.issuer, None
        parent = self.parent(own.issued_by, unix_s)
        if parent.issuing is None:
            parent.issuing = Issuer.of(self._existing(own.issued_by), parent.identity)
        return parent.issuing, parent

    def _fitted(
        self,
        name: AgentUri,
        own: OwnIdentity,
        attributes: Mapping[str, AttributeValue],
        unix_s: float,
        *,
        delegates: bool = False,
    ) -> _Fitted:
        issuer, parent = self._issuer_of(own, unix_s)
        fitted = issuer.fitted(name, own, attributes, unix_s, delegates=delegates)
        is_changed = fitted is not own
        if parent is not None:
            # What stands above it may have changed since its row was read.
            fitted = fitted.below(issuer.own, fitted.chain[0].credential)
        return _Fitted(fitted, issuer, parent, is_changed)

    def load(self, path: str) -> OwnIdentity | None:
        """The identity of this path as its row has it, awake or not."""
        return self.keystore.load(path, self._held)

    def _held(self, name: str) -> OwnIdentity | None:
        """What the keystore need not read again to complete a chain."""
        own = self.issuer.own
        return own if name == own.name else None

    def _existing(self, path: str) -> OwnIdentity:
        own = self.load(path)
        if own is None:
            raise SidelinkError(Code.LOCAL_AGENT_UNKNOWN, f"there is no agent {path!r} here")
        return own

    def _save_changed(self, name: AgentUri, own: OwnIdentity, unix_s: float) -> LocalAgent | None:
        """With a credential that pins its newest key; on disk before anybody sees it."""
        fitted = self._fitted(name, own, _attributes_of(own), unix_s)
        self.keystore.save(fitted.own)
        agent = self._awake.get(name)
        if agent is not None:
            self._show(agent, fitted, unix_s)
        return agent

    def wake(
        self,
        name: AgentUri,
        own: OwnIdentity,
        attributes: Mapping[str, AttributeValue],
        unix_s: float,
        *,
        delegates: bool = False,
        is_stored: bool = True,
    ) -> LocalAgent:
        """With a credential that serves, for these attributes; on disk before anybody sees it.

        With ``delegates`` it may have children. Raises what ``Issuer.fitted`` raises.
        """
        before = self._awake.get(name)
        current = own
        if before is None and own.next_key is not None:
            # The rotation was announced, and the announcement has outlived whoever made it.
            current = own.using_next_key(unix_s=unix_s)
        fitted = self._fitted(name, current, attributes, unix_s, delegates=delegates)
        if fitted.is_changed or current is not own or not is_stored:
            self.keystore.save(fitted.own)
        if before is None:
            agent = self._new_agent(name, fitted, unix_s)
        else:
            # The same agent with a newer credential: what waits for it stays with it.
            agent = before
            self._show(agent, fitted, unix_s)
        # Also one that was awake: its parent may have woken in between, and put it to sleep.
        self._awake[name] = agent
        self._awake.move_to_end(name)
        self.put_to_sleep()
        return agent

    def _new_agent(self, name: AgentUri, fitted: _Fitted, unix_s: float) -> LocalAgent:
        own, issuer = fitted.own, fitted.issuer
        identity = issuer.verified(own, unix_s)
        agent = LocalAgent(
            handle=self._next_handle,
            uri=name,
            noise_key=own.purpose_keys[Purpose.CHANNEL].key,
            proof=b"",
            full_proof=b"",
            identity=identity,
            party=Party.from_verified(identity),
            expires_unix_s=0,
            renew_unix_s=0,
            issuer=issuer,
            parent=fitted.parent,
            ends_unix_s=own.ends_unix_s,
            mailbox=Mailbox(
                messages_max=self._messages_max,
                bytes_max=self._bytes_max,
                shared=self.mailbox_room,
            ),
        )
        self._show(agent, fitted, unix_s)
        self._next_handle += 1
        return agent

    def _show(self, agent: LocalAgent, fitted: _Fitted, unix_s: float) -> None:
        """From now on peers see this identity."""
        own = fitted.own
        held = credential_of(own)
        assert held is not None
        agent.issuer, agent.parent = fitted.issuer, fitted.parent
        agent.issuing = None
        agent.ends_unix_s = own.ends_unix_s
        agent.noise_key = own.purpose_keys[Purpose.CHANNEL].key
        agent.proof = agent.full_proof = own.proof(Purpose.CHANNEL)
        further = shown_further(own, unix_s)
        if further.chains:
            agent.full_proof = own.full_proof(Purpose.CHANNEL, further.chains)
        agent.identity = replace(fitted.issuer.verified(own, unix_s), further=further.said)
        agent.party = Party.from_verified(agent.identity)
        agent.expires_unix_s = agent.identity.expires_unix_s
        agent.renew_unix_s = min(due_of(own, held), keys_until(own), further.until_unix_s)


def _attributes_of(own: OwnIdentity) -> Mapping[str, AttributeValue]:
    held = credential_of(own)
    return {} if held is None else held.attributes


def _depth(agent: LocalAgent) -> int:
    return len(agent.uri.path)
