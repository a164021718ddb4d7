"""Change histories: how an identity's signing key came to be what it is now.

Change 0 names the first key; its payload's SHA-256 is the identifier, for ever. Each later change
names a new key and the hash of the change before, and is signed by the new and the previous key.
Hashes cover payloads only, so another encoding of a signature changes nothing.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from identity import cbor
from identity.codes import Code
from identity.cose import SignatureBudget, SignedType, sign_detached, verify_detached
from identity.errors import IdentityError
from identity.fields import Reader
from identity.identifier import Identifier
from identity.keys import KEY_BYTES, SIGNATURE_BYTES, SigningKey, VerifyKey

CHANGES_MAX: Final = 4096
HISTORY_BYTES_MAX: Final = 512 * 1024
CHANGE_PAYLOAD_BYTES_MAX: Final = 256
HASH_BYTES: Final = 32
OVERLAP_S_MAX: Final = 30 * 86_400
CLOCK_SKEW_S: Final = 60

_NUMBER, _KEY, _PREVIOUS, _CREATED, _EXPIRES, _OVERLAP = 1, 2, 3, 4, 5, 6
_FIRST_KEYS: Final = frozenset((_NUMBER, _KEY, _CREATED, _EXPIRES))
_LATER_KEYS: Final = _FIRST_KEYS | {_PREVIOUS, _OVERLAP}
_READ: Final = Reader(Code.CHANNEL_HISTORY_INVALID)


@dataclass(frozen=True, slots=True)
class Pin:
    """One point of a history. Whoever vouches for it vouches for all that its hash commits to."""

    change_number: int
    head_hash: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """One change. `overlap_s` is how long the key before it still verifies after `created`."""

    number: int
    key: VerifyKey
    previous_hash: bytes | None
    created_unix_s: int
    expires_unix_s: int
    overlap_s: int
    payload: bytes
    payload_hash: bytes
    signature: bytes
    previous_signature: bytes | None


@dataclass(frozen=True, slots=True)
class ChangeHistory:
    """All changes of one identity, the first included. Links are checked; signatures are not."""

    changes: tuple[Change, ...]

    @property
    def identifier(self) -> Identifier:
        return Identifier(self.changes[0].payload_hash)

    @property
    def current_key(self) -> VerifyKey:
        return self.changes[-1].key

    @property
    def change_number(self) -> int:
        return len(self.changes) - 1

    @property
    def head_hash(self) -> bytes:
        return self.changes[-1].payload_hash

    @property
    def pin(self) -> Pin:
        return Pin(self.change_number, self.head_hash)

    def encode(self) -> bytes:
        return cbor.encode(
            [
                [change.payload, change.signature]
                if change.previous_signature is None
                else [change.payload, change.signature, change.previous_signature]
                for change in self.changes
            ]
        )

    @classmethod
    def decode_untrusted(cls, data: bytes) -> "ChangeHistory":
        """Read a history and check its structure and hash links, but no signature."""
        value = cbor.decode_untrusted(
            data, bytes_max=HISTORY_BYTES_MAX, depth_max=3, code=Code.CHANNEL_HISTORY_INVALID
        )
        changes: list[Change] = []
        keys: set[bytes] = set()
        for item in _READ.array(value, CHANGES_MAX, 1):
            change = _read_change(item, changes[-1] if changes else None)
            if change.key.raw in keys:
                raise _READ.error("a history that uses a key twice")
            keys.add(change.key.raw)
            changes.append(change)
        return cls(tuple(changes))

    def number_of(self, key: VerifyKey) -> int:
        """The change that named this key. ValueError for a key that it never named."""
        for change in reversed(self.changes):
            if change.key == key:
                return change.number
        raise ValueError("a key that the history lacks")

    def check_pin(self, pin: Pin) -> None:
        """Raise IdentityError unless this history goes through the pinned point."""
        if not 0 <= pin.change_number <= self.change_number:
            raise IdentityError(Code.CHANNEL_PIN_MISMATCH, "a history shorter than its pin")
        if self.changes[pin.change_number].payload_hash != pin.head_hash:
            raise IdentityError(Code.CHANNEL_PIN_MISMATCH, "a history that forks from its pin")

    def extended_by(self, longer: "ChangeHistory") -> "ChangeHistory":
        """This one, with those changes of a longer one behind it that it lacks.

        The longer one must go through the head of this one.
        """
        assert longer.changes[self.change_number].payload_hash == self.head_hash
        return ChangeHistory((*self.changes, *longer.changes[len(self.changes) :]))

    def verify_signatures(
        self, budget: SignatureBudget, *, trusted_prefix: Pin | None = None
    ) -> None:
        """Check the signatures of all changes behind the pinned one, or of all without a pin.

        The pin must come from a credential that is already verified: its hash commits to every
        change before it, so their signatures add nothing.
        """
        first = 0
        if trusted_prefix is not None:
            self.check_pin(trusted_prefix)
            first = trusted_prefix.change_number + 1
        for number in range(first, len(self.changes)):
            change = self.changes[number]
            signatures = [(change.key, change.signature)]
            if change.previous_signature is not None:
                signatures.append((self.changes[number - 1].key, change.previous_signature))
            for key, signature in signatures:
                verify_detached(
                    SignedType.CHANGE,
                    change.payload,
                    signature,
                    key,
                    budget,
                    Code.CHANNEL_HISTORY_INVALID,
                )

    def verify_all(self) -> None:
        """Check every signature, however many: for a history that is worth the time."""
        self.verify_signatures(SignatureBudget(2 * len(self.changes)))

    def check_created(self, unix_s: float) -> None:
        """Raise IdentityError when the latest change claims to come from the future."""
        if unix_s < self.changes[-1].created_unix_s - CLOCK_SKEW_S:
            raise IdentityError(Code.CHANNEL_NOT_YET_VALID, "a key change made in the future")

    def key_for(self, change_number: int, unix_s: float) -> tuple[VerifyKey, int]:
        """The key of one change and the Unix time at which it ceases to verify.

        Raises IdentityError when that key does not verify at `unix_s`: not yet, expired, or
        superseded for longer than its overlap.
        """
        until_unix_s = self.key_until_unix_s(change_number)
        self.check_created(unix_s)
        if unix_s >= until_unix_s:
            raise IdentityError(Code.CHANNEL_HISTORY_INVALID, "a key expired or superseded")
        return self.changes[change_number].key, until_unix_s

    def key_until_unix_s(self, change_number: int) -> int:
        """When the key of one change ceases to verify: by itself, or with its overlap.

        Raises IdentityError for a change that the history lacks.
        """
        if not 0 <= change_number <= self.change_number:
            raise IdentityError(Code.CHANNEL_HISTORY_INVALID, "a key that the history lacks")
        until_unix_s = self.changes[change_number].expires_unix_s
        if change_number < self.change_number:
            successor = self.changes[change_number + 1]
            until_unix_s = min(until_unix_s, successor.created_unix_s + successor.overlap_s)
        return until_unix_s


def create_history(key: SigningKey, *, created_unix_s: int, expires_unix_s: int) -> ChangeHistory:
    """The history of a new identity: change 0. ValueError for times that no verifier accepts."""
    payload = cbor.encode(
        {
            _NUMBER: 0,
            _KEY: key.verify_key.raw,
            _CREATED: created_unix_s,
            _EXPIRES: expires_unix_s,
        }
    )
    change = Change(
        number=0,
        key=key.verify_key,
        previous_hash=None,
        created_unix_s=created_unix_s,
        expires_unix_s=expires_unix_s,
        overlap_s=0,
        payload=payload,
        payload_hash=hashlib.sha256(payload).digest(),
        signature=sign_detached(key, SignedType.CHANGE, payload),
        previous_signature=None,
    )
    return ChangeHistory((_checked_own(change, None),))


def rotate_history(
    history: ChangeHistory,
    old_key: SigningKey,
    new_key: SigningKey,
    *,
    created_unix_s: int,
    expires_unix_s: int,
    overlap_s: int,
) -> ChangeHistory:
    """The history with one more change, signed by the new and the current key."""
    if old_key.verify_key != history.current_key:
        raise ValueError("only the current key can name its successor")
    if any(change.key == new_key.verify_key for change in history.changes):
        raise ValueError("a key is used once")
    if len(history.changes) >= CHANGES_MAX:
        raise ValueError(f"a history has at most {CHANGES_MAX} changes")
    payload = cbor.encode(
        {
            _NUMBER: history.change_number + 1,
            _KEY: new_key.verify_key.raw,
            _PREVIOUS: history.head_hash,
            _CREATED: created_unix_s,
            _EXPIRES: expires_unix_s,
            _OVERLAP: overlap_s,
        }
    )
    change = Change(
        number=history.change_number + 1,
        key=new_key.verify_key,
        previous_hash=history.head_hash,
        created_unix_s=created_unix_s,
        expires_unix_s=expires_unix_s,
        overlap_s=overlap_s,
        payload=payload,
        payload_hash=hashlib.sha256(payload).digest(),
        signature=sign_detached(new_key, SignedType.CHANGE, payload),
        previous_signature=sign_detached(old_key, SignedType.CHANGE, payload),
    )
    return ChangeHistory((*history.changes, _checked_own(change, history.changes[-1])))


def _checked_own(change: Change, previous: Change | None) -> Change:
    """What we make obeys the rules for what we receive; a failure is our caller's mistake."""
    try:
        _READ.integer(change.created_unix_s)
        _READ.integer(change.expires_unix_s)
        _READ.integer(change.overlap_s, OVERLAP_S_MAX)
        _check_change(change, previous)
    except IdentityError as error:
        raise ValueError(error.detail) from error
    return change


