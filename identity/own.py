"""Our own identities: the private side of what a proof shows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from identity.history import ChangeHistory, create_history
from identity.identifier import Identifier
from identity.keys import NoiseKey, SigningKey
from identity.proof import ChainLink, Proof
from identity.purpose import Purpose, PurposeKey, attest

IDENTITY_KEY_LIFETIME_S: Final = 10 * 365 * 86_400
ATTESTATION_LIFETIME_S: Final = 30 * 86_400


@dataclass(frozen=True, slots=True)
class OwnIdentity:
    """One identity with its private keys. `name` is its key in the keystore: "node", or a path."""

    name: str
    signing_key: SigningKey
    history: ChangeHistory
    purpose_keys: Mapping[Purpose, PurposeKey]
    chain: tuple[ChainLink, ...]

    @property
    def identifier(self) -> Identifier:
        return self.history.identifier

    def proof(self, purpose: Purpose) -> bytes:
        """What to present in a handshake with the key of this purpose. KeyError without one."""
        attestation = self.purpose_keys[purpose].attestation
        return Proof(self.history.encode(), attestation, self.chain).encode()

    def with_chain(self, chain: tuple[ChainLink, ...]) -> "OwnIdentity":
        return replace(self, chain=chain)

    def with_new_purpose_keys(self, *, unix_s: float) -> "OwnIdentity":
        """The same identity with fresh Noise keys; call it well before attestations expire."""
        keys = _purpose_keys(self.signing_key, self.history, self.purpose_keys, int(unix_s))
        return replace(self, purpose_keys=keys)


def new_identity(name: str, *, unix_s: float, purposes: Iterable[Purpose]) -> OwnIdentity:
    """A new identity with a Noise key for each purpose, and no credential yet."""
    created_unix_s = int(unix_s)
    signing_key = SigningKey.generate()
    history = create_history(
        signing_key,
        created_unix_s=created_unix_s,
        expires_unix_s=created_unix_s + IDENTITY_KEY_LIFETIME_S,
    )
    keys = _purpose_keys(signing_key, history, purposes, created_unix_s)
    return OwnIdentity(name, signing_key, history, keys, ())


def _purpose_keys(
    signing_key: SigningKey, history: ChangeHistory, purposes: Iterable[Purpose], unix_s: int
) -> Mapping[Purpose, PurposeKey]:
    keys = {}
    for purpose in purposes:
        key = NoiseKey.generate()
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
