"""The local API's frames: whole, byte by byte, with a tail, and from someone who means harm."""

import contextlib
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sidelink import wire
from sidelink.errors import WireError
from sidelink.wire import (
    BATCH_BYTES_MAX,
    BATCH_FRAMES_MAX,
    BatchReader,
    client_frame_reader,
    encode_batch,
    encode_batches,
    server_frame_reader,
)

ATTRIBUTES: dict[str, wire.AttributeValue] = {"role": "planner", "n": 2, "on": True, "l": ("a",)}

# Hexadecimal, a space between fields: array header, tag, fields.
CLIENT_FRAMES: dict[str, tuple[wire.ClientFrame, str]] = {
    "hello": (wire.Hello(1), "93 01 01 c0"),
    "hello with a token": (wire.Hello(1, "t"), "93 01 01 a174"),
    "open agent": (wire.OpenAgent(7, "a/b", {"n": 2}), "94 02 07 a3612f62 81a16e02"),
    "close agent": (wire.CloseAgent(7, 3), "93 03 07 03"),
    "tell": (
        wire.Send(0, 3, "u", wire.TELL, b"\x01", "c", 0),
        "98 04 00 03 a175 00 c40101 a163 00",
    ),
    "ask": (
        wire.Send(9, 3, "u", wire.ASK, b"", "c", 1000),
        "98 04 09 03 a175 01 c400 a163 cd03e8",
    ),
    "listen": (wire.Listen(3, True), "93 05 03 c3"),
    "answer": (wire.Answer(3, 4, b"x", "c"), "95 06 03 04 c40178 a163"),
    "refuse": (wire.Refuse(3, 4, "no"), "94 07 03 04 a26e6f"),
    "flush": (wire.Flush(9, 3), "93 08 09 03"),
}
SERVER_FRAMES: dict[str, tuple[wire.ServerFrame, str]] = {
    "welcome": (wire.Welcome(1, "acme", "n"), "94 20 01 a461636d65 a16e"),
    "opened": (
        wire.Opened(7, 3, "u", "i", {"a": ("x",)}),
        "96 21 07 03 a175 a169 81a16191a178",
    ),
    "receipt": (wire.Receipt(9), "93 22 09 c3"),
    "failed": (
        wire.Failed(9, "policy.denied", "m", "r", "do"),
        "97 23 09 ad706f6c6963792e64656e696564 a16d a172 a2646f 00",
    ),
    "reply": (
        wire.Reply(9, b"x", "c", "u", "i", {}),
        "97 24 09 c40178 a163 a175 a169 80",
    ),
    "deliver": (
        wire.Deliver(3, 4, wire.ASK, "u", "i", {"on": True}, b"x", "c", 500),
        "9a 25 03 04 01 a175 a169 81a26f6ec3 c40178 a163 cd01f4",
    ),
    "goodbye": (wire.Goodbye("local.draining", 9), "93 26 ae6c6f63616c2e647261696e696e67 09"),
}


def on_the_wire(hex_: str) -> bytes:
    body = b"\x91" + bytes.fromhex(hex_)
    return len(body).to_bytes(4, "big") + body


def readers() -> list[tuple[str, wire.ClientFrame | wire.ServerFrame, bytes, bool]]:
    client = [(k, f, on_the_wire(h), True) for k, (f, h) in CLIENT_FRAMES.items()]
    server = [(k, f, on_the_wire(h), False) for k, (f, h) in SERVER_FRAMES.items()]
    return [*client, *server]


def reader_of(from_client: bool) -> BatchReader[wire.ClientFrame] | BatchReader[wire.ServerFrame]:
    return client_frame_reader() if from_client else server_frame_reader()


