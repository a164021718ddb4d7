"""What a hostile peer, or a hostile relay, can do to a channel: end it, and nothing else."""

from collections.abc import Callable
from typing import Any

import pytest

from channel import (
    ChannelClosed,
    ChannelError,
    ChannelEvent,
    ChannelState,
    ChannelStateError,
    DataReceived,
    Part,
    RecordType,
    RekeyLimits,
    Role,
    Signal,
    SignalReceived,
    moving,
)
from channel.limits import (
    ACK_RECORDS,
    EARLY_BYTES_MAX,
    EPOCH_MAX,
    FRAGMENT_BYTES_MIN,
    MESSAGE_BYTES_MAX,
    RECORD_PLAINTEXT_BYTES_MAX,
)
from channel.records import RecordReader, RecordWriter
from channel.wire import FLAG_MORE, RecordHeader, encode_code, encode_header
from identity import Code, NoiseKey
from tests.channel.helpers import (
    ALICE,
    BOB,
    MALLORY,
    ChannelPair,
    FakePermit,
    Party,
    carry,
    channel_prologue,
    deliver,
    end_of,
    new_channel,
    records_of,
    sealed_by,
)

D = RecordType.DATA


def _changed(record: bytes, offset: int, to: int | None = None) -> bytes:
    changed = bytearray(record)
    changed[offset] = record[offset] ^ 1 if to is None else to
    return bytes(changed)


# Alice sends two records; a relay hands Bob something else.
TAMPERED: dict[str, tuple[Callable[[bytes, bytes], list[bytes]], Code]] = {
    "a record is replayed": (lambda a, b: [a, a], Code.CHANNEL_RECORD_OUT_OF_ORDER),
    "two records are reordered": (lambda a, b: [b], Code.CHANNEL_RECORD_OUT_OF_ORDER),
    "a record is lost": (lambda a, b: [b], Code.CHANNEL_RECORD_OUT_OF_ORDER),
    "its type is changed": (
        lambda a, b: [_changed(a, 0, RecordType.STREAM_OPEN)],
        Code.CHANNEL_RECORD_INVALID,
    ),
    "its type becomes REKEY": (
        lambda a, b: [_changed(a, 0, RecordType.REKEY)],
        Code.CHANNEL_RECORD_INVALID,
    ),
    "its type becomes unknown": (lambda a, b: [_changed(a, 0, 77)], Code.CHANNEL_BAD_RECORD),
    "its flags are changed": (
        lambda a, b: [_changed(a, 1, FLAG_MORE)],
        Code.CHANNEL_RECORD_INVALID,
    ),
    "its epoch is changed": (lambda a, b: [_changed(a, 5)], Code.CHANNEL_RECORD_OUT_OF_ORDER),
    "its sequence is changed": (
        lambda a, b: [_changed(a, 13)],
        Code.CHANNEL_RECORD_OUT_OF_ORDER,
    ),
    "its sequence becomes the expected one": (
        lambda a, b: [_changed(b, 13)],
        Code.CHANNEL_RECORD_INVALID,
    ),
    "its ciphertext is changed": (lambda a, b: [_changed(a, 15)], Code.CHANNEL_RECORD_INVALID),
    "its tag is changed": (lambda a, b: [_changed(a, -1)], Code.CHANNEL_RECORD_INVALID),
    "it is truncated by a byte": (lambda a, b: [a[:-1]], Code.CHANNEL_RECORD_INVALID),
    "it is truncated to its header": (lambda a, b: [a[:14]], Code.CHANNEL_BAD_RECORD),
    "it is truncated to nothing": (lambda a, b: [b""], Code.CHANNEL_BAD_RECORD),
    "it has a tail": (lambda a, b: [a + b"\x00"], Code.CHANNEL_RECORD_INVALID),
    "it is longer than a frame": (lambda a, b: [a + bytes(65_535)], Code.CHANNEL_BAD_RECORD),
    "two are joined": (lambda a, b: [a + b], Code.CHANNEL_RECORD_INVALID),
    "it is plaintext under a true header": (
        lambda a, b: [a[:14] + b"plaintext" + bytes(16)],
        Code.CHANNEL_RECORD_INVALID,
    ),
}


