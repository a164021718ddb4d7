"""Every state of a channel, against every call, every record and arbitrary bytes."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channel import (
    Channel,
    ChannelClosed,
    ChannelState,
    ChannelStateError,
    DataReceived,
    Part,
    PeerVerified,
    RecordType,
    Signal,
)
from channel.state import CHANNEL_TRANSITIONS, ChannelInput, next_state
from channel.wire import FLAG_MORE
from identity import Code
from tests.channel.helpers import (
    ALICE,
    ChannelPair,
    FakePermit,
    carry,
    deliver,
    end_of,
    sealed_by,
)


@pytest.mark.parametrize(("state", "input_"), list(itertools.product(ChannelState, ChannelInput)))
def test_every_move_of_a_channel_is_listed_or_refused(
    state: ChannelState, input_: ChannelInput
) -> None:
    if (state, input_) in CHANNEL_TRANSITIONS:
        to = next_state(CHANNEL_TRANSITIONS, state, input_)
        assert to is CHANNEL_TRANSITIONS[state, input_]
    else:
        with pytest.raises(ChannelStateError):
            next_state(CHANNEL_TRANSITIONS, state, input_)


def test_closed_is_final() -> None:
    after = {to for (s, _), to in CHANNEL_TRANSITIONS.items() if s is ChannelState.CLOSED}
    assert after == {ChannelState.CLOSED}


def test_only_a_permit_leads_a_responder_to_open_and_only_accept_an_initiator() -> None:
    ways = {key for key, to in CHANNEL_TRANSITIONS.items() if to is ChannelState.OPEN}
    assert {key for key in ways if key[0] is not ChannelState.OPEN} == {
        (ChannelState.VERIFIED, ChannelInput.PERMIT),
        (ChannelState.OPENING, ChannelInput.RECORD_ACCEPT),
    }


def _channel_in(state: ChannelState) -> Channel:
    pair = ChannelPair.new()
    match state:
        case ChannelState.NEW:
            return pair.bob
        case ChannelState.CONNECTING:
            return pair.alice
        case ChannelState.RESPONDING:
            carry(pair.alice, pair.bob)
            return pair.bob
        case ChannelState.VERIFIED:
            return ChannelPair.verified().bob
        case ChannelState.OPENING:
            return ChannelPair.verified().alice
        case ChannelState.OPEN:
            return ChannelPair.open().bob
        case ChannelState.CLOSED:
            pair.bob.close()
            return pair.bob


OWNERS_CALLS: dict[ChannelInput, Callable[[Channel], Any]] = {
    ChannelInput.PERMIT: lambda c: c.accept(FakePermit(ALICE.identifier)),
    ChannelInput.REFUSE: lambda c: c.deny(Code.POLICY_DENIED, "", ""),
    ChannelInput.SEND: lambda c: c.send(b"", 1.0),
    ChannelInput.SAY: lambda c: c.signal(Signal.REST),
    ChannelInput.CLOSE: lambda c: c.close(),
}


@pytest.mark.parametrize(("state", "input_"), list(itertools.product(ChannelState, OWNERS_CALLS)))
def test_each_call_in_each_state_does_what_the_table_says(
    state: ChannelState, input_: ChannelInput
) -> None:
    channel = _channel_in(state)
    before = channel.state
    if (state, input_) in CHANNEL_TRANSITIONS:
        OWNERS_CALLS[input_](channel)
        assert channel.state is CHANNEL_TRANSITIONS[state, input_]
    else:
        with pytest.raises(ChannelStateError):
            OWNERS_CALLS[input_](channel)
        assert channel.state is before


BODIES = {
    RecordType.DENY: bytes.fromhex("831901f56060"),
    RecordType.CLOSE: b"\x01\x3d",
    RecordType.ACCEPT: bytes(32),
    RecordType.ACK: bytes(8),
    RecordType.ADDRESSES: b"\x80",
    RecordType.RENEW: ALICE.proof,
}
RECORD_INPUTS = {
    RecordType.DATA: ChannelInput.RECORD_DATA,
    RecordType.ACCEPT: ChannelInput.RECORD_ACCEPT,
    RecordType.DENY: ChannelInput.RECORD_DENY,
    RecordType.REKEY: ChannelInput.RECORD_REKEY,
    RecordType.STREAM_OPEN: ChannelInput.RECORD_STREAM_OPEN,
    RecordType.ACK: ChannelInput.RECORD_ACK,
    RecordType.ADDRESSES: ChannelInput.RECORD_ADDRESSES,
    RecordType.RENEW: ChannelInput.RECORD_RENEW,
    RecordType.REST: ChannelInput.RECORD_SIGNAL,
    RecordType.WAKE: ChannelInput.RECORD_SIGNAL,
    RecordType.LEAVING: ChannelInput.RECORD_SIGNAL,
    RecordType.CLOSE: ChannelInput.CLOSE,
}


@pytest.mark.parametrize("type_", RecordType)
@pytest.mark.parametrize("stage", ["verified by bob", "verified by alice", "open", "closed"])
def test_each_record_in_each_state_does_what_the_table_says(stage: str, type_: RecordType) -> None:
    pair = ChannelPair.open() if stage == "open" else ChannelPair.verified()
    here, there = (pair.alice, pair.bob) if stage == "verified by bob" else (pair.bob, pair.alice)
    record = sealed_by(there, type_, BODIES.get(type_, b""))
    if stage == "closed":
        here.close()
    state = here.state
    input_ = RECORD_INPUTS.get(type_)

    events = here.receive(Part.RECORD, record, 1.0)

    if stage == "closed":
        assert events == []
    elif input_ is not None and (state, input_) in CHANNEL_TRANSITIONS:
        assert here.state is CHANNEL_TRANSITIONS[state, input_]
    else:
        assert end_of(events) is Code.CHANNEL_BAD_RECORD


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([state for state in ChannelState if state is not ChannelState.CLOSED]),
    st.lists(
        st.tuples(
            st.sampled_from(Part),
            st.one_of(
                st.binary(max_size=100),
                st.binary(min_size=14, max_size=60).map(lambda tail: bytes([1, 0]) + tail),
                st.integers(0, 70_000).map(bytes),
            ),
        ),
        max_size=4,
    ),
)
def test_arbitrary_parts_never_raise_and_never_deliver(
    state: ChannelState, parts: list[tuple[Part, bytes]]
) -> None:
    channel = _channel_in(state)
    events = deliver(channel, parts)
    assert not any(isinstance(event, (DataReceived, PeerVerified)) for event in events)
    if events:
        assert isinstance(events[-1], ChannelClosed)
        assert not events[-1].sealed
        assert channel.state is ChannelState.CLOSED


@settings(max_examples=60, deadline=None)
@given(
    st.booleans(),
    st.lists(
        st.tuples(
            st.sampled_from(RecordType),
            st.one_of(st.binary(max_size=40), st.integers(0, 65_505).map(bytes)),
            st.sampled_from([0, FLAG_MORE]),
        ),
        max_size=6,
    ),
)
def test_arbitrary_bodies_under_the_right_keys_never_raise(
    opened: bool, records: list[tuple[RecordType, bytes, int]]
) -> None:
    pair = ChannelPair.open() if opened else ChannelPair.verified()
    for record in records:
        events = pair.bob.receive(Part.RECORD, sealed_by(pair.alice, *record), 1.0)
        if not opened:
            assert not any(isinstance(event, DataReceived) for event in events)
        if pair.bob.state is ChannelState.CLOSED:
            assert isinstance(events[-1], ChannelClosed)
            return
        if record[0] is RecordType.REKEY:
            pair.alice._directions()[0].writer._begin_epoch()
