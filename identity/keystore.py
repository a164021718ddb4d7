"""The keystore: own identities in SQLite, one small row each, private keys sealed.

What a row holds stands in `identity.keystore_rows`. A row that was torn, edited or moved does not
open. An older copy of a whole row does; who can write the file can put time back.
"""

import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from identity.codes import Code
from identity.credential import CHAIN_LINKS_MAX
from identity.errors import IdentityError
from identity.keystore_rows import DAMAGED_ERRORS, Row, RowSeal
from identity.master_key import MasterKey
from identity.own import OwnIdentity

BUSY_TIMEOUT_S: Final = 5.0
ROWS_TRIED_MAX: Final = 64
NAMES_MAX: Final = 10_000
"""The most names that one page has."""
RESEALED_AT_ONCE: Final = 1_000
DAMAGED_NAMED_MAX: Final = 64

_FORMAT: Final = 2
# With a row's number as the table's key a row lies whole in its page, four to a page. By name
# (WITHOUT ROWID), as format 1 had it, SQLite keeps no more than a quarter of a page and puts the
# rest of each row into a page of its own. The second index counts and lists children.
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS keystore_meta (
    id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER NOT NULL, sealed BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS keystore_rows (
    name TEXT NOT NULL UNIQUE, issued_by TEXT, public BLOB NOT NULL, sealed BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS keystore_issued_by ON keystore_rows (issued_by, name);
"""
_OLD_TABLE: Final = "SELECT 1 FROM sqlite_master WHERE name = 'keystore_identity'"
# An update in place, so that a row keeps its number and the file does not grow.
_SAVE: Final = (
    "INSERT INTO keystore_rows VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
    "issued_by = excluded.issued_by, public = excluded.public, sealed = excluded.sealed"
)
# Names are compared as bytes, so that one damaged name neither hides nor repeats another.
_LOAD: Final = (
    "SELECT name, issued_by, public, sealed FROM keystore_rows WHERE name = CAST(? AS TEXT)"
)
_REMOVE: Final = "DELETE FROM keystore_rows WHERE name = CAST(? AS TEXT)"
_NAMES: Final = (
    "SELECT name FROM keystore_rows WHERE name > CAST(? AS TEXT) AND typeof(name) = 'text' "
    "ORDER BY name LIMIT ?"
)
_CHILDREN_NAMES: Final = (
    "SELECT name FROM keystore_rows WHERE issued_by = ? AND name > CAST(? AS TEXT) "
    "AND typeof(name) = 'text' ORDER BY name LIMIT ?"
)
# By the order of the index, so that a page costs the same wherever it begins.
_CHILDREN_AFTER: Final = (
    "SELECT issued_by, name FROM keystore_rows WHERE (issued_by, name) > (?, CAST(? AS TEXT)) "
    "AND typeof(name) = 'text' ORDER BY issued_by, name LIMIT ?"
)
_ROWS_AFTER: Final = (
    "SELECT rowid, name, issued_by, public, sealed FROM keystore_rows WHERE rowid > ? "
    "ORDER BY rowid LIMIT ?"
)
_SHOWN_BYTE: Final = re.compile(rb"\\x([0-9a-f]{2})")


def _nobody(_: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Resealed:
    """How many rows are under the new key, how many are damaged, and the first names of those."""

    rows: int
    damaged: int
    damaged_names: tuple[str, ...]


class Keystore:
    """Own identities on disk. Calls block on the disk; they may come from any one thread at a time.

    Raises IdentityError: CONFIG_MASTER_KEY when the key is not the one of this file,
    CONFIG_KEYSTORE_DAMAGED naming the row, or the file, that is not as it was written.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, seal: RowSeal) -> None:
        self._path = path
        self._connection = connection
        self._seal = seal
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path, master_key: MasterKey) -> "Keystore":
        """Open the file, or create it with mode 0600."""
        # Made before SQLite makes it, because SQLite would ask the umask.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = lambda raw: raw.decode(errors="backslashreplace")
        keystore = cls(path, connection, RowSeal(master_key))
        try:
            keystore._prepare()
        except BaseException:
            connection.close()
            raise
        return keystore

    def save(self, identity: OwnIdentity) -> None:
        """Write one identity; when this returns it has reached the disk."""
        self.save_many((identity,))

    def save_many(self, identities: Iterable[OwnIdentity]) -> None:
        """Write identities in one transaction: all or none, and one wait for the disk."""
        rows = [self._seal.seal(identity) for identity in identities]
        with self._transaction() as connection:
            connection.executemany(
                _SAVE, [(row.name, row.issued_by, row.public, row.sealed) for row in rows]
            )

    def load(
        self, name: str, issuer: Callable[[str], OwnIdentity | None] = _nobody
    ) -> OwnIdentity | None:
        """The identity of this name, with the chain that proves it now.

        `issuer` is asked by name for whoever issued its credential, and answers None for one that
        the caller does not hold in memory: that one is then loaded as well.
        """
        return self._load(name, issuer, CHAIN_LINKS_MAX)

    def names(self, after: str = "", limit: int = NAMES_MAX) -> tuple[str, ...]:
        """A page of the names of all rows, damaged ones too, in order.

        The next page comes after the last name of this one; an empty page is the end.
        """
        return self._names(_NAMES, _raw(after), limit)

    def children(self, name: str) -> int:
        """How many have a credential that the identity of this name issued."""
        with self._database() as connection:
            (count,) = connection.execute(
                "SELECT count(*) FROM keystore_rows WHERE issued_by = ?", (name,)
            ).fetchone()
        return int(count)

    def children_names(self, name: str, after: str = "", limit: int = NAMES_MAX) -> tuple[str, ...]:
        """A page of their names, as ``names`` gives them."""
        return self._names(_CHILDREN_NAMES, name, _raw(after), limit)

    def children_after(
        self, issuer: str, name: str, limit: int = NAMES_MAX
    ) -> tuple[tuple[str, str], ...]:
        """A page of (issuer's name, name) of all whom somebody issued, in that order, behind this
        one."""
        with self._database() as connection:
            found = connection.execute(_CHILDREN_AFTER, (issuer, _raw(name), limit))
            return tuple((above, below) for above, below in found)

    def remove(self, name: str) -> bool:
        """Remove a row, damaged or not; True if there was one."""
        return self.remove_many((name,)) > 0

    def remove_many(self, names: Iterable[str]) -> int:
        """Remove rows in one transaction, all or none; how many there were."""
        with self._transaction() as connection:
            rows = [(_raw(name),) for name in names]
            return connection.executemany(_REMOVE, rows).rowcount if rows else 0

    def reseal(self, master_key: MasterKey) -> Resealed:
        """Put every private key under another master key, in one transaction.

        A row that is damaged stays as it is: it opened under no key before, and is still named.
        """
        seal = RowSeal(master_key)
        with self._transaction() as connection:
            resealed = self._reseal_rows(connection, seal)
            connection.execute("UPDATE keystore_meta SET sealed = ?", (seal.new_check(),))
        self._seal = seal
        with self._database() as connection:
            # What the old key sealed goes from the log beside the file, too.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return resealed

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _prepare(self) -> None:
        with self._database() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")
            self._refuse_other_format(connection)
            connection.executescript(_TABLES)
            row = connection.execute("SELECT format, sealed FROM keystore_meta").fetchone()
        if row is not None and row[0] != _FORMAT:
            self._refuse_format(row[0])
        if row is not None and self._seal.opens_check(row[1]):
            return
        # Another key, or a damaged check: the rows tell which. A new file has neither.
        some_names = self.names(limit=ROWS_TRIED_MAX)
        if (row or some_names) and not any(self._opens(name) for name in some_names):
            raise IdentityError(
                Code.CONFIG_MASTER_KEY, f"{self._path} was made with another master key"
            )
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO keystore_meta VALUES (1, ?, ?)",
                (_FORMAT, self._seal.new_check()),
            )

    def _refuse_other_format(self, connection: sqlite3.Connection) -> None:
        if connection.execute(_OLD_TABLE).fetchone() is not None:
            self._refuse_format(1)

    def _refuse_format(self, found: Any) -> None:
        raise IdentityError(
            Code.CONFIG_INVALID,
            f"{self._path} holds keys in format {found}, and this program reads {_FORMAT} only; "
            "nothing was changed: use the version that wrote it, or another state folder",
        )

    def _opens(self, name: str) -> bool:
        try:
            return self._row(name) is not None
        except IdentityError:
            return False

    def _load(
        self, name: str, held: Callable[[str], OwnIdentity | None], links_left: int
    ) -> OwnIdentity | None:
        own = self._row(name)
        if own is None or own.issued_by is None or not own.chain:
            return own
        issuer = held(own.issued_by)
        if issuer is None and links_left > 1:
            issuer = self._load(own.issued_by, held, links_left - 1)
        if issuer is None:
            raise self._damaged(name, f"its issuer {own.issued_by!r} is not there, or too far away")
        return own.below(issuer, own.chain[0].credential)

    def _row(self, name: str) -> OwnIdentity | None:
        """The identity as its row has it: of its chain, perhaps the first credential only."""
        with self._database() as connection:
            found = connection.execute(_LOAD, (_raw(name),)).fetchone()
        if found is None:
            return None
        try:
            return self._seal.open(Row(*found))
        except DAMAGED_ERRORS as error:
            raise self._damaged(name, "it is not as it was written") from error

    def _damaged(self, name: str, why: str) -> IdentityError:
        return IdentityError(
            Code.CONFIG_KEYSTORE_DAMAGED, f"the row of {name!r} in {self._path}: {why}"
        )

    def _names(self, select: str, *values: Any) -> tuple[str, ...]:
        if not 0 < values[-1] <= NAMES_MAX:
            raise ValueError(f"a page has 1 to {NAMES_MAX} names")
        with self._database() as connection:
            return tuple(name for (name,) in connection.execute(select, values))

    def _reseal_rows(self, connection: sqlite3.Connection, seal: RowSeal) -> Resealed:
        last, count, damaged = 0, 0, 0
        damaged_names: list[str] = []
        while True:
            page = connection.execute(_ROWS_AFTER, (last, RESEALED_AT_ONCE)).fetchall()
            if not page:
                return Resealed(count, damaged, tuple(damaged_names))
            changes = []
            for number, *found in page:
                last = number
                try:
                    changes.append((self._seal.reseal(Row(*found), seal), number))
                except DAMAGED_ERRORS:
                    damaged += 1
                    if damaged <= DAMAGED_NAMED_MAX:
                        damaged_names.append(str(found[0]))
            connection.executemany("UPDATE keystore_rows SET sealed = ? WHERE rowid = ?", changes)
            count += len(changes)

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connection
            except sqlite3.DatabaseError as error:
                is_busy = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
                code = Code.CONFIG_STATE_LOCKED if is_busy else Code.CONFIG_KEYSTORE_DAMAGED
                raise IdentityError(code, f"{self._path}: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._database() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # SQLite has taken it back by itself where the disk was full.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


def _raw(name: str) -> bytes:
    """The bytes of a name as the file has them: what is damaged in it is shown as ``\\xff``."""
    encoded = name.encode(errors="backslashreplace")
    return _SHOWN_BYTE.sub(lambda found: bytes.fromhex(found[1].decode()), encoded)
