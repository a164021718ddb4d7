"""Every state of a handshake, against every call and arbitrary bytes."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channel import ChannelError, ChannelStateError, Handshake, HandshakeState, Role
from channel.limits import (
    HANDSHAKE_1_BYTES,
    HANDSHAKE_2_BYTES_MIN,
    HANDSHAKE_3_BYTES_MIN,
)
from channel.state import HANDSHAKE_TRANSITIONS, HandshakeInput, next_state
from tests.channel.helpers import (
    BOB,
    fresh_initiator,
    fresh_responder,
    handshake_pair,
    new_handshake,
)


@pytest.mark.parametrize("state", HandshakeState)
@pytest.mark.parametrize("input_", HandshakeInput)
def test_every_move_is_listed_or_refused(state: HandshakeState, input_: HandshakeInput) -> None:
    if (state, input_) in HANDSHAKE_TRANSITIONS:
        to = next_state(HANDSHAKE_TRANSITIONS, state, input_)
        assert to is HANDSHAKE_TRANSITIONS[state, input_]
    else:
        with pytest.raises(ChannelStateError):
            next_state(HANDSHAKE_TRANSITIONS, state, input_)


def test_nothing_leaves_failed() -> None:
    after = {to for (state, _), to in HANDSHAKE_TRANSITIONS.items() if state.name == "FAILED"}
    assert after == {HandshakeState.FAILED}


def _in_state(state: HandshakeState) -> Handshake:
    initiator, responder = handshake_pair()
    match state:
        case HandshakeState.OFFERING:
            return initiator
        case HandshakeState.AWAITING:
            return responder
        case HandshakeState.FAILED:
            with pytest.raises(ChannelError):
                responder.read_1_untrusted(b"")
            return responder
    first = initiator.write_1()
    if state is HandshakeState.SENT_1:
        return initiator
    responder.read_1_untrusted(first)
    if state is HandshakeState.RECEIVED_1:
        return responder
    second = responder.write_2()
    if state is HandshakeState.SENT_2:
        return responder
    initiator.read_2_untrusted(second)
    if state is HandshakeState.ANSWERED:
        return initiator
    initiator.write_3()
    if state is HandshakeState.CONSUMED:
        initiator.into_session()
    return initiator


CALLS: dict[HandshakeInput, Callable[[Handshake], Any]] = {
    HandshakeInput.WRITE_1: lambda h: h.write_1(),
    HandshakeInput.WRITE_2: lambda h: h.write_2(),
    HandshakeInput.WRITE_3: lambda h: h.write_3(),
    HandshakeInput.READ_1: lambda h: h.read_1_untrusted(b"\x01" * HANDSHAKE_1_BYTES),
    HandshakeInput.READ_2: lambda h: h.read_2_untrusted(b"\x01" * HANDSHAKE_2_BYTES_MIN),
    HandshakeInput.READ_3: lambda h: h.read_3_untrusted(b"\x01" * HANDSHAKE_3_BYTES_MIN),
    HandshakeInput.CONSUME: lambda h: h.into_session(),
}


@pytest.mark.parametrize("state", HandshakeState)
@pytest.mark.parametrize("input_", CALLS)
def test_each_call_in_each_state_does_what_the_table_says(
    state: HandshakeState, input_: HandshakeInput
) -> None:
    handshake = _in_state(state)
    assert handshake.state is state
    listed = (state, input_) in HANDSHAKE_TRANSITIONS
    is_read = input_.name.startswith("READ")

    if listed and not is_read:
        CALLS[input_](handshake)
        assert handshake.state is HANDSHAKE_TRANSITIONS[state, input_]
        return
    with pytest.raises(ChannelError) as caught:
        CALLS[input_](handshake)
    # A misplaced read is the peer's fault and ends the handshake; a misplaced write is ours.
    assert isinstance(caught.value, ChannelStateError) is not is_read
    expected = HANDSHAKE_TRANSITIONS[state, HandshakeInput.FAIL] if is_read else state
    assert handshake.state is expected


@given(st.binary(max_size=3_000))
def test_arbitrary_bytes_raise_channel_error_alone(message: bytes) -> None:
    with pytest.raises(ChannelError):
        new_handshake(Role.RESPONDER, BOB).read_1_untrusted(message)
    with pytest.raises(ChannelError):
        fresh_initiator().read_2_untrusted(message)
    with pytest.raises(ChannelError):
        fresh_responder().read_3_untrusted(message)


@given(st.binary(max_size=3_000))
def test_an_arbitrary_payload_under_the_right_keys_raises_channel_error_alone(
    payload: bytes,
) -> None:
    # The peer is who it is, and sends nonsense where the KEM ciphertext and the proof belong.
    initiator, responder = handshake_pair()
    responder.read_1_untrusted(initiator.write_1())
    assert responder._noise is not None
    message = responder._noise.write_message(payload)

    with pytest.raises(ChannelError):
        initiator.read_2_untrusted(message)
