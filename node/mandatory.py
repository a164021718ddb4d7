"""The policy that this node's whole trust domain obeys: held, verified, passed on, and published.

The newest that its own authority, or a signer whom that names, has published. It outlives the
process, with some before it, so that an operator can go back to one of them. What it means for
decisions is ``node.policy_live``'s.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import structlog

from identity import (
    ChangeHistory,
    Code,
    Identifier,
    IdentityError,
    PolicyFile,
    SidelinkError,
    SignedPolicy,
    VerifiedIdentity,
    decode_signed_policy_untrusted,
    issue_policy,
    issue_policy_under,
)
from identity.history import CLOCK_SKEW_S
from node.clocks import Clock
from node.database import errors_named
from node.own_node import OwnNode
from node.store import Store

_log = structlog.get_logger("node.mandatory")


class MandatoryPolicy:
    """One for a node. It is the ``Shelf`` from which neighbours are sent what they lack."""

    def __init__(self, store: Store, clock: Clock, node: OwnNode) -> None:
        self._store = store
        self._clock = clock
        self._node = node
        self._newest: SignedPolicy | None = next(self.kept(), None)
        self._kept_of = None if self._newest is None else self._newest.mandate.authority
        """Whose policies are on the disk."""
        self._is_kept = True
        self.obeyed: int | None = None
        """The rank of the one in force, which may be older: it stays on the disk."""
        self.on_news: list[Callable[[], None]] = []
        """Called when a newer one is held."""
        self.taken = 0
        """Those that were newer than what was held."""

    @property
    def held(self) -> SignedPolicy | None:
        """The newest of this node's own authority."""
        newest = self._newest
        is_own = newest is not None and newest.mandate.authority == self._authority
        return newest if is_own else None

    @property
    def may_publish(self) -> bool:
        """Whether this node is the authority, or one whom it has named."""
        if self._is_authority:
            return True
        return self.held is not None and self._node.identifier in self.held.mandate.signers

    def kept(self) -> Iterator[SignedPolicy]:
        """What is on the disk of our own authority's, the newest first. What does not hold is left
        out, and named."""
        for rank, encoded in self._store.policies():
            try:
                signed = decode_signed_policy_untrusted(encoded)
                _verify_kept(signed, self._node.trust.verifier.anchor_history)
            except IdentityError as exc:
                _log.error("mandatory_policy_damaged", rank=rank, why=exc.detail)
                continue
            # A node may have come from another domain, whose numbers may be higher.
            if signed.mandate.authority == self._authority:
                yield signed

    # A shelf.

    def authorities(self, peer: VerifiedIdentity) -> tuple[Identifier, ...]:
        """Our own, for its members: what a domain obeys is nobody else's business."""
        own = self._authority
        return (own,) if own is not None and peer.authority == own else ()

    def number(self, authority: Identifier) -> int:
        """By which neighbours compare what they hold: its rank."""
        held = self.held
        return held.rank if held is not None and held.mandate.authority == authority else 0

    def encoded(self, authority: Identifier) -> bytes | None:
        held = self.held
        return held.encoded if held is not None and held.mandate.authority == authority else None

    def offer_untrusted(self, encoded: bytes) -> SignedPolicy | None:
        """Take a signed policy that somebody brought. None for the one that is held already.

        Raises IdentityError for one that does not count.
        """
        authority = self._authority
        if authority is None:
            raise IdentityError(Code.CHANNEL_WRONG_AUTHORITY, "this node has no authority yet")
        taken = self._node.trust.verifier.verify_policy_untrusted(
            encoded, authority=authority, held=self.held, unix_s=self._clock.unix_s()
        )
        if taken is None:
            return None
        self._newest = taken
        self._is_kept = False
        self.taken += 1
        _log.info(
            "mandatory_policy_taken",
            number=taken.number,
            mandate=taken.mandate.number,
            signer=str(taken.bundle.signer),
            files=len(taken.bundle.files),
        )
        try:
            self.flush()
        except SidelinkError as exc:
            # It is obeyed all the same, and written down when the disk takes it.
            _log.error("mandatory_policy_not_kept", number=taken.number, why=exc.detail)
        for listener in self.on_news:
            listener()
        return taken

    def flush(self) -> None:
        """Write down what is not yet. Raises ConfigError when the disk takes nothing."""
        if self._is_kept or self._newest is None:
            return
        authority = self._newest.mandate.authority
        with self._store.together():
            if authority != self._kept_of:
                # Those of a former domain would have this one's pushed out as older ones.
                self._store.forget_policies()
            newest = self._newest
            self._store.put_policy(newest.rank, newest.encoded, obeyed=self.obeyed)
        self._kept_of = authority
        self._is_kept = True

    # Publishing.

    def publish(self, files: Sequence[PolicyFile]) -> SignedPolicy:
        """Have the whole trust domain obey these files; none of them: nothing any more.

        Raises SidelinkError: POLICY_SIGNER_DENIED where this node may not, POLICY_BUNDLE_INVALID
        for what does not fit.
        """
        held = self.held
        if self._is_authority:
            return self._sign(files, frozenset() if held is None else held.mandate.signers)
        if held is None or not self.may_publish:
            raise SidelinkError(
                Code.POLICY_SIGNER_DENIED,
                f"{self._node.identifier} is not named as a signer by the policy that is in force",
            )
        encoded = issue_policy_under(
            self._node.own,
            held,
            number=self._next_number(),
            issued_unix_s=int(self._clock.unix_s()),
            files=files,
        )
        return self._take_own(encoded)

    def set_signers(self, signers: frozenset[Identifier]) -> SignedPolicy:
        """Name who may publish beside the authority, which is where this may be called."""
        if not self._is_authority:
            raise SidelinkError(
                Code.POLICY_SIGNER_DENIED, "only the authority names those who may publish"
            )
        return self._sign(() if self.held is None else self.held.bundle.files, signers)

    def adopt(self) -> bool:
        """At the authority, called now and then: sign anew what another has published, or what was
        signed by a key of ours that was replaced since.

        So a signer who is left out later, and a key that ends, leave every node with a policy that
        can be shown to new ones. True if anything was to be signed.
        """
        held, own = self.held, self._node.own
        if held is None or not self._is_authority:
            return False
        key_number = own.history.number_of(own.signing_key.verify_key)
        if held.is_by_authority and held.mandate.change_number == key_number:
            return False
        self._sign(held.bundle.files, held.mandate.signers)
        return True

    def _sign(self, files: Sequence[PolicyFile], signers: frozenset[Identifier]) -> SignedPolicy:
        trust_domain = self._node.identity.trust_domain
        assert trust_domain is not None  # An authority has one.
        encoded = issue_policy(
            self._node.own,
            trust_domain,
            number=self._next_number(),
            issued_unix_s=int(self._clock.unix_s()),
            files=files,
            signers=signers,
        )
        return self._take_own(encoded)

    def _take_own(self, encoded: bytes) -> SignedPolicy:
        """As everybody else will: what they would refuse is refused here."""
        taken = self.offer_untrusted(encoded)
        assert taken is not None  # It has a new number.
        return taken

    def _next_number(self) -> int:
        """Also behind a restored backup it rises, because numbers follow the clock."""
        held = 0 if self.held is None else self.held.number
        return max(held + 1, int(self._clock.unix_s()))

    @property
    def _authority(self) -> Identifier | None:
        return self._node.identity.authority

    @property
    def _is_authority(self) -> bool:
        return self._authority == self._node.identifier


