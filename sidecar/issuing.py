"""What this node says of its agents, and they of their children: whether a credential still
serves, and a new one if not.

Each is issued within what the issuer's own credential delegates; so whoever verifies the agent also
verifies that neither the node nor an agent above it could have said more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

from identity import (
    AgentUri,
    AttributeValue,
    Code,
    Credential,
    Delegable,
    IdentityError,
    NamePrefix,
    OwnIdentity,
    Purpose,
    SidelinkError,
    VerifiedIdentity,
    check_delegation,
    decode_credential_untrusted,
    issue_credential,
)

AGENT_CREDENTIAL_SECONDS: Final = 24 * 3600
NOISE_KEY_SECONDS: Final = 7 * 86_400
# Each is looked at a few times while its agent wakes, and then not for hours.
DECODED_MAX: Final = 16


@dataclass(frozen=True, slots=True, eq=False)
class Issuer:
    """This node, or an agent with children, as it signs now.

    Another one takes its place when its key or credential changes.
    """

    own: OwnIdentity
    identity: VerifiedIdentity
    credential: Credential
    delegable: Delegable
    change_number: int
    """The change of its history that named the key with which it signs."""

    @classmethod
    def of(cls, own: OwnIdentity, identity: VerifiedIdentity) -> Self:
        assert identity.delegable is not None, "it may issue credentials"
        return cls(
            own=own,
            identity=identity,
            credential=decode_credential_untrusted(own.chain[0].credential).credential,
            delegable=identity.delegable,
            change_number=own.history.number_of(own.signing_key.verify_key),
        )

    def is_still(self, own: OwnIdentity) -> bool:
        """Whether the node signs, and proves itself, as it did. Its Noise keys do not matter."""
        return (
            own.signing_key is self.own.signing_key
            and own.history == self.own.history
            and own.chain == self.own.chain
        )

    def fitted(
        self,
        name: AgentUri,
        own: OwnIdentity,
        attributes: Mapping[str, AttributeValue],
        unix_s: float,
        *,
        delegates: bool = False,
    ) -> OwnIdentity:
        """The identity with a credential and Noise keys that serve; itself if those it has do.

        With ``delegates`` it may have children, and so from then on. Raises SidelinkError for what
        this issuer may not say: local.attribute_denied of the node, local.delegation_denied of an
        agent; and local.agent_expired when its time is over.
        """
        if own.ends_unix_s is not None and unix_s >= own.ends_unix_s:
            raise SidelinkError(Code.LOCAL_AGENT_EXPIRED, f"{name}: its time to live is over")
        held = credential_of(own)
        # Without a credential it was made just now, and its keys with it.
        if held is not None and not _has_fresh_keys(own, unix_s):
            own = own.with_new_purpose_keys(unix_s=unix_s)
        delegates = delegates or (held is not None and held.delegable is not None)
        may = self._passed_on(name, attributes) if delegates else None
        if held is None or not self._serves(held, own, attributes, may, unix_s):
            own = own.below(self.own, self._issue(name, own, attributes, may, unix_s))
        return own

    def _passed_on(
        self, name: AgentUri, attributes: Mapping[str, AttributeValue]
    ) -> Delegable | None:
        """What an agent may pass on to children: names below its own, and what it has itself."""
        if self.delegable.depth <= 1:
            return None
        return Delegable(
            name_prefixes=(NamePrefix(name.trust_domain, name.path),),
            attributes={key: (value,) for key, value in attributes.items()},
            actions=self.delegable.actions,
            depth=self.delegable.depth - 1,
            lifetime_s_max=self.delegable.lifetime_s_max,
        )

    def verified(self, own: OwnIdentity, unix_s: float) -> VerifiedIdentity:
        """What peers see once they have verified an identity that was ``fitted``."""
        held = credential_of(own)
        assert held is not None
        _, key_until_unix_s = self.own.history.key_for(held.issuer_change_number, unix_s)
        return VerifiedIdentity(
            identifier=own.identifier,
            name=held.name,
            kind="agent",
            role_of_node=None,
            trust_domain=held.trust_domain,
            issuer=held.issuer,
            attributes=held.attributes,
            delegable=held.delegable,
            expires_unix_s=min(held.expires_unix_s, key_until_unix_s, self.identity.expires_unix_s),
            ancestors=(self.identity, *self.identity.ancestors),
            authority=self.identity.authority,
        )

    def _serves(
        self,
        held: Credential,
        own: OwnIdentity,
        attributes: Mapping[str, AttributeValue],
        may: Delegable | None,
        unix_s: float,
    ) -> bool:
        return (
            # One that begins in the future is what a clock that was put right leaves behind.
            held.not_before_unix_s <= unix_s < due_of(own, held)
            and (own.ends_unix_s is None or held.expires_unix_s <= own.ends_unix_s)
            and (held.delegable is None) == (may is None)
            and held.issuer == self.own.identifier
            # A key that was superseded verifies for its overlap only.
            and held.issuer_change_number == self.change_number
            and held.pin == own.history.pin
            and dict(held.attributes) == dict(attributes)
            and self._may_say(held)
        )

    def _may_say(self, held: Credential) -> bool:
        """Whether it still lies within what this node's own credential delegates."""
        try:
            check_delegation(self.credential, held)
        except IdentityError:
            return False
        return True

    def _issue(
        self,
        name: AgentUri,
        own: OwnIdentity,
        attributes: Mapping[str, AttributeValue],
        may: Delegable | None,
        unix_s: float,
    ) -> bytes:
        now_s = int(unix_s)
        lifetime_s = min(AGENT_CREDENTIAL_SECONDS, self.delegable.lifetime_s_max)
        expires_unix_s = min(now_s + lifetime_s, self.credential.expires_unix_s)
        if own.ends_unix_s is not None:
            expires_unix_s = min(expires_unix_s, own.ends_unix_s)
        try:
            signed = issue_credential(
                self.own.signing_key,
                self.own.history,
                own.history,
                name=name,
                trust_domain=self.credential.trust_domain,
                kind="agent",
                role_of_node=None,
                attributes=attributes,
                delegable=may,
                not_before_unix_s=now_s,
                expires_unix_s=expires_unix_s,
            )
            check_delegation(self.credential, signed.credential)
        except IdentityError as exc:
            is_node = self.credential.kind == "node"
            code = Code.LOCAL_ATTRIBUTE_DENIED if is_node else Code.LOCAL_DELEGATION_DENIED
            raise SidelinkError(code, exc.detail) from exc
        return signed.encoded


def credential_of(own: OwnIdentity) -> Credential | None:
    """The credential that proves the identity's name, if it has one."""
    return _decode(own.chain[0].credential) if own.chain else None


@lru_cache(maxsize=DECODED_MAX)
def _decode(encoded: bytes) -> Credential:
    return decode_credential_untrusted(encoded).credential


def due_of(own: OwnIdentity, held: Credential) -> float:
    """When the credential is due for another: at half its life, or never if its subject ends
    with it."""
    if held.expires_unix_s == own.ends_unix_s:
        return held.expires_unix_s
    return (held.issued_unix_s + held.expires_unix_s) / 2


def keys_until(own: OwnIdentity) -> float:
    """When the Noise key for channels is due for another."""
    return own.purpose_keys[Purpose.CHANNEL].since_unix_s + NOISE_KEY_SECONDS


def _has_fresh_keys(own: OwnIdentity, unix_s: float) -> bool:
    # One of the future, too, is what a clock that was put right leaves behind.
    return own.purpose_keys[Purpose.CHANNEL].since_unix_s <= unix_s < keys_until(own)
