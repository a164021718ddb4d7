"""Change histories: what links them, what signs them, and how long a key verifies."""

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity import (
    ChangeHistory,
    Code,
    IdentityError,
    Pin,
    SignatureBudget,
    SigningKey,
    create_history,
    rotate_history,
)
from identity.cbor import decode_untrusted, encode
from identity.cose import SignedType, sign_detached
from tests.identity.helpers import DAY_S, NOW, YEAR_S, Person, flip_bit

NUMBER, KEY, PREVIOUS, CREATED, EXPIRES, OVERLAP = 1, 2, 3, 4, 5, 6


def unpack(history: ChangeHistory) -> list[list[Any]]:
    items: list[list[Any]] = decode_untrusted(history.encode(), bytes_max=2**20)
    return items


def test_rotation_keeps_the_identifier_and_changes_the_key() -> None:
    before = Person()

    after = before.rotated().rotated()

    assert after.history.identifier == before.history.identifier
    assert after.history.current_key == after.key.verify_key != before.key.verify_key
    assert after.history.change_number == 2
    assert ChangeHistory.decode_untrusted(after.history.encode()) == after.history


def test_the_identifier_is_the_hash_of_the_payload_of_change_0() -> None:
    history = Person().history

    [[payload, _signature]] = unpack(history)

    assert history.identifier.digest == hashlib.sha256(payload).digest()


def test_another_signature_leaves_the_identifier_unchanged() -> None:
    history = Person().history
    [[payload, signature]] = unpack(history)

    other = ChangeHistory.decode_untrusted(encode([[payload, flip_bit(signature, 0)]]))

    assert other.identifier == history.identifier
    with pytest.raises(IdentityError) as caught:
        other.verify_signatures(SignatureBudget())
    assert caught.value.code is Code.CHANNEL_HISTORY_INVALID


def test_change_0_costs_one_signature_check_and_each_later_change_two() -> None:
    budget = SignatureBudget()

    Person().rotated().rotated().history.verify_signatures(budget)

    assert budget.spent == 5


def test_a_history_beyond_the_budget_is_refused_and_a_pin_makes_it_affordable() -> None:
    person = Person()
    for _ in range(9):
        person = person.rotated()
    pin = person.history.pin
    person = person.rotated()

    with pytest.raises(IdentityError) as caught:
        person.history.verify_signatures(SignatureBudget())
    assert caught.value.code is Code.CHANNEL_TOO_MANY_SIGNATURES

    budget = SignatureBudget()
    person.history.verify_signatures(budget, trusted_prefix=pin)
    assert budget.spent == 2


def test_signatures_behind_the_pin_are_checked() -> None:
    person = Person()
    pin = person.history.pin
    items = unpack(person.rotated().history)
    for place in (1, 2):
        forged = [list(item) for item in items]
        forged[1][place] = flip_bit(forged[1][place], 7)
        history = ChangeHistory.decode_untrusted(encode(forged))

        with pytest.raises(IdentityError) as caught:
            history.verify_signatures(SignatureBudget(), trusted_prefix=pin)
        assert caught.value.code is Code.CHANNEL_HISTORY_INVALID


def test_a_successor_that_the_old_key_did_not_sign_is_refused() -> None:
    owner, thief = Person(), SigningKey.generate()
    first = unpack(owner.history)[0]
    payload = encode(
        {
            NUMBER: 1,
            KEY: thief.verify_key.raw,
            PREVIOUS: owner.history.head_hash,
            CREATED: NOW,
            EXPIRES: NOW + YEAR_S,
            OVERLAP: 0,
        }
    )
    signature = sign_detached(thief, SignedType.CHANGE, payload)
    history = ChangeHistory.decode_untrusted(encode([first, [payload, signature, signature]]))

    with pytest.raises(IdentityError) as caught:
        history.verify_signatures(SignatureBudget())
    assert caught.value.code is Code.CHANNEL_HISTORY_INVALID


def test_a_history_shorter_than_its_pin_is_refused() -> None:
    person = Person()
    pin = person.rotated().history.pin

    with pytest.raises(IdentityError) as caught:
        person.history.check_pin(pin)
    assert caught.value.code is Code.CHANNEL_PIN_MISMATCH


