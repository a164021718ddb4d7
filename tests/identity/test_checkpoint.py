"""Checkpoints: signed by a node's own key, and by no other, at no other place."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from identity import Checkpoint, IdentityError, Purpose, SigningKey, new_identity
from identity.cose import SignedType, sign_detached

NOW = 1_800_000_000
OWN = new_identity("node", unix_s=NOW, purposes=(Purpose.HOP,))
OTHER = new_identity("other", unix_s=NOW, purposes=(Purpose.HOP,))
POINT = Checkpoint.of(OWN, 7, bytes(32), time="2027-01-15T08:00:00.000Z", why="lines")

CHANGES: dict[str, Callable[[Checkpoint], Checkpoint]] = {
    "another number": lambda point: replace(point, sequence=8),
    "another line before it": lambda point: replace(point, previous_hash=b"\1" * 32),
    "another time": lambda point: replace(point, time="2027-01-15T08:00:00.001Z"),
    "another occasion": lambda point: replace(point, why="stopped"),
    "another identity": lambda point: replace(point, identifier=OTHER.identifier),
    "a key that the history lacks": lambda point: replace(point, change_number=1),
}


def test_a_checkpoint_verifies_with_the_history_of_who_signed() -> None:
    POINT.verify(POINT.sign(OWN), OWN.history, NOW)


@pytest.mark.parametrize("what", CHANGES)
def test_nothing_of_a_checkpoint_can_be_changed(what: str) -> None:
    signature = POINT.sign(OWN)

    with pytest.raises(IdentityError):
        CHANGES[what](POINT).verify(signature, OWN.history, NOW)


def test_a_signature_on_another_kind_of_object_is_none() -> None:
    signature = sign_detached(OWN.signing_key, SignedType.CHANGE, POINT._payload())

    with pytest.raises(IdentityError):
        POINT.verify(signature, OWN.history, NOW)


def test_a_signature_of_another_length_is_none() -> None:
    with pytest.raises(IdentityError):
        POINT.verify(b"", OWN.history, NOW)


def test_while_a_rotation_is_announced_the_key_before_it_is_named() -> None:
    announced = OWN.with_next_key(SigningKey.generate(), unix_s=NOW, overlap_s=60)
    used = announced.using_next_key(unix_s=NOW)

    before = Checkpoint.of(announced, 1, bytes(32), time="", why="")
    after = Checkpoint.of(used, 1, bytes(32), time="", why="")

    assert (before.change_number, after.change_number) == (0, 1)
    before.verify(before.sign(announced), announced.history, NOW)
    after.verify(after.sign(used), used.history, NOW)


def test_a_superseded_key_signs_no_more_once_its_overlap_is_over() -> None:
    used = OWN.with_next_key(SigningKey.generate(), unix_s=NOW, overlap_s=60).using_next_key(
        unix_s=NOW
    )

    POINT.verify(POINT.sign(OWN), used.history, NOW + 59)
    with pytest.raises(IdentityError):
        POINT.verify(POINT.sign(OWN), used.history, NOW + 60)


@pytest.mark.parametrize(
    "changes", [{"sequence": 0}, {"previous_hash": b""}, {"change_number": -1}]
)
def test_numbers_that_no_log_has_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no checkpoint"):
        replace(POINT, **changes)  # type: ignore[arg-type]
