"""What is fuzzed: a name, what it feeds, inputs to begin with, and the one error it may raise."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

INPUT_BYTES_MAX: Final = 64 << 10
# What an input may cost. The processor's time is allowed in proportion to its length, so that what
# grows with the square of it shows in short inputs too.
CPU_S_MIN: Final = 0.1
CPU_S_MAX: Final = 0.5
MEMORY_BYTES_MAX: Final = 32 << 20


class NotCanonicalError(AssertionError):
    """What was read does not encode to the bytes that it was read from."""


@dataclass(frozen=True)
class Target:
    """One thing to feed.

    ``run`` takes any bytes; it may raise ``error`` and nothing else. ``seeds`` are inputs made by
    our own encoders, the first of which it takes without complaint.
    """

    name: str
    feeds: str
    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    error: type[Exception] | None = None
    bytes_max: int = 4_096
    cpu_s_max: float = CPU_S_MAX
    is_machine: bool = False
    is_program: bool = False
    """What it feeds is made as the input says, so that the input's own length means little."""
    is_own_file: bool = False
    """What our own people write and programs read once: it may take longer."""

    def __post_init__(self) -> None:
        assert self.bytes_max <= INPUT_BYTES_MAX

    def cpu_s_max_of(self, data: bytes) -> float:
        share = len(data) / INPUT_BYTES_MAX
        return max(self.cpu_s_max * share, CPU_S_MIN * self.cpu_s_max / CPU_S_MAX)


def check_same(encoded: bytes, data: bytes) -> None:
    """Raise NotCanonicalError unless these are the same bytes."""
    if encoded != data:
        raise NotCanonicalError(f"{data!r:.200} was read and becomes {encoded!r:.200}")
