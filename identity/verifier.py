"""Judges proofs: the only way from a peer's bytes to a verified identity."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from identity.chain_links import Link, decode_link_untrusted, link_digests
from identity.codes import Code
from identity.cose import SignatureBudget
from identity.credential import CHAIN_LINKS_MAX, AttributeValue, Credential
from identity.delegation import check_delegation
from identity.errors import IdentityError
from identity.fields import Reader
from identity.history import CHANGES_MAX, ChangeHistory, Pin
from identity.identifier import Identifier
from identity.proof import ChainLink, Proof
from identity.purpose import Attestation, Purpose, decode_attestation_untrusted
from identity.revocation import RevocationList, RevocationLists, decode_revocations_untrusted
from identity.seen import SeenHistories, SeenInMemory, check_seen, note_seen
from identity.signed_policy import SignedPolicy, decode_signed_policy_untrusted
from identity.verified import (
    TrustAnchor,
    VerifiedIdentity,
    VerifiedPeer,
    anchor_identity,
    credential_identity,
    unenrolled_identity,
)

CHAIN_LINKS: Final = 4
"""authority → node → agent → subagent → its child: links of a chain, unless set otherwise."""
ISSUERS_KEPT_MAX: Final = 1024
# Changes of an authority's history that one proof may bring, apart from the signatures that a peer
# may cost us. Nobody else can make them, a forged one ends the checks, and a true one is checked
# once: without them a node of yesterday could not meet an authority that has rotated seven times.
ANCHOR_CHANGES_NEW_MAX: Final = 64
# Whole proofs, kept by their hash at some 2 KiB each: a peer that comes again costs no signature.
PEERS_KEPT_MAX: Final = 4096

_READ: Final = Reader(Code.CHANNEL_PROOF_INVALID)


@dataclass(frozen=True, slots=True)
class _Known:
    """A proof that was verified once. What can change since is looked at each time."""

    peer: VerifiedPeer
    since_unix_s: float
    depends_on: tuple[tuple[Identifier, Identifier], ...]
    pins: tuple[tuple[Identifier, Pin], ...]
    """The point to which each history in the proof goes: the peer's, its issuers' and their
    authorities'."""


