"""Values that options of several benchmarks take, and how they are refused."""

import argparse
from collections.abc import Callable, Sequence
from typing import Final

SECONDS_MAX: Final = 60.0


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number within bounds."""

    def read(text: str) -> int:
        value = int(text) if text.isdecimal() else -1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
        return value

    return read


def several(one: Callable[[str], int]) -> Callable[[str], tuple[int, ...]]:
    """Numbers with commas between them, each once."""

    def read(text: str) -> tuple[int, ...]:
        return tuple(one(part) for part in dict.fromkeys(text.split(",")))

    return read


def several_of(names: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Names from a list with commas between them, each once."""

    def read(text: str) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(text.split(",")))
        if not set(found) <= set(names):
            raise argparse.ArgumentTypeError(f"{text!r} is not of {', '.join(names)}")
        return found

    return read


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds up to {SECONDS_MAX:g}")
    return value


def size_label(size_bytes: int) -> str:
    """``64 B``, ``1 KiB``."""
    kib, rest = divmod(size_bytes, 1024)
    return f"{kib} KiB" if kib and not rest else f"{size_bytes} B"
