"""Credentials of other issuers about our agents: taken after all of it was verified, shown while
they are good, and left out in time."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from identity import (
    AttributeValue,
    ChainLink,
    ChangeHistory,
    Code,
    Credential,
    Identifier,
    OwnIdentity,
    Proof,
    ProofVerifier,
    Purpose,
    SidelinkError,
    TrustAnchor,
    decode_credential_untrusted,
)
from identity.fields import UNIX_S_MAX
from identity.proof import FURTHER_MAX

# A proof lapses with the first credential in it. One that ends soon is left out of it, so that only
# what it said ends, and not the channel.
LEFT_OUT_SECONDS: Final = 60
LEFT_OUT_SHARE: Final = 10


@dataclass(frozen=True, slots=True)
class ShownFurther:
    """What an agent shows beside the chain that proves its name, and until when it stays so."""

    chains: tuple[tuple[ChainLink, ...], ...]
    said: Mapping[Identifier, Mapping[str, AttributeValue]]
    until_unix_s: float


def shown_further(own: OwnIdentity, unix_s: float) -> ShownFurther:
    """Those of its further credentials that are good now, and for a while."""
    chains, said = [], {}
    until_unix_s: float = UNIX_S_MAX
    for chain in own.further:
        held = _credential_of(chain)
        left_out_unix_s = _left_out_unix_s(held)
        if unix_s < left_out_unix_s:
            chains.append(chain)
            said[held.issuer] = held.attributes
            until_unix_s = min(until_unix_s, left_out_unix_s)
    return ShownFurther(tuple(chains), said, until_unix_s)


def with_voucher(own: OwnIdentity, link: ChainLink, unix_s: float) -> OwnIdentity:
    """The identity with one more issuer's word, in the place of what that issuer said before.

    Raises IdentityError for what no peer would accept, SidelinkError (local.bad_request) for what
    is about somebody else, and local.limit.
    """
    held = decode_credential_untrusted(link.credential).credential
    if held.subject != own.identifier:
        raise SidelinkError(Code.LOCAL_BAD_REQUEST, f"it is about {held.subject}")
    if own.chain and held.issuer == _credential_of(own.chain).issuer:
        raise SidelinkError(
            Code.LOCAL_BAD_REQUEST, "it is by the issuer of the credential that proves the name"
        )
    # As a peer would that trusts this issuer, and nobody else.
    issuer = ChangeHistory.decode_untrusted(link.issuer_history).identifier
    channel_key = own.purpose_keys[Purpose.CHANNEL]
    proof = Proof(own.history.encode(), channel_key.attestation, (link,))
    ProofVerifier([TrustAnchor(issuer, held.trust_domain)], own=issuer).verify(
        proof.encode(),
        purpose=Purpose.CHANNEL,
        noise_key=channel_key.key.public.raw,
        unix_s=unix_s,
    )
    others = [
        chain
        for chain in own.further
        if _credential_of(chain).issuer != held.issuer
        and unix_s < _credential_of(chain).expires_unix_s
    ]
    if len(others) >= FURTHER_MAX:
        raise SidelinkError(Code.LOCAL_LIMIT, f"{FURTHER_MAX} issuers vouch for it already")
    return replace(own, further=(*others, (link,)))


def without_issuer(own: OwnIdentity, issuer: Identifier) -> OwnIdentity:
    """Raises SidelinkError (local.bad_request) if that issuer has said nothing."""
    kept = tuple(chain for chain in own.further if _credential_of(chain).issuer != issuer)
    if len(kept) == len(own.further):
        raise SidelinkError(Code.LOCAL_BAD_REQUEST, f"{issuer} does not vouch for it")
    return replace(own, further=kept)


def further_credentials(own: OwnIdentity) -> list[Credential]:
    """All of them, for an operator."""
    return [_credential_of(chain) for chain in own.further]


def _credential_of(chain: tuple[ChainLink, ...]) -> Credential:
    return decode_credential_untrusted(chain[0].credential).credential


def _left_out_unix_s(held: Credential) -> float:
    life_s = held.expires_unix_s - held.not_before_unix_s
    return held.expires_unix_s - max(LEFT_OUT_SECONDS, life_s / LEFT_OUT_SHARE)