@pytest.mark.parametrize(
    ("frame", "data", "from_client"),
    [r[1:] for r in readers()],
    ids=[r[0] for r in readers()],
)
class TestEachFrame:
    def test_has_the_documented_bytes(
        self, frame: wire.ClientFrame | wire.ServerFrame, data: bytes, from_client: bool
    ) -> None:
        assert encode_batch([frame]) == data

    def test_is_read_whole_and_with_a_tail(
        self, frame: wire.ClientFrame | wire.ServerFrame, data: bytes, from_client: bool
    ) -> None:
        reader = reader_of(from_client)

        assert reader.feed_untrusted(data) == [frame]
        assert reader.feed_untrusted(data + data[:-1]) == [frame]
        assert reader.feed_untrusted(data[-1:] + b"\x00") == [frame]
        assert reader.buffered_bytes == 1

    def test_is_read_byte_by_byte(
        self, frame: wire.ClientFrame | wire.ServerFrame, data: bytes, from_client: bool
    ) -> None:
        reader = reader_of(from_client)

        for byte in data[:-1]:
            assert reader.feed_untrusted(bytes([byte])) == []
        assert reader.feed_untrusted(data[-1:]) == [frame]

    def test_is_refused_when_a_field_is_missing_or_one_too_many(
        self, frame: wire.ClientFrame | wire.ServerFrame, data: bytes, from_client: bool
    ) -> None:
        fields = msgspec.msgpack.decode(data[4:])[0]
        required = [f for f in msgspec.structs.fields(frame) if f.required]

        for changed in (fields[: len(required)], [*fields, 0]):
            with pytest.raises(WireError):
                reader_of(from_client).feed_untrusted(batch_of([changed]))

    def test_is_refused_from_the_wrong_side(
        self, frame: wire.ClientFrame | wire.ServerFrame, data: bytes, from_client: bool
    ) -> None:
        with pytest.raises(WireError):
            reader_of(not from_client).feed_untrusted(data)


def batch_of(value: object) -> bytes:
    body = msgspec.msgpack.encode(value)
    return len(body).to_bytes(4, "big") + body


def prefixed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


WHAT_A_HOSTILE_CLIENT_SENDS = {
    "a batch of no bytes": b"\0\0\0\0",
    "a batch that announces too much": (BATCH_BYTES_MAX + 1).to_bytes(4, "big"),
    "a batch of the largest announced size": b"\xff\xff\xff\xff",
    "a batch without frames": batch_of([]),
    "bytes behind the array": prefixed(msgspec.msgpack.encode([[5, 1, True]]) + b"\0"),
    "an array cut short": prefixed(b"\x92\x93\x05\x01\xc3"),
    "something else than an array": batch_of({"a": 1}),
    "a frame that is no array": batch_of([5]),
    "an empty frame": batch_of([[]]),
    "an unknown tag": batch_of([[99, 1]]),
    "a tag of the wrong type": batch_of([["Send", 1]]),
    "a negative request": batch_of([[3, -1, 1]]),
    "a request beyond 63 bits": batch_of([[3, 2**63, 1]]),
    "a request that is a float": batch_of([[3, 1.0, 1]]),
    "a request that is a boolean": batch_of([[3, True, 1]]),
    "a kind of message that is not known": batch_of([[4, 1, 1, "u", 2, b"", "c", 0]]),
    "a body that is text": batch_of([[4, 1, 1, "u", 0, "body", "c", 0]]),
    "text that is not UTF-8": prefixed(b"\x91\x94\x07\x01\x01\xa1\xff"),
    "a name that is too long": batch_of([[2, 1, "n" * 256, {}]]),
    "too many attributes": batch_of([[2, 1, "n", {f"a{i}": 1 for i in range(65)}]]),
    "an attribute that is a float": batch_of([[2, 1, "n", {"a": 1.5}]]),
    "an attribute that is a map": batch_of([[2, 1, "n", {"a": {}}]]),
    "an attribute that is null": batch_of([[2, 1, "n", {"a": None}]]),
    "an attribute text that is too long": batch_of([[2, 1, "n", {"a": "x" * 1025}]]),
    "an attribute number beyond 64 bits": batch_of([[2, 1, "n", {"a": 2**63}]]),
    "an attribute list of numbers": batch_of([[2, 1, "n", {"a": [1]}]]),
    "an attribute name that is a number": batch_of([[2, 1, "n", {1: "a"}]]),
    "a timeout of more than a week": batch_of([[4, 1, 1, "u", 1, b"", "c", 7 * 86_400_000 + 1]]),
    "more frames than a batch may hold": batch_of([[5, 1, True]] * (BATCH_FRAMES_MAX + 1)),
    "nesting without end": prefixed(b"\x91" * 100_000),
    "nesting without end in a field": prefixed(b"\x91\x94\x02\x01\xa1n" + b"\x91" * 100_000),
    "maps nested without end": prefixed(b"\x91\x94\x02\x01\xa1n" + b"\x81\xa1a" * 50_000),
    "an array of four thousand million": prefixed(b"\xdd\xff\xff\xff\xff"),
    "a body of four thousand million bytes": prefixed(b"\x91\x95\x06\x01\x01\xc6\xff\xff\xff\xff"),
    "an extension type": prefixed(b"\x91\xd4\x01\x00"),
    "the byte that msgpack never uses": prefixed(b"\xc1"),
}


