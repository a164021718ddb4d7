"""What every use of SQLite here needs: transactions that are whole or were never, and errors with
words for a person."""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from identity import Code
from node.errors import ConfigError

BUSY_TIMEOUT_S: Final = 5.0

# What a disk says that is full or fails, while the file is as it was before.
_NO_ROOM: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY})
_PRIMARY_CODE: Final = 0xFF


def connect(path: Path) -> sqlite3.Connection:
    """Open state.db, whose every commit is on the disk when it returns. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def migrate(
    connection: sqlite3.Connection, path: Path, schema: str, migrations: Sequence[str]
) -> None:
    """Bring the tables of one owner up to date: the table ``schema`` has their version.

    Entries of ``migrations`` are appended, never changed. Raises ConfigError for tables that a
    newer version of Sidelink wrote.
    """
    with transaction(connection):
        connection.execute(f"CREATE TABLE IF NOT EXISTS {schema} (version INTEGER NOT NULL) STRICT")
        (found,) = connection.execute(f"SELECT max(version) FROM {schema}").fetchone()  # noqa: S608
        version = found or 0
        if version > len(migrations):
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"{path}: written by a newer version of Sidelink "
                f"({schema} {version}, this one knows {len(migrations)})",
                remedy="Upgrade this program, or choose another state folder.",
            )
        for number, script in enumerate(migrations[version:], start=version + 1):
            for statement in filter(str.strip, script.split(";")):
                connection.execute(statement)
            connection.execute(f"INSERT INTO {schema} VALUES (?)", (number,))  # noqa: S608


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is written inside is durable at its end, or, if it raises, was never written.

    Within another one it is part of that. A commit that fails is taken back as well: an open
    transaction would swallow whatever is written after it.
    """
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has taken it back by itself where the disk was full.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def errors_named(path: Path, *others: type[Exception]) -> Iterator[None]:
    """What SQLite raises, or ``others``, becomes a ConfigError that names the file."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, (sqlite3.Error, *others)):
            raise
        code, remedy = Code.CONFIG_KEYSTORE_DAMAGED, None
        primary = getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE
        if primary == sqlite3.SQLITE_BUSY:
            code = Code.CONFIG_STATE_LOCKED
        elif primary in _NO_ROOM:
            remedy = "Make room on the disk of the state folder, or replace the disk."
        raise ConfigError(code, f"{path}: {error}", remedy=remedy) from error
