"""Tokens with which a process may act as the agents that were named when each was made.

Kept in the sidecar's state.db as SHA-256: whoever reads the table cannot use what it holds, and
looking one up costs the same whether it is there or not. All of them stay in memory too.
"""

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sidelink.tokens import SECRET_BYTES, token_of

from identity import Code, SidelinkError
from node.database import connect, errors_named
from sidecar.attestation import Scope

TOKENS_MAX: Final = 1_024
AGENTS_PER_TOKEN_MAX: Final = 64
TOKEN_SECONDS_MAX: Final = 366 * 86_400
LAST_USE_SECONDS: Final = 3_600
"""How coarse the time of the last use is: a token that is used all the time is written so often."""

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS sidecar_tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    token_hash BLOB NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    agents TEXT NOT NULL,
    created_unix_s INTEGER NOT NULL,
    expires_unix_s INTEGER NOT NULL,
    last_used_unix_s INTEGER
) STRICT
"""


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token, which is not the token itself."""

    id: int
    agents: tuple[str, ...]
    created_unix_s: int
    expires_unix_s: int
    last_used_unix_s: int | None

    @property
    def scope(self) -> Scope:
        return Scope.below(self.agents)


class TokenBook:
    """The tokens of one sidecar. Each change is durable when the call returns."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError for a file that is no such database."""
        self._path = path
        with errors_named(path):
            self._connection = connect(path)
            try:
                self._connection.execute(_TABLE)
                rows = self._connection.execute("SELECT * FROM sidecar_tokens").fetchall()
            except BaseException:
                self._connection.close()
                raise
        self._hash_of: dict[int, bytes] = {}
        self._by_hash: dict[bytes, Token] = {}
        for number, token_hash, agents, *times in rows:
            self._keep(bytes(token_hash), Token(number, tuple(agents.split(" ")), *times))

    def close(self) -> None:
        self._connection.close()

    def __len__(self) -> int:
        return len(self._hash_of)

    def entries(self) -> list[Token]:
        """Oldest first; those that have expired until room is needed."""
        return sorted(self._by_hash.values(), key=lambda token: token.id)

    def create(self, agents: Sequence[str], *, unix_s: int, lifetime_s: int) -> tuple[str, Token]:
        """The text of a new token, which nobody can ask for again, and what is kept of it.

        Raises SidelinkError (local.limit) when there are too many, ConfigError where it cannot be
        written.
        """
        assert 0 < len(agents) <= AGENTS_PER_TOKEN_MAX
        assert 0 < lifetime_s <= TOKEN_SECONDS_MAX
        if len(self) >= TOKENS_MAX:
            self._forget_expired(unix_s)
        if len(self) >= TOKENS_MAX:
            raise SidelinkError(
                Code.LOCAL_LIMIT, f"{TOKENS_MAX} tokens are in use; revoke some of them"
            )
        text = token_of(os.urandom(SECRET_BYTES))
        token_hash = _hash(text)
        expires_unix_s = unix_s + lifetime_s
        with errors_named(self._path):
            cursor = self._connection.execute(
                "INSERT INTO sidecar_tokens VALUES (NULL, ?, ?, ?, ?, NULL)",
                (token_hash, " ".join(agents), unix_s, expires_unix_s),
            )
        assert cursor.lastrowid is not None
        token = Token(cursor.lastrowid, tuple(agents), unix_s, expires_unix_s, None)
        self._keep(token_hash, token)
        return text, token

    def revoke(self, number: int) -> bool:
        """False when there is no such token. Raises ConfigError where that cannot be written."""
        if number not in self._hash_of:
            return False
        with errors_named(self._path):
            self._connection.execute("DELETE FROM sidecar_tokens WHERE id = ?", (number,))
        del self._by_hash[self._hash_of.pop(number)]
        return True

    def find_untrusted(self, text: str, unix_s: float) -> Token | None:
        """The token of this text, if it holds now. Any text costs one hash and one look."""
        token = self._by_hash.get(_hash(text))
        return token if token is not None and unix_s < token.expires_unix_s else None

    def holds(self, number: int, unix_s: float) -> bool:
        """Whether a token that was found before holds still."""
        token_hash = self._hash_of.get(number)
        return token_hash is not None and unix_s < self._by_hash[token_hash].expires_unix_s

    def used(self, token: Token, unix_s: float) -> None:
        """Remember when, to the hour. A disk that takes nothing locks nobody out."""
        hour_unix_s = int(unix_s) // LAST_USE_SECONDS * LAST_USE_SECONDS
        if token.last_used_unix_s == hour_unix_s:
            return
        self._by_hash[self._hash_of[token.id]] = replace(token, last_used_unix_s=hour_unix_s)
        with contextlib.suppress(sqlite3.OperationalError):
            self._connection.execute(
                "UPDATE sidecar_tokens SET last_used_unix_s = ? WHERE id = ?",
                (hour_unix_s, token.id),
            )

    def _keep(self, token_hash: bytes, token: Token) -> None:
        self._hash_of[token.id] = token_hash
        self._by_hash[token_hash] = token

    def _forget_expired(self, unix_s: int) -> None:
        for token in self.entries():
            if token.expires_unix_s <= unix_s:
                self.revoke(token.id)


def _hash(text: str) -> bytes:
    return hashlib.sha256(b"sidelink local token" + text.encode(errors="replace")).digest()
