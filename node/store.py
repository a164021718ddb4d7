"""What a node remembers beside its keys: its trust anchors, its gateways, and small values.

The tables live in state.db next to the keystore's, over a connection of their own. Nothing secret
is kept here: what must be sealed belongs to the keystore.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from identity import Code, GatewayAddress, Identifier, IdentityError, Pin, TrustAnchor
from node.database import connect, errors_named, migrate, transaction
from node.errors import ConfigError
from node.state_folder import SECRET_MODE

TRUST_ANCHORS_MAX: Final = 64
GATEWAYS_MAX: Final = 64
POLICIES_MAX: Final = 16
KEY_CHARACTERS_MAX: Final = 255
VALUE_BYTES_MAX: Final = 1 << 20
RESTORED_UNIX_S: Final = "restored_unix_s"
"""The key under which a state folder that was made of a backup has the time of its making."""

# One entry for each version of the tables, oldest first. Entries are appended, never changed. The
# version is kept in a table, since the keystore's tables of the same file have their own.
MIGRATIONS: Final = (
    """
    CREATE TABLE node_trust_anchors (
        identifier BLOB PRIMARY KEY CHECK (length(identifier) = 32),
        trust_domain TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE node_gateways (
        position INTEGER PRIMARY KEY,
        host TEXT NOT NULL,
        port INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
        identifier BLOB NOT NULL CHECK (length(identifier) = 32)
    ) STRICT;
    CREATE TABLE node_values (
        key TEXT PRIMARY KEY,
        value BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    """
    ALTER TABLE node_trust_anchors ADD COLUMN added_unix_s INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE node_anchor_histories (
        identifier BLOB PRIMARY KEY CHECK (length(identifier) = 32),
        history BLOB NOT NULL
    ) STRICT;
    CREATE TABLE node_revocations (
        authority BLOB PRIMARY KEY CHECK (length(authority) = 32),
        encoded BLOB NOT NULL
    ) STRICT;
    CREATE TABLE node_seen_histories (
        identifier BLOB PRIMARY KEY CHECK (length(identifier) = 32),
        change_number INTEGER NOT NULL,
        head_hash BLOB NOT NULL CHECK (length(head_hash) = 32)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE node_policies (
        number INTEGER PRIMARY KEY,
        encoded BLOB NOT NULL
    ) STRICT;
    """,
    # What an earlier version wrote down ranks below all that comes.
    """
    ALTER TABLE node_policies RENAME COLUMN number TO rank;
    """,
)


@dataclass(frozen=True, slots=True)
class KeptAnchor:
    anchor: TrustAnchor
    added_unix_s: int
    """0 for one that an earlier version wrote down, until ``date_trust_anchors``."""


class Store:
    """One connection to state.db. Each call is durable when it returns, or part of ``together``."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Raises ConfigError (CONFIG_KEYSTORE_DAMAGED) for a file that is no such database."""
        with errors_named(path):
            # Made before SQLite makes it, because SQLite would ask the umask.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, SECRET_MODE))
            connection = connect(path)
            try:
                migrate(connection, path, "node_schema", MIGRATIONS)
            except BaseException:
                connection.close()
                raise
        return cls(connection, path)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """All that is written inside is durable at its end, or, if it raises, was never written."""
        with errors_named(self._path), transaction(self._connection):
            yield

    def trust_anchors(self) -> tuple[TrustAnchor, ...]:
        with errors_named(self._path):
            rows = self._connection.execute(
                "SELECT identifier, trust_domain FROM node_trust_anchors ORDER BY identifier"
            ).fetchall()
            return tuple(TrustAnchor(Identifier(digest), domain) for digest, domain in rows)

    def kept_anchors(self) -> tuple[KeptAnchor, ...]:
        """The same, and since when each is there."""
        with errors_named(self._path):
            rows = self._connection.execute(
                "SELECT identifier, trust_domain, added_unix_s FROM node_trust_anchors"
            ).fetchall()
            return tuple(
                KeptAnchor(TrustAnchor(Identifier(digest), domain), added)
                for digest, domain, added in rows
            )

    def add_trust_anchor(self, anchor: TrustAnchor, *, unix_s: int = 0) -> None:
        """Adding one that is there already changes its trust domain. Raises beyond the limit."""
        with self.together(), errors_named(self._path):
            self._connection.execute(
                "INSERT INTO node_trust_anchors VALUES (?, ?, ?) ON CONFLICT (identifier) "
                "DO UPDATE SET trust_domain = excluded.trust_domain",
                (anchor.identifier.digest, anchor.trust_domain, unix_s),
            )
            (count,) = self._connection.execute(
                "SELECT count(*) FROM node_trust_anchors"
            ).fetchone()
            if count > TRUST_ANCHORS_MAX:
                raise ConfigError(
                    Code.CONFIG_INVALID, f"more than {TRUST_ANCHORS_MAX} trust anchors"
                )

    def date_trust_anchors(self, unix_s: int) -> None:
        """Those that an earlier version wrote down were added now, once and for all."""
        with self.together(), errors_named(self._path):
            self._connection.execute(
                "UPDATE node_trust_anchors SET added_unix_s = ? WHERE added_unix_s = 0", (unix_s,)
            )

    def remove_trust_anchor(self, identifier: Identifier) -> bool:
        """Forget an authority and all that it has said. False if it was not there."""
        key = (identifier.digest,)
        with self.together(), errors_named(self._path):
            self._connection.execute("DELETE FROM node_revocations WHERE authority = ?", key)
            self._connection.execute("DELETE FROM node_anchor_histories WHERE identifier = ?", key)
            removed = self._connection.execute(
                "DELETE FROM node_trust_anchors WHERE identifier = ?", key
            )
            return removed.rowcount > 0

    def anchor_histories(self) -> list[tuple[Identifier, bytes]]:
        return self._blobs("SELECT identifier, history FROM node_anchor_histories")

    def put_anchor_history(self, identifier: Identifier, history: bytes) -> None:
        statement = "INSERT OR REPLACE INTO node_anchor_histories VALUES (?, ?)"
        self._put_blob(statement, identifier, history)

    def revocations(self) -> list[tuple[Identifier, bytes]]:
        """The newest list of each authority, with the history beside it."""
        return self._blobs("SELECT authority, encoded FROM node_revocations")

    def put_revocations(self, authority: Identifier, encoded: bytes) -> None:
        self._put_blob("INSERT OR REPLACE INTO node_revocations VALUES (?, ?)", authority, encoded)

    def policies(self) -> Iterator[tuple[int, bytes]]:
        """Mandatory policies, the newest first: one is read at a time, since each may be long."""
        with errors_named(self._path):
            rows = self._connection.execute(
                "SELECT rank FROM node_policies ORDER BY rank DESC"
            ).fetchall()
        for (rank,) in rows:
            with errors_named(self._path):
                row = self._connection.execute(
                    "SELECT encoded FROM node_policies WHERE rank = ?", (rank,)
                ).fetchone()
            if row is not None:
                yield rank, bytes(row[0])

    def put_policy(self, rank: int, encoded: bytes, *, obeyed: int | None = None) -> None:
        """Keep one more, and of all the ``POLICIES_MAX`` newest, and the one that is obeyed."""
        with self.together(), errors_named(self._path):
            self._connection.execute(
                "INSERT OR REPLACE INTO node_policies VALUES (?, ?)", (rank, encoded)
            )
            self._connection.execute(
                "DELETE FROM node_policies WHERE rank IS NOT ? AND rank NOT IN "
                "(SELECT rank FROM node_policies ORDER BY rank DESC LIMIT ?)",
                (obeyed, POLICIES_MAX),
            )

    def forget_policies(self) -> None:
        with self.together(), errors_named(self._path):
            self._connection.execute("DELETE FROM node_policies")

    def seen_histories(self) -> list[tuple[Identifier, Pin]]:
        with errors_named(self._path):
            rows = self._connection.execute("SELECT * FROM node_seen_histories").fetchall()
            return [(Identifier(digest), Pin(number, head)) for digest, number, head in rows]

    def put_seen_histories(self, news: Mapping[Identifier, Pin | None]) -> None:
        """Keep pins; forget those that are None."""
        kept = [(one.digest, pin.change_number, pin.head_hash) for one, pin in news.items() if pin]
        gone = [(one.digest,) for one, pin in news.items() if pin is None]
        with self.together(), errors_named(self._path):
            self._connection.executemany(
                "INSERT OR REPLACE INTO node_seen_histories VALUES (?, ?, ?)", kept
            )
            self._connection.executemany(
                "DELETE FROM node_seen_histories WHERE identifier = ?", gone
            )

    def gateways(self) -> tuple[GatewayAddress, ...]:
        """In the order in which they were given."""
        with errors_named(self._path, IdentityError):
            rows = self._connection.execute(
                "SELECT host, port, identifier FROM node_gateways ORDER BY position"
            ).fetchall()
            return tuple(
                GatewayAddress(host, port, Identifier(digest)) for host, port, digest in rows
            )

    def replace_gateways(self, gateways: Iterable[GatewayAddress]) -> None:
        rows = [(i, g.host, g.port, g.identifier.digest) for i, g in enumerate(gateways)]
        if len(rows) > GATEWAYS_MAX:
            raise ConfigError(Code.CONFIG_INVALID, f"more than {GATEWAYS_MAX} gateways")
        with self.together(), errors_named(self._path):
            self._connection.execute("DELETE FROM node_gateways")
            self._connection.executemany("INSERT INTO node_gateways VALUES (?, ?, ?, ?)", rows)

    def get(self, key: str) -> bytes | None:
        with errors_named(self._path):
            row = self._connection.execute(
                "SELECT value FROM node_values WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else bytes(row[0])

    def put(self, key: str, value: bytes) -> None:
        """Keep a small value. Raises ValueError for a key or value beyond its limit."""
        if not key or len(key) > KEY_CHARACTERS_MAX or len(value) > VALUE_BYTES_MAX:
            raise ValueError(f"key of {len(key)} characters, value of {len(value)} bytes")
        with self.together(), errors_named(self._path):
            self._connection.execute(
                "INSERT INTO node_values VALUES (?, ?) "
                "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, value),
            )

    def _blobs(self, query: str) -> list[tuple[Identifier, bytes]]:
        with errors_named(self._path):
            rows = self._connection.execute(query).fetchall()
            return [(Identifier(digest), bytes(blob)) for digest, blob in rows]

    def _put_blob(self, statement: str, key: Identifier, blob: bytes) -> None:
        with self.together(), errors_named(self._path):
            self._connection.execute(statement, (key.digest, blob))
