"""The container of a backup: bytes sealed under a passphrase, in chunks; whole, or refused.

header  "sidelink backup 1\\n", then scrypt's log2 N, r and p (a byte each) and salt (16 bytes),
        SHA-256 of these, and HMAC-SHA-256 of these under the second half of what scrypt gives
chunk   AES-256-GCM under the first half, of 1 MiB; only the last one may be shorter. Nonce: its
        number from 0 in 11 bytes, then 1 for the last chunk, else 0. Associated data: the header

So a chunk that is changed, moved or left out does not open, nor does what follows the last one.
The key is used for one file only, since the salt is.
"""

import hashlib
import hmac
import os
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from identity import Code
from node.errors import ConfigError

CHUNK_BYTES: Final = 1 << 20
CHUNKS_MAX: Final = 1 << 32

# 128 MiB and a few tenths of a second for each guess. What a file asks for is held to the limits.
SCRYPT_LOG_N: Final = 17
SCRYPT_LOG_N_MIN: Final = 14
SCRYPT_LOG_N_MAX: Final = 18
SCRYPT_R: Final = 8
SCRYPT_P: Final = 1
assert SCRYPT_LOG_N_MIN <= SCRYPT_LOG_N <= SCRYPT_LOG_N_MAX

MAGIC: Final = b"sidelink backup 1\n"
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
_TAG_BYTES: Final = 16
_PARAMETERS_BYTES: Final = len(MAGIC) + 3 + _SALT_BYTES
HEADER_BYTES: Final = _PARAMETERS_BYTES + 2 * _HASH_BYTES


class BackupWriter:
    """Seals what is written to it. Without ``finish`` the file is not a backup."""

    def __init__(
        self, file: BinaryIO, passphrase: bytes, *, scrypt_log_n: int = SCRYPT_LOG_N
    ) -> None:
        parameters = MAGIC + bytes((scrypt_log_n, SCRYPT_R, SCRYPT_P)) + os.urandom(_SALT_BYTES)
        key, mac_key = _keys(parameters, passphrase)
        self._header = parameters + _checksum(parameters) + _mac(mac_key, parameters)
        self._seal = AESGCM(key)
        self._file = file
        self._number = 0
        self._waiting = bytearray()
        file.write(self._header)

    def write(self, data: bytes) -> None:
        self._waiting += data
        # One chunk stays behind: whether it is the last is known only when another byte comes.
        while len(self._waiting) > CHUNK_BYTES:
            self._write_chunk(bytes(self._waiting[:CHUNK_BYTES]), is_last=False)
            del self._waiting[:CHUNK_BYTES]

    def finish(self) -> None:
        self._write_chunk(bytes(self._waiting), is_last=True)
        self._waiting.clear()

    def _write_chunk(self, chunk: bytes, *, is_last: bool) -> None:
        nonce = _nonce(self._number, is_last=is_last)
        self._file.write(self._seal.encrypt(nonce, chunk, self._header))
        self._number += 1


class BackupReader:
    """Opens what a ``BackupWriter`` sealed.

    Raises ConfigError: CONFIG_BACKUP_PASSPHRASE for another passphrase, CONFIG_BACKUP_INVALID for
    what is damaged, cut short or no backup. What was read before that is to be thrown away.
    """

    def __init__(self, file: BinaryIO, passphrase: bytes) -> None:
        self._header = file.read(HEADER_BYTES)
        parameters = decode_header_untrusted(self._header)
        key, mac_key = _keys(parameters, passphrase)
        if not hmac.compare_digest(_mac(mac_key, parameters), self._header[-_HASH_BYTES:]):
            raise ConfigError(Code.CONFIG_BACKUP_PASSPHRASE, "this passphrase does not open it")
        self._seal = AESGCM(key)
        self._file = file
        self._number = 0
        self._chunk = memoryview(b"")
        self._ahead = file.read(CHUNK_BYTES + _TAG_BYTES)
        self._is_over = False

    def read(self, count_max: int) -> bytes:
        """Some bytes, at most so many; empty at the end, which is then known to be the end."""
        while not self._chunk and not self._is_over:
            self._chunk = memoryview(self._next_chunk())
        data, self._chunk = self._chunk[:count_max], self._chunk[count_max:]
        return bytes(data)

    def read_exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            more = self.read(count - len(data))
            if not more:
                raise invalid("it ends too early")
            data += more
        return bytes(data)

    def _next_chunk(self) -> bytes:
        sealed, self._ahead = self._ahead, self._file.read(CHUNK_BYTES + _TAG_BYTES)
        self._is_over = not self._ahead
        if self._number >= CHUNKS_MAX:
            raise invalid("it is longer than any backup")
        try:
            nonce = _nonce(self._number, is_last=self._is_over)
            chunk = self._seal.decrypt(nonce, sealed, self._header)
        except (InvalidTag, ValueError):
            raise invalid(f"chunk {self._number} is damaged or not where it belongs") from None
        self._number += 1
        return chunk


def decode_header_untrusted(header: bytes) -> bytes:
    """The part of the header that says how to derive the keys, checked before it costs anything."""
    parameters, checksum = header[:_PARAMETERS_BYTES], header[_PARAMETERS_BYTES:-_HASH_BYTES]
    if len(header) != HEADER_BYTES or not header.startswith(MAGIC):
        raise invalid("it is no backup of this version of Sidelink")
    if checksum != _checksum(parameters):
        raise invalid("its header is damaged")
    log_n, *rest = parameters[len(MAGIC) : len(MAGIC) + 3]
    if not SCRYPT_LOG_N_MIN <= log_n <= SCRYPT_LOG_N_MAX or rest != [SCRYPT_R, SCRYPT_P]:
        raise invalid("its header asks for more, or less, work than a backup of ours does")
    return parameters


def invalid(fault: str) -> ConfigError:
    return ConfigError(Code.CONFIG_BACKUP_INVALID, fault)


def _keys(parameters: bytes, passphrase: bytes) -> tuple[bytes, bytes]:
    log_n, r, p, *salt = parameters[len(MAGIC) :]
    derived = Scrypt(bytes(salt), 2 * _HASH_BYTES, 1 << log_n, r, p).derive(passphrase)
    return derived[:_HASH_BYTES], derived[_HASH_BYTES:]


def _checksum(parameters: bytes) -> bytes:
    return hashlib.sha256(parameters).digest()


def _mac(key: bytes, parameters: bytes) -> bytes:
    return hmac.digest(key, parameters, hashlib.sha256)


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes((is_last,))
