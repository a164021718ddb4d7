"""A channel goes on over another link: nothing is lost, repeated, reordered or sealed twice."""

import os
import random
from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channel import (
    Channel,
    ChannelClosed,
    ChannelError,
    ChannelEvent,
    ChannelState,
    ChannelStateError,
    DataReceived,
    Part,
    RecordType,
    RekeyLimits,
    Signal,
    SignalReceived,
)
from channel.events import AddressesReceived
from channel.limits import ACK_BYTES, ACK_DELAY_S, ACK_RECORDS, MOVE_BYTES, MOVED_BYTES
from channel.moving import SentRecords
from channel.wire import decode_header_untrusted, encode_position
from identity import Code
from tests.channel.helpers import (
    ChannelPair,
    carry,
    deliver,
    end_of,
    records_of,
    sealed_by,
)

NONCE = bytes(16)


def move(asker: Channel, answerer: Channel, nonce: bytes = NONCE) -> None:
    """Both go on over a new link; what either has to send again waits in its output."""
    answer = answerer.answer_move_untrusted(asker.ask_to_move(nonce), nonce)
    asker.finish_move_untrusted(answer)


def messages_of(events: Iterable[ChannelEvent]) -> list[bytes]:
    return [event.data for event in events if isinstance(event, DataReceived)]


class TestAcknowledgements:
    def test_free_the_sender_of_what_it_keeps(self) -> None:
        pair = ChannelPair.open()
        pair.alice.send(bytes(1_000), 1.0)
        carry(pair.alice, pair.bob)
        assert pair.alice.unacknowledged_bytes > 1_000

        pair.bob.handle_deadline(1.0 + ACK_DELAY_S)
        carry(pair.bob, pair.alice)

        assert pair.alice.unacknowledged_bytes == 0

    def test_come_at_once_for_many_bytes_and_for_many_records(self) -> None:
        for sizes in ([ACK_BYTES], [1] * ACK_RECORDS):
            pair = ChannelPair.open()
            for size in sizes:
                pair.alice.send(bytes(size), 1.0)
            carry(pair.alice, pair.bob)

            assert [decode_header_untrusted(r).type for r in records_of(pair.bob)] == [
                RecordType.ACK
            ]

    def test_are_late_by_no_more_than_their_delay(self) -> None:
        pair = ChannelPair.open()
        pair.alice.send(b"one", 1.0)
        carry(pair.alice, pair.bob, 1.0)
        pair.alice.send(b"two", 1.2)
        carry(pair.alice, pair.bob, 1.2)
        assert pair.bob.deadline_s == 1.0 + ACK_DELAY_S
        assert records_of(pair.bob) == []

        pair.bob.handle_deadline(1.0 + ACK_DELAY_S)

        assert len(records_of(pair.bob)) == 1

    def test_come_at_once_when_the_peer_is_in_a_hurry(self) -> None:
        pair = ChannelPair.open()
        pair.bob.hurry_acknowledgements()
        pair.alice.send(b"one", 1.0)
        carry(pair.alice, pair.bob)

        carry(pair.bob, pair.alice)

        assert pair.alice.unacknowledged_bytes == 0

    def test_do_not_answer_each_other_for_ever(self) -> None:
        pair = ChannelPair.open()
        for side in (pair.alice, pair.bob):
            side.hurry_acknowledgements()
            side.send(b"hello", 1.0)
        said = 0
        for turn in range(1_000):
            for here, there in ((pair.alice, pair.bob), (pair.bob, pair.alice)):
                here.handle_deadline(1.0 + turn)
                output = here.take_output()
                said += len(output)
                deliver(there, output, 1.0 + turn)

        # Two messages, and an ACK for each; one of them had gone ahead, for the peer's ACCEPT.
        assert said == 5

    def test_leave_a_silent_sender_of_acknowledgements_little_to_keep(self) -> None:
        pair = ChannelPair.open()
        for turn in range(2_000):
            now_s = 1.0 + turn
            pair.alice.send(b"one way", now_s)
            carry(pair.alice, pair.bob, now_s)
            pair.bob.handle_deadline(now_s + ACK_DELAY_S)
            carry(pair.bob, pair.alice, now_s + ACK_DELAY_S)

        assert pair.bob.unacknowledged_bytes < 2 * ACK_RECORDS * 38

    def test_of_what_was_never_sent_end_the_channel(self) -> None:
        pair = ChannelPair.open()
        forged = sealed_by(pair.bob, RecordType.ACK, encode_position(1_000))

        assert end_of(pair.alice.receive(Part.RECORD, forged, 1.0)) is Code.CHANNEL_BAD_RECORD

    def test_that_are_older_than_others_change_nothing(self) -> None:
        pair = ChannelPair.open()
        pair.alice.send(b"kept", 1.0)
        held = pair.alice.unacknowledged_bytes

        assert (
            pair.alice.receive(Part.RECORD, sealed_by(pair.bob, RecordType.ACK, bytes(8)), 1.0)
            == []
        )

        assert pair.alice.unacknowledged_bytes == held


