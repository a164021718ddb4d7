"""Revocation on the authority: numbers only grow, nobody comes off the list, and a restored
authority learns what it has forgotten."""

from pathlib import Path
from typing import Any

import pytest

from authority import revocations as revocations_module
from authority.revocations import REASON_CHARS_MAX, RevocationBook
from authority.tables import Tables
from identity import (
    Code,
    Identifier,
    OwnIdentity,
    SidelinkError,
    SigningKey,
    cbor,
    cose,
    decode_revocations_untrusted,
    issue_revocations,
)
from identity.cose import SignedType
from tests.authority.helpers import DAY_S, new_node
from tests.simulation.people import authority

NOW = 1_800_000_000
ONE, OTHER = Identifier(bytes([1]) * 32), Identifier(bytes([2]) * 32)


class Book:
    """A book of its own, whose authority may rotate."""

    def __init__(self, path: Path) -> None:
        self.own: OwnIdentity = authority()
        self.tables = Tables(path)
        self.book = RevocationBook(self.tables, lambda: self.own, "acme", next_update_s=DAY_S)

    def list(self, unix_s: float) -> Any:
        return decode_revocations_untrusted(self.book.current(unix_s)).content


@pytest.fixture
def book(tmp_path: Path) -> Any:
    book = Book(tmp_path / "state.db")
    yield book
    book.tables.close()


def test_a_list_names_who_was_revoked_and_is_signed(book: Book) -> None:
    assert book.book.revoke(ONE, "lost", unix_s=NOW)
    signed = decode_revocations_untrusted(book.book.current(NOW))
    signed.verify(authority().history, NOW)

    assert ONE in signed.content
    assert OTHER not in signed.content
    assert signed.content.next_update_unix_s == NOW + DAY_S
    assert [(one.identifier, one.reason) for one in book.book.revocations()] == [(ONE, "lost")]


def test_a_list_stays_the_same_until_half_of_its_time_is_over(book: Book) -> None:
    first = book.book.current(NOW)

    assert book.book.current(NOW + DAY_S / 2 - 1) == first
    later = book.list(NOW + DAY_S / 2)
    assert later.number == NOW + DAY_S // 2
    assert later.issued_unix_s == NOW + DAY_S // 2


def test_numbers_grow_with_each_change_even_within_a_second(book: Book) -> None:
    numbers = [book.list(NOW).number]
    for who in (ONE, OTHER):
        book.book.revoke(who, "", unix_s=NOW)
        numbers.append(book.list(NOW).number)

    assert numbers == sorted(set(numbers))


def test_numbers_grow_though_the_clock_goes_back_or_the_program_starts_again(
    book: Book, tmp_path: Path
) -> None:
    before = book.list(NOW).number
    book.tables.close()
    again = Book(tmp_path / "state.db")
    after = again.list(NOW - DAY_S).number
    again.tables.close()

    assert after > before


def test_a_list_is_signed_anew_with_another_key(book: Book) -> None:
    first = book.list(NOW)
    announced = book.own.with_next_key(SigningKey.generate(), unix_s=NOW, overlap_s=60)
    book.own = announced.using_next_key(unix_s=NOW)
    second = book.list(NOW)

    assert (first.issuer_change_number, second.issuer_change_number) == (0, 1)
    assert second.number > first.number


def test_who_is_revoked_twice_is_entered_once_and_no_new_list_comes_of_it(book: Book) -> None:
    book.book.revoke(ONE, "lost", unix_s=NOW)
    before = book.book.current(NOW)

    assert not book.book.revoke(ONE, "again", unix_s=NOW + 1)
    assert book.book.current(NOW + 1) == before
    assert [one.reason for one in book.book.revocations()] == ["lost"]


REFUSED: dict[str, tuple[Identifier, str]] = {
    "the authority itself": (authority().identifier, ""),
    "a reason of two lines": (ONE, "lost\nfound"),
    "a reason that a terminal would obey": (ONE, "\x1b[2J"),
    "a reason that is too long": (ONE, "x" * (REASON_CHARS_MAX + 1)),
}