def _read_change(item: Any, previous: Change | None) -> Change:
    signatures = 1 if previous is None else 2
    payload, *signed = _READ.array(item, 1 + signatures, 1 + signatures)
    fields = _READ.mapping(
        cbor.decode_untrusted(
            _READ.byte_string(payload, CHANGE_PAYLOAD_BYTES_MAX),
            bytes_max=CHANGE_PAYLOAD_BYTES_MAX,
            depth_max=1,
            code=Code.CHANNEL_HISTORY_INVALID,
        ),
        _FIRST_KEYS if previous is None else _LATER_KEYS,
    )
    change = Change(
        number=_READ.integer(fields[_NUMBER], CHANGES_MAX - 1),
        key=VerifyKey(_READ.fixed_bytes(fields[_KEY], KEY_BYTES)),
        previous_hash=None
        if previous is None
        else _READ.fixed_bytes(fields[_PREVIOUS], HASH_BYTES),
        created_unix_s=_READ.integer(fields[_CREATED]),
        expires_unix_s=_READ.integer(fields[_EXPIRES]),
        overlap_s=0 if previous is None else _READ.integer(fields[_OVERLAP], OVERLAP_S_MAX),
        payload=payload,
        payload_hash=hashlib.sha256(payload).digest(),
        signature=_READ.fixed_bytes(signed[0], SIGNATURE_BYTES),
        previous_signature=None
        if previous is None
        else _READ.fixed_bytes(signed[1], SIGNATURE_BYTES),
    )
    _check_change(change, previous)
    return change


def _check_change(change: Change, previous: Change | None) -> None:
    if change.expires_unix_s <= change.created_unix_s:
        raise _READ.error("a key that expires before it is created")
    if previous is None:
        if change.number != 0:
            raise _READ.error("a history that does not start at change 0")
        return
    if change.number != previous.number + 1:
        raise _READ.error("a history with a gap")
    if change.previous_hash != previous.payload_hash:
        raise _READ.error("a change that does not follow from the one before it")
    if not previous.created_unix_s <= change.created_unix_s < previous.expires_unix_s:
        raise _READ.error("a change made outside the life of the key before it")
