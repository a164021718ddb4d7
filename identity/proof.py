"""Proofs: what a handshake carries to show who speaks, and how the other side verifies it."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal

from identity import cbor
from identity.codes import Code
from identity.cose import SignatureBudget
from identity.credential import (
    CHAIN_LINKS_MAX,
    CREDENTIAL_BYTES_MAX,
    AttributeValue,
    Credential,
    Delegable,
    NodeRole,
    SignedCredential,
    decode_credential_untrusted,
)
from identity.delegation import check_delegation
from identity.errors import IdentityError
from identity.fields import UNIX_S_MAX, Reader
from identity.history import ChangeHistory, Pin
from identity.identifier import Identifier
from identity.keys import NoisePublicKey
from identity.purpose import (
    ATTESTATION_BYTES_MAX,
    Attestation,
    Purpose,
    decode_attestation_untrusted,
)
from identity.uri import AgentUri

PROOF_VERSION: Final = 1
PROOF_BYTES_MAX: Final = 48 * 1024
CACHE_ENTRIES_MAX: Final = 1024

_READ: Final = Reader(Code.CHANNEL_PROOF_INVALID)
_NO_ATTRIBUTES: Final[Mapping[str, AttributeValue]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ChainLink:
    """One credential and the history of whoever issued it, as received."""

    credential: bytes
    issuer_history: bytes


@dataclass(frozen=True, slots=True)
class Proof:
    """An identity's history, the attestation of its Noise key, and its chain, leaf first."""

    history: bytes
    attestation: bytes
    chain: tuple[ChainLink, ...]

    def encode(self) -> bytes:
        """ValueError when the whole is too large for a handshake."""
        encoded = cbor.encode(
            [
                PROOF_VERSION,
                self.history,
                self.attestation,
                [[link.credential, link.issuer_history] for link in self.chain],
            ]
        )
        if len(encoded) > PROOF_BYTES_MAX or len(self.chain) > CHAIN_LINKS_MAX:
            raise ValueError("a proof that every verifier would refuse as too large")
        return encoded

    @classmethod
    def decode_untrusted(cls, data: bytes) -> "Proof":
        """Take a proof apart. Nothing inside it is checked but lengths."""
        value = cbor.decode_untrusted(
            data, bytes_max=PROOF_BYTES_MAX, depth_max=3, code=Code.CHANNEL_PROOF_INVALID
        )
        version, history, attestation, chain = _READ.array(value, 4, 4)
        if _READ.integer(version) != PROOF_VERSION:
            raise IdentityError(Code.CHANNEL_VERSION_UNSUPPORTED, f"proof version {version}")
        links = []
        for item in _READ.array(chain, CHAIN_LINKS_MAX):
            credential, issuer_history = _READ.array(item, 2, 2)
            links.append(
                ChainLink(
                    _READ.byte_string(credential, CREDENTIAL_BYTES_MAX),
                    _READ.byte_string(issuer_history, PROOF_BYTES_MAX),
                )
            )
        return cls(
            _READ.byte_string(history, PROOF_BYTES_MAX),
            _READ.byte_string(attestation, ATTESTATION_BYTES_MAX),
            tuple(links),
        )


@dataclass(frozen=True, slots=True)
class TrustAnchor:
    """An authority that this node trusts, and the one trust domain that it is trusted for."""

    identifier: Identifier
    trust_domain: str


@dataclass(frozen=True, slots=True)
class VerifiedIdentity:
    """Who somebody was proved to be. `expires_unix_s` is when the first part of the proof lapses.

    `ancestors` are the issuers, nearest first, without the authority.
    """

    identifier: Identifier
    name: AgentUri | None
    kind: Literal["agent", "node", "authority", "unenrolled"]
    role_of_node: NodeRole | Literal["authority"] | None
    trust_domain: str | None
    issuer: Identifier | None
    attributes: Mapping[str, AttributeValue]
    delegable: Delegable | None
    expires_unix_s: int
    ancestors: tuple["VerifiedIdentity", ...] = ()

    @property
    def allowed_actions(self) -> tuple[str, ...] | None:
        """The actions that the issuer could pass on; None without a limit (no delegated name)."""
        if not self.ancestors:
            return None
        delegable = self.ancestors[0].delegable
        return () if delegable is None else delegable.actions


@dataclass(frozen=True, slots=True)
class VerifiedPeer:
    """A verified identity that also holds this Noise key."""

    identity: VerifiedIdentity
    noise_key: NoisePublicKey

    @property
    def identifier(self) -> Identifier:
        return self.identity.identifier

    @property
    def name(self) -> AgentUri | None:
        return self.identity.name


