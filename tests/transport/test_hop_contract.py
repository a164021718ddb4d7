"""The hop contract, on memory, on both QUIC engines, and with one engine on each side."""

import pytest

from identity import PROOF_BYTES_MAX, Code
from link import FrameKind
from tests.transport.helpers import FakePermit, Owner, make_identity, permit_for
from tests.transport.pairs import KINDS, QUIC_KINDS, hop_pair
from transport import Hop, HopPurpose

RECORD = FrameKind.RECORD
SETUP_S_MAX = 0.25

each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
async def test_both_sides_prove_each_other_and_open(kind: str) -> None:
    identities = make_identity("d"), make_identity("a")
    async with hop_pair(kind, identities=identities, target=identities[1].identifier) as pair:
        await pair.wait_opened()
        assert pair.hop.peer.identifier == identities[1].identifier
        assert pair.far.peer.identifier == identities[0].identifier
        assert pair.hop.is_dialler
        assert not pair.far.is_dialler
        assert [name for name, _ in pair.dialler.log] == ["verified", "opened"]
        assert [name for name, _ in pair.acceptor.log] == ["verified", "opened"]


@pytest.mark.parametrize("kind", QUIC_KINDS)
async def test_a_hop_is_set_up_within_a_quarter_of_a_second(kind: str) -> None:
    async with hop_pair(kind) as pair:
        await pair.wait_opened()
        assert 0 < pair.hop.opened_in_s < SETUP_S_MAX
        assert 0 < pair.far.opened_in_s < SETUP_S_MAX


@pytest.mark.parametrize("kind", QUIC_KINDS)
async def test_the_hybrid_key_agreement_is_reported_only_where_both_engines_have_it(
    kind: str,
) -> None:
    async with hop_pair(kind) as pair:
        await pair.wait_opened()
        assert pair.hop.post_quantum is (kind == "qh3")
        assert pair.far.post_quantum is (kind == "qh3")


@each_kind
async def test_the_largest_proofs_fit_into_what_a_stranger_may_send(kind: str) -> None:
    identities = tuple(make_identity(name, proof_bytes=PROOF_BYTES_MAX) for name in "da")
    async with hop_pair(kind, identities=identities) as pair:  # type: ignore[arg-type]
        await pair.wait_opened()
        assert pair.far.peer.identifier == identities[0].identifier


@each_kind
async def test_frames_keep_their_order_on_a_lane_in_both_directions(kind: str) -> None:
    async with hop_pair(kind) as pair:
        await pair.wait_opened()
        for number in range(200):
            pair.hop.send_frame(number % 8 + 1, RECORD, b"%d" % number)
            pair.far.send_frame((1 << 31) + number % 8, RECORD, b"%d" % number)
        for owner in (pair.dialler, pair.acceptor):
            await owner.wait(lambda owner: len(owner.frames) == 200)
            of_link: dict[int, list[int]] = {}
            for frame in owner.frames:
                of_link.setdefault(frame.link, []).append(int(frame.body))
            assert len(of_link) == 8
            assert all(numbers == sorted(numbers) for numbers in of_link.values())


@each_kind
async def test_frames_of_one_turn_arrive_as_few_batches(kind: str) -> None:
    async with hop_pair(kind) as pair:
        await pair.wait_opened()
        for _ in range(100):
            pair.hop.send_frame(1, RECORD, b"x")
        await pair.acceptor.wait(lambda owner: len(owner.frames) == 100)
        assert len(pair.acceptor.values("frames")) <= 3


@each_kind
async def test_control_frames_travel_on_the_control_stream_with_their_link(kind: str) -> None:
    async with hop_pair(kind) as pair:
        await pair.wait_opened()
        pair.hop.send_frame(0, FrameKind.REGISTER, b"prefix")
        pair.hop.send_frame(7, FrameKind.CREDIT, bytes(16))
        await pair.acceptor.wait(lambda owner: len(owner.frames) == 2)
        assert [(f.link, f.kind, f.body) for f in pair.acceptor.frames] == [
            (0, FrameKind.REGISTER, b"prefix"),
            (7, FrameKind.CREDIT, bytes(16)),
        ]


@each_kind
async def test_megabytes_on_all_lanes_arrive_whole(kind: str) -> None:
    async with hop_pair(kind) as pair:
        await pair.wait_opened()
        bodies = [bytes([number]) * 65_000 for number in range(24)]
        for number, body in enumerate(bodies):
            pair.hop.send_frame(number + 1, RECORD, body)
        await pair.acceptor.wait(lambda owner: len(owner.frames) == len(bodies))
        assert {f.link: f.body for f in pair.acceptor.frames} == dict(enumerate(bodies, 1))


