"""Tokens at rest: hashed, scoped, capped, with an end, and remembered across restarts."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sidelink.tokens import PREFIX, check_token, token_of

from identity import Code, SidelinkError
from node.errors import ConfigError
from sidecar import tokens as module
from sidecar.tokens import LAST_USE_SECONDS, TokenBook

NOW = 1_900_000_000
LIFETIME_S = 1_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def book(path: Path) -> Iterator[TokenBook]:
    book = TokenBook(path)
    yield book
    book.close()


def create(book: TokenBook, *agents: str) -> tuple[str, int]:
    text, token = book.create(agents or ("a",), unix_s=NOW, lifetime_s=LIFETIME_S)
    return text, token.id


def test_a_token_is_found_by_its_text_and_holds_for_its_agents(book: TokenBook) -> None:
    text, number = create(book, "finance/planner", "billing/main")

    found = book.find_untrusted(text, NOW)

    assert found is not None
    assert found.id == number
    names = ("finance/planner", "finance/planner/child", "billing/main", "finance", "finance/other")
    assert [found.scope.covers(name) for name in names] == [True, True, True, False, False]


def test_a_token_is_written_like_a_ticket_with_a_checksum() -> None:
    text = token_of(bytes(range(32)))

    assert text == "slk1AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9jDc0p"
    assert check_token(f" {text}\n", "it") == text


def test_no_two_tokens_are_alike(book: TokenBook) -> None:
    assert len({create(book)[0] for _ in range(50)}) == 50


def test_what_is_kept_is_no_token(book: TokenBook, path: Path) -> None:
    text, _ = create(book)
    secret = text.removeprefix(PREFIX)

    book.close()

    for file in path.parent.iterdir():
        assert secret[:12].encode() not in file.read_bytes()
        assert text.encode() not in file.read_bytes()


WRONG = {
    "nothing": lambda _: "",
    "another token": lambda _: token_of(bytes(32)),
    "a part": lambda text: text[:-1],
    "one more character": lambda text: text + "A",
    "other letters": lambda text: text.swapcase(),
    "white space behind it": lambda text: text + " ",
    "its hash": lambda text: module._hash(text).hex(),
    "no Unicode": lambda _: "slk1\udcff",
    "a long text": lambda _: "slk1" * 1000,
}


@pytest.mark.parametrize("case", WRONG)
def test_nothing_but_the_text_finds_it(case: str, book: TokenBook) -> None:
    text, _ = create(book)

    assert book.find_untrusted(WRONG[case](text), NOW) is None


def test_a_token_ends_with_its_time_also_where_it_was_found_before(book: TokenBook) -> None:
    text, number = create(book)

    times = (NOW, NOW + LIFETIME_S - 1, NOW + LIFETIME_S)
    assert [book.find_untrusted(text, unix_s) is not None for unix_s in times] == [1, 1, 0]
    assert [book.holds(number, unix_s) for unix_s in times] == [True, True, False]


def test_a_revoked_token_is_gone_and_its_number_is_not_given_again(
    book: TokenBook, path: Path
) -> None:
    text, number = create(book)

    assert book.revoke(number)

    assert book.find_untrusted(text, NOW) is None
    assert not book.holds(number, NOW)
    assert not book.revoke(number)
    book.close()
    later = TokenBook(path)
    assert later.find_untrusted(text, NOW) is None
    assert create(later)[1] > number
    later.close()


def test_tokens_outlive_a_restart(book: TokenBook, path: Path) -> None:
    text, _ = create(book, "a/b", "c")
    book.used(book.entries()[0], NOW)
    before = book.entries()
    book.close()

    later = TokenBook(path)

    assert later.entries() == before
    assert later.find_untrusted(text, NOW) == before[0]
    later.close()


def test_the_last_use_is_known_to_the_hour_and_written_once_an_hour(book: TokenBook) -> None:
    text, _ = create(book)
    hour = NOW // LAST_USE_SECONDS * LAST_USE_SECONDS
    writes: list[str] = []
    book._connection.set_trace_callback(writes.append)

    for unix_s in (hour + 1, hour + 2, hour + 3_599, hour + 3_600):
        found = book.find_untrusted(text, NOW)
        assert found is not None
        book.used(found, unix_s)

    assert len([sql for sql in writes if sql.startswith("UPDATE")]) == 2
    assert book.entries()[0].last_used_unix_s == hour + 3_600


def test_a_disk_that_takes_nothing_is_named_and_locks_nobody_out(book: TokenBook) -> None:
    text, number = create(book)
    book._connection.execute("PRAGMA query_only = ON")

    with pytest.raises(ConfigError, match=r"state\.db") as refused:
        create(book, "b")
    with pytest.raises(ConfigError, match=r"state\.db"):
        book.revoke(number)
    found = book.find_untrusted(text, NOW)
    assert found is not None
    book.used(found, NOW)

    assert "disk" in refused.value.remedy
    assert [token.agents for token in book.entries()] == [("a",)]
    assert book.holds(number, NOW)


def test_tokens_are_capped_and_expired_ones_make_room(
    book: TokenBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOKENS_MAX", 2)
    create(book)
    create(book)

    with pytest.raises(SidelinkError) as caught:
        create(book)
    later, _ = book.create(["b"], unix_s=NOW + LIFETIME_S, lifetime_s=1)

    assert caught.value.code is Code.LOCAL_LIMIT
    assert len(book) == 1
    assert book.find_untrusted(later, NOW + LIFETIME_S) is not None


def test_a_database_that_is_none_is_named(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)

    with pytest.raises(SidelinkError) as caught:
        TokenBook(path)

    assert caught.value.code is Code.CONFIG_KEYSTORE_DAMAGED
    assert str(path) in caught.value.detail


def test_the_table_refuses_what_is_no_hash(book: TokenBook) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        book._connection.execute("INSERT INTO sidecar_tokens VALUES (9, x'00', 'a', 1, 2, NULL)")
