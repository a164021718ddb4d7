"""This node itself: its identity, what it trusts, and how it shows itself on a hop."""

from collections.abc import Callable
from typing import Final

from identity import (
    ChainLink,
    ChangeHistory,
    Code,
    Credential,
    Identifier,
    Keystore,
    NoiseKey,
    NoisePublicKey,
    OwnIdentity,
    ProofVerifier,
    Purpose,
    SigningKey,
    TrustAnchor,
    VerifiedIdentity,
    VerifiedPeer,
    decode_credential_untrusted,
    new_identity,
)
from identity.history import CLOCK_SKEW_S
from identity.revocation import GRACE_S
from identity.verifier import CHAIN_LINKS
from node.clocks import Clock
from node.errors import ConfigError
from node.store import Store
from node.trust import Trust
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
        grace_s: int = GRACE_S,
        chain_links_max: int = CHAIN_LINKS,
    ) -> None:
        self._keystore = keystore
        self._store = store
        self._clock = clock
        self._authority_of = authority_of
        self._enrolling_with: TrustAnchor | None = None
        self.on_change: list[Callable[[], None]] = []
        """Called when what this node shows of itself has changed: neighbours are to see it."""
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
        self.trust = Trust(
            store, clock, own.identifier, grace_s=grace_s, chain_links_max=chain_links_max
        )
        self._identity = self._own_identity()
        self.trust.on_news.append(self._look_again)

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

    def try_authority(self, anchor: TrustAnchor) -> None:
        """Trust the authority that a ticket names, for as long as this node tries to enrol there.

        It is kept once its credential is adopted: a ticket that came to nothing leaves no trust.
        Raises SidelinkError for one that is trusted for another domain already.
        """
        self.trust.try_anchor(anchor)
        self._enrolling_with = anchor

    def adopt(self, chain: tuple[ChainLink, ...]) -> None:
        """Take the credential of this node's enrolment or renewal. The caller has verified it."""
        if self._enrolling_with is not None:
            self.trust.add(self._enrolling_with)
            self._enrolling_with = None
        self._become(self._own.with_chain(chain))

    def announce_key(self, *, overlap_s: int) -> None:
        """Begin a rotation: the history names a new key, which signs nothing yet.

        ValueError while one is announced already. On the disk before anybody sees it.
        """
        unix_s = self._clock.unix_s()
        self._become(
            self._own.with_next_key(SigningKey.generate(), unix_s=unix_s, overlap_s=overlap_s)
        )

    def use_announced_key(self) -> None:
        """Complete the rotation that is announced."""
        self._become(self._own.using_next_key(unix_s=self._clock.unix_s()))

    def proof_for_hop(self, noise_key: bytes) -> bytes:
        """What to show on a hop that is open, for the Noise key that its handshake showed.

        The key may have been replaced since: that it is this node's, the node attests anew.
        """
        shown = self._shown()
        if noise_key == shown.purpose_keys[Purpose.HOP].key.public.raw:
            return shown.proof(Purpose.HOP)
        return shown.proof_for(NoisePublicKey(noise_key), Purpose.HOP, unix_s=self._clock.unix_s())

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
        return self.trust.verifier.verify(
            proof, purpose=Purpose.HOP, noise_key=noise_key, unix_s=self._clock.unix_s()
        )

    def verify_channel(
        self,
        proof: bytes,
        noise_key: bytes,
        *,
        own: Identifier | None = None,
        is_live: bool = False,
    ) -> VerifiedPeer:
        """For channels of the node, or of its agent ``own``. All share what is known of issuers."""
        return self.trust.verifier.verify(
            proof,
            purpose=Purpose.CHANNEL,
            noise_key=noise_key,
            unix_s=self._clock.unix_s(),
            own=own,
            is_live=is_live,
        )

    def verifier_for(self, own: Identifier) -> ProofVerifier:
        """A verifier with this node's anchors, which refuses ``own`` as a peer."""
        return self.trust.verifier_for(own)

    def _shown(self) -> OwnIdentity:
        """Ourselves as others may see us: a credential that is over would only be refused, also
        where none is needed, at enrolment."""
        return self._own if self.enrolled else self._own.with_chain(())

    def _look_again(self) -> None:
        # A list brings the authority's history along: a key that signed for us may end by it.
        self._identity = self._own_identity()

    def _become(self, own: OwnIdentity) -> None:
        """Be another version of oneself: first on the disk, then for all who ask."""
        self._keystore.save(own)
        self._own = own
        self._identity = self._own_identity()
        for listener in self.on_change:
            listener()

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
                authority=None if self._authority_of is None else self.identifier,
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
            expires_unix_s=self._ends_unix_s(held),
            authority=held.issuer,
        )

    def _ends_unix_s(self, held: Credential) -> int:
        """When our credential ends: by itself, or with the key of the authority that signed it."""
        history = ChangeHistory.decode_untrusted(self._own.chain[0].issuer_history)
        known = self.trust.verifier.anchor_history(held.issuer)
        # What is known of it is written down a little later than a credential, so a crash in
        # between leaves a chain that knows more.
        if known is not None and known.change_number > history.change_number:
            history = known
        return min(held.expires_unix_s, history.key_until_unix_s(held.issuer_change_number))

    def _become_anchor(self, trust_domain: str) -> None:
        for anchor in self._store.trust_anchors():
            if anchor.identifier == self.identifier and anchor.trust_domain != trust_domain:
                raise ConfigError(
                    Code.CONFIG_INVALID,
                    f"trust_domain: this authority has issued for {anchor.trust_domain!r}, "
                    f"not {trust_domain!r}",
                    remedy=f"Set trust_domain to {anchor.trust_domain}, or choose another --state.",
                )
        anchor = TrustAnchor(self.identifier, trust_domain)
        self._store.add_trust_anchor(anchor, unix_s=int(self._clock.unix_s()))

    def _renew_purpose_keys(self) -> None:
        unix_s = self._clock.unix_s()
        age_s = unix_s - self._purpose_keys_since
        # One of the future is what a clock that was put right leaves behind: peers refuse it.
        if -CLOCK_SKEW_S <= age_s < PURPOSE_KEY_SECONDS:
            return
        self._own = self._own.with_new_purpose_keys(unix_s=unix_s)
        self._keystore.save(self._own)
        self._purpose_keys_since = unix_s
        self._store.put(_PURPOSE_KEYS_SINCE, str(int(unix_s)).encode())
