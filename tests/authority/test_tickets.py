"""Tickets: once, in time, for one node; and nobody who reads the table can use one."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from authority import tickets
from authority.tickets import TICKET_SECONDS_MAX, Terms, TicketBook
from identity import (
    AgentUri,
    Code,
    Delegable,
    Identifier,
    NamePrefix,
    SidelinkError,
)
from tests.authority.helpers import Office

ONE, OTHER = Identifier(bytes(32)), Identifier(bytes([1]) * 32)
NOW = 1_800_000_000
TERMS = Terms(
    AgentUri.parse("agent://acme/finance"),
    "sidecar",
    {"site": "north", "level": 3, "human": False, "teams": ("a", "b")},
    Delegable(
        name_prefixes=(NamePrefix.parse("agent://acme/finance"),),
        attributes={"role": None, "clearance": (1, 2), "teams": (("a",), ("b", "c"))},
        actions=("message.ask",),
        depth=3,
        lifetime_s_max=60,
    ),
)
GATEWAY = Terms(AgentUri.parse("agent://acme/gateway"), "gateway", {}, None)


def refusal(call: Callable[[], object]) -> Code:
    with pytest.raises(SidelinkError) as caught:
        call()
    return caught.value.code


@pytest.fixture
def book(tmp_path: Path, office: Office) -> TicketBook:
    return office.book


@pytest.mark.parametrize("terms", [TERMS, GATEWAY], ids=lambda terms: terms.role)
def test_terms_come_back_as_they_were_given(book: TicketBook, terms: Terms) -> None:
    code = book.create(terms, unix_s=NOW, expires_unix_s=NOW + 60)

    assert book.redeem(code, ONE, NOW) == terms


def test_the_same_node_may_ask_again_and_gets_the_same(book: TicketBook) -> None:
    code = book.create(TERMS, unix_s=NOW, expires_unix_s=NOW + 60)

    assert [book.redeem(code, ONE, NOW + at) for at in (0, 1, 59)] == [TERMS] * 3


def test_a_ticket_is_refused_to_others_too_late_or_unknown(book: TicketBook) -> None:
    code = book.create(TERMS, unix_s=NOW, expires_unix_s=NOW + 60)
    assert refusal(lambda: book.redeem(code, ONE, NOW + 60)) is Code.ENROL_TICKET_EXPIRED
    book.redeem(code, ONE, NOW)

    assert refusal(lambda: book.redeem(code, OTHER, NOW)) is Code.ENROL_TICKET_USED
    assert refusal(lambda: book.redeem(code, OTHER, NOW + 60)) is Code.ENROL_TICKET_USED
    assert refusal(lambda: book.redeem(code, ONE, NOW + 60)) is Code.ENROL_TICKET_EXPIRED
    assert refusal(lambda: book.redeem(bytes(16), ONE, NOW)) is Code.ENROL_TICKET_UNKNOWN


def test_a_refused_attempt_uses_nothing_up(book: TicketBook) -> None:
    code = book.create(TERMS, unix_s=NOW, expires_unix_s=NOW + 60)
    refusal(lambda: book.redeem(code, OTHER, NOW + 60))

    assert book.redeem(code, ONE, NOW) == TERMS


def test_at_the_same_instant_one_of_many_nodes_wins(tmp_path: Path, book: TicketBook) -> None:
    code = book.create(TERMS, unix_s=NOW, expires_unix_s=NOW + 60)
    barrier = threading.Barrier(6)
    outcomes: list[Code | Terms] = []

    def redeem(number: int) -> None:
        own = TicketBook(tmp_path / "state.db")
        try:
            barrier.wait()
            outcomes.append(own.redeem(code, Identifier(bytes([number]) * 32), NOW))
        except SidelinkError as error:
            outcomes.append(error.code)
        finally:
            own.close()

    threads = [threading.Thread(target=redeem, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(map(str, outcomes)) == sorted(map(str, [TERMS, *[Code.ENROL_TICKET_USED] * 5]))


def test_what_is_written_down_is_no_code(tmp_path: Path, book: TicketBook) -> None:
    codes = [book.create(TERMS, unix_s=NOW, expires_unix_s=NOW + 60) for _ in range(3)]
    book.redeem(codes[0], ONE, NOW)

    written = b"".join(path.read_bytes() for path in tmp_path.glob("state.db*"))
    assert all(code not in written for code in codes)


def test_a_ticket_outlives_a_restart_and_so_does_its_use(tmp_path: Path, book: TicketBook) -> None:
    code = book.create(TERMS, unix_s=NOW, expires_unix_s=NOW + 60)
    book.redeem(code, ONE, NOW)
    again = TicketBook(tmp_path / "state.db")

    assert refusal(lambda: again.redeem(code, OTHER, NOW)) is Code.ENROL_TICKET_USED
    assert again.redeem(code, ONE, NOW) == TERMS
    again.close()


def test_only_tickets_that_are_still_good_count_against_the_limit(
    book: TicketBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickets, "TICKETS_OPEN_MAX", 2)
    for at in range(2):
        book.create(TERMS, unix_s=NOW, expires_unix_s=NOW + 60 + at)

    def create(unix_s: int) -> bytes:
        return book.create(TERMS, unix_s=unix_s, expires_unix_s=unix_s + 60)

    assert refusal(lambda: create(NOW)) is Code.LOCAL_LIMIT
    assert create(NOW + 60)
    assert refusal(lambda: create(NOW + 60)) is Code.LOCAL_LIMIT


def test_what_is_long_over_is_forgotten(book: TicketBook) -> None:
    code = book.create(TERMS, unix_s=NOW, expires_unix_s=NOW + 60)
    later = NOW + 61 + TICKET_SECONDS_MAX
    book.create(TERMS, unix_s=later, expires_unix_s=later + 60)

    assert refusal(lambda: book.redeem(code, ONE, later)) is Code.ENROL_TICKET_UNKNOWN
