"""Envelopes and batches: what goes in comes out, and what a peer may not put in."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from channel import MESSAGE_BYTES_MAX
from identity import Code
from sidecar.batches import BATCH_BYTES_MAX, pieces_of, runs_of, size_of
from sidecar.envelope import (
    BODY_BYTES_MAX,
    CONTENT_TYPE_BYTES_MAX,
    ENVELOPES_PER_BATCH_MAX,
    REASON_BYTES_MAX,
    REMAINING_MS_MAX,
    RULE_BYTES_MAX,
    Ask,
    Envelope,
    EnvelopeError,
    Reject,
    Reply,
    Tell,
    TellRun,
    decode_batch_untrusted,
    encode_batch,
)

IDS = st.integers(0, 2**63 - 1)
BODIES = st.binary(max_size=200)
TYPES = st.text(max_size=CONTENT_TYPE_BYTES_MAX)
ENVELOPES = st.one_of(
    st.builds(Tell, IDS, BODIES, TYPES),
    st.builds(Ask, IDS, BODIES, TYPES, st.integers(0, REMAINING_MS_MAX)),
    st.builds(Reply, IDS, BODIES, TYPES),
    st.builds(TellRun, IDS, st.lists(BODIES, min_size=1, max_size=4), TYPES),
    st.builds(
        Reject,
        IDS,
        st.integers(0, 65_535),
        st.text(max_size=RULE_BYTES_MAX),
        st.text(max_size=REASON_BYTES_MAX),
    ),
)


@given(st.lists(ENVELOPES, max_size=5))
def test_a_batch_is_read_as_it_was_written(batch: list[Envelope]) -> None:
    assert decode_batch_untrusted(encode_batch(batch)) == batch


def test_an_envelope_is_an_array_that_begins_with_its_tag() -> None:
    batch: list[Envelope] = [
        Tell(2, b"t", "x"),
        Ask(3, b"a", "x", 9),
        Reply(4, b"r", "x"),
        Reject(5, 6, "r", "s"),
        TellRun(8, [b"t", b"u"], "x"),
    ]

    assert msgspec.msgpack.decode(encode_batch(batch)) == [
        [0, 2, b"t", "x"],
        [1, 3, b"a", "x", 9],
        [2, 4, b"r", "x"],
        [3, 5, 6, "r", "s"],
        [4, 8, [b"t", b"u"], "x"],
    ]


def test_fields_of_later_versions_are_ignored() -> None:
    later = msgspec.msgpack.encode([[0, 2, b"t", "x", "later", {"even": "more"}]])

    assert decode_batch_untrusted(later) == [Tell(2, b"t", "x")]


REFUSED: dict[str, Any] = {
    "no array": 5,
    "a map": {},
    "an unknown tag": [[9, 1]],
    "no tag": [[]],
    "a field too few": [[0, 1, b""]],
    "a body that is text": [[0, 1, "text", ""]],
    "an id that is text": [[0, "1", b"", ""]],
    "a body that is too large": [[0, 1, bytes(BODY_BYTES_MAX + 1), ""]],
    "a content type that is too long": [[2, 1, b"", "x" * (CONTENT_TYPE_BYTES_MAX + 1)]],
    "an ask for longer than a week": [[1, 1, b"", "", REMAINING_MS_MAX + 1]],
    "an ask for less than nothing": [[1, 1, b"", "", -1]],
    "a rule that is too long": [[3, 1, 1, "x" * (RULE_BYTES_MAX + 1), ""]],
    "a reason that is too long": [[3, 1, 1, "", "x" * (REASON_BYTES_MAX + 1)]],
    "a run of nothing": [[4, 2, [], ""]],
    "a run whose bodies are text": [[4, 2, ["text"], ""]],
    "a run with a body that is too large": [[4, 2, [b"", bytes(BODY_BYTES_MAX + 1)], ""]],
    "a run with a content type that is too long": [[4, 2, [b""], "x" * 129]],
    "too many messages in one run": [[4, 2, [b""] * (ENVELOPES_PER_BATCH_MAX + 1), ""]],
    "too many messages in several runs": [[4, 2, [b""] * 4_096, ""]] * 2 + [[0, 1, b"", ""]],
    "too many envelopes": [[0, 1, b"", ""]] * (ENVELOPES_PER_BATCH_MAX + 1),
}


@pytest.mark.parametrize("batch", REFUSED.values(), ids=REFUSED)
def test_a_batch_is_refused_for(batch: Any) -> None:
    with pytest.raises(EnvelopeError) as caught:
        decode_batch_untrusted(msgspec.msgpack.encode(batch))
    assert caught.value.code is Code.CHANNEL_BAD_RECORD


def is_read_or_refused(data: bytes) -> bool:
    with contextlib.suppress(EnvelopeError):
        decode_batch_untrusted(data)
    return True


@given(st.binary(max_size=100))
def test_arbitrary_bytes_raise_nothing_but_an_envelope_error(data: bytes) -> None:
    assert is_read_or_refused(data)


@given(st.lists(ENVELOPES, min_size=1, max_size=4), st.integers(0, 10_000), st.integers(0, 7))
def test_a_flipped_bit_raises_nothing_but_an_envelope_error(
    batch: list[Envelope], at: int, bit: int
) -> None:
    data = bytearray(encode_batch(batch))
    data[at % len(data)] ^= 1 << bit

    assert is_read_or_refused(bytes(data))


@pytest.mark.parametrize(
    "data", [b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"]
)
def test_depth_and_lengths_without_end_are_refused(data: bytes) -> None:
    with pytest.raises(EnvelopeError):
        decode_batch_untrusted(data)


SIZES = st.sampled_from((0, 1, 1_000, 30_000, BATCH_BYTES_MAX, BODY_BYTES_MAX))


@given(st.lists(SIZES, max_size=30))
def test_a_batch_is_cut_into_pieces_that_fit_and_keep_the_order(sizes: list[int]) -> None:
    batch: list[Envelope] = [Tell(at, bytes(size), "x") for at, size in enumerate(sizes)]
    pieces = pieces_of(batch)

    assert [envelope for piece in pieces for envelope in piece] == batch
    for piece in pieces:
        assert len(piece) == 1 or sum(map(size_of, piece)) <= BATCH_BYTES_MAX
        assert len(encode_batch(piece)) <= MESSAGE_BYTES_MAX


@given(st.lists(SIZES, min_size=1, max_size=30))
def test_a_run_is_cut_so_that_each_part_fits_a_record_and_order_is_kept(sizes: list[int]) -> None:
    bodies = [bytes([at]) * size for at, size in enumerate(sizes)]
    runs = runs_of(bodies)

    assert [body for run in runs for body in run] == bodies
    for run in runs:
        assert len(run) == 1 or size_of(TellRun(2, run, "x" * 128)) <= BATCH_BYTES_MAX


def test_a_batch_of_the_wordiest_rejections_still_fits_a_message() -> None:
    wordy = Reject(
        2**63 - 1, 65_535, "\U0001f980" * RULE_BYTES_MAX, "\U0001f980" * REASON_BYTES_MAX
    )
    pieces = pieces_of([wordy] * 2_000)

    assert max(len(encode_batch(piece)) for piece in pieces) <= MESSAGE_BYTES_MAX
