"""Whose words are read first when more has come than can be digested."""

from link import Frame, FrameKind
from tests.transport.helpers import Owner, endpoint, make_identity
from transport import Hop, HopPurpose, limits
from transport.turns import Read, Turns

HERE = ("192.0.2.1", 1)
SLICE = limits.HOP_SLICE_BYTES


def read(size: int, segment_bytes: int = 0, fill: bytes = b"x") -> Read:
    return Read(fill * size, segment_bytes, HERE)


def taken(turns: Turns[str]) -> list[tuple[str, int]]:
    """All that waits, as it is served."""
    found = []
    while turns:
        who, reads = turns.take()
        found.append((who, sum(len(one.data) for one in reads)))
    return found


def test_who_comes_later_goes_before_whoever_is_not_done_with_a_slice() -> None:
    turns: Turns[str] = Turns()
    for _ in range(3):
        turns.hold("busy", read(SLICE))
    first = turns.take()[0]
    turns.hold("other", read(100))

    assert first == "busy"
    assert taken(turns) == [("other", 100), ("busy", SLICE), ("busy", SLICE)]


def test_hops_that_have_much_to_say_take_turns() -> None:
    turns: Turns[str] = Turns()
    for who in ("one", "two"):
        for _ in range(2):
            turns.hold(who, read(SLICE))

    assert [who for who, _ in taken(turns)] == ["one", "two", "one", "two"]


def test_what_one_hop_said_is_read_in_its_order_and_a_slice_at_a_time() -> None:
    turns: Turns[str] = Turns()
    for number in range(4):
        turns.hold("one", read(SLICE // 2, fill=b"%d" % number))
    slices = [turns.take()[1] for _ in range(2)]

    assert [[one.data[:1] for one in slice_] for slice_ in slices] == [[b"0", b"1"], [b"2", b"3"]]
    assert not turns


def test_of_whoever_takes_long_one_datagram_is_read_at_a_time_until_it_does_not() -> None:
    turns: Turns[str] = Turns()
    turns.hold("slow", read(2_500, segment_bytes=1_000))
    turns.hold("slow", read(4_000, segment_bytes=1_000))
    turns.served("slow", limits.HOP_SLICE_S * 2)
    sizes = [len(turns.take()[1][0].data) for _ in range(3)]
    turns.served("slow", 0.0)

    assert sizes == [1_000, 1_000, 500]
    assert taken(turns) == [("slow", 4_000)]


def test_who_is_too_far_behind_loses_datagrams_and_nobody_is_locked_out() -> None:
    turns: Turns[str] = Turns()
    count = limits.HOP_WAITING_BYTES_MAX // SLICE
    kept = [turns.hold("busy", read(SLICE)) for _ in range(count + 2)]
    for number in range(8):
        for _ in range(count):
            turns.hold(f"another {number}", read(SLICE))

    assert kept == [True] * count + [False] * 2
    assert turns.hold("honest", read(100))
    assert sum(size for _, size in taken(turns)) <= limits.HOPS_WAITING_BYTES_MAX + SLICE * 8


def test_what_waits_for_a_hop_goes_with_it() -> None:
    turns: Turns[str] = Turns()
    turns.hold("gone", read(SLICE))
    turns.hold("gone", read(SLICE))
    turns.take()
    turns.forget("gone")
    turns.forget("gone")

    assert not turns
    assert turns._waiting_bytes == 0


async def test_a_hop_that_speaks_while_another_floods_is_heard_within_its_flood() -> None:
    """All of the flood is in the socket before the honest word; it is not all read before it."""
    order: list[str] = []

    class Slow(Owner):
        def frames_received(self, hop: Hop, frames: list[Frame]) -> None:
            order.extend(frame.body[:6].decode() for frame in frames)
            deadline_s = target.now_s() + limits.HOPS_TURN_S
            while target.now_s() < deadline_s:
                pass
            super().frames_received(hop, frames)

    target_owner = Slow()
    flooder, honest = Owner(), Owner()
    small = {"datagram_bytes": 1_452}  # No pacing: what is said leaves at once.
    async with (
        endpoint(target_owner, **small) as target,
        endpoint(flooder, make_identity("f"), **small) as near,
        endpoint(honest, make_identity("h"), **small) as other,
    ):
        hops = []
        for owner, dialler in ((flooder, near), (honest, other)):
            hops.append(dialler.dial(*target.address, purpose=HopPurpose.ADMIT, target=None))
            await owner.wait_for("opened")
        await target_owner.wait(lambda owner: len(owner.values("opened")) == 2)
        hops[0].send_frame(1, FrameKind.RECORD, b"floods")
        await target_owner.wait_for("frames")  # It is known by now to take long.
        for _ in range(8):
            hops[0].send_frame(1, FrameKind.RECORD, b"floods" + bytes(1_000))
            near._flush()
        hops[1].send_frame(1, FrameKind.RECORD, b"honest")
        other._flush()
        target.udp.expect_more()
        await target_owner.wait(lambda owner: len(owner.frames) == 10)

    assert sorted(order) == ["floods"] * 9 + ["honest"]
    assert order[-1] == "floods"