class ProofVerifier:
    """Verifies proofs against trust anchors. Holds no secret and reads no clock.

    ``lists``, ``seen`` and ``anchor_histories`` may outlive it: what was revoked, how far histories
    were seen, and the longest verified history of each anchor, so that an authority's superseded
    key cannot be brought back by leaving out the change that superseded it.
    """

    def __init__(
        self,
        anchors: Iterable[TrustAnchor],
        *,
        own: Identifier,
        lists: RevocationLists | None = None,
        seen: SeenHistories | None = None,
        anchor_histories: dict[Identifier, ChangeHistory] | None = None,
        chain_links_max: int = CHAIN_LINKS,
        issuers_kept_max: int = ISSUERS_KEPT_MAX,
        peers_kept_max: int = PEERS_KEPT_MAX,
    ) -> None:
        assert 1 <= chain_links_max <= CHAIN_LINKS_MAX
        self._anchors: dict[Identifier, TrustAnchor] = {}
        for anchor in anchors:
            if self._anchors.setdefault(anchor.identifier, anchor) != anchor:
                raise ValueError("an authority is trusted for one trust domain only")
        self._own = own
        self._lists = RevocationLists() if lists is None else lists
        self._seen: SeenHistories = SeenInMemory() if seen is None else seen
        self._chain_links_max = chain_links_max
        self._anchor_histories = {} if anchor_histories is None else anchor_histories
        self._issuers: OrderedDict[bytes, Link] = OrderedDict()
        self._issuers_kept_max = issuers_kept_max
        self._peers: OrderedDict[tuple[bytes, bytes, Purpose], _Known] = OrderedDict()
        self._peers_kept_max = peers_kept_max

    @property
    def anchors(self) -> tuple[TrustAnchor, ...]:
        return tuple(self._anchors.values())

    def anchor_history(self, authority: Identifier) -> ChangeHistory | None:
        """The longest history of an authority that was verified here."""
        return self._anchor_histories.get(authority)

    def learn_anchor_history(self, history: ChangeHistory, *, unix_s: float) -> ChangeHistory:
        """Verify an authority's history of any length, outside the budget of a handshake.

        For what comes from a source worth the time: this node's own chain, or its enrolment; and
        for what comes beside a signed document, which is kept and passed on.
        Returns the longest one known.
        """
        if history.identifier not in self._anchors:
            raise IdentityError(Code.CHANNEL_WRONG_AUTHORITY, "not a trusted authority")
        known = self._anchor_history(history, unix_s, new_max=CHANGES_MAX)
        if known.changes[: len(history.changes)] != history.changes:
            # Whoever knows less than we do would refuse it, and so would we after a restart.
            raise IdentityError(
                Code.CHANNEL_HISTORY_INVALID, "an authority's history with other signatures"
            )
        return known

    def learn_revocations_untrusted(
        self, encoded: bytes, *, unix_s: float
    ) -> RevocationList | None:
        """Verify a revocation list and keep it. None for the one that is held already.

        Whoever brought it need not be trusted. Raises IdentityError; for a list older than the
        newest seen, CHANNEL_REVOCATIONS_OUTDATED.
        """
        signed = decode_revocations_untrusted(encoded)
        content = signed.content
        anchor = self._anchors.get(content.issuer)
        if anchor is None or anchor.trust_domain != content.trust_domain:
            raise IdentityError(
                Code.CHANNEL_WRONG_AUTHORITY, f"{content.issuer} may not revoke here"
            )
        signed.check_numbers(unix_s)
        known = self._lists.newest(content.issuer)
        if known == content:
            return None
        if known is not None and content.number <= known.number:
            # Before any signature is checked: old lists are cheap to send again.
            raise IdentityError(
                Code.CHANNEL_REVOCATIONS_OUTDATED,
                f"revocation list {content.number}, and {known.number} has been seen",
            )
        history = self.learn_anchor_history(signed.issuer_history, unix_s=unix_s)
        signed.verify(history, unix_s)
        self._lists.take(content)
        return content

    def verify_policy_untrusted(
        self, encoded: bytes, *, authority: Identifier, held: SignedPolicy | None, unix_s: float
    ) -> SignedPolicy | None:
        """Verify a signed policy of this authority. None for the one that is held already.

        Whoever brought it need not be trusted. Raises IdentityError; for one that is not newer than
        the one held, POLICY_BUNDLE_OUTDATED.
        """
        if held is not None and encoded == held.encoded:
            return None
        signed = decode_signed_policy_untrusted(encoded)
        mandate, signer = signed.mandate, signed.signer_history
        anchor = self._anchors.get(mandate.authority)
        if (
            mandate.authority != authority
            or anchor is None
            or anchor.trust_domain != mandate.trust_domain
        ):
            raise IdentityError(
                Code.CHANNEL_WRONG_AUTHORITY, f"{mandate.authority} makes no policy here"
            )
        signed.check_numbers(unix_s)
        if held is not None:
            # Before any signature is checked: old ones are cheap to send again.
            signed.check_newer(held)
        if not signed.is_by_authority:
            self._lists.check(authority, signer.identifier)
            check_seen(self._seen, signer)
        signed.verify(self.learn_anchor_history(signed.authority_history, unix_s=unix_s), unix_s)
        if not signed.is_by_authority:
            note_seen(self._seen, signer)
        return signed

    def verify(
        self,
        proof: bytes,
        *,
        purpose: Purpose,
        noise_key: bytes,
        unix_s: float,
        own: Identifier | None = None,
        is_live: bool = False,
    ) -> VerifiedPeer:
        """Verify a peer's proof for the Noise key that the handshake showed.

        ``own`` is who asks, one of a node's agents for example; the verifier's own unless given.
        A list that is out of date stops channels, if they are new (``is_live``: the peer has been
        let in and shows a newer proof), and no hops: over them the next list comes.
        An empty chain is legal: the peer is then an anchor itself, or `unenrolled` and nameless;
        whether that will do is for the caller's policy. Raises IdentityError.
        """
        key = hashlib.sha256(proof).digest(), noise_key, purpose
        known = self._peers.get(key)
        is_new = purpose is Purpose.CHANNEL and not is_live
        if known is not None and self._still_holds(known, unix_s):
            if is_new:
                self._check_fresh(known.peer.identity, unix_s)
            self._refuse_own(known.peer.identifier, own)
            self._peers.move_to_end(key)
            return known.peer
        peer, histories = self._verify_anew(proof, purpose, noise_key, unix_s, own)
        if is_new:
            self._check_fresh(peer.identity, unix_s)
        if peer.identity.kind in ("agent", "node"):
            pins = tuple((history.identifier, history.pin) for history in histories)
            self._peers[key] = _Known(peer, unix_s, peer.identity.depends_on, pins)
            while len(self._peers) > self._peers_kept_max:
                self._peers.popitem(last=False)
        return peer

    def recheck(self, identity: VerifiedIdentity, unix_s: float) -> None:
        """Raise IdentityError if one that was verified earlier would not be verified now.

        For what is live: expiry, revocation of anybody in its chain, an authority that is trusted
        no longer, or whose key has been replaced since and is over. Whether lists are fresh is not
        asked: stale ones stop what is new only.
        """
        if unix_s >= identity.expires_unix_s:
            raise IdentityError(Code.CHANNEL_CREDENTIAL_EXPIRED, f"{identity.identifier}")
        if identity.authority is not None and identity.authority_change_number is not None:
            history = self._anchor_histories.get(identity.authority)
            number = identity.authority_change_number
            if history is not None and unix_s >= history.key_until_unix_s(number):
                raise IdentityError(
                    Code.CHANNEL_CREDENTIAL_EXPIRED,
                    f"{identity.identifier}: the key of its authority is over",
                )
        for authority, identifier in identity.depends_on:
            if authority not in self._anchors:
                # It only vouched for more of what policy was told. A new handshake leaves that out.
                raise IdentityError(
                    Code.CHANNEL_WRONG_AUTHORITY, f"{authority} is not trusted here"
                )
            self._lists.check(authority, identifier)

    def _verify_anew(
        self,
        proof: bytes,
        purpose: Purpose,
        noise_key: bytes,
        unix_s: float,
        own: Identifier | None,
    ) -> tuple[VerifiedPeer, list[ChangeHistory]]:
        decoded = Proof.decode_untrusted(proof)
        history = ChangeHistory.decode_untrusted(decoded.history)
        identifier = history.identifier
        self._refuse_own(identifier, own)
        attestation = decode_attestation_untrusted(decoded.attestation)
        # What costs nothing is refused before the first signature is checked.
        _check_attestation(attestation, identifier, purpose, noise_key, unix_s)
        seen = check_seen(self._seen, history)
        budget = SignatureBudget()
        histories: list[ChangeHistory] = []
        if decoded.chain:
            identity, pin = self._verify_chain(decoded.chain, identifier, budget, unix_s, histories)
            history.check_pin(pin)
            if decoded.further:
                identity = self._with_further(
                    decoded.further, identity, history, budget, unix_s, histories
                )
            if seen is not None and seen.change_number > pin.change_number:
                pin = seen
            history.verify_signatures(budget, trusted_prefix=pin)
        elif decoded.further:
            raise _READ.error("further credentials of somebody whom nobody named")
        elif identifier in self._anchors:
            history = self._anchor_history(history, unix_s)
            identity = anchor_identity(self._anchors[identifier])
        else:
            history.verify_signatures(budget, trusted_prefix=seen)
            identity = unenrolled_identity(identifier)
        key, key_until_unix_s = history.key_for(attestation.change_number, unix_s)
        attestation.message.verify(key, budget, Code.CHANNEL_ATTESTATION_INVALID)
        if identity.kind != "unenrolled":
            # Strangers cost nothing to make; who has a chain was worth somebody's signature.
            note_seen(self._seen, history)
        peer = VerifiedPeer(identity, attestation.noise_public)
        until_unix_s = min(key_until_unix_s, attestation.expires_unix_s)
        return peer.until(until_unix_s), [history, *histories]

    def _with_further(
        self,
        further: tuple[tuple[ChainLink, ...], ...],
        identity: VerifiedIdentity,
        history: ChangeHistory,
        budget: SignatureBudget,
        unix_s: float,
        histories: list[ChangeHistory],
    ) -> VerifiedIdentity:
        """The identity with what other issuers say of it. Those whom we do not trust say nothing.

        Each is as strict as the first: one that is trusted, and wrong, spoils the whole proof.
        """
        said: dict[Identifier, Mapping[str, AttributeValue]] = {}
        links: list[tuple[Identifier, Identifier]] = []
        until_unix_s = identity.expires_unix_s
        for chain in further:
            root = decode_link_untrusted(chain[-1])
            if root.issuer_history.identifier not in self._anchors:
                # Else one whom we trust would fall silent when a bit of its history changed.
                if root.credential.issuer != root.issuer_history.identifier:
                    raise _READ.error("a history that is not the issuer's")
                continue
            other, pin = self._verify_chain(chain, identity.identifier, budget, unix_s, histories)
            history.check_pin(pin)
            assert other.issuer is not None  # Each link has one.
            if other.issuer in said or other.issuer == identity.issuer:
                raise _READ.error("two credentials of one issuer")
            said[other.issuer] = other.attributes
            links += other.depends_on
            until_unix_s = min(until_unix_s, other.expires_unix_s)
        return replace(
            identity,
            further=MappingProxyType(said),
            further_links=tuple(links),
            expires_unix_s=until_unix_s,
        )

    def _still_holds(self, known: _Known, unix_s: float) -> bool:
        """Whether a proof needs no second look. Raises IdentityError for one that a list names.

        What has grown since is a reason to look again, not to refuse: a proof from before its
        authority's rotation is good while the old key's overlap lasts.
        """
        if not known.since_unix_s <= unix_s < known.peer.identity.expires_unix_s:
            return False
        for authority, identifier in known.depends_on:
            self._lists.check(authority, identifier)
        seen = ((pin, self._seen.pin_of(identifier)) for identifier, pin in known.pins)
        return all(now is None or now.change_number <= pin.change_number for pin, now in seen)

    def _check_fresh(self, identity: VerifiedIdentity, unix_s: float) -> None:
        """Of an authority itself nothing is awaited: it is who brings the next list."""
        if identity.kind != "authority":
            for authority in {authority for authority, _ in identity.depends_on}:
                self._lists.check_fresh(authority, unix_s)

    def _refuse_own(self, identifier: Identifier, own: Identifier | None) -> None:
        if identifier == (own or self._own):
            raise IdentityError(Code.CHANNEL_SELF_CONNECTION, "the peer has our own identifier")

    def _verify_chain(
        self,
        chain: tuple[ChainLink, ...],
        subject: Identifier,
        budget: SignatureBudget,
        unix_s: float,
        histories: list[ChangeHistory],
    ) -> tuple[VerifiedIdentity, Pin]:
        """Verify from the anchor down to the leaf; return the leaf and the pin of its history.

        ``histories`` gets those of the issuers, as they are known now.
        """
        if len(chain) > self._chain_links_max:
            raise _READ.error(f"a chain of more than {self._chain_links_max} links")
        digests = link_digests(chain)
        known = [self._issuers.get(digest) for digest in digests]
        links = [known[i] or decode_link_untrusted(link) for i, link in enumerate(chain)]
        authority = self._check_joints(links, subject)
        for link in links:
            self._lists.check(authority, link.credential.subject)
        parent: tuple[VerifiedIdentity, Credential] | None = None
        for index in range(len(links) - 1, -1, -1):
            link, credential, is_new = links[index], links[index].credential, known[index] is None
            credential.check_times(unix_s)
            if is_new and parent is not None:
                check_delegation(parent[1], credential)
            issuer_history = link.issuer_history
            if parent is None:
                issuer_history = self._anchor_history(issuer_history, unix_s)
            else:
                self._issuer_history(issuer_history, parent[1].pin, budget, is_new=is_new)
            key, key_until_unix_s = issuer_history.key_for(credential.issuer_change_number, unix_s)
            if is_new:
                link.signed.message.verify(key, budget, Code.CHANNEL_CREDENTIAL_INVALID)
            if index > 0:  # An issuer. Leaves are kept with their whole proof.
                self._remember(digests[index], link)
            histories.append(issuer_history)
            identity = credential_identity(
                credential, None if parent is None else parent[0], authority, key_until_unix_s
            )
            parent = identity, credential
        assert parent is not None  # A chain has at least one link.
        return parent[0], parent[1].pin

    def _issuer_history(
        self, history: ChangeHistory, pin: Pin, budget: SignatureBudget, *, is_new: bool
    ) -> None:
        """Check the history of an issuer between anchor and leaf, against what was seen of it."""
        seen = check_seen(self._seen, history)
        if not is_new:
            return
        history.check_pin(pin)
        if seen is not None and seen.change_number > pin.change_number:
            pin = seen
        history.verify_signatures(budget, trusted_prefix=pin)
        note_seen(self._seen, history)

    def _check_joints(self, links: list[Link], subject: Identifier) -> Identifier:
        """Each link joins the next, no identity comes twice, and the last hangs on an anchor.

        Returns that anchor's identifier.
        """
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
        return subject

    def _anchor_history(
        self, presented: ChangeHistory, unix_s: float, *, new_max: int = ANCHOR_CHANGES_NEW_MAX
    ) -> ChangeHistory:
        """The longest verified history of an anchor, after what was presented is taken in."""
        known = self._anchor_histories.get(presented.identifier)
        if known is not None and presented.change_number <= known.change_number:
            known.check_pin(presented.pin)
            return known
        presented.check_created(unix_s)
        check_seen(self._seen, presented)
        pin = None
        if known is not None:
            # Hashes do not cover signatures: what nobody checks again is taken from what was
            # checked. Else a peer whose copy has a flipped bit would become the measure of all.
            pin = known.pin
            presented.check_pin(pin)
            newer = presented.changes[len(known.changes) :]
            presented = ChangeHistory((*known.changes, *newer))
        presented.verify_signatures(SignatureBudget(2 * (new_max + 1)), trusted_prefix=pin)
        self._anchor_histories[presented.identifier] = presented
        note_seen(self._seen, presented)
        return presented

    def _remember(self, digest: bytes, link: Link) -> None:
        self._issuers[digest] = link
        self._issuers.move_to_end(digest)
        while len(self._issuers) > self._issuers_kept_max:
            self._issuers.popitem(last=False)


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
