"""The agents of this sidecar: minted on first use, loaded when somebody calls, idle as rows."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
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
from sidecar.issuing import Issuer, credential_of, half_life_of, keys_until
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
    """This node, as it was when it made the proof."""
    mailbox: Mailbox
    users: int = 0
    """Sessions, services and channels that hold it open; while any does, it stays awake."""

    @property
    def attributes(self) -> Attributes:
        return dict(self.identity.attributes)


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
        self._keystore = keystore
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
    def awake(self) -> int:
        return len(self._awake)

    def awake_agents(self) -> list[LocalAgent]:
        return list(self._awake.values())

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
        rows = self._keystore.names(after.removeprefix(base), limit + 1)
        return [base + row for row in rows if row != self._node_seen.name][:limit]

    def find(self, name: AgentUri, unix_s: float) -> LocalAgent | None:
        """The agent of this name, woken if it sleeps; None if this sidecar has none.

        When its credential cannot be renewed the one that it has serves until it ends.
        """
        agent = self._awake.get(name)
        if agent is not None and self._is_as_it_should_be(agent, unix_s):
            self._awake.move_to_end(name)
            return agent
        if not self.covers(name):
            return None
        try:
            own = self._load("/".join(name.path))
            return None if own is None else self._wake(name, own, _attributes_of(own), unix_s)
        except SidelinkError as exc:
            # Peers' openings lead here: one damaged row, or this node's own credential at its end,
            # must cost no more than this agent.
            _log.warning("agent_unavailable", agent=str(name), code=exc.code.text, why=exc.detail)
            return agent if agent is not None and unix_s < agent.expires_unix_s else None

    def open(
        self, path: str, attributes: Mapping[str, AttributeValue], unix_s: float
    ) -> LocalAgent:
        """Return the agent of this name with these attributes, minting what is missing.

        Raises SidelinkError: local.bad_request for a malformed name, local.name_outside_prefix,
        local.attribute_denied.
        """
        try:
            name = AgentUri.in_domain(self._trust_domain, path)
        except IdentityError as exc:
            raise SidelinkError(Code.LOCAL_BAD_REQUEST, exc.detail) from exc
        self._check(name)
        agent = self._awake.get(name)
        same = agent is not None and dict(agent.identity.attributes) == dict(attributes)
        if agent is not None and same and self._is_as_it_should_be(agent, unix_s):
            self._awake.move_to_end(name)
            return agent
        own = self._load(path)
        if own is None:
            own = new_identity(path, unix_s=unix_s, purposes=(Purpose.CHANNEL,))
        return self._wake(name, own, attributes, unix_s)

    def forget(self, agent: LocalAgent) -> None:
        """Drop an agent from memory, whoever holds it: it is to be nobody any more."""
        self._awake.pop(agent.uri, None)

    def proof_for(self, agent: LocalAgent, noise_key: bytes, unix_s: float) -> bytes:
        """What this agent shows now where a handshake has shown this Noise key of it."""
        if noise_key == agent.noise_key.public.raw:
            return agent.full_proof
        own = self._existing("/".join(agent.uri.path))
        return own.proof_for(NoisePublicKey(noise_key), Purpose.CHANNEL, unix_s=unix_s)

    def look_up(self, path: str, unix_s: float) -> tuple[OwnIdentity, VerifiedIdentity]:
        """An agent as it is on the disk, for an operator. Raises SidelinkError: local.bad_request,
        local.agent_unknown."""
        name, own = self._named(path)
        agent = self._awake.get(name)
        return own, self.issuer.verified(own, unix_s) if agent is None else agent.identity

    def reissue(self, agents: Iterable[LocalAgent], unix_s: float) -> list[LocalAgent]:
        """Bring the proofs of these agents up to what this node is now; returns those changed.

        For when the node's credential was renewed or its key rotated: who sleeps is brought up to
        date when it wakes. Saved in one transaction, before any of it is shown. An agent of which
        the node may no longer say what it said keeps the proof that it has, until that ends.
        """
        due: list[tuple[LocalAgent, OwnIdentity]] = []
        rows: list[OwnIdentity] = []
        for agent in agents:
            if self._is_as_it_should_be(agent, unix_s):
                continue
            try:
                own = self._existing("/".join(agent.uri.path))
                fitted = self.issuer.fitted(agent.uri, own, _attributes_of(own), unix_s)
            except SidelinkError as exc:
                _log.warning(
                    "agent_not_renewed", agent=str(agent.uri), code=exc.code.text, why=exc.detail
                )
                continue
            due.append((agent, fitted))
            if fitted is not own:
                rows.append(fitted)
        self._keystore.save_many(rows)
        for agent, fitted in due:
            self._show(agent, fitted, unix_s)
        return [agent for agent, _ in due]

    def rotate(self, path: str, unix_s: float, overlap_s: int) -> LocalAgent | None:
        """Announce another signing key for the agent, awake or not; it signs nothing yet.

        A rotation that is announced already stays as it is. Returns the agent if it is awake: its
        proof has changed. Raises SidelinkError: local.agent_unknown, local.bad_request.
        """
        name, own = self._named(path)
        if own.next_key is None:
            try:
                own = own.with_next_key(SigningKey.generate(), unix_s=unix_s, overlap_s=overlap_s)
            except ValueError as exc:
                raise SidelinkError(Code.LOCAL_BAD_REQUEST, str(exc)) from exc
            return self._save_changed(name, own, unix_s)
        return self._awake.get(name)

    def complete_rotation(self, path: str, unix_s: float) -> LocalAgent | None:
        """Let the announced key sign from now on. One that was completed at a wake stays so.

        Returns the agent if it is awake. Raises SidelinkError: local.agent_unknown.
        """
        name, own = self._named(path)
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
        return unix_s < agent.renew_unix_s and agent.issuer is self.issuer

    def _load(self, path: str) -> OwnIdentity | None:
        return self._keystore.load(path, self._held)

    def _held(self, name: str) -> OwnIdentity | None:
        """What the keystore need not read again to complete a chain."""
        own = self.issuer.own
        return own if name == own.name else None

    def _existing(self, path: str) -> OwnIdentity:
        own = self._load(path)
        if own is None:
            raise SidelinkError(Code.LOCAL_AGENT_UNKNOWN, f"there is no agent {path!r} here")
        return own

    def _named(self, path: str) -> tuple[AgentUri, OwnIdentity]:
        try:
            name = AgentUri.in_domain(self._trust_domain, path)
        except IdentityError as exc:
            raise SidelinkError(Code.LOCAL_BAD_REQUEST, exc.detail) from exc
        return name, self._existing(path)

    def _save_changed(self, name: AgentUri, own: OwnIdentity, unix_s: float) -> LocalAgent | None:
        """With a credential that pins its newest key; on disk before anybody sees it."""
        fitted = self.issuer.fitted(name, own, _attributes_of(own), unix_s)
        self._keystore.save(fitted)
        agent = self._awake.get(name)
        if agent is not None:
            self._show(agent, fitted, unix_s)
        return agent

    def _wake(
        self,
        name: AgentUri,
        own: OwnIdentity,
        attributes: Mapping[str, AttributeValue],
        unix_s: float,
    ) -> LocalAgent:
        before = self._awake.get(name)
        current = own
        if before is None and own.next_key is not None:
            # The rotation was announced, and the announcement has outlived whoever made it.
            current = own.using_next_key(unix_s=unix_s)
        fitted = self.issuer.fitted(name, current, attributes, unix_s)
        if fitted is not own:
            self._keystore.save(fitted)
        if before is None:
            agent = self._new_agent(name, fitted, unix_s)
            self._awake[name] = agent
        else:
            # The same agent with a newer credential: what waits for it stays with it.
            agent = before
            self._show(agent, fitted, unix_s)
        self._awake.move_to_end(name)
        self.put_to_sleep()
        return agent

    def _new_agent(self, name: AgentUri, own: OwnIdentity, unix_s: float) -> LocalAgent:
        identity = self.issuer.verified(own, unix_s)
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
            issuer=self.issuer,
            mailbox=Mailbox(
                messages_max=self._messages_max,
                bytes_max=self._bytes_max,
                shared=self.mailbox_room,
            ),
        )
        self._show(agent, own, unix_s)
        self._next_handle += 1
        return agent

    def _show(self, agent: LocalAgent, own: OwnIdentity, unix_s: float) -> None:
        """From now on peers see this identity."""
        held = credential_of(own)
        assert held is not None
        agent.issuer = self.issuer
        agent.noise_key = own.purpose_keys[Purpose.CHANNEL].key
        agent.proof = agent.full_proof = own.proof(Purpose.CHANNEL)
        if own.further:
            agent.full_proof = own.full_proof(Purpose.CHANNEL)
        agent.identity = self.issuer.verified(own, unix_s)
        agent.party = Party.from_verified(agent.identity)
        agent.expires_unix_s = agent.identity.expires_unix_s
        agent.renew_unix_s = min(half_life_of(held), keys_until(own))


def _attributes_of(own: OwnIdentity) -> Mapping[str, AttributeValue]:
    held = credential_of(own)
    return {} if held is None else held.attributes