class TestMoving:
    def test_sends_the_identical_records_again(self) -> None:
        pair = ChannelPair.open()
        pair.alice.send(b"one", 1.0)
        pair.alice.send(b"two", 1.0)
        lost = records_of(pair.alice)

        move(pair.alice, pair.bob)

        assert records_of(pair.alice) == lost
        assert messages_of(deliver(pair.bob, [(Part.RECORD, r) for r in lost])) == [b"one", b"two"]

    @pytest.mark.parametrize("asker", ["alice", "bob"])
    def test_may_be_asked_for_by_either_side(self, asker: str) -> None:
        pair = ChannelPair.open()
        here, there = (pair.alice, pair.bob) if asker == "alice" else (pair.bob, pair.alice)
        for side in (here, there):
            side.send(b"under way", 1.0)
            side.take_output()

        move(here, there)

        assert messages_of(carry(here, there)) == [b"under way"]
        assert messages_of(carry(there, here)) == [b"under way"]

    def test_drops_unread_what_came_before_on_the_link_that_was_left(self) -> None:
        pair = ChannelPair.open()
        pair.alice.send(b"one", 1.0)
        early = pair.alice.take_output()
        assert messages_of(deliver(pair.bob, early)) == [b"one"]
        move(pair.alice, pair.bob)
        pair.alice.send(b"two", 1.0)

        events = deliver(pair.bob, [*early, *pair.alice.take_output()])

        assert messages_of(events) == [b"two"]
        assert pair.bob.state is ChannelState.OPEN

    def test_never_makes_a_repetition_legal_that_nobody_moved_for(self) -> None:
        pair = ChannelPair.open()
        pair.alice.send(b"one", 1.0)
        early = pair.alice.take_output()
        deliver(pair.bob, early)

        [closed] = deliver(pair.bob, early)

        assert isinstance(closed, ChannelClosed)
        assert closed.code is Code.CHANNEL_RECORD_OUT_OF_ORDER

    def test_makes_no_gap_legal(self) -> None:
        pair = ChannelPair.open()
        move(pair.alice, pair.bob)
        for text in (b"lost", b"found"):
            pair.alice.send(text, 1.0)
        _, second = pair.alice.take_output()

        assert end_of(pair.bob.receive(*second, 1.0)) is Code.CHANNEL_RECORD_OUT_OF_ORDER

    def test_crosses_a_change_of_keys(self) -> None:
        pair = ChannelPair.open(limits=RekeyLimits(records_max=3))
        texts = [bytes([number]) for number in range(10)]
        for text in texts:
            pair.alice.send(text, 1.0)
        deliver(pair.bob, pair.alice.take_output()[:4])

        move(pair.alice, pair.bob)

        assert messages_of(carry(pair.alice, pair.bob)) == texts[3:]

    def test_is_not_there_before_the_channel_is_open_nor_after(self) -> None:
        for channel in (ChannelPair.verified().alice, ChannelPair.verified().bob):
            with pytest.raises(ChannelStateError):
                channel.ask_to_move(NONCE)
        closed = ChannelPair.open().alice
        closed.close()
        with pytest.raises(ChannelStateError):
            closed.answer_move_untrusted(bytes(MOVE_BYTES), NONCE)

    def test_names_the_session_alike_on_both_sides_and_no_other(self) -> None:
        pair, other = ChannelPair.open(), ChannelPair.open()

        assert pair.alice.session_id == pair.bob.session_id
        assert pair.alice.session_id != other.alice.session_id


def flipped(message: bytes, bit: int) -> bytes:
    changed = bytearray(message)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