@dataclass(frozen=True, slots=True)
class _Link:
    """A link of a chain, decoded. Within the cache: with signatures and delegation verified."""

    signed: SignedCredential
    issuer_history: ChangeHistory

    @property
    def credential(self) -> Credential:
        return self.signed.credential


class ProofVerifier:
    """Verifies proofs against trust anchors. Holds no secret and reads no clock.

    It remembers the longest verified history of each anchor, so that an authority's superseded key
    cannot be brought back by leaving out the change that superseded it.
    """

    def __init__(
        self,
        anchors: Iterable[TrustAnchor],
        *,
        own: Identifier,
        cache_entries_max: int = CACHE_ENTRIES_MAX,
    ) -> None:
        self._anchors: dict[Identifier, TrustAnchor] = {}
        for anchor in anchors:
            if self._anchors.setdefault(anchor.identifier, anchor) != anchor:
                raise ValueError("an authority is trusted for one trust domain only")
        self._own = own
        self._anchor_histories: dict[Identifier, ChangeHistory] = {}
        self._issuers: OrderedDict[bytes, _Link] = OrderedDict()
        self._cache_entries_max = cache_entries_max

    def learn_anchor_history(self, history: ChangeHistory, *, unix_s: float) -> None:
        """Verify an authority's history of any length, outside the budget of a handshake.

        For what comes from a source worth the time: this node's own chain, or its enrolment.
        """
        if history.identifier not in self._anchors:
            raise IdentityError(Code.CHANNEL_WRONG_AUTHORITY, "not a trusted authority")
        self._anchor_history(history, SignatureBudget(2 * len(history.changes)), unix_s)

    def verify(
        self,
        proof: bytes,
        *,
        purpose: Purpose,
        noise_key: bytes,
        unix_s: float,
        own: Identifier | None = None,
    ) -> VerifiedPeer:
        """Verify a peer's proof for the Noise key that the handshake showed.

        ``own`` is who asks, one of a node's agents for example; the verifier's own unless given.
        An empty chain is legal: the peer is then an anchor itself, or `unenrolled` and nameless;
        whether that will do is for the caller's policy. Raises IdentityError.
        """
        decoded = Proof.decode_untrusted(proof)
        history = ChangeHistory.decode_untrusted(decoded.history)
        identifier = history.identifier
        if identifier == (own or self._own):
            raise IdentityError(Code.CHANNEL_SELF_CONNECTION, "the peer has our own identifier")
        attestation = decode_attestation_untrusted(decoded.attestation)
        # What costs nothing is refused before the first signature is checked.
        _check_attestation(attestation, identifier, purpose, noise_key, unix_s)
        budget = SignatureBudget()
        if decoded.chain:
            identity, pin = self._verify_chain(decoded.chain, identifier, budget, unix_s)
            history.verify_signatures(budget, trusted_prefix=pin)
        elif identifier in self._anchors:
            history = self._anchor_history(history, budget, unix_s)
            identity = _anchor_identity(self._anchors[identifier])
        else:
            history.verify_signatures(budget)
            identity = _unenrolled_identity(identifier)
        key, key_until_unix_s = history.key_for(attestation.change_number, unix_s)
        attestation.message.verify(key, budget, Code.CHANNEL_ATTESTATION_INVALID)
        until_unix_s = min(identity.expires_unix_s, key_until_unix_s, attestation.expires_unix_s)
        return VerifiedPeer(
            replace(identity, expires_unix_s=until_unix_s), attestation.noise_public
        )

    def _verify_chain(
        self,
        chain: tuple[ChainLink, ...],
        subject: Identifier,
        budget: SignatureBudget,
        unix_s: float,
    ) -> tuple[VerifiedIdentity, Pin]:
        """Verify from the anchor down to the leaf; return the leaf and the pin of its history."""
        digests = _digests(chain)
        known = [self._issuers.get(digest) for digest in digests]
        links = [known[i] or _decode_link(link) for i, link in enumerate(chain)]
        self._check_joints(links, subject)
        parent: tuple[VerifiedIdentity, Credential] | None = None
        for index in range(len(links) - 1, -1, -1):
            link, credential, is_new = links[index], links[index].credential, known[index] is None
            credential.check_times(unix_s)
            if is_new and parent is not None:
                check_delegation(parent[1], credential)
            issuer_history = link.issuer_history
            if parent is None:
                issuer_history = self._anchor_history(issuer_history, budget, unix_s)
            elif is_new:
                issuer_history.verify_signatures(budget, trusted_prefix=parent[1].pin)
            key, key_until_unix_s = issuer_history.key_for(credential.issuer_change_number, unix_s)
            if is_new:
                link.signed.message.verify(key, budget, Code.CHANNEL_CREDENTIAL_INVALID)
            if index > 0:  # An issuer. Leaves are too many to be worth remembering.
                self._remember(digests[index], link)
            identity = _credential_identity(
                credential, None if parent is None else parent[0], key_until_unix_s
            )
            parent = identity, credential
        assert parent is not None  # A chain has at least one link.
        return parent[0], parent[1].pin

    def _check_joints(self, links: list[_Link], subject: Identifier) -> None:
        """Each link joins the next, no identity comes twice, and the last hangs on an anchor."""
        seen = {subject}
        for link in links:
            credential = link.credential
            if credential.subject != subject:
                raise _READ.error("a chain whose links do not join")
            if credential.issuer != link.issuer_history.identifier:
                raise _READ.error("a history that is not the issuer's")
            if credential.issuer in seen:
                raise _READ.error("a chain that returns to an identity")
            seen.add(credential.issuer)
            subject = credential.issuer
        anchor = self._anchors.get(subject)
        if anchor is None:
            raise IdentityError(Code.CHANNEL_WRONG_AUTHORITY, f"{subject} is not trusted here")
        if any(link.credential.trust_domain != anchor.trust_domain for link in links):
            raise IdentityError(
                Code.CHANNEL_WRONG_AUTHORITY, "an authority outside its trust domain"
            )

    def _anchor_history(
        self, presented: ChangeHistory, budget: SignatureBudget, unix_s: float
    ) -> ChangeHistory:
        """The longest verified history of an anchor, after what was presented is taken in."""
        known = self._anchor_histories.get(presented.identifier)
        if known is not None and presented.change_number <= known.change_number:
            known.check_pin(presented.pin)
            return known
        presented.check_created(unix_s)
        presented.verify_signatures(budget, trusted_prefix=None if known is None else known.pin)
        self._anchor_histories[presented.identifier] = presented
        return presented

    def _remember(self, digest: bytes, link: _Link) -> None:
        self._issuers[digest] = link
        self._issuers.move_to_end(digest)
        while len(self._issuers) > self._cache_entries_max:
            self._issuers.popitem(last=False)


