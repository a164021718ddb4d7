"""Tickets: once, in time, for one node; and nobody who reads the table can use one."""

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from authority import tickets
from authority.members import MemberBook
from authority.tables import Tables
from authority.terms import Terms
from authority.tickets import TICKET_SECONDS_MAX, Offer, TicketBook, ticket_id
from identity import (
    AgentUri,
    Code,
    Delegable,
    Identifier,
    IdentityError,
    NamePrefix,
    Pin,
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
OFFER = Offer(TERMS)
WORKERS = Offer(replace(TERMS, name=AgentUri.parse("agent://acme/workers")), 3, names_below=True)


def node(number: int) -> Identifier:
    return Identifier(bytes([number]) * 32)


def book_at(folder: Path) -> tuple[TicketBook, Tables]:
    tables = Tables(folder / "state.db")
    return TicketBook(tables, MemberBook(tables)), tables


def refusal(call: Callable[[], object]) -> Code:
    with pytest.raises(SidelinkError) as caught:
        call()
    return caught.value.code


@pytest.fixture
def book(tmp_path: Path, office: Office) -> TicketBook:
    return office.book


OFFERS = {"sidecar": OFFER, "gateway": Offer(GATEWAY), "replacement": Offer(TERMS, replaces=True)}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_terms_come_back_as_they_were_given(book: TicketBook, offer: Offer) -> None:
    code = book.create(offer, unix_s=NOW, expires_unix_s=NOW + 60)

    assert book.redeem(code, ONE, NOW) == offer


def test_the_same_node_may_ask_again_and_gets_the_same(book: TicketBook) -> None:
    code = book.create(OFFER, unix_s=NOW, expires_unix_s=NOW + 60)

    assert [book.redeem(code, ONE, NOW + at) for at in (0, 1, 59)] == [OFFER] * 3


def test_a_ticket_is_refused_to_others_too_late_or_unknown(book: TicketBook) -> None:
    code = book.create(OFFER, unix_s=NOW, expires_unix_s=NOW + 60)
    assert refusal(lambda: book.redeem(code, ONE, NOW + 60)) is Code.ENROL_TICKET_EXPIRED
    book.redeem(code, ONE, NOW)

    assert refusal(lambda: book.redeem(code, OTHER, NOW)) is Code.ENROL_TICKET_USED
    assert refusal(lambda: book.redeem(code, OTHER, NOW + 60)) is Code.ENROL_TICKET_USED
    assert refusal(lambda: book.redeem(code, ONE, NOW + 60)) is Code.ENROL_TICKET_EXPIRED
    assert refusal(lambda: book.redeem(bytes(16), ONE, NOW)) is Code.ENROL_TICKET_UNKNOWN


def test_a_refused_attempt_uses_nothing_up(book: TicketBook) -> None:
    code = book.create(OFFER, unix_s=NOW, expires_unix_s=NOW + 60)
    refusal(lambda: book.redeem(code, OTHER, NOW + 60))

    assert book.redeem(code, ONE, NOW) == OFFER


@pytest.mark.parametrize(("offer", "winners"), [(OFFER, 1), (WORKERS, 3)])
def test_at_the_same_instant_as_many_of_many_nodes_win_as_there_are_uses(
    tmp_path: Path, book: TicketBook, offer: Offer, winners: int
) -> None:
    code = book.create(offer, unix_s=NOW, expires_unix_s=NOW + 60)
    barrier = threading.Barrier(6)
    outcomes: list[Code | str] = []

    def redeem(number: int) -> None:
        own, tables = book_at(tmp_path)
        try:
            barrier.wait()
            outcomes.append(str(own.redeem(code, node(number), NOW).terms.name))
        except SidelinkError as error:
            outcomes.append(error.code)
        finally:
            tables.close()

    threads = [threading.Thread(target=redeem, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    names = [outcome for outcome in outcomes if isinstance(outcome, str)]
    refusals = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    assert len(set(names)) == len(names) == winners
    assert refusals == [Code.ENROL_TICKET_USED] * (6 - winners)


REDEEM = """
import sys
from pathlib import Path
from authority.members import MemberBook
from authority.tables import Tables
from authority.tickets import TicketBook
from identity import Identifier, SidelinkError

tables = Tables(Path(sys.argv[1]))
book = TicketBook(tables, MemberBook(tables))
print("ready", flush=True)
sys.stdin.readline()
try:
    book.redeem(bytes.fromhex(sys.argv[2]), Identifier(bytes.fromhex(sys.argv[3])), 1_800_000_000)
    print("won")
except SidelinkError as error:
    print(error.code.text)
"""


@pytest.mark.mesh
def test_at_the_same_instant_one_of_two_processes_wins(tmp_path: Path, book: TicketBook) -> None:
    code = book.create(OFFER, unix_s=NOW, expires_unix_s=NOW + 60)
    arguments = [sys.executable, "-c", REDEEM, str(tmp_path / "state.db"), code.hex()]
    processes = [
        subprocess.Popen(
            [*arguments, node(number).digest.hex()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outcomes = [process.communicate(timeout=30)[0] for process in processes]

    assert sorted(outcomes) == ["enrol.ticket_used\n", "won\n"]


def test_what_is_written_down_is_no_code(tmp_path: Path, book: TicketBook) -> None:
    codes = [book.create(OFFER, unix_s=NOW, expires_unix_s=NOW + 60) for _ in range(3)]
    book.redeem(codes[0], ONE, NOW)

    written = b"".join(path.read_bytes() for path in tmp_path.glob("state.db*"))
    assert all(code not in written for code in codes)


def test_a_ticket_outlives_a_restart_and_so_does_its_use(tmp_path: Path, book: TicketBook) -> None:
    code = book.create(OFFER, unix_s=NOW, expires_unix_s=NOW + 60)
    book.redeem(code, ONE, NOW)
    again, tables = book_at(tmp_path)

    assert refusal(lambda: again.redeem(code, OTHER, NOW)) is Code.ENROL_TICKET_USED
    assert again.redeem(code, ONE, NOW) == OFFER
    tables.close()


def test_only_tickets_that_are_still_good_count_against_the_limit(
    book: TicketBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickets, "TICKETS_OPEN_MAX", 2)
    for at in range(2):
        book.create(OFFER, unix_s=NOW, expires_unix_s=NOW + 60 + at)

    def create(unix_s: int) -> bytes:
        return book.create(OFFER, unix_s=unix_s, expires_unix_s=unix_s + 60)

    assert refusal(lambda: create(NOW)) is Code.LOCAL_LIMIT
    assert create(NOW + 60)
    assert refusal(lambda: create(NOW + 60)) is Code.LOCAL_LIMIT


def test_what_is_long_over_is_forgotten(book: TicketBook) -> None:
    code = book.create(OFFER, unix_s=NOW, expires_unix_s=NOW + 60)
    later = NOW + 61 + TICKET_SECONDS_MAX
    book.create(OFFER, unix_s=later, expires_unix_s=later + 60)

    assert refusal(lambda: book.redeem(code, ONE, later)) is Code.ENROL_TICKET_UNKNOWN


def test_each_node_gets_a_name_of_its_own_below_the_prefix_and_may_name_nobody_elses(
    book: TicketBook,
) -> None:
    code = book.create(WORKERS, unix_s=NOW, expires_unix_s=NOW + 60)
    wished = book.redeem(code, node(1), NOW, wish="pod-1").terms
    given = book.redeem(code, node(2), NOW).terms

    assert str(wished.name) == "agent://acme/workers/pod-1"
    assert str(given.name) == f"agent://acme/workers/{str(node(2))[3:15]}"
    for terms in (wished, given):
        assert terms.delegable is not None
        assert [str(prefix) for prefix in terms.delegable.name_prefixes] == [str(terms.name)]
        assert terms.delegable.attributes == TERMS.delegable.attributes  # type: ignore[union-attr]


def test_a_node_that_asks_again_keeps_its_name_and_uses_nothing_more_up(book: TicketBook) -> None:
    code = book.create(WORKERS, unix_s=NOW, expires_unix_s=NOW + 60)
    names = [
        str(book.redeem(code, node(1), NOW, wish=wish).terms.name)
        for wish in ("pod-1", "pod-2", None)
    ]

    assert names == ["agent://acme/workers/pod-1"] * 3
    assert [ticket.used for ticket in book.tickets()] == [1]


def test_a_wished_name_that_another_node_holds_becomes_one_of_the_nodes_own(
    office: Office, book: TicketBook
) -> None:
    held = AgentUri.parse("agent://acme/workers/pod-1")
    office.members.admit(
        ONE,
        replace(TERMS, name=held),
        Pin(0, bytes(32)),
        unix_s=NOW,
        expires_unix_s=NOW + 60,
        replaces=False,
    )
    code = book.create(WORKERS, unix_s=NOW, expires_unix_s=NOW + 120)

    assert book.redeem(code, node(1), NOW, wish="pod-1").terms.name.path[-1] != "pod-1"
    assert book.redeem(code, node(2), NOW + 60, wish="pod-1").terms.name == held


def test_a_wish_that_makes_a_name_too_long_is_refused_and_uses_nothing_up(
    book: TicketBook,
) -> None:
    long = AgentUri("acme", ("a" * 63, "b" * 63, "c" * 63, "d" * 30))
    offer = Offer(replace(TERMS, name=long), 1, names_below=True)
    code = book.create(offer, unix_s=NOW, expires_unix_s=NOW + 60)

    with pytest.raises(IdentityError):
        book.redeem(code, ONE, NOW, wish="e" * 63)
    assert [ticket.used for ticket in book.tickets()] == [0]


def test_a_revoked_ticket_lets_nobody_in_not_even_whom_it_let_in_before(book: TicketBook) -> None:
    code = book.create(WORKERS, unix_s=NOW, expires_unix_s=NOW + 60)
    book.redeem(code, ONE, NOW)

    assert book.revoke(ticket_id(code)) == 1
    for who in (ONE, OTHER):
        assert refusal(lambda who=who: book.redeem(code, who, NOW)) is (  # type: ignore[misc]
            Code.ENROL_TICKET_REVOKED
        )


@pytest.mark.parametrize("wrong", ["", "00", "0" * 12, "x" * 12, "0" * 64, "%" * 12, "'" * 12])
def test_a_ticket_is_revoked_by_its_whole_id_only(book: TicketBook, wrong: str) -> None:
    code = book.create(OFFER, unix_s=NOW, expires_unix_s=NOW + 60)

    assert refusal(lambda: book.revoke(wrong)) is Code.LOCAL_BAD_REQUEST
    assert refusal(lambda: book.revoke(ticket_id(code)[:-1])) is Code.LOCAL_BAD_REQUEST
    assert book.redeem(code, ONE, NOW) == OFFER


def test_each_ticket_is_listed_with_its_state_the_newest_first(book: TicketBook) -> None:
    codes = [book.create(OFFER, unix_s=NOW + at, expires_unix_s=NOW + at + 60) for at in range(4)]
    book.redeem(codes[1], ONE, NOW)
    book.revoke(ticket_id(codes[2]))
    listed = book.tickets()

    assert [ticket.id for ticket in listed] == [ticket_id(code) for code in reversed(codes)]
    states = [ticket.state(NOW + 60) for ticket in listed]
    assert states == ["open", "revoked", "used", "expired"]


def test_what_was_open_is_void_once_and_what_was_not_stays_as_it_was(book: TicketBook) -> None:
    used, open_, over = (
        book.create(OFFER, unix_s=NOW, expires_unix_s=NOW + at) for at in (60, 60, 1)
    )
    book.redeem(used, ONE, NOW)
    assert book.void_open(NOW + 1) == 1
    assert book.void_open(NOW + 1) == 0

    assert refusal(lambda: book.redeem(open_, ONE, NOW)) is Code.ENROL_TICKET_REVOKED
    states = {ticket.id: ticket.state(NOW + 1) for ticket in book.tickets()}
    assert states == {
        ticket_id(used): "used",
        ticket_id(open_): "void",
        ticket_id(over): "expired",
    }
