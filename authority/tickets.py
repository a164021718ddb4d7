"""Tickets that the authority has given out, and what each is good for. Kept in its state.db.

A code is stored as its SHA-256: whoever reads the table cannot enrol with it. Redeeming is
idempotent for the same node, so that an answer lost on the way can be asked for again; other nodes
may use the ticket for as long as uses are left.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from typing import Final

from authority.members import MemberBook
from authority.tables import Tables
from authority.terms import Terms, decode_terms, encode_terms, segment_of
from identity import Code, Identifier, SidelinkError
from node.enrolment_wire import TICKET_CODE_BYTES

TICKETS_OPEN_MAX: Final = 10_000
TICKETS_LISTED_MAX: Final = 10_000
TICKET_SECONDS_MAX: Final = 30 * 86_400
TICKET_USES_MAX: Final = 10_000
TICKET_ID_BYTES: Final = 6

_TICKET_ID: Final = re.compile(f"[0-9a-f]{{{2 * TICKET_ID_BYTES}}}")


@dataclass(frozen=True, slots=True)
class Offer:
    """What a ticket is good for. With ``names_below`` each node that comes gets a name of its own
    below the name of the terms; ``replaces`` takes the name from whoever holds it."""

    terms: Terms
    uses: int = 1
    names_below: bool = False
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class IssuedTicket:
    """A ticket as an operator sees it. Its ``id`` is the start of its code's hash, in hex."""

    id: str
    offer: Offer
    used: int
    created_unix_s: int
    expires_unix_s: int
    withdrawn: str | None

    def state(self, unix_s: float) -> str:
        """ "open", "used", "expired", "revoked", or "void" since the authority was restored."""
        if self.withdrawn is not None:
            return self.withdrawn
        if self.used >= self.offer.uses:
            return "used"
        return "expired" if unix_s >= self.expires_unix_s else "open"