def kept_policies(database: Path) -> tuple[SignedPolicy, ...]:
    """What is on the disk, the newest first, for whoever looks into the folder of a program that
    may be running.

    Not verified: it is as trustworthy as the folder. Raises ConfigError for a damaged database.
    """
    if not database.exists():
        return ()
    with errors_named(database, IdentityError):
        connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
        try:
            is_there = connection.execute(
                "SELECT 1 FROM sqlite_master WHERE name = 'node_policies'"
            ).fetchone()
            rows = (
                []
                if is_there is None
                else connection.execute(
                    "SELECT encoded FROM node_policies ORDER BY rowid DESC"
                ).fetchall()
            )
        finally:
            connection.close()
        return tuple(decode_signed_policy_untrusted(bytes(encoded)) for (encoded,) in rows)


def _verify_kept(signed: SignedPolicy, known: Callable[[Identifier], ChangeHistory | None]) -> None:
    """By the histories beside it, and as of then: it was good when it came, and keys that signed it
    may have been replaced since.

    When it came is not kept, and when it was issued is what its signer's clock said, which may be
    slow. So it is the earliest time at which anybody could have taken it.
    """
    history = signed.authority_history
    longest = known(history.identifier) or history
    shorter, longer = sorted((history, longest), key=lambda one: one.change_number)
    longer.check_pin(shorter.pin)
    history.verify_all()
    changes = history.changes[-1], signed.signer_history.changes[-1]
    signed.verify(history, max(one.created_unix_s for one in changes) - CLOCK_SKEW_S)
