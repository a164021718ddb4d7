"""Choices read off the front of a fuzzer's bytes, and scripts that make such bytes by hand."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

PIECES_MAX = 4_096


class Program:
    """An input as a list of choices. One that has run out answers zeros, so that any bytes do."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_over(self) -> bool:
        return self._at >= len(self._data)

    def byte(self) -> int:
        at = self._at
        if at >= len(self._data):
            return 0
        self._at = at + 1
        return self._data[at]

    def below(self, limit: int) -> int:
        """A number from 0 to ``limit`` - 1, for limits of at most 256."""
        return self.byte() % limit

    def number(self, size_bytes: int) -> int:
        return int.from_bytes(self.take(size_bytes), "big")

    def take(self, count_bytes: int) -> bytes:
        """As many bytes, or the fewer that are left."""
        at = self._at
        self._at = at + count_bytes
        return self._data[at : at + count_bytes]

    def blob(self) -> bytes:
        """Bytes with their length before them."""
        return self.take(self.byte())

    def rest(self) -> bytes:
        return self.take(len(self._data))

    def choose(self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]


def blob(data: bytes) -> bytes:
    """What ``Program.blob`` reads."""
    assert len(data) < 256
    return bytes([len(data)]) + data


def pieces(data: bytes, size_bytes: int) -> list[bytes]:
    """The data cut into pieces of this size; whole when it is 0, or when they would be too many."""
    size_bytes = max(size_bytes, len(data) // PIECES_MAX)
    if size_bytes == 0:
        return [data]
    return [data[start : start + size_bytes] for start in range(0, len(data), size_bytes)]


def text_of(data: bytes) -> str:
    """Text from bytes: well formed where they are UTF-8, with half characters where not."""
    return data.decode("utf-8", "surrogateescape")