@pytest.mark.parametrize(("tamper", "code"), TAMPERED.values(), ids=TAMPERED)
def test_a_record_that_was_touched_ends_the_channel(
    tamper: Callable[[bytes, bytes], list[bytes]], code: Code
) -> None:
    pair = ChannelPair.open()
    pair.alice.send(b"first message", now_s=1.0)
    pair.alice.send(b"second message", now_s=1.0)
    *before, last = tamper(*records_of(pair.alice))
    deliver(pair.bob, [(Part.RECORD, record) for record in before])

    events = pair.bob.receive(Part.RECORD, last, 1.0)

    assert end_of(events) is code
    assert pair.bob.state is ChannelState.CLOSED


def test_whoever_finds_a_fault_says_so_under_the_seal_alone() -> None:
    pair = ChannelPair.open()
    pair.bob.receive(Part.RECORD, bytes([D]) + bytes(39), 1.0)
    output = pair.bob.take_output()

    assert output[-1] == (Part.CLOSE, encode_code(Code.CHANNEL_CLOSED))
    assert deliver(pair.alice, output) == [ChannelClosed(Code.CHANNEL_RECORD_INVALID, sealed=True)]


def test_after_a_fault_the_true_record_comes_too_late() -> None:
    pair = ChannelPair.open()
    pair.alice.send(b"true", now_s=1.0)
    [record] = records_of(pair.alice)
    pair.bob.receive(Part.RECORD, _changed(record, -1), 1.0)

    assert pair.bob.receive(Part.RECORD, record, 1.0) == []


def test_a_record_reflected_to_its_sender_does_not_open() -> None:
    pair = ChannelPair.open()
    pair.alice.send(b"one", now_s=1.0)
    [record] = records_of(pair.alice)
    # Alice has read one record, Bob's ACCEPT; give the reflected one the number she expects.
    reflected = _changed(record, 13, 1)
    assert end_of(pair.alice.receive(Part.RECORD, reflected, 1.0)) is Code.CHANNEL_RECORD_INVALID


def test_a_record_of_another_session_of_the_same_two_does_not_open() -> None:
    one, other = ChannelPair.open(), ChannelPair.open()
    one.alice.send(b"message", now_s=1.0)
    [record] = records_of(one.alice)
    assert end_of(other.bob.receive(Part.RECORD, record, 1.0)) is Code.CHANNEL_RECORD_INVALID


def test_a_record_of_the_epoch_before_is_refused() -> None:
    pair = ChannelPair.open(limits=RekeyLimits(records_max=2))
    pair.alice.send(b"old", now_s=1.0)
    pair.alice.send(b"new", now_s=1.0)
    old, rekey, new = records_of(pair.alice)
    deliver(pair.bob, [(Part.RECORD, old), (Part.RECORD, rekey)])
    # The right sequence under the old epoch, and then the right epoch on the old key's record.
    relabelled = encode_header(RecordHeader(D, 0, 0, 2)) + new[14:]
    assert end_of(pair.bob.receive(Part.RECORD, relabelled, 1.0)) is (
        Code.CHANNEL_RECORD_OUT_OF_ORDER
    )


def test_a_record_of_the_epoch_to_come_is_refused() -> None:
    pair = ChannelPair.open()
    pair.alice.send(b"message", now_s=1.0)
    [record] = records_of(pair.alice)
    early = encode_header(RecordHeader(D, 0, 1, 0)) + record[14:]
    assert end_of(pair.bob.receive(Part.RECORD, early, 1.0)) is Code.CHANNEL_RECORD_OUT_OF_ORDER


