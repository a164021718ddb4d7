"""Our own identities: the private side of what a proof shows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from identity.history import ChangeHistory, create_history, rotate_history
from identity.identifier import Identifier
from identity.keys import NoiseKey, NoisePublicKey, SigningKey
from identity.proof import PROOF_BYTES_MAX, ChainLink, Proof
from identity.purpose import Purpose, PurposeKey, attest

IDENTITY_KEY_LIFETIME_S: Final = 10 * 365 * 86_400
ATTESTATION_LIFETIME_S: Final = 30 * 86_400
# The histories of a whole chain (authority, node, agent, its child and the child's) fit into one
# proof, with room for credentials. An identity with more changes could not show itself any more.
ROTATIONS_MAX: Final = 32
_CHANGE_BYTES_MAX: Final = 240

assert 5 * (ROTATIONS_MAX + 1) * _CHANGE_BYTES_MAX <= PROOF_BYTES_MAX * 7 // 8


@dataclass(frozen=True, slots=True)
class OwnIdentity:
    """One identity with its private keys. `name` is its key in the keystore: ".node", or a path.

    While `next_key` is set, a rotation is announced: the history names that key already, and
    `signing_key`, the one before it, still signs. `issued_by` is the name of whoever issued its
    credential, if that one is in the same keystore; its life ends with `ends_unix_s`, if set.
    `further` are the chains of credentials beside the one that proves its name.
    """

    name: str
    signing_key: SigningKey
    history: ChangeHistory
    purpose_keys: Mapping[Purpose, PurposeKey]
    chain: tuple[ChainLink, ...]
    next_key: SigningKey | None = None
    issued_by: str | None = None
    ends_unix_s: int | None = None
    further: tuple[tuple[ChainLink, ...], ...] = ()

    @property
    def identifier(self) -> Identifier:
        return self.history.identifier

    def proof(self, purpose: Purpose) -> bytes:
        """What proves our name in a handshake, with the key of this purpose. Else KeyError."""
        attestation = self.purpose_keys[purpose].attestation
        return Proof(self.history.encode(), attestation, self.chain).encode()

    def full_proof(self, purpose: Purpose, further: tuple[tuple[ChainLink, ...], ...]) -> bytes:
        """The same and these of its further credentials: for whoever has proved who they are."""
        attestation = self.purpose_keys[purpose].attestation
        return Proof(self.history.encode(), attestation, self.chain, further).encode()

    def proof_for(
        self,
        noise_key: NoisePublicKey,
        purpose: Purpose,
        further: tuple[tuple[ChainLink, ...], ...] = (),
        *,
        unix_s: float,
    ) -> bytes:
        """The full proof for a Noise key of ours that was replaced, and is still in use where a
        handshake has shown it."""
        attestation = attest(
            self.signing_key,
            self.history,
            noise_key,
            purpose,
            not_before_unix_s=int(unix_s),
            expires_unix_s=int(unix_s) + ATTESTATION_LIFETIME_S,
        )
        return Proof(self.history.encode(), attestation, self.chain, further).encode()

    def with_chain(self, chain: tuple[ChainLink, ...]) -> "OwnIdentity":
        return replace(self, chain=chain)

    def below(self, issuer: "OwnIdentity", credential: bytes) -> "OwnIdentity":
        """With a credential of that issuer, and above it whatever proves the issuer now."""
        link = ChainLink(credential, issuer.history.encode())
        return replace(self, chain=(link, *issuer.chain), issued_by=issuer.name)

    def with_new_purpose_keys(self, *, unix_s: float) -> "OwnIdentity":
        """The same identity with fresh Noise keys; call it well before attestations expire."""
        fresh = {purpose: NoiseKey.generate() for purpose in self.purpose_keys}
        keys = _attested(self.signing_key, self.history, fresh, int(unix_s))
        return replace(self, purpose_keys=keys)

    def with_next_key(self, key: SigningKey, *, unix_s: float, overlap_s: int) -> "OwnIdentity":
        """Announce a rotation: the history names the key, which signs nothing else yet.

        ValueError while another rotation is announced, for more than `ROTATIONS_MAX`, or for what
        `rotate_history` refuses.
        """
        if self.next_key is not None:
            raise ValueError("a rotation is announced already")
        if self.history.change_number >= ROTATIONS_MAX:
            raise ValueError(
                f"its key was replaced {ROTATIONS_MAX} times, and no proof would hold more: "
                "begin a new identity"
            )
        created_unix_s = int(unix_s)
        history = rotate_history(
            self.history,
            self.signing_key,
            key,
            created_unix_s=created_unix_s,
            expires_unix_s=created_unix_s + IDENTITY_KEY_LIFETIME_S,
            overlap_s=overlap_s,
        )
        return replace(self, history=history, next_key=key)

    def using_next_key(self, *, unix_s: float) -> "OwnIdentity":
        """Complete the rotation: the announced key signs from now on, the Noise keys stay."""
        if self.next_key is None:
            raise ValueError("no rotation is announced")
        kept = {purpose: held.key for purpose, held in self.purpose_keys.items()}
        keys = _attested(self.next_key, self.history, kept, int(unix_s))
        return replace(self, signing_key=self.next_key, next_key=None, purpose_keys=keys)


def new_identity(name: str, *, unix_s: float, purposes: Iterable[Purpose]) -> OwnIdentity:
    """A new identity with a Noise key for each purpose, and no credential yet."""
    created_unix_s = int(unix_s)
    signing_key = SigningKey.generate()
    history = create_history(
        signing_key,
        created_unix_s=created_unix_s,
        expires_unix_s=created_unix_s + IDENTITY_KEY_LIFETIME_S,
    )
    fresh = {purpose: NoiseKey.generate() for purpose in purposes}
    keys = _attested(signing_key, history, fresh, created_unix_s)
    return OwnIdentity(name, signing_key, history, keys, ())


def _attested(
    signing_key: SigningKey,
    history: ChangeHistory,
    noise_keys: Mapping[Purpose, NoiseKey],
    unix_s: int,
) -> Mapping[Purpose, PurposeKey]:
    keys = {}
    for purpose, key in noise_keys.items():
        attestation = attest(
            signing_key,
            history,
            key.public,
            purpose,
            not_before_unix_s=unix_s,
            expires_unix_s=unix_s + ATTESTATION_LIFETIME_S,
        )
        keys[purpose] = PurposeKey(purpose, key, attestation)
    return MappingProxyType(keys)