@pytest.mark.parametrize(("who", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_revocation_is_refused_of(book: Book, who: Identifier, reason: str) -> None:
    with pytest.raises(SidelinkError) as caught:
        book.book.revoke(who, reason, unix_s=NOW)

    assert caught.value.code is Code.LOCAL_BAD_REQUEST
    assert book.book.count == 0


def test_a_full_list_says_so_and_stays_as_it_was(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations_module, "REVOKED_MAX", 1)
    book.book.revoke(ONE, "", unix_s=NOW)
    before = book.list(NOW).number
    with pytest.raises(SidelinkError) as caught:
        book.book.revoke(OTHER, "", unix_s=NOW)

    assert caught.value.code is Code.LOCAL_LIMIT
    assert book.book.count == 1
    assert book.list(NOW).number == before


def later_list(own: OwnIdentity, *, number: int = NOW + 500) -> bytes:
    """What the authority issued behind the backup that it was restored from."""
    return issue_revocations(
        own,
        "acme",
        number=number,
        issued_unix_s=NOW,
        next_update_unix_s=NOW + DAY_S,
        revoked=[OTHER],
    )


def test_a_restored_authority_learns_entries_and_number_from_a_later_list(book: Book) -> None:
    book.book.revoke(ONE, "lost", unix_s=NOW)

    assert book.book.merge_untrusted(later_list(book.own), unix_s=NOW)
    merged = book.list(NOW)
    assert ONE in merged
    assert OTHER in merged
    assert merged.number > NOW + 500
    assert not book.book.merge_untrusted(later_list(book.own), unix_s=NOW)
    assert book.list(NOW) == merged


def test_an_older_list_teaches_nothing_but_the_names_on_it(book: Book) -> None:
    before = book.list(NOW + 1_000).number

    assert book.book.merge_untrusted(later_list(book.own), unix_s=NOW + 1_000)
    assert OTHER in book.list(NOW + 1_000)
    assert book.list(NOW + 1_000).number == before + 1


def test_a_list_signed_by_a_key_that_the_backup_does_not_know_counts(book: Book) -> None:
    announced = book.own.with_next_key(SigningKey.generate(), unix_s=NOW, overlap_s=60)
    rotated = announced.using_next_key(unix_s=NOW)

    assert book.book.merge_untrusted(later_list(rotated), unix_s=NOW)
    assert OTHER in book.list(NOW)


def _changed(book: Book) -> bytes:
    changed = bytearray(later_list(book.own))
    changed[len(changed) // 4] ^= 1
    return bytes(changed)


def _forged(book: Book) -> bytes:
    """What the authority could have said, under its history, signed by somebody else."""
    payload = decode_revocations_untrusted(later_list(book.own)).message.payload
    message = cose.sign(SigningKey.generate(), SignedType.REVOCATIONS, payload)
    return cbor.encode([message.encode(), book.own.history.encode()])


def _of_another_domain(book: Book) -> bytes:
    return issue_revocations(
        book.own,
        "globex",
        number=NOW,
        issued_unix_s=NOW,
        next_update_unix_s=NOW + DAY_S,
        revoked=[OTHER],
    )


FORGED: dict[str, Any] = {
    "garbage": lambda _: b"\xff",
    "the list of another authority": lambda _: later_list(new_node()),
    "a changed list": _changed,
    "a list that somebody else has signed": _forged,
    "a list of another trust domain": _of_another_domain,
    "a number far ahead of the clock": lambda book: later_list(book.own, number=NOW + 10 * DAY_S),
}


@pytest.mark.parametrize("make", FORGED.values(), ids=FORGED)
def test_nothing_is_learned_from(book: Book, make: Any) -> None:
    with pytest.raises(SidelinkError):
        book.book.merge_untrusted(make(book), unix_s=NOW)

    assert book.book.count == 0