def test_a_key_used_beyond_its_records_is_refused() -> None:
    alice = new_channel(Role.INITIATOR, ALICE)
    bob = new_channel(Role.RESPONDER, BOB, limits=RekeyLimits(records_max=3))
    pair = ChannelPair(alice, bob)
    for source, target in ((alice, bob), (bob, alice), (alice, bob)):
        carry(source, target)
    bob.accept(FakePermit(ALICE.identifier))
    carry(bob, alice)
    for _ in range(3):
        alice.send(b"", now_s=1.0)

    *first, last = carry(pair.alice, pair.bob)

    assert [type(event) for event in first] == [DataReceived] * 2
    assert end_of([last]) is Code.CHANNEL_LIMIT_EXCEEDED


def test_a_key_used_beyond_its_bytes_is_refused() -> None:
    alice = new_channel(Role.INITIATOR, ALICE)
    bob = new_channel(Role.RESPONDER, BOB, limits=RekeyLimits(bytes_max=100_000))
    for source, target in ((alice, bob), (bob, alice), (alice, bob)):
        carry(source, target)
    bob.accept(FakePermit(ALICE.identifier))
    carry(bob, alice)
    alice.send(bytes(60_000), now_s=1.0)
    alice.send(bytes(40_001), now_s=1.0)

    first, last = carry(alice, bob)

    assert isinstance(first, DataReceived)
    assert end_of([last]) is Code.CHANNEL_LIMIT_EXCEEDED


class NoCipher:
    """For what happens at the end of counters, which no test can reach by sealing."""

    def seal(self, associated_data: bytes, plaintext: Any) -> bytes:
        return bytes(plaintext) + bytes(16)

    def open_untrusted(self, associated_data: bytes, ciphertext: Any) -> bytes:
        return bytes(ciphertext)[:-16]

    def rekey(self) -> None:
        pass


@pytest.mark.parametrize(("field", "value"), [("_epoch", EPOCH_MAX), ("_sequence", 2**64 - 1)])
def test_no_counter_ever_wraps_around(field: str, value: int) -> None:
    writer = RecordWriter(NoCipher(), RekeyLimits(), 0.0)
    reader = RecordReader(NoCipher(), RekeyLimits())
    setattr(writer, field, value)
    setattr(reader, field, value)
    header = RecordHeader(RecordType.REKEY, 0, writer._epoch, writer._sequence)

    with pytest.raises(ChannelError) as caught_writing:
        writer.rekey(0.0)
    with pytest.raises(ChannelError) as caught_reading:
        reader.open_untrusted(encode_header(header) + bytes(16))

    assert caught_writing.value.code is Code.CHANNEL_LIMIT_EXCEEDED
    assert caught_reading.value.code is Code.CHANNEL_LIMIT_EXCEEDED


def test_a_channel_that_is_out_of_epochs_ends() -> None:
    pair = ChannelPair.open(limits=RekeyLimits(age_s_max=60.0))
    pair.alice._directions()[0].writer._epoch = EPOCH_MAX

    events = pair.alice.handle_deadline(100.0)

    assert end_of(events) is Code.CHANNEL_LIMIT_EXCEEDED
    assert pair.alice.state is ChannelState.CLOSED


BIG = bytes(RECORD_PLAINTEXT_BYTES_MAX)
Sealed = tuple[RecordType, bytes, int]
FULL_FRAGMENTS = MESSAGE_BYTES_MAX // RECORD_PLAINTEXT_BYTES_MAX