@each_kind
async def test_a_byte_stream_ends_each_way_by_itself(kind: str) -> None:
    async with hop_pair(kind) as pair:
        await pair.wait_opened()
        stream = pair.hop.open_stream()
        pair.hop.send_stream(stream, b"ask" * 50_000)
        pair.hop.send_stream(stream, b"!", end=True)
        await pair.acceptor.wait(lambda owner: stream in owner.ended)
        assert pair.acceptor.received[stream] == b"ask" * 50_000 + b"!"
        pair.far.send_stream(stream, b"answer", end=True)
        await pair.dialler.wait(lambda owner: stream in owner.ended)
        assert pair.dialler.received[stream] == b"answer"


@each_kind
async def test_either_side_opens_byte_streams_with_numbers_of_its_own(kind: str) -> None:
    async with hop_pair(kind) as pair:
        await pair.wait_opened()
        first, second = pair.far.open_stream(), pair.far.open_stream()
        # The later one speaks first; that must not lose the earlier.
        pair.far.send_stream(second, b"second", end=True)
        pair.far.send_stream(first, b"first", end=True)
        await pair.dialler.wait(lambda owner: {first, second} <= owner.ended)
        assert pair.dialler.received == {first: b"first", second: b"second"}
        assert pair.hop.open_stream() not in (first, second)


@each_kind
async def test_more_streams_than_the_peer_allows_at_once_wait_their_turn(kind: str) -> None:
    async with hop_pair(kind) as pair:
        await pair.wait_opened()
        streams = [pair.hop.open_stream() for _ in range(250)]
        for stream in streams:
            pair.hop.send_stream(stream, b"%d" % stream, end=True)
        answered: set[int] = set()

        def answer_what_ended(owner: Owner) -> bool:
            for stream in owner.ended - answered:
                answered.add(stream)
                pair.far.send_stream(stream, b"", end=True)
            return len(owner.ended) == len(streams)

        await pair.acceptor.wait(answer_what_ended)
        assert all(pair.acceptor.received[stream] == b"%d" % stream for stream in streams)


@each_kind
async def test_streams_that_end_before_the_peer_allows_them_leave_no_trace(kind: str) -> None:
    async with hop_pair(kind) as pair:
        await pair.wait_opened()
        given_up = [pair.hop.open_stream() for _ in range(250)]
        for stream in given_up:
            pair.hop.send_stream(stream, b"never mind")
            pair.hop.reset_stream(stream, Code.STREAM_RESET)
        last = pair.hop.open_stream()
        pair.hop.send_stream(last, b"this one", end=True)

        alive = pair.hop._streams, pair.far._streams  # type: ignore[attr-defined]
        await pair.acceptor.wait(lambda owner: last in owner.ended and len(alive[1]) == 1)

        assert set(pair.acceptor.received) == {last}
        assert [len(streams) for streams in alive] == [1, 1]


@each_kind
async def test_a_reset_is_told_once_and_ends_the_stream_for_both(kind: str) -> None:
    async with hop_pair(kind) as pair:
        await pair.wait_opened()
        stream = pair.hop.open_stream()
        pair.hop.send_stream(stream, b"begin")
        await pair.acceptor.wait_for("stream")
        pair.far.reset_stream(stream, Code.STREAM_RESET)
        await pair.dialler.wait_for("reset")
        pair.hop.send_stream(stream, b"too late")
        pair.hop.reset_stream(stream, Code.STREAM_RESET)
        pair.hop.send_frame(1, RECORD, b"after")
        await pair.acceptor.wait_for("frames")
        assert pair.dialler.values("reset") == [(stream, Code.STREAM_RESET)]
        assert pair.acceptor.values("reset") == []
        assert pair.acceptor.received[stream] == b"begin"


@each_kind
async def test_closing_tells_the_code_once_on_both_sides(kind: str) -> None:
    async with hop_pair(kind) as pair:
        await pair.wait_opened()
        pair.hop.send_frame(1, RECORD, b"last words")
        pair.hop.close(Code.HOP_RESTARTING)
        pair.hop.close(Code.HOP_CLOSED)
        assert pair.dialler.code is None  # Never from within the owner's own call.
        await pair.wait_closed()
        assert (pair.dialler.code, pair.acceptor.code) == (Code.HOP_RESTARTING,) * 2
        assert [frame.body for frame in pair.acceptor.frames] == [b"last words"]
        # Whoever has not heard of it yet may still speak; it goes nowhere.
        pair.hop.send_frame(1, RECORD, b"late")
        pair.hop.send_stream(20, b"late")
    assert (pair.dialler.code, pair.acceptor.code) == (Code.HOP_RESTARTING,) * 2


