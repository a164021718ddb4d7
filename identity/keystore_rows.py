"""One row of the keystore: what of an identity is stored, how it is sealed, how it is read.

A row has a public part (history, attestations, credential) and a sealed one (private keys). The
seal (AES-GCM-SIV, RFC 8452) covers the table, the row's name, its issuer's name and the public part
as associated data. Of a chain whose issuer is in the same keystore only the first credential is
stored: the rest is the issuer's own, and the same for all that it issued.
"""

import os
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from identity import cbor
from identity.codes import Code
from identity.credential import CHAIN_LINKS_MAX, CREDENTIAL_BYTES_MAX
from identity.errors import SidelinkError
from identity.fields import Reader
from identity.history import HISTORY_BYTES_MAX, ChangeHistory
from identity.keys import KEY_BYTES, NoiseKey, SigningKey
from identity.master_key import MASTER_KEY_BYTES, MasterKey
from identity.own import OwnIdentity
from identity.proof import FURTHER_MAX, PROOF_BYTES_MAX, ChainLink
from identity.purpose import ATTESTATION_BYTES_MAX, Purpose, PurposeKey

NAME_CHARS_MAX: Final = 255
PUBLIC_BYTES_MAX: Final = HISTORY_BYTES_MAX + (4 + FURTHER_MAX) * PROOF_BYTES_MAX
SEALED_BYTES_MAX: Final = 4096

_NONCE_BYTES: Final = 12
_TABLE: Final = "keystore_rows"
_CHECK_TEXT: Final = b"sidelink keystore"
# What an identity does not have takes no room: a million agents have neither of the last four.
_HISTORY, _ATTESTATIONS, _CREDENTIAL, _CHAIN, _ENDS, _FURTHER = 1, 2, 3, 4, 5, 6
_SIGNING, _NOISE, _NEXT = 1, 2, 3
_PUBLIC_KEYS: Final = frozenset((_HISTORY, _ATTESTATIONS))
_PUBLIC_OPTIONAL: Final = frozenset((_CREDENTIAL, _CHAIN, _ENDS, _FURTHER))
_SEALED_KEYS: Final = frozenset((_SIGNING, _NOISE))
_SEALED_OPTIONAL: Final = frozenset((_NEXT,))
_READ: Final = Reader(Code.CONFIG_KEYSTORE_DAMAGED)


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it stands in the file. Its values may be of any type where the file is damaged."""

    name: Any
    issued_by: Any
    public: Any
    sealed: Any


class RowSeal:
    """Seals and opens rows under one master key.

    What does not open, or is not what it should be, is an error that a `SidelinkError`,
    `ValueError` or `KeyError` tells: see ``DAMAGED_ERRORS``.
    """

    def __init__(self, master_key: MasterKey) -> None:
        derived = HKDF(hashes.SHA256(), MASTER_KEY_BYTES, None, _CHECK_TEXT).derive(master_key.raw)
        self._seal = AESGCMSIV(derived)

    def new_check(self) -> bytes:
        """Something by which ``opens_check`` knows the master key again."""
        return self._encrypt(b"", _CHECK_TEXT)

    def opens_check(self, sealed: Any) -> bool:
        try:
            return self._decrypt(sealed, _CHECK_TEXT) == b""
        except SidelinkError:
            return False

    def seal(self, identity: OwnIdentity) -> Row:
        """ValueError for what could not be read again."""
        _check_name(identity.name)
        public = _encode_public(identity)
        if len(public) > PUBLIC_BYTES_MAX or len(identity.further) > FURTHER_MAX:
            raise ValueError("an identity with more credentials than a row holds")
        keys = {
            purpose.value: key.key.private_bytes() for purpose, key in identity.purpose_keys.items()
        }
        secret: dict[int, Any] = {_SIGNING: identity.signing_key.private_bytes(), _NOISE: keys}
        if identity.next_key is not None:
            secret[_NEXT] = identity.next_key.private_bytes()
        associated = _associated_data(identity.name, identity.issued_by, public)
        sealed = self._encrypt(cbor.encode(secret), associated)
        return Row(identity.name, identity.issued_by, public, sealed)

    def open(self, row: Row) -> OwnIdentity:
        """The identity. If it was issued by another of the same keystore its chain is one link
        without that one's history, or none."""
        return _read_identity(row, self._decrypt_row(row))

    def reseal(self, row: Row, other: "RowSeal") -> bytes:
        """The sealed part under another master key."""
        secret = self._decrypt_row(row)
        return other._encrypt(secret, _associated_data(row.name, row.issued_by, row.public))

    def _decrypt_row(self, row: Row) -> bytes:
        _READ.text(row.name, 4 * NAME_CHARS_MAX)
        _READ.byte_string(row.public, PUBLIC_BYTES_MAX)
        if row.issued_by is not None:
            _READ.text(row.issued_by, 4 * NAME_CHARS_MAX)
        return self._decrypt(row.sealed, _associated_data(row.name, row.issued_by, row.public))

    def _encrypt(self, secret: bytes, associated: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._seal.encrypt(nonce, secret, associated)

    def _decrypt(self, sealed: Any, associated: bytes) -> bytes:
        _READ.byte_string(sealed, SEALED_BYTES_MAX, _NONCE_BYTES)
        try:
            return self._seal.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], associated)
        except InvalidTag as error:
            raise _READ.error("a seal does not open") from error


