"""Lanes: each link keeps its order and gets its share, and nothing waits behind a large one."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from link import Frame, FrameKind, FrameParser, LaneWriter, lane_of
from link.limits import FRAME_BODY_BYTES_MAX, QUANTUM_BYTES

QUEUED = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from((0, 1, 500, 20_000, FRAME_BODY_BYTES_MAX))),
    max_size=40,
)
ROOM = st.sampled_from((1, 100, 5_000, 70_000, 200_000))


def parsed(data: bytes) -> list[Frame]:
    parser = FrameParser()
    frames = parser.feed_untrusted(data)
    assert parser.held_bytes == 0, "frames are handed over whole"
    return frames


@given(QUEUED, st.lists(ROOM, min_size=1, max_size=10))
def test_every_frame_leaves_once_and_each_link_keeps_its_order(
    queued: list[tuple[int, int]], rooms: list[int]
) -> None:
    writer = LaneWriter()
    put, taken = defaultdict(list), defaultdict(list)
    for number, (link, size) in enumerate(queued):
        body = number.to_bytes(2, "big") + bytes(size)[: FRAME_BODY_BYTES_MAX - 2]
        writer.add(link, FrameKind.RECORD, body)
        put[link].append(body)
    turn = 0
    while writer.queued_bytes:
        room = rooms[turn % len(rooms)]
        turn += 1
        data = writer.take(room)
        frames = parsed(data)
        assert frames, "at least one frame leaves, however little room there is"
        assert len(data) <= room or len(frames) == 1
        for frame in frames:
            taken[frame.link].append(frame.body)
    assert taken == put
    assert writer.take(1_000) == b""


@given(st.integers(1, 5), st.integers(1, 40), ROOM)
def test_a_link_with_much_to_say_gets_one_quantum_a_turn(
    others: int, count: int, room: int
) -> None:
    """While a small link waits, no other takes more than two quanta before it had its turn."""
    writer = LaneWriter()
    for link in range(2, 2 + others):
        for _ in range(count):
            writer.add(link, FrameKind.RECORD, bytes(30_000))
    writer.add(1, FrameKind.RECORD, b"small")
    before: defaultdict[int, int] = defaultdict(int)
    while writer.queued_bytes:
        for frame in parsed(writer.take(room)):
            if frame.link == 1:
                assert max(before.values(), default=0) <= 2 * QUANTUM_BYTES or not writer._queues
                return
            before[frame.link] += len(frame.body)
    pytest.fail("the small frame never left")


def test_two_greedy_links_get_the_same_share() -> None:
    writer = LaneWriter()
    for link, size in ((1, 60_000), (2, 1_000)):
        for _ in range(4_000_000 // size):
            writer.add(link, FrameKind.RECORD, bytes(size))
    shares: defaultdict[int, int] = defaultdict(int)
    for _ in range(20):
        for frame in parsed(writer.take(100_000)):
            shares[frame.link] += len(frame.body)

    assert abs(shares[1] - shares[2]) <= 2 * QUANTUM_BYTES


def test_a_dropped_link_takes_its_frames_and_no_others_with_it() -> None:
    writer = LaneWriter()
    for link in (1, 5, 9):
        writer.add(link, FrameKind.RECORD, bytes(100))
    writer.drop(5)
    writer.drop(5)

    assert [frame.link for frame in parsed(writer.take(10_000))] == [1, 9]
    assert writer.queued_bytes == 0


def test_a_link_has_the_lane_of_its_lowest_bits() -> None:
    assert [lane_of(link) for link in (1, 4, 0x80000001, 0xFFFFFFFF)] == [1, 0, 1, 3]