@each_kind
@pytest.mark.parametrize("refuser", ["dialler", "acceptor"])
async def test_who_is_refused_learns_the_code(kind: str, refuser: str) -> None:
    refusing = Owner(decide=lambda hop: hop.refuse(Code.HOP_DENIED))
    owners = {refuser: refusing}
    async with hop_pair(kind, **owners) as pair:  # type: ignore[arg-type]
        await pair.wait_closed()
        assert (pair.dialler.code, pair.acceptor.code) == (Code.HOP_DENIED, Code.HOP_DENIED)
        assert pair.dialler.values("opened") + pair.acceptor.values("opened") == []


@each_kind
async def test_nothing_opens_before_the_owner_accepts(kind: str) -> None:
    undecided = Owner(decide=lambda hop: None)
    async with hop_pair(kind, acceptor=undecided) as pair:
        await pair.dialler.wait_for("verified")
        await pair.acceptor.wait_for("verified")
        with pytest.raises(RuntimeError):
            pair.hop.send_frame(1, RECORD, b"too early")
        assert pair.dialler.values("opened") == []
        pair.far.accept(permit_for(pair.far))
        assert pair.acceptor.values("opened") == []  # Never from within the owner's own call.
        await pair.wait_opened()


WRONG_PERMITS = {
    "for another identity": FakePermit(make_identity("x").identifier),
    "for nobody": FakePermit(None),
    "for another action": FakePermit(make_identity("d").identifier, "node.enrol"),
}


@pytest.mark.parametrize("permit", WRONG_PERMITS.values(), ids=WRONG_PERMITS.keys())
async def test_a_permit_opens_only_what_it_was_given_for(permit: FakePermit) -> None:
    undecided = Owner(decide=lambda hop: None)
    async with hop_pair("memory", acceptor=undecided) as pair:
        await pair.acceptor.wait_for("verified")
        with pytest.raises(PermissionError):
            pair.far.accept(permit)


@each_kind
async def test_the_acceptor_learns_that_a_node_wants_to_enrol(kind: str) -> None:
    async with hop_pair(kind, purpose=HopPurpose.ENROL) as pair:
        await pair.wait_opened()
        assert pair.far.purpose is HopPurpose.ENROL


@each_kind
async def test_another_than_the_pinned_identifier_is_refused(kind: str) -> None:
    async with hop_pair(kind, target=make_identity("x").identifier) as pair:
        await pair.wait_closed()
        assert pair.dialler.code is Code.HOP_WRONG_IDENTIFIER
        assert pair.dialler.hops == []


@each_kind
async def test_a_node_refuses_itself_as_a_peer(kind: str) -> None:
    own = make_identity("d")
    async with hop_pair(kind, identities=(own, own)) as pair:
        await pair.wait_closed()
        assert pair.dialler.code is Code.HOP_SELF_CONNECTION
        assert pair.dialler.hops == []
        assert pair.acceptor.hops == []


@each_kind
async def test_an_owner_that_never_decides_is_timed_out(kind: str) -> None:
    undecided = Owner(decide=lambda hop: None)
    async with hop_pair(kind, acceptor=undecided, handshake_timeout_s=0.1) as pair:
        await pair.wait_closed()
        assert {pair.dialler.code, pair.acceptor.code} == {Code.HOP_TIMEOUT}


@each_kind
async def test_peers_learn_each_others_epoch_and_limits(kind: str) -> None:
    async with hop_pair(kind, epoch=7, links_max=99) as pair:
        await pair.wait_opened()
        assert (pair.hop.peer_epoch, pair.far.peer_epoch) == (7, 7)
        assert pair.hop.peer_limits.links == 99


@each_kind
async def test_a_hop_that_ends_while_the_owner_decides_takes_the_decision_in_vain(
    kind: str,
) -> None:
    undecided = Owner(decide=lambda hop: None)
    async with hop_pair(kind, acceptor=undecided) as pair:
        await pair.acceptor.wait_for("verified")
        far: Hop = pair.far
        pair.hop.close(Code.HOP_CLOSED)
        await pair.wait_closed()
        far.accept(permit_for(far))
        far.refuse(Code.HOP_DENIED)
        assert pair.acceptor.code is Code.HOP_CLOSED
