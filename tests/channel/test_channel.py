"""The channel: how it opens, what it carries, and how it ends."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channel import (
    MESSAGE_BYTES_MAX,
    STREAM_OPEN_BYTES_MAX,
    ChannelClosed,
    ChannelDenied,
    ChannelError,
    ChannelOpened,
    ChannelState,
    ChannelStateError,
    DataReceived,
    NoiseCipher,
    Part,
    PeerVerified,
    RecordCipher,
    RecordType,
    RekeyLimits,
    Role,
    StreamOpenReceived,
)
from channel.limits import (
    EARLY_BYTES_MAX,
    HANDSHAKE_S_MAX,
    RECORD_PLAINTEXT_BYTES_MAX,
    UNSENT_BYTES_MAX,
)
from channel.wire import decode_code_untrusted, decode_header_untrusted
from identity import Code
from tests.channel.helpers import (
    ALICE,
    BOB,
    MALLORY,
    ChannelPair,
    FakePermit,
    carry,
    deliver,
    new_channel,
    records_of,
)


def test_a_channel_opens_in_this_order() -> None:
    pair = ChannelPair.new()
    alice, bob = pair.alice, pair.bob
    states = [pair.states()]

    nothing = carry(alice, bob)
    states.append(pair.states())
    seen_by_alice = carry(bob, alice)
    states.append(pair.states())
    seen_by_bob = carry(alice, bob)
    states.append(pair.states())
    accepted = bob.accept(FakePermit(ALICE.identifier))
    states.append(pair.states())
    opened = carry(bob, alice)
    states.append(pair.states())

    assert nothing == []
    assert seen_by_alice == [PeerVerified(alice.peer)]
    assert alice.peer.identifier == BOB.identifier
    assert seen_by_bob == [PeerVerified(bob.peer)]
    assert bob.peer.identifier == ALICE.identifier
    assert accepted == opened == [ChannelOpened()]
    assert alice.handshake_hash == bob.handshake_hash
    assert states == [
        ("CONNECTING", "NEW"),
        ("CONNECTING", "RESPONDING"),
        ("OPENING", "RESPONDING"),
        ("OPENING", "VERIFIED"),
        ("OPENING", "OPEN"),
        ("OPEN", "OPEN"),
    ]


def test_messages_pass_both_ways_and_are_not_seen_on_the_way() -> None:
    pair = ChannelPair.open()
    pair.alice.send(b"the canary of alice", now_s=1.0)
    pair.bob.send(b"the canary of bob", now_s=1.0)

    from_alice, from_bob = pair.alice.take_output(), pair.bob.take_output()

    assert not any(b"canary" in body for _, body in from_alice + from_bob)
    [seen_by_bob] = deliver(pair.bob, from_alice)
    [seen_by_alice] = deliver(pair.alice, from_bob)
    assert isinstance(seen_by_bob, DataReceived)
    assert isinstance(seen_by_alice, DataReceived)
    assert (seen_by_bob.data, seen_by_alice.data) == (b"the canary of alice", b"the canary of bob")


def test_what_is_sent_behind_message_3_is_held_until_the_permit() -> None:
    pair = ChannelPair.verified()
    pair.alice.send(b"early", now_s=1.0)
    pair.alice.open_stream(b"stream")

    assert carry(pair.alice, pair.bob) == []

    opened, data, stream = pair.bob.accept(FakePermit(ALICE.identifier))
    assert opened == ChannelOpened()
    assert isinstance(data, DataReceived)
    assert data.data == b"early"
    assert isinstance(stream, StreamOpenReceived)
    assert stream.payload == b"stream"


def test_what_is_denied_was_never_delivered() -> None:
    pair = ChannelPair.verified()
    pair.alice.send(b"early", now_s=1.0)
    carry(pair.alice, pair.bob)

    pair.bob.deny(Code.POLICY_NO_RULE, "", "nothing allows it")

    assert pair.bob.state is ChannelState.CLOSED
    assert pair.bob.receive(Part.RECORD, bytes(40), 1.0) == []


WRONG_PERMITS = {
    "of another subject": FakePermit(MALLORY.identifier),
    "of the responder itself": FakePermit(BOB.identifier),
    "to do something else": FakePermit(ALICE.identifier, action="link.relay"),
    "of nobody": FakePermit(None),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("permit", WRONG_PERMITS.values(), ids=WRONG_PERMITS)
def test_a_permit_opens_only_for_whom_and_what_it_says(permit: FakePermit) -> None:
    pair = ChannelPair.verified()
    pair.alice.send(b"early", now_s=1.0)
    carry(pair.alice, pair.bob)

    with pytest.raises(ChannelStateError):
        pair.bob.accept(permit)

    assert pair.bob.state is ChannelState.VERIFIED
    assert pair.bob.take_output() == []


def test_an_initiator_is_not_open_before_the_sealed_accept() -> None:
    pair = ChannelPair.verified()
    assert pair.alice.state is ChannelState.OPENING
    with pytest.raises(ChannelStateError):
        pair.alice.accept(FakePermit(BOB.identifier))


def test_a_denial_arrives_with_rule_and_reason_under_the_seal() -> None:
    pair = ChannelPair.verified()
    pair.bob.deny(Code.POLICY_DENIED, "no strangers", "alice is a stranger")

    output = pair.bob.take_output()

    assert not any(b"stranger" in body for _, body in output)
    assert deliver(pair.alice, output) == [
        ChannelDenied(Code.POLICY_DENIED, "no strangers", "alice is a stranger"),
        ChannelClosed(Code.POLICY_DENIED, sealed=True),
    ]
    assert pair.alice.state is ChannelState.CLOSED


@pytest.mark.parametrize("denied_by", ["alice", "bob"])
def test_an_open_channel_can_be_cut_by_a_changed_policy_of_either_side(denied_by: str) -> None:
    pair = ChannelPair.open()
    here, there = (pair.alice, pair.bob) if denied_by == "alice" else (pair.bob, pair.alice)
    here.deny(Code.POLICY_DENIED, "rule", "reason")
    denied, closed = carry(here, there)
    assert isinstance(denied, ChannelDenied)
    assert closed == ChannelClosed(Code.POLICY_DENIED, sealed=True)


def test_a_sealed_close_says_that_the_peer_ended_it() -> None:
    pair = ChannelPair.open()
    pair.alice.close(Code.LOCAL_DRAINING)
    output = pair.alice.take_output()

    assert [part for part, _ in output] == [Part.RECORD, Part.CLOSE]
    # Those between are told that it is over, and not why.
    assert decode_code_untrusted(output[1][1]) is Code.CHANNEL_CLOSED
    assert deliver(pair.bob, output) == [ChannelClosed(Code.LOCAL_DRAINING, sealed=True)]


UNSEALED = {
    "a route that vanished is a hint": (Code.ROUTE_UNREACHABLE, Code.ROUTE_UNREACHABLE),
    "a hop that restarts is a hint": (Code.HOP_RESTARTING, Code.HOP_RESTARTING),
    "a peer that could not verify us is a hint": (
        Code.CHANNEL_WRONG_AUTHORITY,
        Code.CHANNEL_WRONG_AUTHORITY,
    ),
    "a normal end is no end": (Code.CHANNEL_CLOSED, Code.CHANNEL_UNSEALED_END),
    "a denial by a rule is no denial": (Code.POLICY_DENIED, Code.CHANNEL_UNSEALED_END),
    "a denial for want of a rule is no denial": (Code.POLICY_NO_RULE, Code.CHANNEL_UNSEALED_END),
    "a refused message is not refused": (Code.MESSAGE_REJECTED, Code.CHANNEL_UNSEALED_END),
    "a reset stream is not reset": (Code.STREAM_RESET, Code.CHANNEL_UNSEALED_END),
}


@pytest.mark.parametrize(("claimed", "told"), UNSEALED.values(), ids=UNSEALED)
@pytest.mark.parametrize("stage", ["new", "verified", "open"])
def test_an_unsealed_ending_is_unknown(claimed: Code, told: Code, stage: str) -> None:
    pair: ChannelPair = getattr(ChannelPair, stage)()
    events = pair.alice.receive(Part.CLOSE, int(claimed).to_bytes(2, "big"), 1.0)
    assert events == [ChannelClosed(told, sealed=False)]
    assert pair.alice.state is ChannelState.CLOSED


@pytest.mark.parametrize("body", [b"", b"\x01", b"\x01\x02\x03", bytes(65_535)])
def test_a_malformed_unsealed_close_is_an_unknown_ending_too(body: bytes) -> None:
    pair = ChannelPair.open()
    assert pair.bob.receive(Part.CLOSE, body, 1.0) == [
        ChannelClosed(Code.CHANNEL_UNSEALED_END, sealed=False)
    ]


def test_without_a_session_a_close_tells_those_between_no_more_than_they_may_know() -> None:
    pair = ChannelPair.new()
    pair.alice.take_output()
    pair.alice.close(Code.POLICY_DENIED)
    [(part, body)] = pair.alice.take_output()
    assert part is Part.CLOSE
    assert decode_code_untrusted(body) is Code.CHANNEL_CLOSED


def test_an_initiator_that_closes_on_verification_has_not_told_who_it_is() -> None:
    alice, bob = new_channel(Role.INITIATOR, ALICE), new_channel(Role.RESPONDER, BOB)
    carry(alice, bob)
    carry(bob, alice)
    alice.send(b"too soon", now_s=1.0)

    alice.close()

    assert [part for part, _ in alice.take_output()] == [Part.CLOSE]


def test_closing_twice_is_closing_once() -> None:
    pair = ChannelPair.open()
    pair.alice.close()
    pair.alice.take_output()
    pair.alice.close()
    assert pair.alice.take_output() == []


CALLS_ON_A_CLOSED_CHANNEL: dict[str, Any] = {
    "send": lambda c: c.send(b"", 1.0),
    "open a stream": lambda c: c.open_stream(b""),
    "accept": lambda c: c.accept(FakePermit(ALICE.identifier)),
    "deny": lambda c: c.deny(Code.POLICY_DENIED, "", ""),
}


@pytest.mark.parametrize("call", CALLS_ON_A_CLOSED_CHANNEL.values(), ids=CALLS_ON_A_CLOSED_CHANNEL)
def test_a_closed_channel_says_so(call: Any) -> None:
    pair = ChannelPair.open()
    pair.bob.close()
    with pytest.raises(ChannelStateError) as caught:
        call(pair.bob)
    assert caught.value.code is Code.CHANNEL_CLOSED


def test_a_closed_channel_has_erased_its_keys() -> None:
    pair = ChannelPair.open()
    pair.alice.close()
    carry(pair.alice, pair.bob)
    for side in (pair.alice, pair.bob):
        assert side._session is None
        assert side._mover is None
        assert side.deadline_s is None


SIDES_THAT_WAIT = {
    "an initiator that nobody answers": ("new", "alice"),
    "a responder that nobody calls": ("new", "bob"),
    "an initiator without ACCEPT": ("verified", "alice"),
    "a responder without a permit": ("verified", "bob"),
}


@pytest.mark.parametrize(("stage", "side"), SIDES_THAT_WAIT.values(), ids=SIDES_THAT_WAIT)
def test_whoever_waits_too_long_gives_up(stage: str, side: str) -> None:
    channel = getattr(getattr(ChannelPair, stage)(), side)
    assert channel.deadline_s == HANDSHAKE_S_MAX
    assert channel.handle_deadline(HANDSHAKE_S_MAX - 0.001) == []

    events = channel.handle_deadline(HANDSHAKE_S_MAX)

    assert events == [ChannelClosed(Code.CHANNEL_TIMEOUT, sealed=False)]
    assert channel.state is ChannelState.CLOSED
    assert channel.handle_deadline(HANDSHAKE_S_MAX + 1) == []


def test_a_message_that_comes_after_the_deadline_comes_too_late() -> None:
    alice, bob = new_channel(Role.INITIATOR, ALICE), new_channel(Role.RESPONDER, BOB)
    assert carry(alice, bob, now_s=HANDSHAKE_S_MAX) == [
        ChannelClosed(Code.CHANNEL_TIMEOUT, sealed=False)
    ]


def test_a_first_flight_that_is_too_large_waits_for_accept_and_keeps_its_order() -> None:
    pair = ChannelPair.verified()
    messages = [b"a" * 100_000, b"b" * 1_000_000, b"c"]
    for message in messages:
        pair.alice.send(message, now_s=1.0)
    pair.alice.open_stream(b"stream")
    first_flight = pair.alice.take_output()
    assert sum(len(body) for _, body in first_flight) <= EARLY_BYTES_MAX
    deliver(pair.bob, first_flight)
    _, *held = pair.bob.accept(FakePermit(ALICE.identifier))

    carry(pair.bob, pair.alice)
    rest = carry(pair.alice, pair.bob)

    *received, stream = held + rest
    assert [event.data for event in received if isinstance(event, DataReceived)] == messages
    assert isinstance(stream, StreamOpenReceived)


def test_what_waits_for_accept_is_bounded() -> None:
    pair = ChannelPair.verified()
    for _ in range(UNSENT_BYTES_MAX // (1 << 20)):
        pair.alice.send(bytes(1 << 20), now_s=1.0)
    with pytest.raises(ChannelStateError) as caught:
        pair.alice.send(bytes(1 << 20), now_s=1.0)
    assert caught.value.code is Code.MESSAGE_QUEUE_FULL
    assert pair.alice.state is ChannelState.OPENING


OVERSIZED: dict[str, Any] = {
    "a message": lambda c: c.send(bytes(MESSAGE_BYTES_MAX + 1), 1.0),
    "a STREAM_OPEN": lambda c: c.open_stream(bytes(STREAM_OPEN_BYTES_MAX + 1)),
}


@pytest.mark.parametrize("call", OVERSIZED.values(), ids=OVERSIZED)
def test_what_is_too_large_to_send_is_refused_and_costs_nothing(call: Any) -> None:
    pair = ChannelPair.open()
    with pytest.raises(ChannelError) as caught:
        call(pair.alice)
    assert caught.value.code is Code.MESSAGE_TOO_LARGE
    assert pair.alice.take_output() == []
    assert pair.alice.state is ChannelState.OPEN


SIZES = {
    "nothing": 0,
    "one byte": 1,
    "one byte less than a record": RECORD_PLAINTEXT_BYTES_MAX - 1,
    "one record": RECORD_PLAINTEXT_BYTES_MAX,
    "one record and one byte": RECORD_PLAINTEXT_BYTES_MAX + 1,
    "two records": 2 * RECORD_PLAINTEXT_BYTES_MAX,
    "the largest": MESSAGE_BYTES_MAX,
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_message_of_any_size_arrives_whole(size: int) -> None:
    pair = ChannelPair.open()
    message = bytes(range(256)) * (size // 256 + 1)
    pair.alice.send(message[:size], now_s=1.0)
    records = records_of(pair.alice)
    assert max(len(record) for record in records) <= 65_535

    [event] = deliver(pair.bob, [(Part.RECORD, record) for record in records])

    assert isinstance(event, DataReceived)
    assert event.data == message[:size]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 200_000), max_size=8))
def test_messages_of_any_sizes_arrive_in_order(
    sizes: list[int],
) -> None:
    pair = ChannelPair.open(limits=RekeyLimits(records_max=3))
    messages = [bytes([number]) * size for number, size in enumerate(sizes)]
    for message in messages:
        pair.alice.send(message, now_s=1.0)
    records = records_of(pair.alice)

    events = deliver(pair.bob, [(Part.RECORD, record) for record in records])

    received = [event for event in events if isinstance(event, DataReceived)]
    assert [event.data for event in received] == messages


def _epochs(records: list[bytes]) -> list[int]:
    return [decode_header_untrusted(record).epoch for record in records]


def test_a_key_is_replaced_before_its_last_record() -> None:
    pair = ChannelPair.open(limits=RekeyLimits(records_max=4))
    for number in range(8):
        pair.alice.send(bytes([number]), now_s=1.0)
    records = records_of(pair.alice)

    headers = [decode_header_untrusted(record) for record in records]
    events = deliver(pair.bob, [(Part.RECORD, record) for record in records])

    assert [h.type.name for h in headers] == [*["DATA"] * 3, "REKEY"] * 2 + ["DATA"] * 2
    assert [h.epoch for h in headers] == [0] * 4 + [1] * 4 + [2] * 2
    assert [h.sequence for h in headers] == list(range(10))
    assert [e.data for e in events if isinstance(e, DataReceived)] == [
        bytes([number]) for number in range(8)
    ]


def test_a_key_is_replaced_before_it_has_sealed_too_many_bytes() -> None:
    pair = ChannelPair.open(limits=RekeyLimits(bytes_max=100_000))
    for _ in range(3):
        pair.alice.send(bytes(60_000), now_s=1.0)
    records = records_of(pair.alice)
    assert _epochs(records) == [0, 0, 1, 1, 2]
    assert len(deliver(pair.bob, [(Part.RECORD, record) for record in records])) == 3


def test_a_key_is_replaced_when_it_is_old_also_on_an_idle_channel() -> None:
    pair = ChannelPair.open(limits=RekeyLimits(age_s_max=60.0))
    pair.alice.handle_deadline(2.0)  # ACCEPT is acknowledged.
    carry(pair.alice, pair.bob, 2.0)
    assert pair.alice.deadline_s == 61.0  # The session began at 1 s.
    assert pair.alice.handle_deadline(60.9) == []
    assert pair.alice.take_output() == []

    assert pair.alice.handle_deadline(61.0) == []

    [record] = records_of(pair.alice)
    assert decode_header_untrusted(record).type is RecordType.REKEY
    assert pair.alice.deadline_s == 121.0
    assert pair.bob.receive(Part.RECORD, record, 61.0) == []
    pair.alice.send(b"after", now_s=62.0)
    [event] = carry(pair.alice, pair.bob, 62.0)
    assert isinstance(event, DataReceived)


def test_a_key_that_grew_old_is_replaced_before_the_next_message() -> None:
    pair = ChannelPair.open(limits=RekeyLimits(age_s_max=60.0))
    pair.alice.send(b"late", now_s=500.0)
    assert _epochs(records_of(pair.alice)) == [0, 1]


def test_both_directions_rekey_apart_in_the_middle_of_traffic() -> None:
    pair = ChannelPair.open(limits=RekeyLimits(records_max=2))
    for number in range(20):
        pair.alice.send(bytes([number]) * 70_000, now_s=1.0)
        if number % 3 == 0:
            pair.bob.send(bytes([number]), now_s=1.0)
        seen_by_bob = carry(pair.alice, pair.bob)
        seen_by_alice = carry(pair.bob, pair.alice)
        assert [type(event) for event in seen_by_bob] == [DataReceived]
        assert len(seen_by_alice) == (number % 3 == 0)


BAD_REKEY_LIMITS: dict[str, dict[str, Any]] = {
    "one record": {"records_max": 1},
    "less than a record's bytes": {"bytes_max": 65_504},
    "less than a handshake's time": {"age_s_max": 5.0},
}


@pytest.mark.parametrize("limits", BAD_REKEY_LIMITS.values(), ids=BAD_REKEY_LIMITS)
def test_a_key_cannot_be_told_to_last_for_less_than(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a key must"):
        RekeyLimits(**limits)


class CountingCipher:
    """Wraps a direction, as the demo's tap does."""

    def __init__(self, inner: NoiseCipher, sealed: list[bytes]) -> None:
        self._inner = inner
        self._sealed = sealed

    def seal(self, associated_data: bytes, plaintext: bytes | bytearray | memoryview) -> bytes:
        self._sealed.append(bytes(plaintext))
        return self._inner.seal(associated_data, plaintext)

    def open_untrusted(
        self, associated_data: bytes, ciphertext: bytes | bytearray | memoryview
    ) -> bytes:
        return self._inner.open_untrusted(associated_data, ciphertext)

    def rekey(self) -> None:
        self._inner.rekey()


def test_another_composition_may_wrap_the_ciphers() -> None:
    sealed: list[bytes] = []

    def make(cipher: NoiseCipher) -> RecordCipher:
        return CountingCipher(cipher, sealed)

    pair = ChannelPair.open(make_cipher=make)
    pair.alice.send(b"seen by the wrapper", now_s=1.0)
    [event] = carry(pair.alice, pair.bob)

    assert [len(sealed[0]), sealed[1:]] == [32, [b"seen by the wrapper"]]  # First, ACCEPT's key.
    assert isinstance(event, DataReceived)