# Sealed by a peer with the right keys; the last one must end the channel.
FAULTS_OF_A_TRUE_PEER: dict[str, tuple[list[Sealed], Code]] = {
    "a second ACCEPT": ([(RecordType.ACCEPT, b"", 0)], Code.CHANNEL_BAD_RECORD),
    "FIN on a channel": ([(RecordType.FIN, b"", 0)], Code.CHANNEL_BAD_RECORD),
    "RESET on a channel": ([(RecordType.RESET, b"\x01\x3d", 0)], Code.CHANNEL_BAD_RECORD),
    "REKEY with a body": ([(RecordType.REKEY, b"x", 0)], Code.CHANNEL_BAD_RECORD),
    "REKEY with MORE": ([(RecordType.REKEY, b"", FLAG_MORE)], Code.CHANNEL_BAD_RECORD),
    "CLOSE without a code": ([(RecordType.CLOSE, b"", 0)], Code.CHANNEL_BAD_RECORD),
    "DENY that says nothing": ([(RecordType.DENY, b"", 0)], Code.CHANNEL_BAD_RECORD),
    "a fragment that is too small to be one": (
        [(D, bytes(FRAGMENT_BYTES_MIN - 1), FLAG_MORE)],
        Code.CHANNEL_BAD_RECORD,
    ),
    "a fragment of nothing": ([(D, b"", FLAG_MORE)], Code.CHANNEL_BAD_RECORD),
    "a last fragment of nothing": (
        [(D, BIG, FLAG_MORE), (D, b"", 0)],
        Code.CHANNEL_BAD_RECORD,
    ),
    "STREAM_OPEN between two fragments": (
        [(D, BIG, FLAG_MORE), (RecordType.STREAM_OPEN, b"", 0)],
        Code.CHANNEL_BAD_RECORD,
    ),
    "ACCEPT between two fragments": (
        [(D, BIG, FLAG_MORE), (RecordType.ACCEPT, b"", 0)],
        Code.CHANNEL_BAD_RECORD,
    ),
    "fragments beyond the largest message": (
        [(D, BIG, FLAG_MORE)] * (FULL_FRAGMENTS + 1),
        Code.CHANNEL_LIMIT_EXCEEDED,
    ),
    "fragments beyond the largest message by one byte": (
        [
            *[(D, BIG, FLAG_MORE)] * FULL_FRAGMENTS,
            (D, bytes(MESSAGE_BYTES_MAX - FULL_FRAGMENTS * len(BIG) + 1), 0),
        ],
        Code.CHANNEL_LIMIT_EXCEEDED,
    ),
}


@pytest.mark.parametrize(
    ("records", "code"), FAULTS_OF_A_TRUE_PEER.values(), ids=FAULTS_OF_A_TRUE_PEER
)
def test_a_fault_under_the_right_keys_ends_the_channel(records: list[Sealed], code: Code) -> None:
    pair = ChannelPair.open()
    *before, last = [sealed_by(pair.bob, *record) for record in records]
    assert deliver(pair.alice, [(Part.RECORD, record) for record in before]) == []

    assert end_of(pair.alice.receive(Part.RECORD, last, 1.0)) is code


def test_a_rekey_between_two_fragments_is_legal() -> None:
    pair = ChannelPair.open()
    first = sealed_by(pair.alice, D, BIG, FLAG_MORE)
    rekey = pair.alice._directions()[0].writer.rekey(1.0)
    last = sealed_by(pair.alice, D, b"end")
    [event] = deliver(pair.bob, [(Part.RECORD, record) for record in (first, rekey, last)])
    assert isinstance(event, DataReceived)
    assert event.data == BIG + b"end"


def test_half_a_message_is_no_message_when_the_peer_closes() -> None:
    pair = ChannelPair.open()
    first = sealed_by(pair.alice, D, BIG, FLAG_MORE)
    close = sealed_by(pair.alice, RecordType.CLOSE, encode_code(Code.CHANNEL_CLOSED))
    assert deliver(pair.bob, [(Part.RECORD, first), (Part.RECORD, close)]) == [
        ChannelClosed(Code.CHANNEL_CLOSED, sealed=True)
    ]


BEFORE_ACCEPT = {
    "DATA": (D, b"too soon"),
    "STREAM_OPEN": (RecordType.STREAM_OPEN, b""),
    "REKEY": (RecordType.REKEY, b""),
    "ACCEPT with a body": (RecordType.ACCEPT, b"x"),
}


@pytest.mark.parametrize(("type_", "body"), BEFORE_ACCEPT.values(), ids=BEFORE_ACCEPT)
def test_a_responder_may_say_nothing_before_accept(type_: RecordType, body: bytes) -> None:
    pair = ChannelPair.verified()
    record = sealed_by(pair.bob, type_, body)
    assert end_of(pair.alice.receive(Part.RECORD, record, 1.0)) is Code.CHANNEL_BAD_RECORD


