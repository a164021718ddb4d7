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
    TrustAnchor,
    VerifiedIdentity,
    decode_revocations_untrusted,
)
from node.clocks import Clock
from node.store import Store

_CLOCK_FLOOR: Final = "clock_floor"

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
        self._anchor_histories: dict[Identifier, ChangeHistory] = {}
        self._kept_changes: dict[Identifier, int] = {}
        self.lists = RevocationLists(grace_s=grace_s)
        self._seen = SeenInMemory()
        for identifier, pin in store.seen_histories():
            self._seen.saw(identifier, pin)
        self._seen.take_news()
        self.on_news: list[Callable[[], None]] = []
        """Called when somebody may be trusted no longer: what is live is to be judged again."""
        self.taken = 0
        """Lists that were newer than what was held."""
        clock.raise_floor(float(store.get(_CLOCK_FLOOR) or b"0"))
        self._load()
        self.rebuild()

    @property
    def anchors(self) -> tuple[TrustAnchor, ...]:
        return self.verifier.anchors

    def rebuild(self, tried: TrustAnchor | None = None) -> None:
        """Read the anchors again. ``tried``: one that is trusted while this node enrols there."""
        self._tried = tried
        now_unix_s = int(self._clock.unix_s())
        since = {one.anchor.identifier: one.added_unix_s for one in self._store.kept_anchors()}
        self.lists.expect({identifier: added or now_unix_s for identifier, added in since.items()})
        self._encoded = {one: data for one, data in self._encoded.items() if one in since}
        self.verifier = self.verifier_for(self._own)

    def verifier_for(self, own: Identifier) -> ProofVerifier:
        """A verifier with this node's anchors, which refuses ``own`` as a peer."""
        tried = () if self._tried is None else (self._tried,)
        return ProofVerifier(
            (*self._store.trust_anchors(), *tried),
            own=own,
            lists=self.lists,
            seen=self._seen,
            anchor_histories=self._anchor_histories,
            chain_links_max=self._chain_links_max,
        )

    def add(self, anchor: TrustAnchor) -> None:
        """Trust one more authority. Raises ConfigError beyond the limit."""
        self._store.add_trust_anchor(anchor, unix_s=int(self._clock.unix_s()))
        self.rebuild()

    def remove(self, authority: Identifier) -> bool:
        """Trust an authority no longer. False if it was not trusted."""
        removed = self._store.remove_trust_anchor(authority)
        if removed:
            self._anchor_histories.pop(authority, None)
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
        with self._store.together():
            self._store.put_revocations(taken.issuer, encoded)
            # Signed evidence of how late it is: no clock that was set back makes it earlier.
            if self._clock.raise_floor(taken.issued_unix_s):
                self._store.put(_CLOCK_FLOOR, str(taken.issued_unix_s).encode())
        self.flush()
        self._encoded[taken.issuer] = encoded
        self.taken += 1
        _log.info(
            "revocations_taken",
            authority=str(taken.issuer),
            number=taken.number,
            revoked=len(taken.revoked),
        )
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

    def encoded_list(self, authority: Identifier) -> bytes | None:
        """The newest list of an authority, as it is passed on."""
        return self._encoded.get(authority)

    def flush(self) -> None:
        """Write down what was seen since the last time. Called now and then, and at the end."""
        grown = {
            identifier: history
            for identifier, history in self._anchor_histories.items()
            if history.change_number > self._kept_changes.get(identifier, -1)
        }
        seen = self._seen.take_news()
        if not grown and not seen:
            return
        try:
            with self._store.together():
                for identifier, history in grown.items():
                    self._store.put_anchor_history(identifier, history.encode())
                self._store.put_seen_histories(seen)
        except BaseException:
            self._seen.give_back(seen)
            raise
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
                history = self._anchor_histories.get(identifier, signed.issuer_history)
                history.verify_all()
                # It was good when it came; its key may have been replaced since.
                signed.verify(history, signed.content.issued_unix_s)
                self.lists.take(signed.content)
            except IdentityError as exc:
                _log.error("revocations_damaged", authority=str(identifier), why=exc.detail)
                continue
            self._encoded[identifier] = encoded
