"""Looks at processes every few seconds: their memory, their descriptors, their threads.

Two kinds of memory: all that is resident (``VmRSS``), and of that what no file stands behind
(``Anonymous`` of smaps_rollup), which is where a leak would be. The rest are pages of programs and
libraries, which the kernel drops and brings back as it likes.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from bench import proc
from bench.soak.trend import Point

MIB: Final = 1 << 20
RESIDENT: Final = "resident memory"
ANONYMOUS: Final = "anonymous memory"
DESCRIPTORS: Final = "descriptors"
THREADS: Final = "threads"

_FIGURES: Final[Mapping[str, Callable[[int], float]]] = {
    RESIDENT: lambda pid: proc.resident_bytes(pid) / MIB,
    ANONYMOUS: lambda pid: proc.anonymous_bytes(pid) / MIB,
    DESCRIPTORS: lambda pid: float(proc.descriptors(pid)),
    THREADS: lambda pid: float(proc.threads(pid)),
}


@dataclass(slots=True)
class Life:
    """One process from its start to its end, or to that of the run."""

    pid: int
    points: dict[str, list[Point]] = field(default_factory=lambda: {name: [] for name in _FIGURES})


@dataclass(slots=True)
class Seen:
    """All that was seen of the programs: lives by label, and when what happened."""

    lives: dict[str, list[Life]] = field(default_factory=dict)
    marks: list[tuple[float, str]] = field(default_factory=list)

    def the_life_of(self, label: str) -> Life | None:
        """Of a program that has had one life, and no more."""
        lives = self.lives.get(label, [])
        return lives[0] if len(lives) == 1 else None


class Watch:
    """A thread of its own, since what happens to the programs takes seconds at times."""

    def __init__(self, pids: Callable[[], Mapping[str, int]], interval_s: float) -> None:
        """``pids`` tells who runs now, by label."""
        self.seen = Seen()
        self._pids = pids
        self._interval_s = interval_s
        self._begun_s = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._begun_s = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def passed_s(self) -> float:
        return time.monotonic() - self._begun_s

    def mark(self, what: str) -> None:
        """Something happens to a program now."""
        self.seen.marks.append((self.passed_s, what))

    def look(self) -> None:
        for label, pid in self._pids().items():
            lives = self.seen.lives.setdefault(label, [])
            try:
                found = {name: read(pid) for name, read in _FIGURES.items()}
            except OSError:
                continue  # It has ended meanwhile.
            if not lives or lives[-1].pid != pid:
                lives.append(Life(pid))
            for name, value in found.items():
                lives[-1].points[name].append((self.passed_s, value))

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            self.look()
