"""The links of a chain as a verifier holds them: decoded, and known again by their exact bytes."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from identity.credential import Credential, SignedCredential, decode_credential_untrusted
from identity.history import ChangeHistory
from identity.proof import ChainLink

# Of issuers, decoded: most have never rotated and take 120 bytes, some 2 KiB in memory.
HISTORIES_KEPT_MAX: Final = 1024
HISTORY_BYTES_KEPT_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class Link:
    """A link of a chain, decoded. Within the cache: with signatures and delegation verified."""

    signed: SignedCredential
    issuer_history: ChangeHistory

    @property
    def credential(self) -> Credential:
        return self.signed.credential


def link_digests(chain: tuple[ChainLink, ...]) -> list[bytes]:
    """For each link, the hash of its exact bytes and those of all links above it."""
    digests: list[bytes] = []
    above = b""
    for link in reversed(chain):
        # Each part is hashed by itself first, so that no byte can move from one to the next.
        parts = (hashlib.sha256(part).digest() for part in (link.credential, link.issuer_history))
        above = hashlib.sha256(b"".join((*parts, above))).digest()
        digests.append(above)
    return digests[::-1]


def decode_link_untrusted(link: ChainLink) -> Link:
    return Link(
        decode_credential_untrusted(link.credential),
        link_history_untrusted(link.issuer_history),
    )


def link_history_untrusted(encoded: bytes) -> ChangeHistory:
    """An issuer comes with each of its subjects: the history of one that was just met is not taken
    apart again (measured: one in seventeen of what a proof of depth 4 costs)."""
    if len(encoded) > HISTORY_BYTES_KEPT_MAX:
        return ChangeHistory.decode_untrusted(encoded)
    return _kept_histories(encoded)


_kept_histories: Final = lru_cache(maxsize=HISTORIES_KEPT_MAX)(ChangeHistory.decode_untrusted)