INITIATORS_VERDICTS = {
    "ACCEPT to a responder that waits": ("verified", RecordType.ACCEPT),
    "DENY to a responder that waits": ("verified", RecordType.DENY),
    "ACCEPT to an open responder": ("open", RecordType.ACCEPT),
}


@pytest.mark.parametrize(("stage", "type_"), INITIATORS_VERDICTS.values(), ids=INITIATORS_VERDICTS)
def test_an_initiator_has_no_verdict_to_give(stage: str, type_: RecordType) -> None:
    pair = getattr(ChannelPair, stage)()
    record = sealed_by(pair.alice, type_)
    assert end_of(pair.bob.receive(Part.RECORD, record, 1.0)) is Code.CHANNEL_BAD_RECORD


def test_an_initiator_cannot_make_a_responder_hold_more_than_the_first_flight() -> None:
    pair = ChannelPair.verified()
    events: list[ChannelEvent] = []
    records = 0
    while not events:
        events = pair.bob.receive(Part.RECORD, sealed_by(pair.alice, D, BIG), 1.0)
        records += 1
    assert end_of(events) is Code.CHANNEL_LIMIT_EXCEEDED
    assert (records - 1) * 65_535 <= EARLY_BYTES_MAX < records * 65_535
    assert pair.bob._held == []


def test_an_initiator_that_leaves_before_the_permit_is_gone_at_once() -> None:
    pair = ChannelPair.verified()
    pair.alice.send(b"early", now_s=1.0)
    pair.alice.close(Code.CHANNEL_CLOSED)
    assert carry(pair.alice, pair.bob) == [ChannelClosed(Code.CHANNEL_CLOSED, sealed=True)]
    with pytest.raises(ChannelStateError):
        pair.bob.accept(FakePermit(ALICE.identifier))


def test_a_self_connection_is_surfaced_from_verify() -> None:
    # Both ends are one identity under two Noise keys, which only the proof shows.
    twin = Party("alice", NoiseKey.generate())

    def verify(proof: bytes, noise_key: bytes) -> Any:
        return ALICE.verify(proof, ALICE.key.public.raw)

    alice = new_channel(Role.INITIATOR, ALICE, verify=verify, prologue=channel_prologue(ALICE.uri))
    bob = new_channel(Role.RESPONDER, twin, prologue=channel_prologue(ALICE.uri))
    carry(alice, bob)
    assert end_of(carry(bob, alice)) is Code.CHANNEL_SELF_CONNECTION


def test_a_responder_under_another_name_is_not_whom_we_asked_for() -> None:
    alice, mallory = new_channel(Role.INITIATOR, ALICE), new_channel(Role.RESPONDER, MALLORY)
    carry(alice, mallory)
    events = carry(mallory, alice)
    assert end_of(events) is Code.CHANNEL_WRONG_NAME
    # Message 3, which would have told Mallory who asks, was never made.
    assert [part for part, _ in alice.take_output()] == [Part.CLOSE]


def test_a_responder_whose_proof_is_another_keys_is_refused() -> None:
    alice = new_channel(Role.INITIATOR, ALICE)
    mallory = new_channel(Role.RESPONDER, MALLORY, proof=BOB.proof)
    carry(alice, mallory)
    assert end_of(carry(mallory, alice)) is Code.CHANNEL_ATTESTATION_INVALID


def test_an_initiator_whose_proof_is_another_keys_is_refused() -> None:
    mallory = new_channel(Role.INITIATOR, MALLORY, proof=ALICE.proof)
    bob = new_channel(Role.RESPONDER, BOB)
    carry(mallory, bob)
    carry(bob, mallory)
    assert end_of(carry(mallory, bob)) is Code.CHANNEL_ATTESTATION_INVALID


class _Recording:
    def __init__(self) -> None:
        pair = ChannelPair.new()
        self.open = pair.alice.take_output()
        deliver(pair.bob, self.open)
        self.accept = pair.bob.take_output()
        deliver(pair.alice, self.accept)
        self.finish = pair.alice.take_output()


