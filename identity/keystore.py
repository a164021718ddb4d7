"""The keystore: own identities in SQLite, one row each, private keys sealed under the master key.

Each row has a public part (history, attestations, chain) and a sealed one (private keys). The seal
(AES-GCM-SIV, RFC 8452) covers the table, the row's key and the public part as associated data: a
row that was torn, edited or moved does not open. An older copy of a whole row does; who can write
the file can put time back.
"""

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from identity import cbor
from identity.codes import Code
from identity.errors import IdentityError, SidelinkError
from identity.fields import Reader
from identity.history import HISTORY_BYTES_MAX, ChangeHistory
from identity.keys import KEY_BYTES, NoiseKey, SigningKey
from identity.master_key import MASTER_KEY_BYTES, MasterKey
from identity.own import OwnIdentity
from identity.proof import PROOF_BYTES_MAX, ChainLink
from identity.purpose import ATTESTATION_BYTES_MAX, Purpose, PurposeKey

NAME_CHARS_MAX: Final = 255
BUSY_TIMEOUT_S: Final = 5.0
ROWS_TRIED_MAX: Final = 64

_NONCE_BYTES: Final = 12
_PUBLIC_BYTES_MAX: Final = HISTORY_BYTES_MAX + 4 * PROOF_BYTES_MAX
_SEALED_BYTES_MAX: Final = 4096
_CHECK_TEXT: Final = b"sidelink keystore"
_HISTORY, _ATTESTATIONS, _CHAIN = 1, 2, 3
_SIGNING, _NOISE = 1, 2
_READ: Final = Reader(Code.CONFIG_KEYSTORE_DAMAGED)
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS keystore_check (id INTEGER PRIMARY KEY CHECK (id = 1), sealed BLOB);
CREATE TABLE IF NOT EXISTS keystore_identity (
    name TEXT PRIMARY KEY, public BLOB NOT NULL, sealed BLOB NOT NULL
) WITHOUT ROWID;
"""
# As text whatever it is, so that one damaged name does not hide the others.
_SELECT_NAMES: Final = "SELECT CAST(name AS TEXT) FROM keystore_identity ORDER BY name"


class Keystore:
    """Own identities on disk. Calls block on the disk; they may come from any one thread at a time.

    Raises IdentityError: CONFIG_MASTER_KEY when the key is not the one of this file,
    CONFIG_KEYSTORE_DAMAGED naming the row, or the file, that is not as it was written.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, seal: AESGCMSIV) -> None:
        self._path = path
        self._connection = connection
        self._seal = seal
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path, master_key: MasterKey) -> "Keystore":
        """Open the file, or create it with mode 0600."""
        # Made before SQLite makes it, because SQLite would ask the umask.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        seal_key = HKDF(hashes.SHA256(), MASTER_KEY_BYTES, None, _CHECK_TEXT).derive(master_key.raw)
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = lambda raw: raw.decode(errors="backslashreplace")
        keystore = cls(path, connection, AESGCMSIV(seal_key))
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
        rows = [self._row(identity) for identity in identities]
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO keystore_identity VALUES (?, ?, ?)", rows
            )

    def load(self, name: str) -> OwnIdentity | None:
        with self._database() as connection:
            row = connection.execute(
                "SELECT public, sealed FROM keystore_identity WHERE name = ?", (name,)
            ).fetchone()
        return None if row is None else self._open_row(name, *row)

    def names(self) -> tuple[str, ...]:
        """The names of all rows, damaged ones too, in order."""
        with self._database() as connection:
            rows = connection.execute(_SELECT_NAMES).fetchall()
        return tuple(name for (name,) in rows)

    def remove(self, name: str) -> bool:
        """Remove a row, damaged or not; True if there was one."""
        with self._transaction() as connection:
            removed = connection.execute("DELETE FROM keystore_identity WHERE name = ?", (name,))
            return removed.rowcount > 0

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _prepare(self) -> None:
        with self._database() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")
            connection.executescript(_TABLES)
            row = connection.execute("SELECT sealed FROM keystore_check").fetchone()
            some_names = connection.execute(f"{_SELECT_NAMES} LIMIT {ROWS_TRIED_MAX}").fetchall()
        if row is not None and self._opens_check(row[0]):
            return
        # Another key, or a damaged check: the rows tell which. A new file has neither.
        if (row or some_names) and not any(self._opens(name) for (name,) in some_names):
            raise IdentityError(
                Code.CONFIG_MASTER_KEY, f"{self._path} was made with another master key"
            )
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._seal.encrypt(nonce, b"", _CHECK_TEXT)
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO keystore_check VALUES (1, ?)", (sealed,))

    def _opens_check(self, sealed: Any) -> bool:
        try:
            return self._unseal(sealed, _CHECK_TEXT) == b""
        except IdentityError:
            return False

    def _opens(self, name: str) -> bool:
        try:
            return self.load(name) is not None
        except IdentityError:
            return False

    def _row(self, identity: OwnIdentity) -> tuple[str, bytes, bytes]:
        if not 0 < len(identity.name) <= NAME_CHARS_MAX:
            raise ValueError(f"a name in the keystore has 1 to {NAME_CHARS_MAX} characters")
        public = cbor.encode(
            {
                _HISTORY: identity.history.encode(),
                _ATTESTATIONS: {
                    purpose.value: key.attestation for purpose, key in identity.purpose_keys.items()
                },
                _CHAIN: [[link.credential, link.issuer_history] for link in identity.chain],
            }
        )
        secret = cbor.encode(
            {
                _SIGNING: identity.signing_key.private_bytes(),
                _NOISE: {
                    purpose.value: key.key.private_bytes()
                    for purpose, key in identity.purpose_keys.items()
                },
            }
        )
        nonce = os.urandom(_NONCE_BYTES)
        associated = _associated_data(identity.name, public)
        return identity.name, public, nonce + self._seal.encrypt(nonce, secret, associated)

    def _open_row(self, name: str, public: Any, sealed: Any) -> OwnIdentity:
        try:
            _READ.byte_string(public, _PUBLIC_BYTES_MAX)
            secret = self._unseal(sealed, _associated_data(name, public))
            return _read_identity(name, public, secret)
        except (SidelinkError, ValueError, KeyError) as error:
            raise IdentityError(
                Code.CONFIG_KEYSTORE_DAMAGED,
                f"the row of {name!r} in {self._path} is not as it was written",
            ) from error

    def _unseal(self, sealed: Any, associated: bytes) -> bytes:
        _READ.byte_string(sealed, _SEALED_BYTES_MAX, _NONCE_BYTES)
        try:
            return self._seal.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], associated)
        except InvalidTag as error:
            raise _READ.error("a seal does not open") from error

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
                connection.execute("ROLLBACK")
                raise