REFUSED: dict[str, Callable[[ChannelPair], tuple[bytes, bytes]]] = {
    "nothing": lambda pair: (b"", NONCE),
    "a byte less": lambda pair: (pair.alice.ask_to_move(NONCE)[:-1], NONCE),
    "a byte more": lambda pair: (pair.alice.ask_to_move(NONCE) + b"\0", NONCE),
    "zeros": lambda pair: (bytes(MOVE_BYTES), NONCE),
    "one for another link": lambda pair: (pair.alice.ask_to_move(NONCE), bytes(15) + b"\1"),
    "one of another channel": lambda pair: (ChannelPair.open().alice.ask_to_move(NONCE), NONCE),
    "our own": lambda pair: (pair.bob.ask_to_move(NONCE), NONCE),
}


@pytest.mark.parametrize("forge", REFUSED.values(), ids=REFUSED)
def test_a_wish_to_move_is_refused_and_harms_nothing(
    forge: Callable[[ChannelPair], tuple[bytes, bytes]],
) -> None:
    pair = ChannelPair.open()
    message, nonce = forge(pair)

    with pytest.raises(ChannelError) as caught:
        pair.bob.answer_move_untrusted(message, nonce)

    assert caught.value.code is Code.CHANNEL_MOVE_INVALID
    move(pair.alice, pair.bob)
    pair.alice.send(b"goes on", 1.0)
    assert messages_of(carry(pair.alice, pair.bob)) == [b"goes on"]


@pytest.mark.parametrize("bit", range(0, MOVE_BYTES * 8, 7))
def test_a_wish_with_a_flipped_bit_is_refused(bit: int) -> None:
    pair = ChannelPair.open()
    message = flipped(pair.alice.ask_to_move(NONCE), bit)
    with pytest.raises(ChannelError):
        pair.bob.answer_move_untrusted(message, NONCE)


@pytest.mark.parametrize("bit", range(0, MOVED_BYTES * 8, 7))
def test_an_answer_with_a_flipped_bit_is_refused(bit: int) -> None:
    pair = ChannelPair.open()
    answer = pair.bob.answer_move_untrusted(pair.alice.ask_to_move(NONCE), NONCE)
    with pytest.raises(ChannelError):
        pair.alice.finish_move_untrusted(flipped(answer, bit))


def test_a_wish_counts_once_and_not_after_a_later_one() -> None:
    pair = ChannelPair.open()
    first, second = pair.alice.ask_to_move(NONCE), pair.alice.ask_to_move(NONCE)
    pair.bob.answer_move_untrusted(second, NONCE)
    for message in (first, second):
        with pytest.raises(ChannelError) as caught:
            pair.bob.answer_move_untrusted(message, NONCE)
        assert caught.value.code is Code.CHANNEL_MOVE_INVALID


def test_an_answer_to_an_earlier_wish_counts_no_more() -> None:
    pair = ChannelPair.open()
    late = pair.bob.answer_move_untrusted(pair.alice.ask_to_move(NONCE), NONCE)
    pair.alice.ask_to_move(NONCE)

    with pytest.raises(ChannelError):
        pair.alice.finish_move_untrusted(late)


def test_an_acknowledgement_that_overtook_a_wish_to_move_does_no_harm() -> None:
    pair = ChannelPair.open()
    wish = pair.bob.ask_to_move(NONCE)
    pair.alice.send(b"on the old link", 1.0)
    assert messages_of(carry(pair.alice, pair.bob)) == [b"on the old link"]
    pair.bob.handle_deadline(1.0 + ACK_DELAY_S)
    carry(pair.bob, pair.alice)
    pair.alice.send(b"lost with it", 1.0)
    pair.alice.take_output()
    pair.bob.finish_move_untrusted(pair.alice.answer_move_untrusted(wish, NONCE))

    assert messages_of(carry(pair.alice, pair.bob)) == [b"lost with it"]


def test_what_was_acknowledged_is_not_sent_again_and_what_was_never_said_is_not_believed() -> None:
    sent = SentRecords()
    for record in (b"a", b"b", b"c"):
        sent.add(record, RecordType.DATA)
    sent.acknowledge_untrusted(2)
    assert sent.since_untrusted(2) == [b"c"]
    assert sent.since_untrusted(3) == []
    assert sent.since_untrusted(1) == [b"c"]
    with pytest.raises(ChannelError) as caught:
        sent.since_untrusted(4)
    assert caught.value.code is Code.CHANNEL_RECORD_OUT_OF_ORDER