def test_a_history_that_forks_from_its_pin_is_refused() -> None:
    person = Person()
    pinned, forked = person.rotated(), person.rotated()

    with pytest.raises(IdentityError) as caught:
        forked.history.verify_signatures(SignatureBudget(), trusted_prefix=pinned.history.pin)
    assert caught.value.code is Code.CHANNEL_PIN_MISMATCH
    with pytest.raises(IdentityError):
        person.history.check_pin(Pin(-1, person.history.head_hash))


def test_a_superseded_key_verifies_only_while_its_overlap_lasts() -> None:
    history = Person().rotated(created_unix_s=NOW, overlap_s=100).history

    assert history.key_for(0, NOW + 99) == (history.changes[0].key, NOW + 100)
    with pytest.raises(IdentityError) as caught:
        history.key_for(0, NOW + 100)
    assert caught.value.code is Code.CHANNEL_HISTORY_INVALID
    assert history.key_for(1, NOW + 100)[0] == history.current_key


def test_a_key_does_not_verify_after_it_expires() -> None:
    history = create_history(SigningKey.generate(), created_unix_s=NOW, expires_unix_s=NOW + 10)

    assert history.key_for(0, NOW + 9)[1] == NOW + 10
    with pytest.raises(IdentityError):
        history.key_for(0, NOW + 10)


def test_a_change_of_the_future_is_refused_beyond_the_skew_of_clocks() -> None:
    history = create_history(SigningKey.generate(), created_unix_s=NOW, expires_unix_s=NOW + 10)

    history.key_for(0, NOW - 60)
    with pytest.raises(IdentityError) as caught:
        history.key_for(0, NOW - 61)
    assert caught.value.code is Code.CHANNEL_NOT_YET_VALID


@pytest.mark.parametrize("number", [-1, 1, 4096])
def test_a_key_that_the_history_lacks_is_refused(number: int) -> None:
    with pytest.raises(IdentityError):
        Person().history.key_for(number, NOW)


def second_change(**changes: Any) -> bytes:
    """A history of two changes in which the second says something that it should not."""
    person, new_key = Person(), SigningKey.generate()
    fields: dict[Any, Any] = {
        NUMBER: 1,
        KEY: new_key.verify_key.raw,
        PREVIOUS: person.history.head_hash,
        CREATED: NOW,
        EXPIRES: NOW + YEAR_S,
        OVERLAP: 0,
    }
    fields |= {globals()[name]: value for name, value in changes.items()}
    payload = encode({key: value for key, value in fields.items() if value is not ...})
    signatures = [sign_detached(key, SignedType.CHANGE, payload) for key in (new_key, person.key)]
    return encode([unpack(person.history)[0], [payload, *signatures]])


def first_change(**changes: Any) -> bytes:
    key = SigningKey.generate()
    fields: dict[Any, Any] = {
        NUMBER: 0,
        KEY: key.verify_key.raw,
        CREATED: NOW,
        EXPIRES: NOW + YEAR_S,
    }
    fields |= {globals()[name]: value for name, value in changes.items()}
    payload = encode({key: value for key, value in fields.items() if value is not ...})
    return encode([[payload, sign_detached(key, SignedType.CHANGE, payload)]])