RECORDING = _Recording()
REPLAYS: dict[str, tuple[str, str, list[tuple[Part, bytes]]]] = {
    "OPEN to an initiator": ("new", "alice", RECORDING.open),
    "ACCEPT of another channel": ("new", "alice", RECORDING.accept),
    "FINISH to an initiator": ("new", "alice", RECORDING.finish),
    "ACCEPT to a responder": ("new", "bob", RECORDING.accept),
    "FINISH before OPEN": ("new", "bob", RECORDING.finish),
    "OPEN twice": ("new", "bob", RECORDING.open * 2),
    "FINISH of another channel": ("new", "bob", RECORDING.open + RECORDING.finish),
    "OPEN to a verified responder": ("verified", "bob", RECORDING.open),
    "FINISH twice": ("verified", "bob", RECORDING.finish),
    "ACCEPT twice": ("verified", "alice", RECORDING.accept),
    "OPEN on an open channel": ("open", "bob", RECORDING.open),
    "ACCEPT on an open channel": ("open", "alice", RECORDING.accept),
    "FINISH on an open channel": ("open", "bob", RECORDING.finish),
    "a record before the handshake": ("new", "bob", [(Part.RECORD, bytes([1]) + bytes(40))]),
    "a record instead of ACCEPT": ("new", "alice", [(Part.RECORD, bytes([2]) + bytes(29))]),
}


@pytest.mark.parametrize(("stage", "side", "parts"), REPLAYS.values(), ids=REPLAYS)
def test_a_handshake_out_of_its_place_ends_the_channel(
    stage: str, side: str, parts: list[tuple[Part, bytes]]
) -> None:
    channel = getattr(getattr(ChannelPair, stage)(), side)
    assert end_of(deliver(channel, parts)) is Code.CHANNEL_HANDSHAKE_FAILED
    assert channel.state is ChannelState.CLOSED


# What a peer that acknowledges nothing may say without end, and what is to be answered each time.
PROVOKED: dict[str, RecordType] = {
    "offers to rest": RecordType.REST,
    "wakes": RecordType.WAKE,
    "says nothing at length": RecordType.DATA,
}


@pytest.mark.parametrize("type_", PROVOKED.values(), ids=PROVOKED)
@pytest.mark.parametrize("hurried", [False, True])
def test_a_peer_that_acknowledges_no_reply_makes_us_keep_few(
    monkeypatch: pytest.MonkeyPatch, type_: RecordType, hurried: bool
) -> None:
    monkeypatch.setattr(moving, "REPLIES_HURRIED_MAX", 8)
    monkeypatch.setattr(moving, "REPLIES_MAX", 32)
    pair = ChannelPair.open()
    if hurried:
        pair.bob.hurry_acknowledgements()
    kept = 0
    for turn in range(2 * 32 * ACK_RECORDS):
        for event in pair.bob.receive(Part.RECORD, sealed_by(pair.alice, type_), 1.0 + turn):
            if event == SignalReceived(Signal.REST):
                pair.bob.signal(Signal.WAKE)
        pair.bob.handle_deadline(1.5 + turn)
        pair.bob.take_output()
        if pair.bob.state is ChannelState.CLOSED:
            break
        kept = max(kept, pair.bob._directions()[0].sent.replies)

    assert pair.bob.state is ChannelState.CLOSED
    assert kept <= 32 + ACK_RECORDS


def test_a_peer_that_acknowledges_at_last_is_acknowledged_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(moving, "REPLIES_HURRIED_MAX", 8)
    pair = ChannelPair.open()
    said: list[tuple[Part, bytes]] = []
    for turn in range(20):
        pair.alice.send(b"still here", 1.0 + turn)
        carry(pair.alice, pair.bob, 1.0 + turn)
        pair.bob.handle_deadline(1.5 + turn)
        said += pair.bob.take_output()
    assert len(said) == 8
    deliver(pair.alice, said, 30.0)
    assert pair.alice.unacknowledged_bytes > 0
    carry(pair.alice, pair.bob, 30.0)
    carry(pair.bob, pair.alice, 30.0)

    assert pair.states() == ("OPEN", "OPEN")
    assert pair.alice.unacknowledged_bytes == 0