class TestRestingAndAddresses:
    def test_travel_under_the_seal_and_in_order(self) -> None:
        pair = ChannelPair.open()
        pair.alice.send(b"last", 1.0)
        for signal in Signal:
            pair.alice.signal(signal)
        pair.alice.tell_addresses((("192.0.2.1", 7_000), ("host.example", 1)))

        assert carry(pair.alice, pair.bob) == [
            DataReceived(b"last"),
            SignalReceived(Signal.REST),
            SignalReceived(Signal.WAKE),
            SignalReceived(Signal.LEAVING),
            AddressesReceived((("192.0.2.1", 7_000), ("host.example", 1))),
        ]

    @pytest.mark.parametrize("signal", Signal)
    def test_have_no_body(self, signal: Signal) -> None:
        pair = ChannelPair.open()

        record = sealed_by(pair.alice, RecordType(signal), b"x")

        assert end_of(pair.bob.receive(Part.RECORD, record, 1.0)) is Code.CHANNEL_BAD_RECORD


class Campaign:
    """Two that talk over links that lose a tail of what they carry, and move again and again."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.pair = ChannelPair.open(limits=RekeyLimits(records_max=self.random.choice((2, 5, 99))))
        self.now_s = 1.0
        self.said: dict[str, list[bytes]] = {"alice": [], "bob": []}
        self.heard: dict[str, list[bytes]] = {"alice": [], "bob": []}
        self.sealed: dict[tuple[str, int], bytes] = {}
        self.under_way: dict[str, list[tuple[Part, bytes]]] = {"alice": [], "bob": []}

    def side(self, name: str) -> Channel:
        return self.pair.alice if name == "alice" else self.pair.bob

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.now_s += self.random.choice((0.0, 0.01, 0.3))
            self.random.choice((self.say, self.say, self.carry, self.carry, self.move))()
        self.move(lose=False)
        for _ in range(3):
            for name in ("alice", "bob"):
                self.carry(name)

    def say(self) -> None:
        name = self.random.choice(("alice", "bob"))
        text = f"{len(self.said[name])}".encode() + bytes(self.random.choice((0, 900, 70_000)))
        self.said[name].append(text)
        self.side(name).send(text, self.now_s)

    def gather(self, name: str) -> None:
        self.side(name).handle_deadline(self.now_s)
        output = self.side(name).take_output()
        for part, record in output:
            assert part is Part.RECORD
            sequence = decode_header_untrusted(record).sequence
            assert self.sealed.setdefault((name, sequence), record) == record, "sealed twice"
        self.under_way[name] += output

    def carry(self, name: str = "", arrived: int | None = None) -> None:
        """Bring what one side has said; or, of a link that is lost, its beginning only."""
        name = name or self.random.choice(("alice", "bob"))
        other = "bob" if name == "alice" else "alice"
        self.gather(name)
        parts, self.under_way[name] = self.under_way[name][:arrived], []
        self.heard[other] += messages_of(deliver(self.side(other), parts, self.now_s))
        assert self.side(other).state is ChannelState.OPEN

    def move(self, lose: bool = True) -> None:
        names = ["alice", "bob"]
        self.random.shuffle(names)
        if lose:
            for name in names:
                self.carry(name, self.random.randint(0, 4))
        asker, answerer = self.side(names[0]), self.side(names[1])
        while True:
            nonce = os.urandom(16)
            answer = answerer.answer_move_untrusted(asker.ask_to_move(nonce), nonce)
            if not lose or self.random.random() < 0.7:
                break
            # The answer is lost with its link, and with all that was said on it.
            for name in names:
                self.gather(name)
                self.under_way[name].clear()
        asker.finish_move_untrusted(answer)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_links_lose_each_message_arrives_once_and_in_order(seed: int) -> None:
    campaign = Campaign(seed)
    campaign.run(40)

    assert campaign.heard["bob"] == campaign.said["alice"]
    assert campaign.heard["alice"] == campaign.said["bob"]
    for name in ("alice", "bob"):
        sequences = sorted(number for who, number in campaign.sealed if who == name)
        assert all(b == a + 1 for a, b in pairwise(sequences))