REUSED = SigningKey.generate()
UNKNOWN = 7
WHAT_IS_NOT_A_HISTORY = {
    "no bytes": b"",
    "no changes": encode([]),
    "not an array": encode({}),
    "a change that is not an array": encode([1]),
    "a change without a signature": encode([[b""]]),
    "a payload that is not CBOR": encode([[b"\xff", bytes(64)]]),
    "a payload that is too long": encode([[encode(bytes(300)), bytes(64)]]),
    "a first change with two signatures": encode(
        [[*decode_untrusted(first_change(), bytes_max=999)[0], bytes(64)]]
    ),
    "a signature that is too short": encode(
        [[decode_untrusted(first_change(), bytes_max=999)[0][0], bytes(63)]]
    ),
    "a trailing byte": first_change() + b"\x00",
    "a first change with number 1": first_change(NUMBER=1),
    "a first change with number false": first_change(NUMBER=False),
    "a first change with a hash before it": first_change(PREVIOUS=bytes(32)),
    "a first change that lacks its expiry": first_change(EXPIRES=...),
    "a change with an unknown key": first_change(UNKNOWN=1),
    "a key that expires when it is created": first_change(EXPIRES=NOW),
    "a time before 1970": first_change(CREATED=-1),
    "a time beyond the year 9999": first_change(EXPIRES=2**53),
    "a key of small order": first_change(KEY=b"\x01" + bytes(31)),
    "a key that is too short": first_change(KEY=bytes(31)),
    "a key that is a text": first_change(KEY="x" * 32),
    "a gap in the numbers": second_change(NUMBER=2),
    "a number that repeats": second_change(NUMBER=0),
    "another hash before it": second_change(PREVIOUS=bytes(32)),
    "no hash before it": second_change(PREVIOUS=...),
    "a change older than the one before it": second_change(CREATED=NOW - 2 * DAY_S),
    "a change by a key that had expired": second_change(
        CREATED=NOW + 2 * YEAR_S, EXPIRES=NOW + 3 * YEAR_S
    ),
    "an overlap that is too long": second_change(OVERLAP=30 * DAY_S + 1),
    "an overlap that is negative": second_change(OVERLAP=-1),
    "more bytes than a history may have": encode([[bytes(256), bytes(64)]] * 2000),
}


@pytest.mark.parametrize("data", WHAT_IS_NOT_A_HISTORY.values(), ids=WHAT_IS_NOT_A_HISTORY.keys())
def test_what_is_not_a_history_is_refused(data: bytes) -> None:
    with pytest.raises(IdentityError) as caught:
        ChangeHistory.decode_untrusted(data)

    assert caught.value.code is Code.CHANNEL_HISTORY_INVALID


def test_a_history_that_uses_a_key_twice_is_refused() -> None:
    first, second = SigningKey.generate(), SigningKey.generate()
    times = {"created_unix_s": NOW, "expires_unix_s": NOW + DAY_S}
    history = rotate_history(create_history(first, **times), first, second, **times, overlap_s=0)
    with pytest.raises(ValueError, match="used once"):
        rotate_history(history, second, first, **times, overlap_s=0)

    payload = encode(
        {
            NUMBER: 2,
            KEY: first.verify_key.raw,
            PREVIOUS: history.head_hash,
            CREATED: NOW,
            EXPIRES: NOW + DAY_S,
            OVERLAP: 0,
        }
    )
    with pytest.raises(IdentityError):
        ChangeHistory.decode_untrusted(encode([*unpack(history), [payload, bytes(64), bytes(64)]]))


def test_times_that_no_verifier_accepts_are_our_own_mistake() -> None:
    key = SigningKey.generate()
    with pytest.raises(ValueError, match="expires before"):
        create_history(key, created_unix_s=NOW, expires_unix_s=NOW)
    person = Person()
    with pytest.raises(ValueError, match="current key"):
        rotate_history(
            person.history, key, key, created_unix_s=NOW, expires_unix_s=NOW + 1, overlap_s=0
        )


@settings(max_examples=60)
@given(st.data())
def test_no_flipped_bit_of_a_history_goes_unnoticed(data: st.DataObject) -> None:
    person = Person().rotated()
    encoded = person.history.encode()
    bit = data.draw(st.integers(0, 8 * len(encoded) - 1))

    try:
        history = ChangeHistory.decode_untrusted(flip_bit(encoded, bit))
        history.verify_signatures(SignatureBudget())
    except IdentityError:
        return
    pytest.fail("a changed history verified")


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with pytest.raises(IdentityError):
        ChangeHistory.decode_untrusted(data)


@pytest.mark.prove
def test_a_long_history_reads_back() -> None:
    # 512 KiB bind before 4096 changes do: each later change takes some 250 bytes.
    person = Person()
    for _ in range(2000):
        person = person.rotated(overlap_s=0)

    assert ChangeHistory.decode_untrusted(person.history.encode()).pin == person.history.pin
