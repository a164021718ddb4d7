"""Whom this authority has revoked, and its signed list of them. Kept in its state.db.

Nobody is taken off the list: a credential that names a revoked identity could otherwise be shown
again. Each list has a higher number than the one before, also behind a restored backup, because
numbers follow the clock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from authority.tables import Tables
from identity import (
    Code,
    Identifier,
    OwnIdentity,
    RevocationList,
    SidelinkError,
    SignatureBudget,
    decode_revocations_untrusted,
    issue_revocations,
)
from identity.revocation import REVOKED_MAX

REASON_CHARS_MAX: Final = 200
LEARNED: Final = "on an earlier list of this authority"


@dataclass(frozen=True, slots=True)
class Revocation:
    """One entry: who, since when, why. The list that nodes get has identifiers only."""

    identifier: Identifier
    revoked_unix_s: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Issued:
    """The list as it was signed last, and the key that signed it."""

    number: int
    renew_unix_s: int
    own: OwnIdentity
    encoded: bytes


class RevocationBook:
    """The authority's table of revocations. Each change is durable when its call returns."""

    def __init__(
        self,
        tables: Tables,
        own: Callable[[], OwnIdentity],
        trust_domain: str,
        *,
        next_update_s: int,
    ) -> None:
        self._tables = tables
        self._own = own
        self._trust_domain = trust_domain
        self._next_update_s = next_update_s
        self._issued: _Issued | None = None

    def revoke(self, identifier: Identifier, reason: str, *, unix_s: float) -> bool:
        """Enter an identity. False for one that was revoked before.

        Raises SidelinkError: local.bad_request, and local.limit once the list is full.
        """
        if identifier == self._own().identifier:
            raise _bad("an authority cannot revoke itself")
        if len(reason) > REASON_CHARS_MAX or not reason.isprintable():
            raise _bad(f"a reason is one line of at most {REASON_CHARS_MAX} characters")
        return self._enter([Revocation(identifier, int(unix_s), reason)], unix_s, 0)

    def revocations(self) -> list[Revocation]:
        """All of them, the newest first."""
        rows = self._tables.rows(
            "SELECT identifier, revoked_unix_s, reason FROM authority_revocations "
            "ORDER BY revoked_unix_s DESC, identifier"
        )
        return [Revocation(Identifier(bytes(digest)), since, why) for digest, since, why in rows]

    @property
    def count(self) -> int:
        return int(self._tables.row("SELECT count(*) FROM authority_revocations")[0])

    def current(self, unix_s: float) -> bytes:
        """The signed list, encoded. Signed anew once half of its time is over, after a start, and
        when the authority has another key."""
        own, issued = self._own(), self._issued
        if issued is None or unix_s >= issued.renew_unix_s or issued.own is not own:
            with self._tables.together():
                number = self._advance(unix_s, 0)
                issued = self._issued = self._sign(own, number, int(unix_s))
        return issued.encoded

    def merge_untrusted(self, encoded: bytes, *, unix_s: float) -> bool:
        """Learn from a list of this authority that somebody has kept, as one must whose backup is
        older than that list. True if it held anything new.

        Raises IdentityError for what this authority has not signed; SidelinkError (local.limit).
        """
        content = self._verified_untrusted(encoded, unix_s)
        entries = [
            Revocation(Identifier(digest), int(unix_s), LEARNED) for digest in content.revoked
        ]
        if content.number <= self.number and all(
            self.is_revoked(one.identifier) for one in entries
        ):
            return False
        self._enter(entries, unix_s, content.number)
        return True

    def _verified_untrusted(self, encoded: bytes, unix_s: float) -> RevocationList:
        signed = decode_revocations_untrusted(encoded)
        content, own = signed.content, self._own()
        if content.issuer != own.identifier or content.trust_domain != self._trust_domain:
            raise SidelinkError(Code.CHANNEL_REVOCATIONS_INVALID, "the list of another authority")
        history, shown = own.history, signed.issuer_history
        if shown.change_number > history.change_number:
            shown.verify_signatures(
                SignatureBudget(2 * len(shown.changes)), trusted_prefix=history.pin
            )
            history = shown
        else:
            history.check_pin(shown.pin)
        signed.check_numbers(unix_s)
        signed.verify(history, unix_s)
        return content

    def _enter(self, entries: list[Revocation], unix_s: float, above: int) -> bool:
        """Enter what is new, with the next number, in one transaction."""
        with self._tables.together():
            changed = sum(
                self._tables.write(
                    "INSERT OR IGNORE INTO authority_revocations VALUES (?, ?, ?)",
                    one.identifier.digest,
                    one.revoked_unix_s,
                    one.reason,
                )
                for one in entries
            )
            (count,) = self._tables.row("SELECT count(*) FROM authority_revocations")
            if count > REVOKED_MAX:
                raise SidelinkError(
                    Code.LOCAL_LIMIT, f"{REVOKED_MAX} identities are revoked: a list holds no more"
                )
            if not changed and not above:
                return False
            number = self._advance(unix_s, above)
        self._issued = self._sign(self._own(), number, int(unix_s))
        return changed > 0

    def _advance(self, unix_s: float, above: int) -> int:
        number = max(self.number + 1, above + 1, int(unix_s))
        self._tables.write("INSERT OR REPLACE INTO authority_revocation_list VALUES (1, ?)", number)
        return number

    def _sign(self, own: OwnIdentity, number: int, unix_s: int) -> _Issued:
        encoded = issue_revocations(
            own,
            self._trust_domain,
            number=number,
            issued_unix_s=unix_s,
            next_update_unix_s=unix_s + self._next_update_s,
            revoked=[one.identifier for one in self.revocations()],
        )
        return _Issued(number, unix_s + self._next_update_s // 2, own, encoded)

    @property
    def number(self) -> int:
        """The number of the newest list; 0 before the first."""
        row = self._tables.row("SELECT number FROM authority_revocation_list")
        return 0 if row is None else int(row[0])

    def is_revoked(self, identifier: Identifier) -> bool:
        return (
            self._tables.row(
                "SELECT 1 FROM authority_revocations WHERE identifier = ?", identifier.digest
            )
            is not None
        )


def _bad(detail: str) -> SidelinkError:
    return SidelinkError(Code.LOCAL_BAD_REQUEST, detail)