def _associated_data(name: str, public: bytes) -> bytes:
    return cbor.encode(["keystore_identity", name, public])


def _read_identity(name: str, public: bytes, secret: bytes) -> OwnIdentity:
    code = Code.CONFIG_KEYSTORE_DAMAGED
    shown = _READ.mapping(
        cbor.decode_untrusted(public, bytes_max=_PUBLIC_BYTES_MAX, code=code),
        frozenset((_HISTORY, _ATTESTATIONS, _CHAIN)),
    )
    hidden = _READ.mapping(
        cbor.decode_untrusted(secret, bytes_max=_SEALED_BYTES_MAX, code=code),
        frozenset((_SIGNING, _NOISE)),
    )
    history = ChangeHistory.decode_untrusted(_READ.byte_string(shown[_HISTORY], HISTORY_BYTES_MAX))
    signing_key = SigningKey.from_private_bytes(_READ.fixed_bytes(hidden[_SIGNING], KEY_BYTES))
    if signing_key.verify_key != history.current_key:
        raise _READ.error("a private key that is not the current key of the history")
    purpose_keys = {}
    for purpose_text, attestation in shown[_ATTESTATIONS].items():
        purpose = Purpose(purpose_text)
        key = NoiseKey.from_private_bytes(
            _READ.fixed_bytes(hidden[_NOISE][purpose_text], KEY_BYTES)
        )
        _READ.byte_string(attestation, ATTESTATION_BYTES_MAX)
        purpose_keys[purpose] = PurposeKey(purpose, key, attestation)
    chain = tuple(ChainLink(*_READ.array(item, 2, 2)) for item in shown[_CHAIN])
    return OwnIdentity(name, signing_key, history, MappingProxyType(purpose_keys), chain)
