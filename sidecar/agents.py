"""The agents of this sidecar: minted on first use, loaded when somebody calls, idle as rows.

An agent's credential is issued by this node within what its own credential delegates; so whoever
verifies the agent also verifies that the node could not have said more.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from sidelink.wire import Attributes

from identity import (
    AgentUri,
    AttributeValue,
    ChainLink,
    Code,
    Delegable,
    IdentityError,
    Keystore,
    NoiseKey,
    NoisePublicKey,
    OwnIdentity,
    Purpose,
    SidelinkError,
    VerifiedIdentity,
    check_delegation,
    decode_credential_untrusted,
    issue_credential,
    new_identity,
)
from policy import Party
from sidecar.mailbox import MAILBOX_BYTES_MAX, MAILBOX_MESSAGES_MAX, Mailbox, SharedRoom

_log = structlog.get_logger("sidecar.agents")

AGENT_CREDENTIAL_SECONDS: Final = 24 * 3600

# Beyond so many agents with their keys in memory, those that nobody holds are rows in the keystore
# until somebody calls. To wake one takes a tenth of the handshake that it is woken for.
AGENTS_AWAKE_MAX: Final = 1_024
# Of those that were called longest ago, so many are looked at for each that wakes or is let go.
LOOKED_AT_MAX: Final = 8


@dataclass(slots=True, eq=False)
class LocalAgent:
    """One agent that is awake: its keys are in memory, its mailbox exists."""

    handle: int
    uri: AgentUri
    noise_key: NoiseKey
    proof: bytes
    identity: VerifiedIdentity
    party: Party
    expires_unix_s: float
    renew_unix_s: float
    mailbox: Mailbox
    users: int = 0
    """Sessions, services and channels that hold it open; while any does, it stays awake."""

    @property
    def attributes(self) -> Attributes:
        return dict(self.identity.attributes)


class AgentRegistry:
    """Finds and mints the agents under this node's prefixes."""

    def __init__(
        self,
        keystore: Keystore,
        node: OwnIdentity,
        node_identity: VerifiedIdentity,
        *,
        messages_max: int = MAILBOX_MESSAGES_MAX,
        bytes_max: int = MAILBOX_BYTES_MAX,
        mailbox_room: SharedRoom | None = None,
        awake_max: int = AGENTS_AWAKE_MAX,
    ) -> None:
        assert node_identity.name is not None
        assert node_identity.delegable is not None, "a sidecar's credential delegates names"
        self._keystore = keystore
        self._node = node
        self._node_identity = node_identity
        self._delegable: Delegable = node_identity.delegable
        self._node_credential = decode_credential_untrusted(node.chain[0].credential).credential
        self._trust_domain = node_identity.name.trust_domain
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
        return any(prefix.covers(name) for prefix in self._delegable.name_prefixes)

    def names(self) -> list[str]:
        """Every agent's URI, awake or not."""
        paths = (name for name in self._keystore.names() if name != self._node.name)
        return [str(AgentUri.in_domain(self._trust_domain, path)) for path in paths]

    def find(self, name: AgentUri, unix_s: float) -> LocalAgent | None:
        """The agent of this name, woken if it sleeps; None if this sidecar has none.

        When its credential cannot be renewed the one that it has serves until it ends.
        """
        agent = self._awake.get(name)
        if agent is not None and unix_s < agent.renew_unix_s:
            self._awake.move_to_end(name)
            return agent
        if not self.covers(name):
            return None
        try:
            own = self._keystore.load("/".join(name.path))
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
        if agent is not None and same and unix_s < agent.renew_unix_s:
            self._awake.move_to_end(name)
            return agent
        own = self._keystore.load(path)
        if own is None:
            own = new_identity(path, unix_s=unix_s, purposes=(Purpose.CHANNEL,))
        return self._wake(name, own, attributes, unix_s)

    def forget(self, agent: LocalAgent) -> None:
        """Drop an agent from memory, whoever holds it: it is to be nobody any more."""
        self._awake.pop(agent.uri, None)

    def proof_for(self, agent: LocalAgent, noise_key: bytes, unix_s: float) -> bytes:
        """What this agent shows now where a handshake has shown this Noise key of it."""
        if noise_key == agent.noise_key.public.raw:
            return agent.proof
        own = self._keystore.load("/".join(agent.uri.path))
        assert own is not None, "an agent that is awake has a row"
        return own.proof_for(NoisePublicKey(noise_key), Purpose.CHANNEL, unix_s=unix_s)

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
            prefixes = ", ".join(str(prefix) for prefix in self._delegable.name_prefixes)
            raise SidelinkError(
                Code.LOCAL_NAME_OUTSIDE_PREFIX, f"{name}: this sidecar may name {prefixes}"
            )

    def _wake(
        self,
        name: AgentUri,
        own: OwnIdentity,
        attributes: Mapping[str, AttributeValue],
        unix_s: float,
    ) -> LocalAgent:
        own = self._renewed(name, own, attributes, unix_s)
        credential = decode_credential_untrusted(own.chain[0].credential).credential
        identity = VerifiedIdentity(
            identifier=own.history.identifier,
            name=name,
            kind="agent",
            role_of_node=None,
            trust_domain=self._trust_domain,
            issuer=credential.issuer,
            attributes=credential.attributes,
            delegable=credential.delegable,
            expires_unix_s=credential.expires_unix_s,
            ancestors=(self._node_identity, *self._node_identity.ancestors),
        )
        before = self._awake.get(name)
        agent = LocalAgent(
            handle=self._next_handle if before is None else before.handle,
            uri=name,
            noise_key=own.purpose_keys[Purpose.CHANNEL].key,
            proof=own.proof(Purpose.CHANNEL),
            identity=identity,
            party=Party.from_verified(identity),
            expires_unix_s=credential.expires_unix_s,
            renew_unix_s=(credential.issued_unix_s + credential.expires_unix_s) / 2,
            mailbox=Mailbox(
                messages_max=self._messages_max,
                bytes_max=self._bytes_max,
                shared=self.mailbox_room,
            ),
        )
        if before is None:
            self._next_handle += 1
        else:
            # The same agent with a newer credential: what waits for it stays with it.
            before.noise_key, before.proof = agent.noise_key, agent.proof
            before.identity, before.party = agent.identity, agent.party
            before.expires_unix_s = agent.expires_unix_s
            before.renew_unix_s = agent.renew_unix_s
            agent = before
        self._awake[name] = agent
        self._awake.move_to_end(name)
        self.put_to_sleep()
        return agent

    def _renewed(
        self,
        name: AgentUri,
        own: OwnIdentity,
        attributes: Mapping[str, AttributeValue],
        unix_s: float,
    ) -> OwnIdentity:
        """The identity with a credential that is past neither half its life nor its attributes."""
        if own.chain:
            held = decode_credential_untrusted(own.chain[0].credential).credential
            # One that begins in the future is what a clock that was put right leaves behind.
            middle_unix_s = (held.issued_unix_s + held.expires_unix_s) / 2
            fresh = held.not_before_unix_s <= unix_s < middle_unix_s
            same_node = own.chain[1:] == self._node.chain
            if fresh and same_node and dict(held.attributes) == dict(attributes):
                return own
        now_s = int(unix_s)
        lifetime_s = min(AGENT_CREDENTIAL_SECONDS, self._delegable.lifetime_s_max)
        try:
            signed = issue_credential(
                self._node.signing_key,
                self._node.history,
                own.history,
                name=name,
                trust_domain=self._trust_domain,
                kind="agent",
                role_of_node=None,
                attributes=attributes,
                delegable=None,
                not_before_unix_s=now_s,
                expires_unix_s=min(now_s + lifetime_s, self._node_credential.expires_unix_s),
            )
            check_delegation(self._node_credential, signed.credential)
        except IdentityError as exc:
            raise SidelinkError(Code.LOCAL_ATTRIBUTE_DENIED, exc.detail) from exc
        link = ChainLink(signed.encoded, self._node.history.encode())
        renewed = own.with_new_purpose_keys(unix_s=unix_s) if own.chain else own
        renewed = renewed.with_chain((link, *self._node.chain))
        self._keystore.save(renewed)
        return renewed


def _attributes_of(own: OwnIdentity) -> Mapping[str, AttributeValue]:
    if not own.chain:
        return {}
    return decode_credential_untrusted(own.chain[0].credential).credential.attributes
