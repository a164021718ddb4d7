"""Frames: every kind whole, byte by byte and with a tail; arbitrary bytes raise FrameError only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import Code
from link import Frame, FrameError, FrameKind, FrameParser, encode_frame
from link.limits import FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES, LINK_ID_MAX
from tests.link.helpers import code_of_refusal

BODIES = {"no body": b"", "a short body": b"body", "the longest body": bytes(FRAME_BODY_BYTES_MAX)}
FRAMES = st.builds(
    Frame,
    st.integers(0, LINK_ID_MAX),
    st.sampled_from([int(kind) for kind in FrameKind]),
    st.binary(max_size=300),
)


def test_a_frame_is_eight_bytes_of_header_and_its_body() -> None:
    encoded = encode_frame(0x80000001, FrameKind.RECORD, b"abc")

    assert encoded == bytes.fromhex("80000001 04 00 0003") + b"abc"


@pytest.mark.parametrize("kind", FrameKind)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_frame_of_each_kind_is_read_whole_and_with_a_tail(kind: FrameKind, body: bytes) -> None:
    parser = FrameParser()
    tail = encode_frame(9, FrameKind.RECORD, b"tail")

    frames = parser.feed_untrusted(encode_frame(7, kind, body) + tail[:-1])

    assert frames == [Frame(7, kind, body)]
    assert parser.held_bytes == len(tail) - 1
    assert parser.feed_untrusted(tail[-1:]) == [Frame(9, FrameKind.RECORD, b"tail")]
    assert parser.held_bytes == 0


@pytest.mark.parametrize("kind", FrameKind)
def test_a_frame_of_each_kind_is_read_byte_by_byte(kind: FrameKind) -> None:
    parser = FrameParser()
    encoded = encode_frame(7, kind, b"body")

    pieces = [parser.feed_untrusted(encoded[at : at + 1]) for at in range(len(encoded))]

    assert pieces == [[]] * (len(encoded) - 1) + [[Frame(7, kind, b"body")]]


def test_every_kind_that_is_not_defined_is_refused() -> None:
    undefined = set(range(256)) - {int(kind) for kind in FrameKind}
    for kind in undefined:
        with pytest.raises(FrameError):
            FrameParser().feed_untrusted(encode_frame(1, kind, b""))


def test_flags_that_are_not_defined_are_refused() -> None:
    for flags in range(1, 256):
        header = bytearray(encode_frame(1, FrameKind.RECORD, b""))
        header[5] = flags
        with pytest.raises(FrameError) as caught:
            FrameParser().feed_untrusted(bytes(header))
        assert caught.value.code is Code.HOP_BAD_FRAME


@given(st.lists(FRAMES, max_size=8), st.data())
def test_frames_come_out_as_they_went_in_however_they_are_cut(
    frames: list[Frame], data: st.DataObject
) -> None:
    stream = b"".join(encode_frame(*frame) for frame in frames)
    parser = FrameParser()
    parsed: list[Frame] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        parsed += parser.feed_untrusted(stream[:size])
        stream = stream[size:]

    assert parsed == frames
    assert parser.held_bytes == 0


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_arbitrary_bytes_raise_nothing_but_a_frame_error(pieces: list[bytes]) -> None:
    parser = FrameParser()

    def feed() -> None:
        for piece in pieces:
            parser.feed_untrusted(piece)
            assert parser.held_bytes <= FRAME_HEADER_BYTES + FRAME_BODY_BYTES_MAX

    assert code_of_refusal(feed) in (None, Code.HOP_BAD_FRAME)


def test_a_parser_holds_at_most_one_unfinished_frame() -> None:
    parser = FrameParser()
    almost = encode_frame(1, FrameKind.RECORD, bytes(FRAME_BODY_BYTES_MAX))[:-1]

    parser.feed_untrusted(encode_frame(1, FrameKind.RECORD, b"x") * 1_000 + almost)

    assert parser.held_bytes == len(almost)
