"""Whose turn it is: control first, then lanes and byte streams by deficit, in bounded helpings."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from link import FrameKind, FrameParser
from link.limits import FRAME_HEADER_BYTES
from transport.hop_output import QUANTUM_BYTES, HopOutput
from transport.hop_streams import CONTROL_STREAM, LANE_STREAMS
from transport.in_flight import (
    ALONE_FACTOR,
    IN_FLIGHT_BYTES_MIN,
    QUEUE_S,
    ROUND_TRIP_S_MIN,
    SHARED_S,
    InFlightLimit,
)

RECORD = FrameKind.RECORD
BULK = bytes(60_000)
MANY = 1 << 20


@dataclass
class OrderCarrier:
    """Records what is handed down, in order."""

    handed: list[tuple[int, bytes, bool]] = field(default_factory=list)
    engine_name: str = "order"
    post_quantum: bool | None = None

    def send_stream(self, stream: int, data: bytes, end: bool) -> None:
        self.handed.append((stream, data, end))

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"{name} is not asked of a carrier here")

    @property
    def order(self) -> list[int]:
        return [stream for stream, _, _ in self.handed]

    def bytes_of(self, *streams: int) -> int:
        return sum(len(data) for stream, data, _ in self.handed if stream in streams)

    def joined(self, stream: int) -> bytes:
        return b"".join(data for of, data, _ in self.handed if of == stream)


def write(output: HopOutput, carrier: OrderCarrier, room_bytes: int) -> None:
    output.write_control(carrier)  # type: ignore[arg-type]
    output.write(carrier, room_bytes)  # type: ignore[arg-type]


def make() -> tuple[HopOutput, OrderCarrier]:
    return HopOutput(is_dialler=True), OrderCarrier()


def test_control_goes_first_and_waits_for_no_room() -> None:
    output, carrier = make()
    output.add(1, RECORD, BULK)
    output.add_stream(20, BULK, False)
    output.add_control(0, FrameKind.CREDIT, b"now")

    write(output, carrier, 0)

    assert carrier.order == [CONTROL_STREAM]


def test_a_small_frame_waits_for_one_helping_of_each_other_queue_at_most() -> None:
    output, carrier = make()
    for link in (1, 2, 3):
        for _ in range(20):
            output.add(link, RECORD, bytes(4_000))
    output.add_stream(20, BULK * 10, False)
    write(output, carrier, 3 * QUANTUM_BYTES)
    begun = len(carrier.handed)
    output.add(4, RECORD, b"small")

    write(output, carrier, MANY)

    ahead = carrier.handed[begun : carrier.order.index(LANE_STREAMS[0])]
    assert sum(len(data) for _, data, _ in ahead) <= 7 * QUANTUM_BYTES


def test_a_hundred_bulk_streams_leave_half_of_the_hop_to_the_lanes() -> None:
    output, carrier = make()
    for stream in range(20, 420, 4):
        output.add_stream(stream, BULK, False)
    for _ in range(60):
        output.add(1, RECORD, BULK)

    write(output, carrier, 2 * MANY)

    lane = carrier.bytes_of(LANE_STREAMS[1])
    assert 0.4 < lane / (2 * MANY) < 0.6


def test_byte_streams_share_what_is_theirs() -> None:
    output, carrier = make()
    output.add_stream(20, BULK * 40, False)
    output.add_stream(24, BULK * 40, False)
    output.add_stream(28, b"short", True)

    write(output, carrier, MANY)

    assert (28, b"short", True) in carrier.handed
    assert abs(carrier.bytes_of(20) - carrier.bytes_of(24)) <= QUANTUM_BYTES


def test_a_lane_of_large_frames_has_no_more_than_its_share() -> None:
    """A frame is never split, so a lane that said much waits until it has paid for it."""
    output, carrier = make()
    for _ in range(40):
        output.add(1, RECORD, bytes(65_000))
    for _ in range(1_000):
        output.add(2, RECORD, bytes(1_000))

    write(output, carrier, MANY)

    large, small = (carrier.bytes_of(LANE_STREAMS[lane]) for lane in (1, 2))
    assert 0.8 < large / small < 1.25


def test_what_was_said_while_nobody_else_waited_costs_nothing_later() -> None:
    output, carrier = make()
    for _ in range(100):
        output.add(1, RECORD, BULK)
    write(output, carrier, 3 * MANY)
    output.add_stream(20, BULK * 40, False)
    begun = carrier.bytes_of(LANE_STREAMS[1])

    write(output, carrier, MANY)

    assert carrier.bytes_of(LANE_STREAMS[1]) - begun > 0.4 * MANY


def test_the_lane_that_is_written_first_is_not_always_the_same() -> None:
    output, carrier = make()
    for link in (1, 2, 3, 4):
        for _ in range(100):
            output.add(link, RECORD, bytes(2_000))
    firsts = set()
    for _ in range(8):
        begun = len(carrier.handed)
        write(output, carrier, QUANTUM_BYTES)
        firsts.add(carrier.order[begun])

    assert firsts == set(LANE_STREAMS)


def test_nothing_is_handed_down_beyond_the_room_but_the_rest_of_one_frame() -> None:
    output, carrier = make()
    for _ in range(10):
        output.add(1, RECORD, BULK)
    output.add_stream(20, BULK, False)

    write(output, carrier, 1_000)

    assert carrier.order == [LANE_STREAMS[1]]
    assert carrier.bytes_of(LANE_STREAMS[1]) == FRAME_HEADER_BYTES + len(BULK)
    assert output.has_more


def test_a_lane_that_the_acceptor_has_not_seen_holds_up_no_other() -> None:
    output, carrier = HopOutput(is_dialler=False), OrderCarrier()
    output.add(1, RECORD, b"unseen")
    output.lane_seen(LANE_STREAMS[2])
    output.add(2, RECORD, b"seen")
    output.add_stream(1, b"stream", False)

    write(output, carrier, MANY)

    assert set(carrier.order) == {LANE_STREAMS[2], 1}
    output.lane_seen(LANE_STREAMS[1])
    write(output, carrier, MANY)
    assert carrier.order[-1] == LANE_STREAMS[1]
    assert not output.has_more


def test_what_is_dropped_neither_leaves_nor_keeps_its_turn() -> None:
    output, carrier = make()
    output.add(1, RECORD, BULK)
    output.add_stream(20, BULK, False)
    output.add_stream(24, b"stays", False)
    output.drop(1)
    dropped = output.drop_stream(20), output.drop_stream(28)

    write(output, carrier, MANY)

    assert dropped == (True, False)
    assert carrier.handed == [(24, b"stays", False)]
    assert (output.queued_bytes, output.stream_queued_bytes(20), output.has_more) == (0, 0, False)


actions = st.lists(
    st.one_of(
        st.tuples(st.just("frame"), st.integers(1, 9), st.integers(0, 70_000 - 5_000)),
        st.tuples(st.just("stream"), st.sampled_from([20, 24, 28]), st.integers(0, 90_000)),
        st.tuples(st.just("write"), st.just(0), st.integers(0, 200_000)),
    ),
    max_size=40,
)


@given(actions)
def test_every_byte_leaves_once_and_in_the_order_of_its_lane_or_stream(
    sequence: list[tuple[str, int, int]],
) -> None:
    output, carrier = make()
    said: dict[int, bytes] = {}
    framed: dict[int, list[bytes]] = {}
    for number, (what, of, size) in enumerate(sequence):
        data = bytes([number]) * size
        if what == "frame":
            output.add(of, RECORD, data)
            framed.setdefault(of, []).append(data)
        elif what == "stream":
            output.add_stream(of, data, False)
            said[of] = said.get(of, b"") + data
        else:
            write(output, carrier, size)
    for stream in said:
        output.add_stream(stream, b"", True)
    while output.has_more:
        write(output, carrier, MANY)

    assert {stream: carrier.joined(stream) for stream in said} == said
    assert all(carrier.order.count(stream) for stream in said)
    ends = [stream for stream, _, end in carrier.handed if end]
    assert sorted(ends) == sorted(said)
    received: dict[int, list[bytes]] = {}
    for lane in LANE_STREAMS:
        for frame in FrameParser().feed_untrusted(carrier.joined(lane)):
            received.setdefault(frame.link, []).append(frame.body)
    assert received == framed


def arrive(
    limit: InFlightLimit, rate: float, seconds: float, round_trip_s: float, *, alone: bool = False
) -> int:
    """Let bytes arrive at one rate for a time, told every millisecond, from where time stands.
    Speakers take turns, unless one is alone."""
    begun_s, begun_bytes = limit._sampled_s, limit._arrived_bytes
    for step in range(1, int(seconds * 1_000) + 1):
        arrived = begun_bytes + int(rate * step / 1_000)
        limit.update(arrived, round_trip_s, begun_s + step / 1_000, 0 if alone else step)
    return limit.limit_bytes


def test_what_may_be_on_the_way_is_a_moment_of_the_rate_at_which_it_arrives() -> None:
    limit = arrive(InFlightLimit(14_720, 0.0), 400e6, 0.1, ROUND_TRIP_S_MIN)

    assert limit == pytest.approx(400e6 * QUEUE_S, rel=0.001)


def test_who_is_alone_may_have_more_on_the_way_until_another_speaks() -> None:
    limit = InFlightLimit(14_720, 0.0)
    alone = arrive(limit, 400e6, 0.5, ROUND_TRIP_S_MIN, alone=True)
    shared = arrive(limit, 400e6, 0.001, ROUND_TRIP_S_MIN)
    still_shared = arrive(limit, 400e6, SHARED_S / 2, ROUND_TRIP_S_MIN, alone=True)

    assert alone == pytest.approx(ALONE_FACTOR * 400e6 * QUEUE_S, rel=0.001)
    assert alone > 5 * shared
    assert still_shared < alone / 5


def test_a_link_that_speaks_after_another_counts_as_a_change_and_its_own_next_frame_does_not() -> (
    None
):
    output, _ = make()
    for link in (1, 1, 2, 2, 1):
        output.add(link, RECORD, b"x")
    output.add_stream(40, b"x", False)

    assert output.speaker_changes == 4


def test_a_quiet_or_slow_path_may_hold_enough_to_become_fast() -> None:
    assert arrive(InFlightLimit(1_452, 0.0), 1e6, 0.1, 0.001) == IN_FLIGHT_BYTES_MIN


def test_one_slow_moment_does_not_take_the_pace_away_and_many_do() -> None:
    limit = InFlightLimit(14_720, 0.0)
    fast = arrive(limit, 400e6, 0.1, 0.001)
    once = arrive(limit, 0.0, 0.005, 0.001)
    many = arrive(limit, 0.0, 0.5, 0.001)

    assert fast > once > 0.8 * fast
    assert many == IN_FLIGHT_BYTES_MIN


def test_a_program_on_this_machine_that_stands_for_a_long_path_may_fill_it() -> None:
    """What arrives in a round trip is what was on the way: so it may double each time."""
    limit = InFlightLimit(14_720, 0.0)
    sizes = [limit.limit_bytes]
    for _ in range(6):
        sizes.append(arrive(limit, sizes[-1] / 0.1, 0.101, 0.1))

    assert sizes[-1] > 40 * sizes[0]


def test_a_path_that_becomes_long_is_noticed_after_a_while() -> None:
    limit = InFlightLimit(14_720, 0.0)
    arrive(limit, 1e6, 1.0, 0.001)

    soon = arrive(limit, 100e6, 2.0, 0.1)
    later = arrive(limit, 100e6, 25.0, 0.1)

    assert soon == IN_FLIGHT_BYTES_MIN
    assert later > 10e6