def _digests(chain: tuple[ChainLink, ...]) -> list[bytes]:
    """For each link, the hash of its exact bytes and those of all links above it."""
    digests: list[bytes] = []
    above = b""
    for link in reversed(chain):
        # Each part is hashed by itself first, so that no byte can move from one to the next.
        parts = (hashlib.sha256(part).digest() for part in (link.credential, link.issuer_history))
        above = hashlib.sha256(b"".join((*parts, above))).digest()
        digests.append(above)
    return digests[::-1]


def _decode_link(link: ChainLink) -> _Link:
    return _Link(
        decode_credential_untrusted(link.credential),
        ChangeHistory.decode_untrusted(link.issuer_history),
    )


def _check_attestation(
    attestation: Attestation,
    identifier: Identifier,
    purpose: Purpose,
    noise_key: bytes,
    unix_s: float,
) -> None:
    if attestation.identifier != identifier:
        detail = "an attestation of another identity"
    elif attestation.purpose is not purpose:
        detail = f"an attestation for the purpose {attestation.purpose}, not {purpose}"
    elif attestation.noise_public.raw != noise_key:
        detail = "an attestation of another Noise key"
    else:
        attestation.check_times(unix_s)
        return
    raise IdentityError(Code.CHANNEL_ATTESTATION_INVALID, detail)


def _credential_identity(
    credential: Credential, parent: VerifiedIdentity | None, key_until_unix_s: int
) -> VerifiedIdentity:
    expires_unix_s = min(credential.expires_unix_s, key_until_unix_s)
    if parent is not None:
        expires_unix_s = min(expires_unix_s, parent.expires_unix_s)
    return VerifiedIdentity(
        identifier=credential.subject,
        name=credential.name,
        kind=credential.kind,
        role_of_node=credential.role_of_node,
        trust_domain=credential.trust_domain,
        issuer=credential.issuer,
        attributes=credential.attributes,
        delegable=credential.delegable,
        expires_unix_s=expires_unix_s,
        ancestors=() if parent is None else (parent, *parent.ancestors),
    )


def _anchor_identity(anchor: TrustAnchor) -> VerifiedIdentity:
    return VerifiedIdentity(
        identifier=anchor.identifier,
        name=None,
        kind="authority",
        role_of_node="authority",
        trust_domain=anchor.trust_domain,
        issuer=None,
        attributes=_NO_ATTRIBUTES,
        delegable=None,
        expires_unix_s=UNIX_S_MAX,
    )


def _unenrolled_identity(identifier: Identifier) -> VerifiedIdentity:
    return VerifiedIdentity(
        identifier=identifier,
        name=None,
        kind="unenrolled",
        role_of_node=None,
        trust_domain=None,
        issuer=None,
        attributes=_NO_ATTRIBUTES,
        delegable=None,
        expires_unix_s=UNIX_S_MAX,
    )
