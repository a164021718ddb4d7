"""A channel on a link: order, credit both ways, and an end that nothing follows."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channel import Channel, ChannelClosed, DataReceived, Part
from identity import Code
from link import Credit, CreditError, Frame, FrameKind, ReceiveWindow
from link.limits import (
    HELD_BYTES_MAX,
    INITIAL_WINDOW_BYTES,
    LINK_WINDOW_BYTES,
    RECORD_BODY_BYTES_MIN,
)
from link.messages import decode_code_untrusted, decode_credit_untrusted, decode_link_open_untrusted
from node.link_channel import LinkChannel
from tests.channel.helpers import ALICE, BOB, NONCE, FakePermit, channel_prologue

NOW_S = 1.0
LINK = 5


class FakeHop:
    """Remembers what was sent."""

    id = 1

    def __init__(self) -> None:
        self.sent: list[Frame] = []

    def send_frame(self, link: int, kind: int, body: bytes) -> None:
        self.sent.append(Frame(link, kind, body))

    def take(self) -> list[Frame]:
        taken, self.sent = self.sent, []
        return taken


class Pair:
    """Alice and Bob, each on a link of their own hop, with nobody in between."""

    def __init__(self) -> None:
        self.hops = FakeHop(), FakeHop()
        alice = Channel.connect(
            prologue=channel_prologue(),
            key=ALICE.key,
            proof=ALICE.proof,
            verify=ALICE.verify,
            now_s=NOW_S,
        )
        bob = Channel.respond(
            prologue=channel_prologue(),
            key=BOB.key,
            proof=BOB.proof,
            verify=BOB.verify,
            now_s=NOW_S,
        )
        ports: Any = self.hops
        self.alice = LinkChannel(ports[0], LINK, alice)
        self.bob = LinkChannel(ports[1], LINK, bob)
        self.alice.send_open(BOB.uri, ALICE.uri, NONCE)
        [opening] = self.hops[0].take()
        self.opening = decode_link_open_untrusted(opening.body)
        bob.receive(Part.OPEN, self.opening.noise_1, NOW_S)
        self.bob.pump()
        self.received: list[bytes] = []
        self.owed = 0
        self.carry()
        bob.accept(FakePermit(ALICE.identifier))
        self.bob.pump()
        self.carry()

    def carry(self, *, consume: bool = True, into: list[bytes] | None = None) -> None:
        """All frames both ways until nothing more is said."""
        while frames := (self.hops[0].take(), self.hops[1].take()):
            if not any(frames):
                return
            for frame in frames[0]:
                self.owed += self._give(self.bob, frame, self.received)
            if consume:
                self.consume()
            for frame in frames[1]:
                heard = [] if into is None else into
                self.alice.consume(self._give(self.alice, frame, heard))

    def consume(self) -> None:
        owed, self.owed = self.owed, 0
        self.bob.consume(owed)

    @staticmethod
    def _give(links: LinkChannel, frame: Frame, received: list[bytes]) -> int:
        if frame.kind == FrameKind.CREDIT:
            links.credit(decode_credit_untrusted(frame.body))
            return 0
        events, owed = links.receive(frame.kind, frame.body, NOW_S)
        links.pump()
        received += [event.data for event in events if isinstance(event, DataReceived)]
        return owed


def test_an_opening_says_where_to_on_whose_behalf_and_attests_nothing() -> None:
    opening = Pair().opening

    assert (opening.target, opening.source) == (BOB.uri, ALICE.uri)
    assert opening.nonce == NONCE
    assert opening.source_node is None


def test_records_beyond_the_credit_wait_and_leave_in_order_when_more_is_granted() -> None:
    pair = Pair()
    bodies = [b"%03d" % number + bytes(40_000) for number in range(60)]
    for body in bodies:
        pair.alice.channel.send(body, NOW_S)
    pair.alice.pump()
    waiting_bytes = pair.alice.waiting_bytes
    assert waiting_bytes > 1_000_000
    pair.carry(consume=False)
    assert 20 < len(pair.received) < 60
    assert pair.alice.waiting_bytes == waiting_bytes
    while pair.owed:
        pair.consume()
        pair.carry(consume=False)

    assert pair.received == bodies
    assert pair.alice.waiting_bytes == 0


def test_a_message_that_is_larger_than_the_window_arrives_and_is_owed_whole() -> None:
    pair = Pair()
    for _ in range(10):
        pair.alice.channel.send(bytes(1_000_000), NOW_S)
    pair.alice.pump()
    pair.carry(consume=False)
    arrived = len(pair.received)

    assert 1 <= arrived <= 2
    assert pair.bob._receive_window.held_bytes > arrived * 1_000_000
    while pair.owed:
        pair.consume()
        pair.carry(consume=False)
    assert [len(body) for body in pair.received] == [1_000_000] * 10
    assert pair.bob._receive_window.held_bytes == 0


def test_a_peer_that_changes_links_to_be_granted_more_is_found_out() -> None:
    window = ReceiveWindow(LINK_WINDOW_BYTES)
    for _ in range(HELD_BYTES_MAX // INITIAL_WINDOW_BYTES):
        window.receive_untrusted(INITIAL_WINDOW_BYTES)
        window = ReceiveWindow(LINK_WINDOW_BYTES, held_bytes=window.held_bytes)

    with pytest.raises(CreditError):
        window.receive_untrusted(INITIAL_WINDOW_BYTES)


def test_two_that_write_much_and_are_read_do_not_wait_for_each_other() -> None:
    pair = Pair()
    bodies = [b"%03d" % number + bytes(60_000) for number in range(100)]
    answers: list[bytes] = []
    for body in bodies:
        for side in (pair.alice, pair.bob):
            side.channel.send(body, NOW_S)
    pair.alice.pump()
    pair.bob.pump()
    pair.carry(into=answers)

    assert pair.received == answers == bodies


def test_what_acknowledges_passes_also_while_nothing_is_read_the_other_way() -> None:
    pair = Pair()
    for _ in range(3_000):
        pair.alice.channel.send(bytes(1_000), NOW_S)  # Bob does not read.
    pair.alice.pump()
    pair.carry(consume=False)
    assert pair.alice.waiting_bytes > 1_000_000
    spoken = [b"%05d" % number + bytes(60_000) for number in range(2_000)]
    heard: list[bytes] = []
    for body in spoken:
        pair.bob.channel.send(body, NOW_S)
        pair.bob.pump()
        pair.carry(consume=False, into=heard)

    assert len(heard) == len(spoken)
    assert pair.bob.waiting_bytes == 0
    assert pair.alice.waiting_bytes > 1_000_000


def test_a_channel_that_ends_says_so_ahead_of_what_waits() -> None:
    pair = Pair()
    for _ in range(60):
        pair.alice.channel.send(bytes(60_000), NOW_S)
    pair.alice.pump()
    pair.alice.channel.close(Code.CHANNEL_CREDENTIAL_EXPIRED)
    pair.alice.pump()
    events = [
        event
        for frame in pair.hops[0].take()
        for event in pair.bob.receive(frame.kind, frame.body, NOW_S)[0]
    ]

    assert events[-1] == ChannelClosed(Code.CHANNEL_CREDENTIAL_EXPIRED, sealed=True)


def test_a_peer_that_sends_more_than_was_granted_is_found_out() -> None:
    pair = Pair()
    granted = pair.bob._receive_window._granted - pair.bob._receive_window._received
    pair.bob._receive_window.receive_untrusted(granted - 10)
    with pytest.raises(CreditError) as caught:
        pair.bob.receive(FrameKind.RECORD, bytes(11), NOW_S)

    assert caught.value.code is Code.ROUTE_CREDIT_EXCEEDED


def test_a_sealed_close_follows_what_was_sent_before_it() -> None:
    pair = Pair()
    pair.alice.channel.send(b"last words", NOW_S)
    pair.alice.pump()
    pair.alice.channel.close(Code.CHANNEL_CREDENTIAL_EXPIRED)
    pair.alice.pump()
    frames = pair.hops[0].take()
    kinds = [frame.kind for frame in frames]
    assert kinds == [FrameKind.RECORD, FrameKind.RECORD, FrameKind.LINK_CLOSE]
    assert decode_code_untrusted(frames[2].body) is Code.CHANNEL_CLOSED
    events = [
        event for frame in frames for event in pair.bob.receive(frame.kind, frame.body, NOW_S)[0]
    ]

    assert events[-1] == ChannelClosed(Code.CHANNEL_CREDENTIAL_EXPIRED, sealed=True)


def test_nothing_follows_a_close_not_even_what_waited_for_credit() -> None:
    pair = Pair()
    for _ in range(60):
        pair.alice.channel.send(bytes(40_000), NOW_S)
    pair.alice.pump()
    pair.alice.channel.close()
    pair.alice.pump()
    assert pair.hops[0].take()[-1].kind == FrameKind.LINK_CLOSE
    pair.alice.credit(Credit(0, 1 << 40))
    pair.alice.abandon(Code.CHANNEL_CLOSED)
    pair.alice.pump()
    pair.alice.consume(0)

    assert pair.hops[0].take() == []
    assert pair.alice.waiting_bytes == 0


def test_a_link_that_the_peer_closed_is_granted_nothing() -> None:
    pair = Pair()
    pair.alice.channel.send(bytes(60_000), NOW_S)
    pair.alice.pump()
    pair.carry(consume=False)
    pair.bob.receive(FrameKind.LINK_CLOSE, b"\x01\x90", NOW_S)
    pair.consume()

    assert pair.hops[1].take() == []
    assert pair.bob.closed


@settings(max_examples=25)
@given(st.lists(st.integers(0, 150_000), max_size=25), st.lists(st.booleans(), max_size=25))
def test_all_messages_arrive_once_and_in_order_however_slowly_they_are_read(
    sizes: list[int], reads: list[bool]
) -> None:
    pair = Pair()
    bodies = [b"%03d" % at + bytes(size) for at, size in enumerate(sizes)]
    for at, body in enumerate(bodies):
        pair.alice.channel.send(body, NOW_S)
        pair.alice.pump()
        pair.carry(consume=at < len(reads) and reads[at])
        assert pair.bob._receive_window.held_bytes <= LINK_WINDOW_BYTES + 150_000
    while pair.owed:
        pair.consume()
        pair.carry(consume=False)

    assert pair.received == bodies


def test_every_record_of_a_channel_is_longer_than_the_least_that_a_relay_passes() -> None:
    pair = Pair()
    pair.alice.channel.send(b"", NOW_S)
    pair.alice.pump()

    [frame] = pair.hops[0].take()
    assert RECORD_BODY_BYTES_MIN < len(frame.body) < INITIAL_WINDOW_BYTES