@pytest.mark.parametrize(
    "data", WHAT_A_HOSTILE_CLIENT_SENDS.values(), ids=WHAT_A_HOSTILE_CLIENT_SENDS.keys()
)
def test_hostile_bytes_raise_a_wire_error(data: bytes) -> None:
    with pytest.raises(WireError):
        client_frame_reader().feed_untrusted(data)


def test_too_large_a_batch_is_refused_before_its_body_is_read() -> None:
    reader = client_frame_reader()

    with pytest.raises(WireError) as caught:
        reader.feed_untrusted((BATCH_BYTES_MAX + 1).to_bytes(4, "big") + b"\x91")

    assert caught.value.code == "local.limit"
    assert reader.buffered_bytes == 0


def test_frames_beyond_one_batch_become_several_in_order() -> None:
    frames = [wire.Answer(1, i, b"x" * 1024 * 1024, "c") for i in range(9)]

    batches = encode_batches(frames)

    assert len(batches) > 1
    assert all(len(batch) - 4 <= BATCH_BYTES_MAX for batch in batches)
    assert client_frame_reader().feed_untrusted(b"".join(batches)) == frames
    with pytest.raises(WireError):
        encode_batch(frames)


def test_very_many_frames_become_several_batches() -> None:
    frames = [wire.Listen(i, True) for i in range(BATCH_FRAMES_MAX + 1)]

    assert client_frame_reader().feed_untrusted(b"".join(encode_batches(frames))) == frames


def test_nothing_is_encoded_for_no_frames() -> None:
    assert encode_batches([]) == []


def test_a_frame_larger_than_a_batch_is_the_senders_mistake() -> None:
    with pytest.raises(WireError):
        encode_batches([wire.Answer(1, 1, b"x" * BATCH_BYTES_MAX, "c")])


numbers = st.integers(0, 2**63 - 1)
texts = st.text(max_size=20)
attributes = st.dictionaries(
    texts,
    st.one_of(
        texts,
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.lists(texts, max_size=3).map(tuple),
    ),
    max_size=4,
)
client_frames = st.one_of(
    st.builds(wire.Hello, numbers, st.none() | texts),
    st.builds(wire.OpenAgent, numbers, texts, attributes),
    st.builds(wire.CloseAgent, numbers, numbers),
    st.builds(
        wire.Send,
        numbers,
        numbers,
        texts,
        st.sampled_from([wire.TELL, wire.ASK]),
        st.binary(max_size=64),
        texts,
        st.integers(0, wire.TIMEOUT_MS_MAX),
    ),
    st.builds(wire.Listen, numbers, st.booleans()),
    st.builds(wire.Answer, numbers, numbers, st.binary(max_size=64), texts),
    st.builds(wire.Refuse, numbers, numbers, texts),
    st.builds(wire.Flush, numbers, numbers),
)


@given(
    batches=st.lists(st.lists(client_frames, min_size=1, max_size=4), min_size=1, max_size=4),
    seed=st.integers(0, 2**32),
)
def test_any_frames_come_out_as_they_went_in_however_the_bytes_are_cut(
    batches: list[list[wire.ClientFrame]], seed: int
) -> None:
    data = b"".join(encode_batch(batch) for batch in batches)
    cuts = random.Random(seed)
    reader = client_frame_reader()

    frames: list[wire.ClientFrame] = []
    while data:
        size = cuts.randint(1, len(data))
        frames += reader.feed_untrusted(data[:size])
        data = data[size:]

    assert frames == [frame for batch in batches for frame in batch]
    assert reader.buffered_bytes == 0


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_raise_anything_but_a_wire_error(body: bytes, from_client: bool) -> None:
    for data in (body, prefixed(body)):
        with contextlib.suppress(WireError):
            reader_of(from_client).feed_untrusted(data)


@given(client_frames, st.data())
def test_a_changed_byte_raises_nothing_but_a_wire_error(
    frame: wire.ClientFrame, data: st.DataObject
) -> None:
    changed = bytearray(encode_batch([frame]))
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))

    with contextlib.suppress(WireError):
        client_frame_reader().feed_untrusted(changed)
