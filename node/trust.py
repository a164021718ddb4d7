"""Whom this node trusts, and what it has learned of them: anchors, revocation lists, histories.

All of it outlives the process. Lists and the authorities' histories are signed, and are verified
again when they are read; what was seen of others' histories is a memory of our own.
"""

from collections.abc import Callable
from typing import Final

import structlog

from identity import (
    ChangeHistory,
    Code,
    Identifier,
    IdentityError,
    ProofVerifier,
    RevocationList,
    RevocationLists,
    SeenInMemory,
    SidelinkError,
    TrustAnchor,
    VerifiedIdentity,
    decode_revocations_untrusted,
)
from node.clocks import Clock
from node.store import Store

_CLOCK_FLOOR: Final = "clock_floor"
_CLOCK_FLOOR_DIGITS_MAX: Final = 12

_log = structlog.get_logger("node.trust")


class Trust:
    """One for a node. ``verifier`` is to be asked for each time: it is another one after the
    anchors have changed."""

    def __init__(
        self, store: Store, clock: Clock, own: Identifier, *, grace_s: int, chain_links_max: int
    ) -> None:
        self._store = store
        self._clock = clock
        self._own = own
        self._chain_links_max = chain_links_max
        self._tried: TrustAnchor | None = None
        self._encoded: dict[Identifier, bytes] = {}
        self._unkept: set[Identifier] = set()
        self._anchor_histories: dict[Identifier, ChangeHistory] = {}
        self._kept_changes: dict[Identifier, int] = {}
        self.lists = RevocationLists(grace_s=grace_s)
        self._seen = SeenInMemory()
        for identifier, pin in store.seen_histories():
            self._seen.saw(identifier, pin)
        self._seen.take_news()
        self.on_news: list[Callable[[], None]] = []
        """Called when others are trusted than before, or somebody no longer: what is live is to be
        judged again."""
        self.taken = 0
        """Lists that were newer than what was held."""
        self._floor_unix_s = self._kept_floor_unix_s = self._load_floor()
        clock.raise_floor(self._floor_unix_s)
        store.date_trust_anchors(int(clock.unix_s()))
        self._load()
        self.rebuild()

    @property
    def anchors(self) -> tuple[TrustAnchor, ...]:
        return self.verifier.anchors

    def try_anchor(self, anchor: TrustAnchor) -> None:
        """Trust an authority for as long as this node tries to enrol there, or until ``add``.

        Raises SidelinkError (enrol.wrong_authority) for one that is trusted for another domain.
        """
        for known in self._store.trust_anchors():
            if known.identifier == anchor.identifier and known != anchor:
                raise SidelinkError(
                    Code.ENROL_WRONG_AUTHORITY,
                    f"{anchor.identifier} is trusted for {known.trust_domain} here, "
                    f"not for {anchor.trust_domain}",
                )
        self._tried = anchor
        self.rebuild()

    def rebuild(self) -> None:
        """Read the anchors again."""
        kept = {one.anchor.identifier: one.added_unix_s for one in self._store.kept_anchors()}
        self.lists.expect(kept)
        self._encoded = {one: data for one, data in self._encoded.items() if one in kept}
        self.verifier = self.verifier_for(self._own)

    def verifier_for(self, own: Identifier) -> ProofVerifier:
        """A verifier with this node's anchors, which refuses ``own`` as a peer."""
        anchors = self._store.trust_anchors()
        if self._tried is not None and self._tried not in anchors:
            anchors = (*anchors, self._tried)
        return ProofVerifier(
            anchors,
            own=own,
            lists=self.lists,
            seen=self._seen,
            anchor_histories=self._anchor_histories,
            chain_links_max=self._chain_links_max,
        )

    def add(self, anchor: TrustAnchor) -> None:
        """Trust one more authority. Raises ConfigError beyond the limit."""
        self._store.add_trust_anchor(anchor, unix_s=int(self._clock.unix_s()))
        if self._tried == anchor:
            self._tried = None
        self.rebuild()
        self._tell()

    def remove(self, authority: Identifier) -> bool:
        """Trust an authority no longer. False if it was not trusted."""
        removed = self._store.remove_trust_anchor(authority)
        if removed:
            self._anchor_histories.pop(authority, None)
            self._kept_changes.pop(authority, None)
            self.rebuild()
            self._tell()
        return removed

    def offer_untrusted(self, encoded: bytes) -> RevocationList | None:
        """Take a revocation list that somebody brought: it is on the disk when this returns.

        None for the one that is held already. Raises IdentityError for one that does not count.
        """
        taken = self.verifier.learn_revocations_untrusted(encoded, unix_s=self._clock.unix_s())
        if taken is None:
            return None
        self._encoded[taken.issuer] = encoded
        self._unkept.add(taken.issuer)
        self.taken += 1
        # Signed evidence of how late it is: no clock that was set back makes it earlier. What we
        # have signed ourselves is evidence of nothing.
        if taken.issuer != self._own and self._clock.raise_floor(taken.issued_unix_s):
            self._floor_unix_s = taken.issued_unix_s
        _log.info(
            "revocations_taken",
            authority=str(taken.issuer),
            number=taken.number,
            revoked=len(taken.revoked),
        )
        try:
            self.flush()
        except SidelinkError as exc:
            # Whoever is named is cut all the same. It is written down when the disk takes it.
            _log.error("revocations_not_kept", authority=str(taken.issuer), why=exc.detail)
        self._tell()
        return taken

    def is_revoked(self, identity: VerifiedIdentity) -> bool:
        """Whether the newest list of its authority names it, or anybody above it."""
        try:
            for authority, identifier in identity.depends_on:
                self.lists.check(authority, identifier)
        except IdentityError:
            return True
        return False

    # Where neighbours are sent lists from.

    def authorities(self, peer: VerifiedIdentity) -> tuple[Identifier, ...]:
        """Whose lists are held and taken: of all whom this node trusts, whoever the neighbour."""
        return tuple(anchor.identifier for anchor in self.anchors)

    def number(self, authority: Identifier) -> int:
        """That of the newest list of an authority; 0 without one."""
        return self.lists.number(authority)

    def encoded(self, authority: Identifier) -> bytes | None:
        """The newest list of an authority, as it is passed on."""
        return self._encoded.get(authority)

    def flush(self) -> None:
        """Write down what was seen since the last time. Called now and then, and at the end.

        Raises ConfigError when the disk takes nothing; then it is still to be written down.
        """
        grown = {
            identifier: history
            for identifier, history in self._anchor_histories.items()
            if history.change_number > self._kept_changes.get(identifier, -1)
        }
        seen = self._seen.take_news()
        lists = {one: self._encoded[one] for one in self._unkept if one in self._encoded}
        floor_unix_s = self._floor_unix_s
        if not (grown or seen or lists or floor_unix_s > self._kept_floor_unix_s):
            return
        try:
            with self._store.together():
                for identifier, history in grown.items():
                    self._store.put_anchor_history(identifier, history.encode())
                for authority, encoded in lists.items():
                    self._store.put_revocations(authority, encoded)
                self._store.put_seen_histories(seen)
                self._store.put(_CLOCK_FLOOR, str(floor_unix_s).encode())
        except BaseException:
            self._seen.give_back(seen)
            raise
        self._unkept -= lists.keys()
        self._kept_floor_unix_s = floor_unix_s
        self._kept_changes |= {one: history.change_number for one, history in grown.items()}

    def _tell(self) -> None:
        for listener in self.on_news:
            listener()

    def _load(self) -> None:
        """What was kept, verified again. What does not hold is left out, and named in the log."""
        for identifier, encoded in self._store.anchor_histories():
            try:
                history = ChangeHistory.decode_untrusted(encoded)
                history.verify_all()
                if history.identifier != identifier:
                    raise IdentityError(Code.CHANNEL_HISTORY_INVALID, "another authority's")
            except IdentityError as exc:
                _log.error("anchor_history_damaged", authority=str(identifier), why=exc.detail)
                continue
            self._anchor_histories[identifier] = history
            self._kept_changes[identifier] = history.change_number
        for identifier, encoded in self._store.revocations():
            try:
                signed = decode_revocations_untrusted(encoded)
                history = signed.issuer_history
                known = self._anchor_histories.get(identifier, history)
                shorter, longer = sorted((history, known), key=lambda one: one.change_number)
                longer.check_pin(shorter.pin)
                history.verify_all()
                # By the history beside it, and as of then: it was good when it came, and the key
                # that signed it may have been replaced since.
                signed.verify(history, signed.content.issued_unix_s)
                self.lists.take(signed.content)
                self._anchor_histories[identifier] = longer
            except IdentityError as exc:
                _log.error("revocations_damaged", authority=str(identifier), why=exc.detail)
                continue
            self._encoded[identifier] = encoded

    def _load_floor(self) -> int:
        kept = self._store.get(_CLOCK_FLOOR) or b"0"
        if not kept.isdigit() or len(kept) > _CLOCK_FLOOR_DIGITS_MAX:
            _log.error("clock_floor_damaged")
            return 0
        return int(kept)
