"""What a relay lets pass: no more than was granted, and nothing that no window counts."""

import pytest

from gateway import hops as hops_module
from identity import Code
from link import Credit, Frame, FrameKind
from link.limits import INITIAL_WINDOW_BYTES, RECORD_BODY_BYTES_MIN
from link.messages import encode_credit
from tests.gateway.helpers import Switchboard

RECORD = bytes(1_000)


@pytest.fixture
def board() -> Switchboard:
    return Switchboard()


def test_more_than_was_granted_resets_the_link_on_both_sides(board: Switchboard) -> None:
    there = board.join()
    for _ in range(INITIAL_WINDOW_BYTES // 1_000):
        board.receive(board.alpha, 1, FrameKind.RECORD, RECORD)
    assert board.alpha.closes() == []
    board.receive(board.alpha, 1, FrameKind.RECORD, RECORD)

    assert board.alpha.closes() == [(1, Code.ROUTE_CREDIT_EXCEEDED)]
    assert board.beta.closes() == [(there, Code.ROUTE_CREDIT_EXCEEDED)]
    assert board.relay.links == 0
    assert board.alpha.closed is None


def test_a_grant_of_the_receiver_lets_more_pass_towards_it_and_not_the_other_way(
    board: Switchboard,
) -> None:
    there = board.join()
    grant = encode_credit(Credit(0, 2 * INITIAL_WINDOW_BYTES))
    board.receive(board.beta, there, FrameKind.CREDIT, grant)
    for _ in range(2 * INITIAL_WINDOW_BYTES // 1_000):
        board.receive(board.alpha, 1, FrameKind.RECORD, RECORD)
    assert board.alpha.of(FrameKind.CREDIT) == [Frame(1, FrameKind.CREDIT, grant)]
    assert board.alpha.closes() == []

    for _ in range(INITIAL_WINDOW_BYTES // 1_000 + 1):
        board.receive(board.beta, there, FrameKind.RECORD, RECORD)
    assert board.beta.closes() == [(there, Code.ROUTE_CREDIT_EXCEEDED)]


def test_a_grant_that_says_nothing_new_is_not_passed_on(board: Switchboard) -> None:
    there = board.join()
    grant = encode_credit(Credit(0, 1 << 20))
    for body in (grant, grant, encode_credit(Credit(0, 5))):
        board.receive(board.beta, there, FrameKind.CREDIT, body)

    assert len(board.alpha.of(FrameKind.CREDIT)) == 1


OUT_OF_TURN = {
    "a second finish": [("alpha", FrameKind.LINK_FINISH)],
    "a second accept": [("beta", FrameKind.LINK_ACCEPT)],
    "an accept by the opener": [("alpha", FrameKind.LINK_ACCEPT)],
    "a finish by the acceptor": [("beta", FrameKind.LINK_FINISH)],
    "a record of nothing": [("alpha", FrameKind.RECORD)],
}


@pytest.mark.parametrize("frames", OUT_OF_TURN.values(), ids=OUT_OF_TURN)
def test_what_no_window_counts_passes_once_at_most(
    board: Switchboard, frames: list[tuple[str, FrameKind]]
) -> None:
    there = board.join()
    observed = len(board.observed)
    for who, kind in frames:
        hop, link = (board.alpha, 1) if who == "alpha" else (board.beta, there)
        board.receive(hop, link, kind, bytes(RECORD_BODY_BYTES_MIN - 1))

    assert board.alpha.closes() == [(1, Code.ROUTE_BAD_FRAME)]
    assert board.beta.closes() == [(there, Code.ROUTE_BAD_FRAME)]
    assert len(board.observed) == observed


def test_a_peer_that_grants_and_does_not_read_loses_its_hop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hops_module, "QUEUE_CHECK_BYTES", 10_000)
    board = Switchboard(hop_queue_bytes_max=100_000)
    there = board.join()
    board.receive(board.beta, there, FrameKind.CREDIT, encode_credit(Credit(0, 1 << 40)))
    for _ in range(101):
        board.receive(board.alpha, 1, FrameKind.RECORD, RECORD)
        board.beta.queued_bytes += 1_000
    assert board.beta.closed is None
    for _ in range(10):
        board.receive(board.alpha, 1, FrameKind.RECORD, RECORD)
        board.beta.queued_bytes += 1_000

    assert board.beta.closed is Code.HOP_LIMIT_EXCEEDED
    assert board.alpha.closed is None


def test_when_all_hops_together_hold_too_much_the_fullest_one_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hops_module, "QUEUE_CHECK_BYTES", 1_000)
    board = Switchboard(hop_queue_bytes_max=100_000, queue_bytes_max=150_000)
    there = board.join()
    board.alpha.queued_bytes, board.beta.queued_bytes = 70_000, 90_000
    board.receive(board.alpha, 1, FrameKind.RECORD, RECORD)
    assert (board.alpha.closed, board.beta.closed) == (None, None)
    board.receive(board.beta, there, FrameKind.RECORD, RECORD)

    assert board.beta.closed is Code.HOP_LIMIT_EXCEEDED
    assert board.alpha.closed is None
    board.lose(board.beta)
    assert board.relay.hops.queued_bytes == 70_000


class TestGrantsOfASlowHop:
    def test_wait_until_it_has_taken_what_it_was_sent(self) -> None:
        board = Switchboard()
        there = board.join()
        board.beta.queued_bytes = board.limits.congested_bytes + 1
        for limit in (1 << 20, 2 << 20):
            grant = encode_credit(Credit(0, limit))
            board.receive(board.beta, there, FrameKind.CREDIT, grant)
        assert board.alpha.of(FrameKind.CREDIT) == []

        board.beta.queued_bytes = board.limits.relieved_bytes
        board.relay.tick(1.0)

        # The last word of each window is all that counts.
        assert board.alpha.of(FrameKind.CREDIT) == [Frame(1, FrameKind.CREDIT, grant)]

    def test_are_passed_at_the_next_one_that_finds_it_relieved(self) -> None:
        board = Switchboard()
        there = board.join()
        board.beta.queued_bytes = board.limits.congested_bytes + 1
        board.receive(board.beta, there, FrameKind.CREDIT, encode_credit(Credit(0, 1 << 20)))
        board.beta.queued_bytes = 0

        last = encode_credit(Credit(0, 2 << 20))
        board.receive(board.beta, there, FrameKind.CREDIT, last)

        assert board.alpha.of(FrameKind.CREDIT) == [Frame(1, FrameKind.CREDIT, last)]

    def test_are_forgotten_with_their_link(self) -> None:
        board = Switchboard()
        there = board.join()
        board.beta.queued_bytes = board.limits.congested_bytes + 1
        board.receive(board.beta, there, FrameKind.CREDIT, encode_credit(Credit(0, 1 << 20)))
        board.receive(board.alpha, 1, FrameKind.LINK_CLOSE, b"\x01\x3d")
        board.beta.queued_bytes = 0
        board.relay.tick(1.0)

        assert board.alpha.of(FrameKind.CREDIT) == []
        assert not board.relay.hops[board.beta.id].withheld

    def test_are_forgotten_with_the_hop_that_they_were_for(self) -> None:
        board = Switchboard()
        there = board.join()
        board.beta.queued_bytes = board.limits.congested_bytes + 1
        board.receive(board.beta, there, FrameKind.CREDIT, encode_credit(Credit(0, 1 << 20)))
        board.lose(board.alpha)

        assert not board.relay.hops[board.beta.id].withheld


def test_a_hop_opens_so_many_links_at_once_and_so_many_a_second() -> None:
    board = Switchboard(openings_per_s=2.0, openings_burst=3)
    for link in range(1, 6):
        board.open(board.alpha, link)
    assert [link for link, _ in board.alpha.closes()] == [4, 5]
    assert {code for _, code in board.alpha.closes()} == {Code.ROUTE_LINK_LIMIT}

    board.now_s = 1.0
    for link in range(6, 9):
        board.open(board.alpha, link)

    assert [link for link, _ in board.alpha.closes()] == [4, 5, 8]
