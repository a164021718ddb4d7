"""Checkpoints: a node's signature under all lines of its audit log so far.

The payload is an array: identifier, change number of the key, sequence number of the line that
carries the signature, hash of the line before it, time and occasion as that line has them.
"""

from dataclasses import dataclass
from typing import Final

from identity import cbor
from identity.codes import Code
from identity.cose import SignatureBudget, SignedType, sign_detached, verify_detached
from identity.errors import IdentityError
from identity.history import HASH_BYTES, ChangeHistory
from identity.identifier import Identifier
from identity.keys import SIGNATURE_BYTES
from identity.own import OwnIdentity

_CODE: Final = Code.CHANNEL_PROOF_INVALID
"""What it is called inside this package; no checkpoint crosses a wire."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is signed. ``time`` is text, as it stands in the log."""

    identifier: Identifier
    change_number: int
    sequence: int
    previous_hash: bytes
    time: str
    why: str

    def __post_init__(self) -> None:
        if len(self.previous_hash) != HASH_BYTES or self.sequence < 1 or self.change_number < 0:
            raise ValueError("no checkpoint has such a number or hash")

    @classmethod
    def of(
        cls, own: OwnIdentity, sequence: int, previous_hash: bytes, *, time: str, why: str
    ) -> "Checkpoint":
        # While a rotation is announced, the key before it still signs.
        change = own.history.change_number - (own.next_key is not None)
        return cls(own.identifier, change, sequence, previous_hash, time, why)

    def sign(self, own: OwnIdentity) -> bytes:
        return sign_detached(own.signing_key, SignedType.CHECKPOINT, self._payload())

    def verify(self, signature: bytes, history: ChangeHistory, unix_s: float) -> None:
        """Raises IdentityError unless the stated key of this history made the signature, and was
        not superseded for too long then. The history's own signatures are the caller's to check.
        """
        if history.identifier != self.identifier:
            raise IdentityError(_CODE, "a checkpoint of another identity")
        # A time before the key was made is no fault: it is this machine's clock, and was set back.
        if unix_s >= history.key_until_unix_s(self.change_number):
            raise IdentityError(_CODE, "a key expired or superseded")
        key = history.changes[self.change_number].key
        if len(signature) != SIGNATURE_BYTES:
            raise IdentityError(_CODE, f"a signature has {SIGNATURE_BYTES} bytes")
        verify_detached(
            SignedType.CHECKPOINT, self._payload(), signature, key, SignatureBudget(1), _CODE
        )

    def _payload(self) -> bytes:
        return cbor.encode(
            [
                self.identifier.digest,
                self.change_number,
                self.sequence,
                self.previous_hash,
                self.time,
                self.why,
            ]
        )
