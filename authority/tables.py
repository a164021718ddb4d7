"""The authority's part of state.db: its tables, their versions, and transactions over them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from node.database import connect, errors_named, migrate, transaction

# One entry for each version of the tables, oldest first. Entries are appended, never changed. The
# first says IF NOT EXISTS, because it was once laid without a note of its version.
MIGRATIONS: Final = (
    """
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
    """,
    # Tickets of several uses, and members by identifier: what each was granted, to be renewed.
    """
    ALTER TABLE authority_tickets ADD COLUMN created_unix_s INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE authority_tickets ADD COLUMN uses INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE authority_tickets ADD COLUMN names_below INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE authority_tickets ADD COLUMN replaces INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE authority_tickets ADD COLUMN withdrawn TEXT;
    CREATE TABLE authority_redemptions (
        code_hash BLOB NOT NULL CHECK (length(code_hash) = 32),
        identifier BLOB NOT NULL CHECK (length(identifier) = 32),
        name TEXT,
        PRIMARY KEY (code_hash, identifier)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO authority_redemptions
        SELECT code_hash, redeemed_by, NULL FROM authority_tickets WHERE redeemed_by IS NOT NULL;
    CREATE VIEW authority_tickets_used AS
        SELECT *, (
            SELECT count(*) FROM authority_redemptions AS redeemed
            WHERE redeemed.code_hash = authority_tickets.code_hash
        ) AS used
        FROM authority_tickets;
    CREATE TABLE authority_members (
        identifier BLOB PRIMARY KEY CHECK (length(identifier) = 32),
        name TEXT NOT NULL,
        role TEXT NOT NULL,
        terms BLOB,
        change_number INTEGER NOT NULL DEFAULT 0,
        head_hash BLOB,
        issued_unix_s INTEGER NOT NULL,
        expires_unix_s INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX authority_members_by_name ON authority_members (name);
    INSERT OR REPLACE INTO authority_members
        SELECT identifier, name, role, (
            SELECT terms FROM authority_tickets
            WHERE redeemed_by = authority_nodes.identifier ORDER BY expires_unix_s DESC LIMIT 1
        ), 0, NULL, issued_unix_s, expires_unix_s
        FROM authority_nodes ORDER BY issued_unix_s;
    DROP TABLE authority_nodes;
    CREATE TABLE authority_tokens (
        token_hash BLOB PRIMARY KEY CHECK (length(token_hash) = 32),
        identifier BLOB NOT NULL CHECK (length(identifier) = 32),
        until_unix_s INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE authority_revocations (
        identifier BLOB PRIMARY KEY CHECK (length(identifier) = 32),
        revoked_unix_s INTEGER NOT NULL,
        reason TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE authority_revocation_list (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        number INTEGER NOT NULL
    ) STRICT;
    """,
)


class Tables:
    """One connection. Each call of a book on it is durable when it returns, or part of
    ``together``."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError for tables of a newer version."""
        self._path = path
        with errors_named(path):
            self._connection = connect(path)
            try:
                migrate(self._connection, path, "authority_schema", MIGRATIONS)
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """All that is written inside is durable at its end, or, if it raises, was never written.
        What is read inside nobody else changes meanwhile."""
        with errors_named(self._path), transaction(self._connection):
            yield

    def write(self, statement: str, *values: Any) -> int:
        """Change rows; returns how many."""
        with self.together():
            return self._connection.execute(statement, values).rowcount

    def row(self, statement: str, *values: Any) -> Any:
        """The first row, or None."""
        with errors_named(self._path):
            return self._connection.execute(statement, values).fetchone()

    def rows(self, statement: str, *values: Any) -> list[Any]:
        with errors_named(self._path):
            return self._connection.execute(statement, values).fetchall()
