"""This node itself: its identity, what it trusts, and how it shows itself on a hop."""

from typing import Final

from identity import (
    ChainLink,
    Code,
    Identifier,
    Keystore,
    NoiseKey,
    OwnIdentity,
    ProofVerifier,
    Purpose,
    TrustAnchor,
    VerifiedIdentity,
    VerifiedPeer,
    decode_credential_untrusted,
    new_identity,
)
from node.clocks import Clock
from node.errors import ConfigError
from node.store import Store
from policy import Party
from transport import HopIdentity

# No agent can have this name: a segment of a URI does not begin with a dot.
NODE_KEY: Final = ".node"

# A Noise key that is this old is replaced at the next handshake.
PURPOSE_KEY_SECONDS: Final = 7 * 86_400
_PURPOSE_KEYS_SINCE: Final = "purpose_keys_since"


class OwnNode:
    """Loads or makes the node's identity. ``adopt`` gives it the credential it enrolled for.

    An authority (``authority_of`` is its trust domain) needs no credential: it is its own anchor.
    """

    def __init__(
        self,
        keystore: Keystore,
        store: Store,
        clock: Clock,
        *,
        authority_of: str | None = None,
    ) -> None:
        self._keystore = keystore
        self._store = store
        self._clock = clock
        self._authority_of = authority_of
        self._enrolling_with: TrustAnchor | None = None
        own = keystore.load(NODE_KEY)
        if own is None:
            purposes = (Purpose.HOP, Purpose.CHANNEL)
            own = new_identity(NODE_KEY, unix_s=clock.unix_s(), purposes=purposes)
            keystore.save(own)
            store.put(_PURPOSE_KEYS_SINCE, str(int(clock.unix_s())).encode())
        self._own = own
        self._purpose_keys_since = float(store.get(_PURPOSE_KEYS_SINCE) or b"0")
        self._renew_purpose_keys()
        if authority_of is not None:
            self._become_anchor(authority_of)
        self._trust()

    @property
    def own(self) -> OwnIdentity:
        return self._own

    @property
    def identifier(self) -> Identifier:
        return self._own.identifier

    @property
    def enrolled(self) -> bool:
        """Whether it holds a credential whose time is not over; else it needs a ticket again."""
        return bool(self._own.chain) and self._clock.unix_s() < self._identity.expires_unix_s

    @property
    def channel_key(self) -> NoiseKey:
        # Also here: a program that keeps its hops for a month must not outlive its attestation.
        self._renew_purpose_keys()
        return self._own.purpose_keys[Purpose.CHANNEL].key

    @property
    def channel_proof(self) -> bytes:
        return self._shown().proof(Purpose.CHANNEL)

    @property
    def identity(self) -> VerifiedIdentity:
        """What others see once they have verified us."""
        return self._identity

    def party(self) -> Party:
        return Party.from_verified(self._identity)

    def trust(self, anchor: TrustAnchor) -> None:
        """Trust the authority that a ticket names, for as long as this node tries to enrol there.

        It is kept once its credential is adopted: a ticket that came to nothing leaves no trust.
        """
        self._enrolling_with = anchor
        self._trust()

    def adopt(self, chain: tuple[ChainLink, ...]) -> None:
        """Take the credential of this node's enrolment. The caller has verified it."""
        if self._enrolling_with is not None:
            self._store.add_trust_anchor(self._enrolling_with)
            self._enrolling_with = None
        own = self._own.with_chain(chain)
        self._keystore.save(own)
        self._own = own
        self._trust()

    def hop_identity(self) -> HopIdentity:
        """Asked by the transport at each handshake."""
        self._renew_purpose_keys()
        return HopIdentity(
            identifier=self.identifier,
            key=self._own.purpose_keys[Purpose.HOP].key,
            proof=self._shown().proof(Purpose.HOP),
            verify=self.verify_hop,
        )

    def verify_hop(self, proof: bytes, noise_key: bytes) -> VerifiedPeer:
        unix_s = self._clock.unix_s()
        return self._verifier.verify(proof, purpose=Purpose.HOP, noise_key=noise_key, unix_s=unix_s)

    def verify_channel(
        self, proof: bytes, noise_key: bytes, *, own: Identifier | None = None
    ) -> VerifiedPeer:
        """For channels of the node, or of its agent ``own``. All share what is known of issuers."""
        unix_s = self._clock.unix_s()
        return self._verifier.verify(
            proof, purpose=Purpose.CHANNEL, noise_key=noise_key, unix_s=unix_s, own=own
        )

    def verifier_for(self, own: Identifier) -> ProofVerifier:
        """A verifier with this node's anchors, which refuses ``own`` as a peer."""
        tried = () if self._enrolling_with is None else (self._enrolling_with,)
        return ProofVerifier((*self._store.trust_anchors(), *tried), own=own)

    def _shown(self) -> OwnIdentity:
        """Ourselves as others may see us: a credential that is over would only be refused, also
        where none is needed, at enrolment."""
        return self._own if self.enrolled else self._own.with_chain(())

    def _trust(self) -> None:
        self._verifier = self.verifier_for(self.identifier)
        self._identity = self._own_identity()

    def _own_identity(self) -> VerifiedIdentity:
        if not self._own.chain:
            return VerifiedIdentity(
                identifier=self.identifier,
                name=None,
                kind="unenrolled" if self._authority_of is None else "authority",
                role_of_node=None if self._authority_of is None else "authority",
                trust_domain=self._authority_of,
                issuer=None,
                attributes={},
                delegable=None,
                expires_unix_s=0,
            )
        held = decode_credential_untrusted(self._own.chain[0].credential).credential
        return VerifiedIdentity(
            identifier=self.identifier,
            name=held.name,
            kind="node",
            role_of_node=held.role_of_node,
            trust_domain=held.trust_domain,
            issuer=held.issuer,
            attributes=held.attributes,
            delegable=held.delegable,
            expires_unix_s=held.expires_unix_s,
        )

    def _become_anchor(self, trust_domain: str) -> None:
        for anchor in self._store.trust_anchors():
            if anchor.identifier == self.identifier and anchor.trust_domain != trust_domain:
                raise ConfigError(
                    Code.CONFIG_INVALID,
                    f"trust_domain: this authority has issued for {anchor.trust_domain!r}, "
                    f"not {trust_domain!r}",
                    remedy=f"Set trust_domain to {anchor.trust_domain}, or choose another --state.",
                )
        self._store.add_trust_anchor(TrustAnchor(self.identifier, trust_domain))

    def _renew_purpose_keys(self) -> None:
        unix_s = self._clock.unix_s()
        if unix_s - self._purpose_keys_since < PURPOSE_KEY_SECONDS:
            return
        self._own = self._own.with_new_purpose_keys(unix_s=unix_s)
        self._keystore.save(self._own)
        self._purpose_keys_since = unix_s
        self._store.put(_PURPOSE_KEYS_SINCE, str(int(unix_s)).encode())
