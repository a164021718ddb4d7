"""What the tapped gateway writes down, and the search for canaries in it.

    offset  bytes  field
    0       1      kind     F: a frame, S: a piece of a byte stream
    1       8      where    the frame's link; or the stream's hop
    9       8      which    the frame's kind; or the stream's number
    17      4      length
    21      length data

The gateway closes the file at its end; whoever reads it waits for that.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cli.demo.faults import DemoError
from link import Frame

FRAME: Final = b"F"
STREAM: Final = b"S"
_HEAD: Final = struct.Struct(">cQQI")


class TapWriter:
    """Writes frames and pieces of streams to a file, as they are relayed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def frame(self, frame: Frame) -> None:
        self._file.write(_HEAD.pack(FRAME, frame.link, frame.kind, len(frame.body)) + frame.body)

    def stream(self, hop: int, stream: int, data: bytes) -> None:
        self._file.write(_HEAD.pack(STREAM, hop, stream, len(data)) + data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


@dataclass(frozen=True, slots=True)
class Tapped:
    """All that a gateway relayed. Streams are whole: a piece's border cannot hide anything."""

    frames: tuple[bytes, ...]
    streams: tuple[bytes, ...]

    @property
    def stream_bytes(self) -> int:
        return sum(len(stream) for stream in self.streams)

    def find(self, canaries: Mapping[str, Iterable[bytes]]) -> frozenset[str]:
        """The steps of which at least one canary is somewhere in what was relayed.

        A frame carries a whole message of up to 48 KiB, so no canary lies across two of them.
        """
        haystacks = (*self.frames, *self.streams)
        return frozenset(
            step
            for step, needles in canaries.items()
            if any(needle in haystack for needle in needles for haystack in haystacks)
        )


def read_tap(path: Path) -> Tapped:
    """Raises DemoError for a file that a gateway did not finish."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DemoError(f"the tap left no file: {error}") from None
    frames: list[bytes] = []
    streams: dict[tuple[int, int], bytearray] = {}
    offset = 0
    while offset < len(data):
        if len(data) - offset < _HEAD.size:
            raise DemoError(f"{path}: cut short")
        kind, where, which, length = _HEAD.unpack_from(data, offset)
        offset += _HEAD.size
        piece = data[offset : offset + length]
        if len(piece) < length:
            raise DemoError(f"{path}: cut short")
        offset += length
        if kind == FRAME:
            frames.append(piece)
        else:
            streams.setdefault((where, which), bytearray()).extend(piece)
    return Tapped(tuple(frames), tuple(bytes(stream) for stream in streams.values()))
