"""Proofs of depth 4: of new peers under issuers that are known, and of peers seen before."""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from identity import (
    AgentUri,
    Delegable,
    NamePrefix,
    OwnIdentity,
    ProofVerifier,
    Purpose,
    TrustAnchor,
    issue_credential,
    new_identity,
)
from tests.simulation.people import DAY_S, START_UNIX_S, authority, node

DEPTH: Final = 4
AGAIN: Final = 20
NAMES: Final = ("alpha/agent", "alpha/agent/sub")
"""Between the node and the peers that are verified."""


class Verified(msgspec.Struct, frozen=True):
    """Proofs for each second of one core."""

    new_per_cpu_s: float
    again_per_cpu_s: float


@dataclass(frozen=True, slots=True)
class Shown:
    """What a peer shows in a handshake."""

    proof: bytes
    noise_key: bytes


def make_proofs(count: int) -> Sequence[Shown]:
    """authority → node → agent → subagent → each of so many: four credentials in every proof."""
    issuer = node("alpha").own
    for name, depth in zip(NAMES, (2, 1), strict=True):
        issuer = _issued(issuer, name, _delegable(name, depth))
    peers = [_issued(issuer, f"{NAMES[-1]}/{number}", None) for number in range(count)]
    assert all(len(peer.chain) == DEPTH for peer in peers)
    return [
        Shown(peer.proof(Purpose.CHANNEL), peer.purpose_keys[Purpose.CHANNEL].key.public.raw)
        for peer in peers
    ]


def verify_per_cpu_s(count: int) -> Verified:
    """One more peer is verified first: it brings the issuers, whom all have in common."""
    first, *others = make_proofs(1 + count)
    own = node("beta").own.identifier
    verifier = ProofVerifier([TrustAnchor(authority().identifier, "acme")], own=own)

    def verify(shown: Shown) -> None:
        verifier.verify(
            shown.proof, purpose=Purpose.CHANNEL, noise_key=shown.noise_key, unix_s=START_UNIX_S
        )

    verify(first)
    new = _per_cpu_s(verify, others, 1)
    return Verified(new, _per_cpu_s(verify, others, AGAIN))


def _per_cpu_s(verify: Callable[[Shown], None], proofs: Sequence[Shown], times: int) -> float:
    begun_s = time.process_time()
    for shown in itertools.chain.from_iterable(itertools.repeat(proofs, times)):
        verify(shown)
    return times * len(proofs) / (time.process_time() - begun_s)


def _issued(issuer: OwnIdentity, path: str, delegable: Delegable | None) -> OwnIdentity:
    own = new_identity(path, unix_s=START_UNIX_S, purposes=(Purpose.CHANNEL,))
    signed = issue_credential(
        issuer.signing_key,
        issuer.history,
        own.history,
        name=AgentUri.in_domain("acme", path),
        trust_domain="acme",
        kind="agent",
        role_of_node=None,
        attributes={"role": "planner"},
        delegable=delegable,
        not_before_unix_s=int(START_UNIX_S),
        expires_unix_s=int(START_UNIX_S) + DAY_S,
    )
    return own.below(issuer, signed.encoded)


def _delegable(path: str, depth: int) -> Delegable:
    return Delegable(
        name_prefixes=(NamePrefix("acme", tuple(path.split("/"))),),
        attributes={"role": None},
        actions=("message.ask",),
        depth=depth,
        lifetime_s_max=DAY_S,
    )