class TicketBook:
    """The authority's table of tickets. Each call is one transaction, durable when it returns."""

    def __init__(self, tables: Tables, members: MemberBook) -> None:
        self._tables = tables
        self._members = members

    def create(self, offer: Offer, *, unix_s: int, expires_unix_s: int) -> bytes:
        """Enter a ticket; return its code. Raises SidelinkError (local.limit) beyond the limit."""
        code = os.urandom(TICKET_CODE_BYTES)
        with self._tables.together():
            self._forget_before(unix_s - TICKET_SECONDS_MAX)
            (count,) = self._tables.row(
                "SELECT count(*) FROM authority_tickets_used "
                "WHERE expires_unix_s > ? AND withdrawn IS NULL AND uses > used",
                unix_s,
            )
            if count >= TICKETS_OPEN_MAX:
                raise SidelinkError(Code.LOCAL_LIMIT, f"{TICKETS_OPEN_MAX} tickets wait already")
            self._tables.write(
                "INSERT INTO authority_tickets VALUES (?, ?, ?, NULL, ?, ?, ?, ?, NULL)",
                _hash(code),
                encode_terms(offer.terms),
                expires_unix_s,
                unix_s,
                offer.uses,
                offer.names_below,
                offer.replaces,
            )
        return code

    def redeem(
        self, code: bytes, node: Identifier, unix_s: float, *, wish: str | None = None
    ) -> Offer:
        """Use a ticket for one node; return what it is good for, with the name that it gets.

        The last use at the same instant is won once. Raises SidelinkError: enrol.ticket_unknown,
        enrol.ticket_revoked, enrol.ticket_used, enrol.ticket_expired; IdentityError for a wish that
        makes the name too long.
        """
        code_hash = _hash(code)
        with self._tables.together():
            row = self._tables.row(
                "SELECT terms, uses, names_below, replaces, expires_unix_s, withdrawn, used "
                "FROM authority_tickets_used WHERE code_hash = ?",
                code_hash,
            )
            if row is None:
                raise SidelinkError(Code.ENROL_TICKET_UNKNOWN, "no such ticket was given out")
            terms, uses, names_below, replaces, expires_unix_s, withdrawn, used = row
            before = self._tables.row(
                "SELECT name FROM authority_redemptions WHERE code_hash = ? AND identifier = ?",
                code_hash,
                node.digest,
            )
            if withdrawn is not None:
                raise SidelinkError(Code.ENROL_TICKET_REVOKED, f"it is {withdrawn}")
            if before is None and used >= uses:
                raise SidelinkError(Code.ENROL_TICKET_USED, "other nodes have used it")
            if unix_s >= expires_unix_s:
                raise SidelinkError(Code.ENROL_TICKET_EXPIRED, "its time is over")
            offer = Offer(decode_terms(bytes(terms)), uses, bool(names_below), bool(replaces))
            segment = None
            if offer.names_below:
                segment = before[0] if before else self._segment(offer.terms, node, unix_s, wish)
                offer = Offer(offer.terms.below(segment), uses, True, offer.replaces)
            if before is None:
                self._tables.write(
                    "INSERT INTO authority_redemptions VALUES (?, ?, ?)",
                    code_hash,
                    node.digest,
                    segment,
                )
        return offer

    def tickets(self) -> list[IssuedTicket]:
        """All that are remembered, the newest first."""
        rows = self._tables.rows(
            "SELECT code_hash, terms, uses, names_below, replaces, created_unix_s, "
            "expires_unix_s, withdrawn, used FROM authority_tickets_used "
            "ORDER BY created_unix_s DESC, code_hash LIMIT ?",
            TICKETS_LISTED_MAX,
        )
        return [_issued(*row) for row in rows]

    def revoke(self, ticket_id: str) -> int:
        """Withdraw a ticket; returns how many nodes have enrolled with it, who stay members.

        Raises SidelinkError (local.bad_request) for an id that no ticket has.
        """
        start = bytes.fromhex(ticket_id) if _TICKET_ID.fullmatch(ticket_id) else b""
        with self._tables.together():
            row = self._tables.row(
                "SELECT code_hash, used FROM authority_tickets_used "
                "WHERE substr(code_hash, 1, length(?1)) = ?1 AND length(?1) > 0",
                start,
            )
            if row is None:
                raise SidelinkError(Code.LOCAL_BAD_REQUEST, "no ticket has this id")
            self._tables.write(
                "UPDATE authority_tickets SET withdrawn = coalesce(withdrawn, 'revoked') "
                "WHERE code_hash = ?",
                row[0],
            )
        used: int = row[1]
        return used

    def void_open(self, unix_s: float) -> int:
        """Withdraw all that could still be used; returns how many."""
        return self._tables.write(
            "UPDATE authority_tickets SET withdrawn = 'void' WHERE code_hash IN ("
            "SELECT code_hash FROM authority_tickets_used "
            "WHERE withdrawn IS NULL AND expires_unix_s > ? AND uses > used)",
            unix_s,
        )

    def _segment(self, terms: Terms, node: Identifier, unix_s: float, wish: str | None) -> str:
        if wish is not None:
            name = terms.below(wish).name
            if self._members.holder_of(name, unix_s, but=node) is None:
                return wish
        return segment_of(node)

    def _forget_before(self, unix_s: int) -> None:
        self._tables.write("DELETE FROM authority_tickets WHERE expires_unix_s < ?", unix_s)
        self._tables.write(
            "DELETE FROM authority_redemptions "
            "WHERE code_hash NOT IN (SELECT code_hash FROM authority_tickets)"
        )


def ticket_id(code: bytes) -> str:
    """How an operator names a ticket: it tells nothing about the code."""
    return _hash(code)[:TICKET_ID_BYTES].hex()


def _issued(
    code_hash: bytes,
    terms: bytes,
    uses: int,
    names_below: int,
    replaces: int,
    created_unix_s: int,
    expires_unix_s: int,
    withdrawn: str | None,
    used: int,
) -> IssuedTicket:
    offer = Offer(decode_terms(bytes(terms)), uses, bool(names_below), bool(replaces))
    return IssuedTicket(
        bytes(code_hash)[:TICKET_ID_BYTES].hex(),
        offer,
        used,
        created_unix_s,
        expires_unix_s,
        withdrawn,
    )


def _hash(code: bytes) -> bytes:
    return hashlib.sha256(b"sidelink ticket" + code).digest()
