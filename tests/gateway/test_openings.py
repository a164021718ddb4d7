"""What costs a decision waits for its turn; what brings nothing costs the hop."""

import pytest

from gateway import openings
from gateway.hops import REGISTRATIONS_BURST, STRAYS_BURST, STRAYS_PER_S
from identity import Code
from link import Credit, FrameKind
from link.messages import encode_code, encode_credit, encode_prefix
from tests.gateway.helpers import FakeHop, Switchboard, opening, prefix

RECORD = bytes(100)


class Turns(Switchboard):
    """A relay that decides one thing at a time, whenever the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.woken = 0
        self.relay.take_turns(self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def opened(self) -> int:
        return len(self.beta.of(FrameKind.LINK_OPEN))


@pytest.fixture
def board() -> Turns:
    return Turns()


def test_one_opening_is_decided_at_once_and_the_others_one_at_a_time(board: Turns) -> None:
    for link in (1, 2, 3):
        board.open(board.alpha, link)
    at_once = board.opened()
    steps = []
    while board.relay.work(0.0):
        steps.append(board.opened())

    assert at_once == 1
    assert steps == [2, 3]


def test_whoever_works_is_woken_as_long_as_something_waits_and_anew_after_that(
    board: Turns,
) -> None:
    board.open(board.alpha, 1)
    board.open(board.alpha, 2)
    assert board.woken == 1
    assert board.relay.work(0.0)
    assert board.woken == 2
    assert not board.relay.work(0.0)
    board.open(board.alpha, 3)

    assert (board.woken, board.opened()) == (3, 3)


def test_hops_take_turns_however_much_one_of_them_wants(board: Turns) -> None:
    for link in range(1, 50):
        board.open(board.alpha, link)
    board.receive(board.beta, 0, FrameKind.REGISTER, encode_prefix(prefix("beta")))
    board.relay.work(0.0)
    board.relay.work(0.0)

    assert len(board.beta.of(FrameKind.REGISTERED)) == 1


def test_an_opening_that_is_withdrawn_costs_no_decision(board: Turns) -> None:
    board.open(board.alpha, 1)
    board.open(board.alpha, 2)
    decided = len(board.decisions.permits)
    board.receive(board.alpha, 2, FrameKind.LINK_CLOSE, encode_code(Code.CHANNEL_CLOSED))
    while board.relay.work(0.0):
        pass

    assert len(board.decisions.permits) == decided
    assert board.opened() == 1
    assert board.alpha.sent == []


def test_what_waits_of_a_hop_goes_with_it(board: Turns) -> None:
    board.open(board.alpha, 1)
    board.open(board.alpha, 2)
    board.lose(board.alpha)

    assert not board.relay.work(0.0)
    assert board.opened() == 1


def test_beyond_what_may_wait_openings_are_refused(
    board: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openings, "WAITING_PER_HOP_MAX", 2)
    for link in range(1, 6):
        board.open(board.alpha, link)

    assert board.alpha.closes() == [(4, Code.ROUTE_LINK_LIMIT), (5, Code.ROUTE_LINK_LIMIT)]
    assert board.alpha.closed is None


def test_so_it_is_for_what_waits_in_bytes(board: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openings, "WAITING_BYTES_PER_HOP_MAX", 2 * len(opening()))
    for link in range(1, 5):
        board.open(board.alpha, link)

    assert board.alpha.closes() == [(4, Code.ROUTE_LINK_LIMIT)]


def test_a_fault_in_what_waited_costs_the_hop(board: Turns) -> None:
    board.open(board.alpha, 1)
    board.receive(board.alpha, 2, FrameKind.LINK_OPEN, b"no opening")
    board.relay.work(0.0)

    assert board.alpha.closed is Code.HOP_BAD_FRAME


def test_a_node_that_registers_without_end_loses_its_hop(board: Turns) -> None:
    said = 0
    while board.alpha.closed is None:
        board.receive(board.alpha, 0, FrameKind.REGISTER, encode_prefix(prefix("alpha")))
        board.relay.work(0.0)
        said += 1

    assert board.alpha.closed is Code.HOP_LIMIT_EXCEEDED
    assert said == REGISTRATIONS_BURST


STRAYS = {
    "records on links that there are not": (FrameKind.RECORD, RECORD),
    "the last message of handshakes that there are not": (FrameKind.LINK_FINISH, RECORD),
    "ends of links that there are not": (FrameKind.LINK_CLOSE, encode_code(Code.CHANNEL_CLOSED)),
    "grants for links that there are not": (FrameKind.CREDIT, encode_credit(Credit(0, 1 << 30))),
    "openings of lanes": (FrameKind.LANE_OPEN, b""),
}


def frames_until_closed(board: Switchboard, hop: FakeHop, kind: FrameKind, body: bytes) -> int:
    said = 0
    while hop.closed is None and said <= 2 * STRAYS_BURST:
        board.receive(hop, 77, kind, body)
        said += 1
    return said


@pytest.mark.parametrize("title", STRAYS)
def test_a_hop_is_closed_that_brings_without_end(title: str, board: Turns) -> None:
    said = frames_until_closed(board, board.alpha, *STRAYS[title])

    assert board.alpha.closed is Code.HOP_LIMIT_EXCEEDED
    assert said == STRAYS_BURST + 1


def test_grants_that_grant_nothing_are_of_the_same_kind(board: Turns) -> None:
    there = board.join()
    said = 0
    while board.beta.closed is None:
        board.receive(board.beta, there, FrameKind.CREDIT, encode_credit(Credit(0, 1)))
        said += 1

    assert said == STRAYS_BURST + 1


def test_whoever_dials_again_has_no_more_to_waste_and_others_have_theirs(board: Turns) -> None:
    kind, body = STRAYS["records on links that there are not"]
    frames_until_closed(board, board.alpha, kind, body)
    board.lose(board.alpha)
    again = board.hop("alpha")
    said_again = frames_until_closed(board, again, kind, body)
    board.lose(again)
    board.now_s += 10.0
    said_later = frames_until_closed(board, board.hop("alpha"), kind, body)
    said_by_another = frames_until_closed(board, board.beta, kind, body)

    assert said_again == 1
    assert said_later == 10 * STRAYS_PER_S + 1
    assert said_by_another == STRAYS_BURST + 1
