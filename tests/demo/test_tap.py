"""The tap: what was relayed comes back whole, and a canary is found wherever it lies."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.demo.faults import DemoError
from cli.demo.plain_codec import PlainCodec
from cli.demo.tap import TapWriter, read_tap
from link import Frame

CANARY = b"0123456789abcdef"


def tapped_file(folder: Path, *relayed: Frame | tuple[int, int, bytes]) -> Path:
    path = folder / "tap"
    with TapWriter(path) as tap:
        for one in relayed:
            if isinstance(one, Frame):
                tap.frame(one)
            else:
                tap.stream(*one)
    return path


def test_frames_and_streams_come_back_as_they_were_relayed(tmp_path: Path) -> None:
    path = tapped_file(
        tmp_path, Frame(1, 4, b"first"), (7, 4, b"ab"), Frame(1, 4, b""), (8, 4, b"c"), (7, 4, b"d")
    )

    tapped = read_tap(path)

    assert tapped.frames == (b"first", b"")
    assert tapped.streams == (b"abd", b"c")
    assert tapped.stream_bytes == 4


def test_a_canary_is_found_in_a_frame_and_named_by_its_step(tmp_path: Path) -> None:
    path = tapped_file(tmp_path, Frame(1, 4, b"body: " + CANARY + b"."))

    assert read_tap(path).find({"tell": [CANARY], "ask": [b"another"]}) == {"tell"}


@given(cuts=st.lists(st.integers(0, len(CANARY) + 20), max_size=8))
def test_no_border_between_pieces_of_a_stream_hides_a_canary(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    data = b"ten bytes." + CANARY + b"ten bytes."
    borders = [0, *sorted(cuts), len(data)]
    pieces = [data[begin:end] for begin, end in pairwise(borders)]
    # Between any two pieces, one of another stream.
    relayed = [one for piece in pieces for one in ((1, 4, piece), (1, 8, b"noise"))]

    tapped = read_tap(tapped_file(tmp_path_factory.mktemp("tap"), *relayed))

    assert tapped.find({"mcp-call": [CANARY]}) == {"mcp-call"}


@pytest.mark.parametrize("missing", [1, 5, 12, 21])
def test_a_file_that_was_cut_short_is_no_evidence(tmp_path: Path, missing: int) -> None:
    path = tapped_file(tmp_path, Frame(1, 4, b"body"))
    path.write_bytes(path.read_bytes()[:-missing])

    with pytest.raises(DemoError, match="cut short"):
        read_tap(path)


def test_a_tap_without_a_file_is_no_evidence(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="no file"):
        read_tap(tmp_path / "tap")


def test_the_plain_codec_of_the_control_run_hides_nothing() -> None:
    codec = PlainCodec()

    sealed = codec.seal(b"header", CANARY)

    assert sealed.startswith(CANARY)
    assert len(sealed) == len(CANARY) + 16
    assert codec.open_untrusted(b"header", sealed) == CANARY
