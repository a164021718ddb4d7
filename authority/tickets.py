"""Tickets that the authority has given out, and what each is good for. Kept in its state.db.

A code is stored as its SHA-256: whoever reads the table cannot enrol with it. Redeeming is
idempotent for the same node, so that an answer lost on the way can be asked for again; for any
other node the ticket is used.
"""

import hashlib
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from identity import (
    AgentUri,
    AttributeValue,
    Code,
    Delegable,
    Identifier,
    NamePrefix,
    SidelinkError,
)
from node.enrolment_wire import TICKET_CODE_BYTES

TICKETS_OPEN_MAX: Final = 10_000
TICKET_SECONDS_MAX: Final = 30 * 86_400
BUSY_TIMEOUT_SECONDS: Final = 5.0

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS authority_tickets (
    code_hash BLOB PRIMARY KEY CHECK (length(code_hash) = 32),
    terms BLOB NOT NULL,
    expires_unix_s INTEGER NOT NULL,
    redeemed_by BLOB
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS authority_nodes (
    name TEXT PRIMARY KEY,
    identifier BLOB NOT NULL CHECK (length(identifier) = 32),
    role TEXT NOT NULL,
    issued_unix_s INTEGER NOT NULL,
    expires_unix_s INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS authority_gateways (
    address TEXT PRIMARY KEY,
    identifier BLOB NOT NULL CHECK (length(identifier) = 32)
) STRICT, WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the node that redeems a ticket will be."""

    name: AgentUri
    role: str
    attributes: Mapping[str, AttributeValue]
    delegable: Delegable | None


class _StoredTerms(msgspec.Struct, frozen=True):
    name: str
    role: str
    attributes: dict[str, Any]
    prefixes: list[str]
    allowed: dict[str, list[Any] | None]
    actions: list[str]
    depth: int
    lifetime_s_max: int


@dataclass(frozen=True, slots=True)
class IssuedNode:
    name: str
    identifier: Identifier
    role: str
    issued_unix_s: int
    expires_unix_s: int


class TicketBook:
    """The authority's tables. Each call is one transaction, durable when it returns."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        for statement in filter(str.strip, _TABLES.split(";")):
            self._connection.execute(statement)

    def close(self) -> None:
        self._connection.close()

    def create(self, terms: Terms, *, unix_s: int, expires_unix_s: int) -> bytes:
        """Enter a ticket; return its code. Raises SidelinkError (local.limit) beyond the limit."""
        code = os.urandom(TICKET_CODE_BYTES)
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(
                "DELETE FROM authority_tickets WHERE expires_unix_s < ?",
                (unix_s - TICKET_SECONDS_MAX,),
            )
            (count,) = self._connection.execute(
                "SELECT count(*) FROM authority_tickets "
                "WHERE redeemed_by IS NULL AND expires_unix_s > ?",
                (unix_s,),
            ).fetchone()
            if count >= TICKETS_OPEN_MAX:
                raise SidelinkError(Code.LOCAL_LIMIT, f"{TICKETS_OPEN_MAX} tickets wait already")
            self._connection.execute(
                "INSERT INTO authority_tickets VALUES (?, ?, ?, NULL)",
                (_hash(code), _encode_terms(terms), expires_unix_s),
            )
        return code

    def redeem(self, code: bytes, node: Identifier, unix_s: float) -> Terms:
        """Use a ticket up for one node. The same ticket at the same instant wins once.

        Raises SidelinkError: enrol.ticket_unknown, enrol.ticket_expired, enrol.ticket_used.
        """
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            row = self._connection.execute(
                "SELECT terms, expires_unix_s, redeemed_by FROM authority_tickets "
                "WHERE code_hash = ?",
                (_hash(code),),
            ).fetchone()
            if row is None:
                raise SidelinkError(Code.ENROL_TICKET_UNKNOWN, "no such ticket was given out")
            terms, expires_unix_s, redeemed_by = row
            if redeemed_by is not None and bytes(redeemed_by) != node.digest:
                raise SidelinkError(Code.ENROL_TICKET_USED, "another node has used it")
            if unix_s >= expires_unix_s:
                raise SidelinkError(Code.ENROL_TICKET_EXPIRED, "its time is over")
            self._connection.execute(
                "UPDATE authority_tickets SET redeemed_by = ? WHERE code_hash = ?",
                (node.digest, _hash(code)),
            )
        return _decode_terms(bytes(terms))

    def issued(self, node: IssuedNode) -> None:
        with self._connection:
            self._connection.execute(
                "INSERT OR REPLACE INTO authority_nodes VALUES (?, ?, ?, ?, ?)",
                (
                    node.name,
                    node.identifier.digest,
                    node.role,
                    node.issued_unix_s,
                    node.expires_unix_s,
                ),
            )

    def nodes(self) -> list[IssuedNode]:
        rows = self._connection.execute("SELECT * FROM authority_nodes ORDER BY name").fetchall()
        return [
            IssuedNode(name, Identifier(bytes(digest)), role, issued, expires)
            for name, digest, role, issued, expires in rows
        ]

    def set_gateway(self, address: str, gateway: Identifier) -> None:
        with self._connection:
            self._connection.execute(
                "INSERT OR REPLACE INTO authority_gateways VALUES (?, ?)",
                (address, gateway.digest),
            )

    def gateway_at(self, address: str) -> Identifier | None:
        row = self._connection.execute(
            "SELECT identifier FROM authority_gateways WHERE address = ?", (address,)
        ).fetchone()
        return None if row is None else Identifier(bytes(row[0]))


def _hash(code: bytes) -> bytes:
    return hashlib.sha256(b"sidelink ticket" + code).digest()


def _encode_terms(terms: Terms) -> bytes:
    passed_on = terms.delegable
    stored = _StoredTerms(
        name=str(terms.name),
        role=terms.role,
        attributes=dict(terms.attributes),
        prefixes=[str(prefix) for prefix in passed_on.name_prefixes] if passed_on else [],
        allowed={key: None if v is None else list(v) for key, v in passed_on.attributes.items()}
        if passed_on
        else {},
        actions=list(passed_on.actions) if passed_on else [],
        depth=passed_on.depth if passed_on else 0,
        lifetime_s_max=passed_on.lifetime_s_max if passed_on else 0,
    )
    return msgspec.msgpack.encode(stored)


def _decode_terms(data: bytes) -> Terms:
    stored = msgspec.msgpack.decode(data, type=_StoredTerms)
    delegable = Delegable(
        name_prefixes=tuple(NamePrefix.parse(prefix) for prefix in stored.prefixes),
        attributes={
            key: None if values is None else tuple(_value(item) for item in values)
            for key, values in stored.allowed.items()
        },
        actions=tuple(stored.actions),
        depth=stored.depth,
        lifetime_s_max=stored.lifetime_s_max,
    )
    return Terms(
        name=AgentUri.parse(stored.name),
        role=stored.role,
        attributes={key: _value(value) for key, value in stored.attributes.items()},
        delegable=delegable if stored.prefixes else None,
    )


def _value(stored: Any) -> AttributeValue:
    return tuple(stored) if isinstance(stored, list) else stored
