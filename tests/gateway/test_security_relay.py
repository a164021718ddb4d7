"""What no window counts is bounded too: grants, and openings towards somebody who is slow."""

from typing import Any

import pytest

from gateway import hops
from identity import AgentUri, Code
from link import Credit, FrameKind
from link.limits import GRANT_BYTES_MIN, GRANTS_UNEARNED_MAX, INITIAL_WINDOW_BYTES
from link.messages import encode_code, encode_credit, encode_prefix
from tests.gateway.helpers import Switchboard, prefix


def grant(board: Switchboard, link: int, limit: int) -> None:
    board.receive(board.alpha, link, FrameKind.CREDIT, encode_credit(Credit(0, limit)))


def test_grants_without_end_for_nothing_cost_the_hop_of_who_gives_them() -> None:
    board = Switchboard()
    board.join()
    for number in range(GRANTS_UNEARNED_MAX + 1):
        assert board.alpha.closed is None
        grant(board, 1, INITIAL_WINDOW_BYTES + 1 + number)

    assert board.alpha.closed is Code.ROUTE_CREDIT_EXCEEDED
    assert len(board.beta.of(FrameKind.CREDIT)) == GRANTS_UNEARNED_MAX


def test_grants_for_bytes_that_came_go_on_for_ever() -> None:
    board = Switchboard()
    there = board.join()
    for number in range(4 * GRANTS_UNEARNED_MAX):
        board.receive(board.beta, there, FrameKind.RECORD, bytes(GRANT_BYTES_MIN))
        grant(board, 1, INITIAL_WINDOW_BYTES + (number + 1) * GRANT_BYTES_MIN)

    assert board.alpha.closed is None
    assert len(board.beta.of(FrameKind.CREDIT)) == 4 * GRANTS_UNEARNED_MAX


def test_who_is_slow_is_offered_no_links_and_keeps_its_hop() -> None:
    board = Switchboard()
    board.beta.queued_bytes = board.limits.congested_bytes + 1

    board.open(board.alpha)

    assert board.alpha.closes() == [(1, Code.ROUTE_LINK_LIMIT)]
    assert board.beta.closed is None
    board.beta.queued_bytes = 0
    board.open(board.alpha, 2)
    assert len(board.beta.of(FrameKind.LINK_OPEN)) == 1


def test_a_node_that_asks_and_reads_no_answer_loses_its_hop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hops, "QUEUE_CHECK_BYTES", 100)
    board = Switchboard()
    board.alpha.queued_bytes = board.limits.hop_queue_bytes_max + 1

    # Each opening is refused in a few bytes; nothing is relayed.
    for number in range(1, 20):
        board.open(board.alpha, number, target=AgentUri.parse("agent://acme/nobody/home"))

    assert board.alpha.closed is Code.HOP_LIMIT_EXCEEDED


def test_a_node_that_registers_without_end_loses_its_hop() -> None:
    """Each is a line of the audit log, and displaces whoever else has that prefix."""
    board = Switchboard()
    body = encode_prefix(prefix("alpha"))
    for _ in range(hops.REGISTRATIONS_BURST - 1):
        board.receive(board.alpha, 0, FrameKind.REGISTER, body)
    assert board.alpha.closed is None
    board.now_s += 1.0
    board.receive(board.alpha, 0, FrameKind.REGISTER, body)
    assert board.alpha.closed is None

    board.receive(board.alpha, 0, FrameKind.REGISTER, body)

    assert board.alpha.closed is Code.HOP_LIMIT_EXCEEDED
    assert len(board.decisions.permits) <= hops.REGISTRATIONS_BURST + 2


class _NeverWalked(dict[Any, Any]):
    """Tens of thousands of grants may wait, and as many links may end in one read."""

    def __iter__(self) -> Any:
        raise AssertionError("walked through for one link")

    keys = values = items = __iter__


def test_links_that_end_do_not_look_at_what_is_withheld_of_others() -> None:
    board = Switchboard()
    there = [board.join(link) for link in (1, 2, 3)]
    board.beta.queued_bytes = board.limits.congested_bytes + 1
    for link in there:
        body = encode_credit(Credit(0, 2 * INITIAL_WINDOW_BYTES))
        board.receive(board.beta, link, FrameKind.CREDIT, body)
    state = board.relay.hops[board.beta.id]
    state.withheld = _NeverWalked(state.withheld)
    board.receive(board.beta, there[0], FrameKind.LINK_CLOSE, encode_code(Code.CHANNEL_CLOSED))
    board.receive(board.alpha, 2, FrameKind.LINK_CLOSE, encode_code(Code.CHANNEL_CLOSED))

    assert len(state.withheld) == 1
