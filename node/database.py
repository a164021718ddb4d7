"""What every use of SQLite here needs: transactions that are whole or were never, and errors with
words for a person."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from identity import Code
from node.errors import ConfigError

# What a disk says that is full or fails, while the file is as it was before.
_NO_ROOM: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY})
_PRIMARY_CODE: Final = 0xFF


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
