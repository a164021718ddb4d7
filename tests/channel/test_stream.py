"""The seal of a byte stream: what arrives, what an end is, and what breaks it."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channel import (
    ChannelError,
    ChannelStateError,
    RecordType,
    RekeyLimits,
    Role,
    StreamData,
    StreamEvent,
    StreamFinished,
    StreamReset,
    StreamSecret,
    StreamSession,
    StreamState,
)
from channel.limits import (
    RECORD_PLAINTEXT_BYTES_MAX,
    STREAM_FIRST_DATA_BYTES_MAX,
    STREAM_UNSENT_BYTES_MAX,
)
from channel.state import STREAM_TRANSITIONS, StreamInput, next_state
from channel.wire import FLAG_MORE
from identity import Code

BINDING: dict[str, Any] = {
    "channel_hash": bytes(32),
    "stream": 4,
    "service": "weather",
    "opened_by_initiator": True,
}
Pair = tuple[StreamSession, StreamSession]


def new_pair(responder: dict[str, Any] | None = None, **options: Any) -> Pair:
    """The opener and the other side; the latter may be told something else."""
    ours, raw = StreamSecret.generate()
    return (
        StreamSession(Role.INITIATOR, ours, **(BINDING | options)),
        StreamSession(
            Role.RESPONDER,
            StreamSecret((responder or {}).pop("secret", raw)),
            **(BINDING | options | (responder or {})),
        ),
    )


def established_pair(**options: Any) -> Pair:
    opener, other = new_pair(**options)
    assert other.feed_untrusted(opener.write(b"")) == []
    assert opener.feed_untrusted(other.take_output()) == []
    return opener, other


def data_of(events: list[StreamEvent]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, StreamData))


def broken_with(events: list[StreamEvent]) -> Code:
    [event] = events
    assert isinstance(event, StreamReset)
    assert not event.sealed
    return event.code


def sealed_by(
    session: StreamSession, type_: RecordType, body: bytes = b"", flags: int = 0
) -> bytes:
    assert session._writer is not None
    [record] = session._writer.seal(type_, body, 0.0, flags)
    return len(record).to_bytes(2, "big") + record


def test_the_first_flight_carries_data() -> None:
    opener, other = new_pair()
    first = opener.write(b"GET /forecast")
    assert b"forecast" not in first
    assert other.feed_untrusted(first) == [StreamData(b"GET /forecast")]


def test_an_opener_with_nothing_to_say_still_lets_the_other_begin() -> None:
    opener, other = established_pair()
    assert opener.feed_untrusted(other.write(b"220 welcome")) == [StreamData(b"220 welcome")]
    assert opener.established
    assert other.established


def test_what_is_written_before_the_answer_follows_it_in_order() -> None:
    opener, other = new_pair()
    large = bytes(range(256)) * 1024
    first = opener.write(large) + opener.write(b"more") + opener.finish()
    events = other.feed_untrusted(first)
    assert data_of(events) == large[:STREAM_FIRST_DATA_BYTES_MAX]

    assert opener.feed_untrusted(other.take_output()) == []
    events += other.feed_untrusted(opener.take_output())

    assert data_of(events) == large + b"more"
    assert events[-1] == StreamFinished()
    assert events.count(StreamFinished()) == 1


def test_each_direction_ends_by_itself() -> None:
    opener, other = established_pair()
    assert other.feed_untrusted(opener.write(b"question") + opener.finish()) == [
        StreamData(b"question"),
        StreamFinished(),
    ]
    assert other.quic_ended() is None
    assert opener.feed_untrusted(other.write(b"answer") + other.finish()) == [
        StreamData(b"answer"),
        StreamFinished(),
    ]
    assert opener.quic_ended() is None


UNSEALED_ENDS: dict[str, Callable[[StreamSession, StreamSession], None]] = {
    "before anything": lambda opener, other: None,
    "after the first chunk": lambda opener, other: _feed(other, opener.write(b"data")),
    "after data": lambda opener, other: _establish_and_write(opener, other, b"data"),
    "in the middle of a record": lambda opener, other: _establish_and_write(
        opener, other, b"data", cut=1
    ),
    "in the middle of FIN": lambda opener, other: _establish_and_finish(opener, other, cut=1),
}


def _feed(session: StreamSession, data: bytes) -> None:
    session.feed_untrusted(data)


def _establish_and_write(
    opener: StreamSession, other: StreamSession, data: bytes, cut: int = 0
) -> None:
    other.feed_untrusted(opener.write(b""))
    opener.feed_untrusted(other.take_output())
    sealed = opener.write(data)
    other.feed_untrusted(sealed[: len(sealed) - cut])


def _establish_and_finish(opener: StreamSession, other: StreamSession, cut: int) -> None:
    _establish_and_write(opener, other, b"data")
    other.feed_untrusted(opener.finish()[:-cut])


@pytest.mark.parametrize("prepare", UNSEALED_ENDS.values(), ids=UNSEALED_ENDS)
def test_an_unsealed_ending_is_never_an_end_of_file(
    prepare: Callable[[StreamSession, StreamSession], None],
) -> None:
    opener, other = new_pair()
    prepare(opener, other)
    assert other.quic_ended() == StreamReset(Code.CHANNEL_UNSEALED_END, sealed=False)
    assert other.receiving is StreamState.BROKEN
    assert other.quic_ended() is None


def test_a_reset_arrives_sealed_and_ends_both_directions() -> None:
    opener, other = established_pair()
    sealed = other.reset(Code.STREAM_UPSTREAM_FAILED)
    assert opener.feed_untrusted(sealed) == [StreamReset(Code.STREAM_UPSTREAM_FAILED, sealed=True)]
    assert opener.sending is StreamState.BROKEN
    assert other.reset(Code.STREAM_RESET) == b""
    with pytest.raises(ChannelStateError):
        opener.write(b"x")


def test_what_follows_a_reset_is_not_read() -> None:
    opener, other = established_pair()
    assert other.feed_untrusted(opener.reset(Code.STREAM_RESET) + b"\x00\x00garbage") == [
        StreamReset(Code.STREAM_RESET, sealed=True)
    ]


def test_a_reset_may_follow_fin_and_says_that_the_answer_is_not_wanted() -> None:
    opener, other = established_pair()
    events = other.feed_untrusted(opener.finish() + opener.reset(Code.STREAM_RESET))
    assert events == [StreamFinished(), StreamReset(Code.STREAM_RESET, sealed=True)]


def test_a_reset_before_the_answer_has_no_seal_and_says_nothing() -> None:
    opener, _ = new_pair()
    opener.write(b"data")
    assert opener.reset(Code.STREAM_RESET) == b""
    assert opener.sending is StreamState.BROKEN


def test_a_secret_makes_one_session_and_no_second() -> None:
    secret, raw = StreamSecret.generate()
    StreamSession(Role.RESPONDER, secret, **BINDING)
    with pytest.raises(ChannelError) as caught:
        StreamSession(Role.RESPONDER, secret, **BINDING)
    assert caught.value.code is Code.STREAM_SECRET_INVALID
    assert raw.hex() not in repr(secret)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_secret_of_another_length_is_none(length: int) -> None:
    with pytest.raises(ChannelError) as caught:
        StreamSecret(bytes(length))
    assert caught.value.code is Code.STREAM_SECRET_INVALID


MISMATCHES: dict[str, dict[str, Any]] = {
    "another secret": {"secret": b"\x07" * 32},
    "another channel": {"channel_hash": b"\x01" * 32},
    "another stream": {"stream": 8},
    "another service": {"service": "billing"},
    "another opener": {"opened_by_initiator": False},
}


@pytest.mark.parametrize("responder", MISMATCHES.values(), ids=MISMATCHES)
def test_a_stream_of_something_else_does_not_begin(responder: dict[str, Any]) -> None:
    opener, other = new_pair(dict(responder))
    assert broken_with(other.feed_untrusted(opener.write(b"data"))) is Code.STREAM_SECRET_INVALID
    assert other.take_output() == b""


def test_a_first_flight_replayed_to_the_next_stream_does_not_begin() -> None:
    opener, _ = new_pair()
    first = opener.write(b"pay 7")
    _, next_stream = new_pair(stream=8)
    assert broken_with(next_stream.feed_untrusted(first)) is Code.STREAM_SECRET_INVALID


def test_an_answer_of_somebody_without_the_secret_is_refused() -> None:
    opener, _ = new_pair()
    opener.write(b"data")
    stranger, other = new_pair()
    other.feed_untrusted(stranger.write(b""))
    assert broken_with(opener.feed_untrusted(other.take_output())) is Code.STREAM_SECRET_INVALID


def _chunk(body: bytes) -> bytes:
    return len(body).to_bytes(2, "big") + body


FIRST_CHUNKS = {
    "nothing": _chunk(b""),
    "one byte": _chunk(b"\x00"),
    "an ephemeral alone": _chunk(bytes(32)),
    "zeros": _chunk(bytes(48)),
    "the longest": _chunk(bytes(65_535)),
}


@pytest.mark.parametrize("chunk", FIRST_CHUNKS.values(), ids=FIRST_CHUNKS)
def test_a_first_chunk_that_is_none_breaks_the_stream(chunk: bytes) -> None:
    _, other = new_pair()
    assert broken_with(other.feed_untrusted(chunk)) is Code.STREAM_SECRET_INVALID
    assert other.feed_untrusted(chunk) == []


@pytest.mark.parametrize("payload", [b"", b"\x07", b"\x02data"], ids=["empty", "FIN", "ACCEPT"])
def test_a_first_payload_that_is_not_data_breaks_the_stream(payload: bytes) -> None:
    opener, other = new_pair()
    assert opener._noise is not None
    first = opener._noise.write_message(payload)
    assert broken_with(other.feed_untrusted(_chunk(first))) is Code.CHANNEL_BAD_RECORD


def _two(opener: StreamSession) -> tuple[bytes, bytes]:
    return opener.write(b"first"), opener.write(b"second")


def _flip(chunk: bytes, offset: int) -> bytes:
    changed = bytearray(chunk)
    changed[offset] ^= 1
    return bytes(changed)


# Offsets count from the chunk: 2 bytes of length, then the record.
TAMPERED: dict[str, tuple[Callable[[bytes, bytes], bytes], Code]] = {
    "a record is lost": (lambda a, b: b, Code.CHANNEL_RECORD_OUT_OF_ORDER),
    "two records are reordered": (lambda a, b: b + a, Code.CHANNEL_RECORD_OUT_OF_ORDER),
    "its type becomes FIN": (
        lambda a, b: a[:2] + bytes([RecordType.FIN]) + a[3:],
        Code.CHANNEL_RECORD_INVALID,
    ),
    "its flags are changed": (lambda a, b: _flip(a, 3), Code.CHANNEL_RECORD_INVALID),
    "its epoch is changed": (lambda a, b: _flip(a, 7), Code.CHANNEL_RECORD_OUT_OF_ORDER),
    "its sequence is changed": (lambda a, b: _flip(a, 15), Code.CHANNEL_RECORD_OUT_OF_ORDER),
    "its ciphertext is changed": (lambda a, b: _flip(a, 17), Code.CHANNEL_RECORD_INVALID),
    "its length is shortened": (lambda a, b: _flip(a, 1), Code.CHANNEL_RECORD_INVALID),
    "a plaintext FIN is put in": (
        lambda a, b: _chunk(bytes([RecordType.FIN]) + bytes(29)),
        Code.CHANNEL_RECORD_INVALID,
    ),
    "a chunk too short for a record is put in": (
        lambda a, b: _chunk(bytes(29)),
        Code.CHANNEL_BAD_RECORD,
    ),
}


@pytest.mark.parametrize(("tamper", "code"), TAMPERED.values(), ids=TAMPERED)
def test_a_stream_that_was_touched_breaks(
    tamper: Callable[[bytes, bytes], bytes], code: Code
) -> None:
    opener, other = established_pair()
    assert broken_with(other.feed_untrusted(tamper(*_two(opener)))) is code
    assert other.feed_untrusted(opener.write(b"third")) == []


def test_a_replayed_record_breaks_the_stream_after_what_was_true() -> None:
    opener, other = established_pair()
    first, _ = _two(opener)
    assert other.feed_untrusted(first * 2) == [
        StreamData(b"first"),
        StreamReset(Code.CHANNEL_RECORD_OUT_OF_ORDER, sealed=False),
    ]


FAULTS_OF_A_TRUE_PEER: dict[str, tuple[RecordType, bytes, int]] = {
    "DATA of nothing": (RecordType.DATA, b"", 0),
    "DATA that continues": (RecordType.DATA, b"data", FLAG_MORE),
    "FIN with a body": (RecordType.FIN, b"data", 0),
    "RESET without a code": (RecordType.RESET, b"", 0),
    "ACCEPT": (RecordType.ACCEPT, b"", 0),
    "DENY": (RecordType.DENY, b"", 0),
    "STREAM_OPEN": (RecordType.STREAM_OPEN, b"", 0),
    "CLOSE": (RecordType.CLOSE, b"\x01\x3d", 0),
    "REKEY with a body": (RecordType.REKEY, b"x", 0),
}


@pytest.mark.parametrize("record", FAULTS_OF_A_TRUE_PEER.values(), ids=FAULTS_OF_A_TRUE_PEER)
def test_a_fault_under_the_right_keys_breaks_the_stream(
    record: tuple[RecordType, bytes, int],
) -> None:
    opener, other = established_pair()
    assert broken_with(other.feed_untrusted(sealed_by(opener, *record))) is Code.CHANNEL_BAD_RECORD


@pytest.mark.parametrize("type_", [RecordType.DATA, RecordType.FIN, RecordType.REKEY])
def test_nothing_but_a_reset_follows_fin(type_: RecordType) -> None:
    opener, other = established_pair()
    assert other.feed_untrusted(opener.finish()) == [StreamFinished()]
    body = b"late" if type_ is RecordType.DATA else b""
    assert broken_with(other.feed_untrusted(sealed_by(opener, type_, body))) is (
        Code.CHANNEL_BAD_RECORD
    )


LOCAL_MISTAKES: dict[str, Callable[[StreamSession, StreamSession], Any]] = {
    "the other side writes before it was fed": lambda opener, other: other.write(b"x"),
    "the other side finishes before it was fed": lambda opener, other: other.finish(),
    "data after finish": lambda opener, other: (opener.finish(), opener.write(b"x")),
    "finish after finish": lambda opener, other: (opener.finish(), opener.finish()),
    "more than may wait for the answer": lambda opener, other: (
        opener.write(bytes(STREAM_UNSENT_BYTES_MAX)),
        opener.write(bytes(STREAM_FIRST_DATA_BYTES_MAX + 1)),
    ),
}


@pytest.mark.parametrize("mistake", LOCAL_MISTAKES.values(), ids=LOCAL_MISTAKES)
def test_a_mistake_of_our_own_is_told_to_us(
    mistake: Callable[[StreamSession, StreamSession], Any],
) -> None:
    with pytest.raises(ChannelStateError):
        mistake(*new_pair())


def test_a_long_stream_rekeys_by_itself() -> None:
    opener, other = established_pair(limits=RekeyLimits(records_max=3))
    data = bytes(5 * RECORD_PLAINTEXT_BYTES_MAX + 1)
    events = other.feed_untrusted(opener.write(data) + opener.finish())
    assert data_of(events) == data
    assert events[-1] == StreamFinished()
    assert opener._writer is not None
    assert opener._writer._epoch == 3


@pytest.mark.parametrize(("state", "input_"), list(itertools.product(StreamState, StreamInput)))
def test_every_move_of_a_stream_is_listed_or_refused(
    state: StreamState, input_: StreamInput
) -> None:
    if (state, input_) in STREAM_TRANSITIONS:
        to = next_state(STREAM_TRANSITIONS, state, input_)
        assert to is STREAM_TRANSITIONS[state, input_]
    else:
        with pytest.raises(ChannelStateError):
            next_state(STREAM_TRANSITIONS, state, input_)


def test_only_fin_leads_to_finished() -> None:
    ways = {key for key, to in STREAM_TRANSITIONS.items() if to is StreamState.FINISHED}
    assert ways == {(StreamState.FLOWING, StreamInput.FIN)}


def _feed_in_pieces(session: StreamSession, data: bytes, cuts: list[int]) -> list[StreamEvent]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    events: list[StreamEvent] = []
    for start, end in itertools.pairwise(edges):
        events += session.feed_untrusted(data[start:end])
    return events


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=6),
    st.lists(st.integers(0, 5_000), max_size=12),
    st.one_of(st.none(), st.integers(0, 5_000)),
)
def test_any_chunking_gives_the_same_events(
    writes: list[bytes], cuts: list[int], flipped: int | None
) -> None:
    # Two receivers of one stream, so that only the cuts differ. A bit may flip on the way.
    opener, (one, other) = _established_twins(limits=RekeyLimits(records_max=3))
    stream = b"".join(opener.write(data) for data in writes) + opener.finish()
    if flipped is not None:
        stream = _flip(stream, flipped % len(stream))

    at_once = one.feed_untrusted(stream)
    in_pieces = _feed_in_pieces(other, stream, cuts)

    assert in_pieces == at_once
    if flipped is None:
        assert data_of(at_once) == b"".join(writes)
        assert at_once[-1] == StreamFinished()
    else:
        assert StreamFinished() not in at_once


def _established_twins(**options: Any) -> tuple[StreamSession, Pair]:
    """An opener, and two receivers in exactly the same state."""
    opener, other = established_pair(**options)
    _, twin = established_pair(**options)
    assert other._reader is not None
    assert twin._reader is not None
    source, copy = other._reader._cipher, twin._reader._cipher
    key = source._state.k  # type: ignore[attr-defined]
    copy._state.initialize_key(key)  # type: ignore[attr-defined]
    return opener, (other, twin)


@settings(max_examples=80, deadline=None)
@given(st.booleans(), st.lists(st.binary(max_size=200), max_size=5))
def test_arbitrary_bytes_break_a_stream_and_do_nothing_else(
    established: bool, pieces: list[bytes]
) -> None:
    _, other = established_pair() if established else new_pair()
    events = [event for piece in pieces for event in other.feed_untrusted(piece)]
    assert len(events) <= 1
    for event in events:
        assert isinstance(event, StreamReset)
        assert not event.sealed
        assert other.receiving is StreamState.BROKEN
