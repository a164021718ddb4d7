"""Byte streams through a gateway: joined by their preamble, counted, reset where they must be."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import streams as streams_module
from gateway.relay import STREAMS_PER_LINK_MAX
from identity import Code
from link import Credit, FrameKind, StreamPreamble
from link.limits import INITIAL_WINDOW_BYTES, STREAM_PREAMBLE_BYTES
from link.messages import (
    decode_stream_preamble_untrusted,
    encode_code,
    encode_credit,
    encode_stream_preamble,
)
from tests.gateway.helpers import Switchboard

NEAR = 20
FAR = 1


@pytest.fixture
def board() -> Switchboard:
    return Switchboard()


def begin(board: Switchboard, number: int = 3, data: bytes = b"") -> int:
    """A stream from alpha to beta; returns the link's number at beta."""
    there = board.join()
    preamble = encode_stream_preamble(StreamPreamble(1, number))
    board.streams.received(board.alpha, NEAR, preamble + data, False)
    return there


@settings(max_examples=30)
@given(st.lists(st.integers(1, 20), max_size=8))
def test_a_stream_goes_on_under_the_far_links_number_however_its_preamble_is_cut(
    cuts: list[int],
) -> None:
    board = Switchboard()
    there = board.join()
    stream = encode_stream_preamble(StreamPreamble(1, 3)) + b"hello"
    for cut in cuts:
        board.streams.received(board.alpha, NEAR, stream[:cut], False)
        stream = stream[cut:]
    board.streams.received(board.alpha, NEAR, stream, True)

    carried = bytes(board.beta.streams[FAR])
    assert decode_stream_preamble_untrusted(carried[:STREAM_PREAMBLE_BYTES]) == StreamPreamble(
        there, 3
    )
    assert carried[STREAM_PREAMBLE_BYTES:] == b"hello"
    assert board.beta.ended == {FAR}


def test_bytes_flow_back_on_the_same_stream_and_both_ends_end_it(board: Switchboard) -> None:
    begin(board, data=b"there")
    board.streams.received(board.beta, FAR, b"back", True)
    assert len(board.streams) == 1
    board.streams.received(board.alpha, NEAR, b"", True)

    assert bytes(board.alpha.streams[NEAR]) == b"back"
    assert board.alpha.ended == {NEAR}
    assert len(board.streams) == 0


def test_a_stream_of_a_link_that_is_not_relayed_is_reset(board: Switchboard) -> None:
    preamble = encode_stream_preamble(StreamPreamble(9, 3))
    board.streams.received(board.alpha, NEAR, preamble, False)

    assert board.alpha.reset == {NEAR: Code.ROUTE_LINK_CLOSED}
    assert board.alpha.closed is None
    assert board.beta.streams == {}


VIOLATIONS = {
    "bytes that are no preamble": (bytes(STREAM_PREAMBLE_BYTES), False),
    "an end within the preamble": (b"S\0", True),
    "an end before the preamble": (b"", True),
}


@pytest.mark.parametrize(("data", "ended"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_hop_is_closed_for(board: Switchboard, data: bytes, ended: bool) -> None:
    board.streams.received(board.alpha, NEAR, data, ended)

    assert board.alpha.closed is Code.HOP_BAD_FRAME


def test_more_than_was_granted_resets_the_stream_and_nothing_else(board: Switchboard) -> None:
    begin(board, data=bytes(INITIAL_WINDOW_BYTES))
    assert board.alpha.reset == {}
    board.streams.received(board.alpha, NEAR, b"x", False)

    assert board.alpha.reset == {NEAR: Code.ROUTE_CREDIT_EXCEEDED}
    assert board.beta.reset == {FAR: Code.ROUTE_CREDIT_EXCEEDED}
    assert board.relay.links == 1
    assert len(board.streams) == 0


def test_a_grant_for_one_stream_lets_more_pass_on_it_and_on_no_other(board: Switchboard) -> None:
    there = begin(board, number=3, data=bytes(INITIAL_WINDOW_BYTES))
    other = encode_stream_preamble(StreamPreamble(1, 5)) + bytes(INITIAL_WINDOW_BYTES)
    board.streams.received(board.alpha, NEAR + 4, other, False)
    grant = encode_credit(Credit(3, 2 * INITIAL_WINDOW_BYTES))
    board.receive(board.beta, there, FrameKind.CREDIT, grant)
    assert board.alpha.of(FrameKind.CREDIT)[0].body == grant
    board.streams.received(board.alpha, NEAR, b"x", False)
    board.streams.received(board.alpha, NEAR + 4, b"x", False)

    assert board.alpha.reset == {NEAR + 4: Code.ROUTE_CREDIT_EXCEEDED}


def test_a_grant_for_a_stream_that_nobody_opened_is_dropped(board: Switchboard) -> None:
    there = board.join()
    board.receive(board.beta, there, FrameKind.CREDIT, encode_credit(Credit(7, 1 << 30)))

    assert board.alpha.of(FrameKind.CREDIT) == []


def test_a_receiver_that_grants_and_does_not_read_loses_the_stream(
    board: Switchboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams_module, "STREAM_QUEUE_CHECK_BYTES", 1_000)
    begin(board)
    board.beta.stream_queue_bytes = streams_module.STREAM_QUEUED_BYTES_MAX + 1
    board.streams.received(board.alpha, NEAR, bytes(1_000), False)

    assert board.beta.reset == {FAR: Code.STREAM_LIMIT}
    assert board.alpha.reset == {NEAR: Code.STREAM_LIMIT}


def test_a_link_has_so_many_streams_and_no_more(board: Switchboard) -> None:
    board.join()
    for number in range(STREAMS_PER_LINK_MAX + 1):
        preamble = encode_stream_preamble(StreamPreamble(1, number))
        board.streams.received(board.alpha, NEAR + 4 * number, preamble + b"x", False)

    assert board.alpha.reset == {NEAR + 4 * STREAMS_PER_LINK_MAX: Code.STREAM_LIMIT}


def test_a_reset_passes_through_with_its_code(board: Switchboard) -> None:
    begin(board)
    board.streams.reset(board.beta, FAR, int(Code.STREAM_SERVICE_UNKNOWN))

    assert board.alpha.reset == {NEAR: Code.STREAM_SERVICE_UNKNOWN}
    assert len(board.streams) == 0


def test_streams_end_with_their_link(board: Switchboard) -> None:
    there = begin(board)
    board.receive(board.beta, there, FrameKind.LINK_CLOSE, encode_code(Code.CHANNEL_CLOSED))
    board.streams.received(board.alpha, NEAR, b"x", False)

    assert board.alpha.reset == {NEAR: Code.ROUTE_LINK_CLOSED}
    assert board.beta.reset == {FAR: Code.ROUTE_LINK_CLOSED}


def test_the_streams_of_a_lost_hop_are_reset_at_their_far_ends(board: Switchboard) -> None:
    begin(board)
    board.streams.received(board.alpha, NEAR + 4, b"S", False)
    board.lose(board.alpha)
    assert board.beta.reset == {FAR: Code.ROUTE_UNREACHABLE}
    board.lose(board.beta)

    assert board.is_empty()