DAMAGED_ERRORS: Final = (SidelinkError, ValueError, KeyError)


def _check_name(name: str) -> None:
    if not 0 < len(name) <= NAME_CHARS_MAX or "\\" in name:
        # A backslash shows a byte of a damaged name.
        raise ValueError(f"a name in the keystore has 1 to {NAME_CHARS_MAX} characters, none a \\")


def _associated_data(name: str, issued_by: str | None, public: bytes) -> bytes:
    return cbor.encode([_TABLE, name, issued_by, public])


def _encode_public(identity: OwnIdentity) -> bytes:
    shown: dict[int, Any] = {
        _HISTORY: identity.history.encode(),
        _ATTESTATIONS: {
            purpose.value: key.attestation for purpose, key in identity.purpose_keys.items()
        },
    }
    if identity.chain and identity.issued_by is not None:
        shown[_CREDENTIAL] = identity.chain[0].credential
    elif identity.chain:
        shown[_CHAIN] = _encode_chain(identity.chain)
    if identity.ends_unix_s is not None:
        shown[_ENDS] = identity.ends_unix_s
    if identity.further:
        shown[_FURTHER] = [_encode_chain(chain) for chain in identity.further]
    return cbor.encode(shown)


def _encode_chain(chain: tuple[ChainLink, ...]) -> list[list[bytes]]:
    if len(chain) > CHAIN_LINKS_MAX:
        raise ValueError("a chain that every verifier would refuse as too long")
    return [[link.credential, link.issuer_history] for link in chain]


def _read_identity(row: Row, secret: bytes) -> OwnIdentity:
    code = Code.CONFIG_KEYSTORE_DAMAGED
    shown = _READ.mapping(
        cbor.decode_untrusted(row.public, bytes_max=PUBLIC_BYTES_MAX, code=code),
        _PUBLIC_KEYS,
        _PUBLIC_OPTIONAL,
    )
    hidden = _READ.mapping(
        cbor.decode_untrusted(secret, bytes_max=SEALED_BYTES_MAX, code=code),
        _SEALED_KEYS,
        _SEALED_OPTIONAL,
    )
    history = ChangeHistory.decode_untrusted(_READ.byte_string(shown[_HISTORY], HISTORY_BYTES_MAX))
    signing_key, next_key = _read_signing_keys(hidden, history)
    if _CREDENTIAL in shown:
        credential = _READ.byte_string(shown[_CREDENTIAL], CREDENTIAL_BYTES_MAX)
        chain: tuple[ChainLink, ...] = (ChainLink(credential, b""),)
    else:
        chain = _read_chain(shown.get(_CHAIN, []))
    return OwnIdentity(
        name=row.name,
        signing_key=signing_key,
        history=history,
        purpose_keys=_read_purpose_keys(shown[_ATTESTATIONS], hidden[_NOISE]),
        chain=chain,
        next_key=next_key,
        issued_by=row.issued_by,
        ends_unix_s=_READ.integer(shown[_ENDS]) if _ENDS in shown else None,
        further=tuple(
            _read_chain(chain) for chain in _READ.array(shown.get(_FURTHER, []), FURTHER_MAX)
        ),
    )


def _read_signing_keys(
    hidden: dict[int, Any], history: ChangeHistory
) -> tuple[SigningKey, SigningKey | None]:
    """The key that signs, and the one that is announced to come after it."""
    signing = SigningKey.from_private_bytes(_READ.fixed_bytes(hidden[_SIGNING], KEY_BYTES))
    if _NEXT not in hidden:
        if signing.verify_key != history.current_key:
            raise _READ.error("a private key that is not the current key of the history")
        return signing, None
    announced = SigningKey.from_private_bytes(_READ.fixed_bytes(hidden[_NEXT], KEY_BYTES))
    last_two = [change.key for change in history.changes[-2:]]
    if [signing.verify_key, announced.verify_key] != last_two:
        raise _READ.error("private keys that are not the last two of the history")
    return signing, announced


def _read_purpose_keys(shown: Any, hidden: Any) -> MappingProxyType[Purpose, PurposeKey]:
    keys = {}
    for purpose_text, attestation in shown.items():
        purpose = Purpose(purpose_text)
        key = NoiseKey.from_private_bytes(_READ.fixed_bytes(hidden[purpose_text], KEY_BYTES))
        _READ.byte_string(attestation, ATTESTATION_BYTES_MAX)
        keys[purpose] = PurposeKey(purpose, key, attestation)
    return MappingProxyType(keys)


def _read_chain(items: Any) -> tuple[ChainLink, ...]:
    return tuple(
        ChainLink(*(_READ.byte_string(part, PROOF_BYTES_MAX) for part in _READ.array(item, 2, 2)))
        for item in _READ.array(items, CHAIN_LINKS_MAX)
    )
