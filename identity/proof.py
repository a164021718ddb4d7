"""Proofs: what a handshake carries to show who speaks. `identity.verifier` judges them."""

from dataclasses import dataclass
from typing import Any, Final

from identity import cbor
from identity.codes import Code
from identity.credential import CHAIN_LINKS_MAX, CREDENTIAL_BYTES_MAX
from identity.errors import IdentityError
from identity.fields import Reader
from identity.purpose import ATTESTATION_BYTES_MAX

PROOF_VERSION: Final = 1
PROOF_BYTES_MAX: Final = 48 * 1024
FURTHER_MAX: Final = 4

_READ: Final = Reader(Code.CHANNEL_PROOF_INVALID)


@dataclass(frozen=True, slots=True)
class ChainLink:
    """One credential and the history of whoever issued it, as received."""

    credential: bytes
    issuer_history: bytes


@dataclass(frozen=True, slots=True)
class Proof:
    """An identity's history, the attestation of its Noise key, and its chain, leaf first.

    `further` are chains by which others, too, vouch for the same identity.
    """

    history: bytes
    attestation: bytes
    chain: tuple[ChainLink, ...]
    further: tuple[tuple[ChainLink, ...], ...] = ()

    def encode(self) -> bytes:
        """ValueError when the whole is too large for a handshake."""
        chains = (self.chain, *self.further)
        listed = [[[link.credential, link.issuer_history] for link in chain] for chain in chains]
        parts = [PROOF_VERSION, self.history, self.attestation, listed[0]]
        encoded = cbor.encode([*parts, listed[1:]] if self.further else parts)
        if (
            len(encoded) > PROOF_BYTES_MAX
            or len(self.further) > FURTHER_MAX
            or any(len(chain) > CHAIN_LINKS_MAX for chain in chains)
        ):
            raise ValueError("a proof that every verifier would refuse as too large")
        return encoded

    @classmethod
    def decode_untrusted(cls, data: bytes) -> "Proof":
        """Take a proof apart. Nothing inside it is checked but lengths."""
        value = cbor.decode_untrusted(
            data, bytes_max=PROOF_BYTES_MAX, depth_max=4, code=Code.CHANNEL_PROOF_INVALID
        )
        version, history, attestation, chain, *rest = _READ.array(value, 5, 4)
        if _READ.integer(version) != PROOF_VERSION:
            raise IdentityError(Code.CHANNEL_VERSION_UNSUPPORTED, f"proof version {version}")
        # An empty list of them has one spelling, which is none.
        further = _READ.array(rest[0], FURTHER_MAX, 1) if rest else []
        return cls(
            _READ.byte_string(history, PROOF_BYTES_MAX),
            _READ.byte_string(attestation, ATTESTATION_BYTES_MAX),
            _read_chain(chain, 0),
            tuple(_read_chain(item, 1) for item in further),
        )


def _read_chain(value: Any, links_min: int) -> tuple[ChainLink, ...]:
    links = []
    for item in _READ.array(value, CHAIN_LINKS_MAX, links_min):
        credential, issuer_history = _READ.array(item, 2, 2)
        links.append(
            ChainLink(
                _READ.byte_string(credential, CREDENTIAL_BYTES_MAX),
                _READ.byte_string(issuer_history, PROOF_BYTES_MAX),
            )
        )
    return tuple(links)
