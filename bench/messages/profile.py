"""Where the time goes: every process of ours sampled by py-spy during a one-way run."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.benchmark import Findings, say
from bench.children import Child, Children
from bench.errors import BenchError
from bench.messages.rounds import Wishes, calibrate
from bench.messages.ruler import plan_for
from bench.messages.running import RunningSystem, running
from bench.options import size_label
from bench.report import Row

SECONDS: Final = 5.0
# Long enough that the samples end before the run does, however the machine slows down meanwhile.
RUN_SECONDS_PER_SAMPLED: Final = 2.0
SAMPLES_PER_S: Final = 199  # No divisor of anything that a program does regularly.
TOP: Final = 15
WAITING: Final = "uv__io_poll"  # The function of libuv that calls epoll.
SPY_S_MAX: Final = 30.0
SHARE: Final = "share of samples, by innermost Python file and library below it"
BY_PROCESS: Final = "CPU time for 100,000 one-way messages, by process"


def profile(wishes: Wishes, folder: Path) -> Findings:
    """Raises BenchError where py-spy is missing or may not look."""
    spy = Path(sys.executable).with_name("py-spy")
    if not spy.exists():
        raise BenchError(f"no {spy}: it comes with the extra `bench`")
    ours = [system for system in wishes.systems if system.is_ours]
    if not ours:
        raise BenchError("only systems of ours can be profiled, and none is asked for")
    rows: list[Row] = []
    for system in ours:
        say(f"starting {system.title}")
        with running(system, folder / system.name) as one:
            for size in wishes.sizes:
                say(f"sampling {system.name}, {size_label(size)}")
                rows += _profile_one(one, size, wishes, folder, spy)
    return Findings(tuple(rows))


def _profile_one(
    one: RunningSystem, size: int, wishes: Wishes, folder: Path, spy: Path
) -> list[Row]:
    per_s = calibrate(one, size, wishes).counted / wishes.seconds
    name, case = one.system.name, size_label(size)
    sampled = {label: pid for label, pid in one.pids.items() if label != "authority"}
    with Children(folder) as children:
        spies: dict[str, tuple[Child, Path]] = {}
        for label, pid in sampled.items():
            stacks = folder / f"{name}-{size}-{label}.stacks".replace(" ", "-")
            words: list[str | Path] = [spy, "record", "--pid", str(pid), "--output", stacks]
            words += ["--format", "raw", "--native", "--rate", str(SAMPLES_PER_S)]
            words += ["--duration", f"{SECONDS:.0f}"]
            spies[label] = (children.start(f"py-spy of {label}", words), stacks)
        run = one.one_way(plan_for(size, per_s, SECONDS * RUN_SECONDS_PER_SAMPLED))
        for child, _ in spies.values():
            child.wait_success(SPY_S_MAX)
    per_100_000 = 100_000 / run.counted.messages
    rows = [
        Row(f"{name}, {case}", label, BY_PROCESS, spent_s * per_100_000, "s")
        for label, spent_s in run.cpu_s_of.items()
    ]
    for label, (_, stacks) in spies.items():
        for place, share in top_places(stacks.read_text().splitlines()):
            rows.append(Row(f"{name}, {case}", f"{label}: {place}", SHARE, 100 * share, "%"))
    return rows


def top_places(stacks: Sequence[str]) -> list[tuple[str, float]]:
    """From py-spy's collapsed stacks: the places with most samples, and their share of all."""
    counts: Counter[str] = Counter()
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        place = place_of([_Frame.parse(frame) for frame in frames.split(";")])
        if place is not None:
            counts[place] += int(count)
    total = counts.total()
    return [(place, count / total) for place, count in counts.most_common(TOP)]


class _Frame(NamedTuple):
    """One line of a stack: ``function (file:line)``, or ``address (library)``."""

    function: str
    file: str

    @classmethod
    def parse(cls, text: str) -> "_Frame":
        function, _, file = text.rpartition(" (")
        return cls(function, file.removesuffix(")").partition(":")[0])

    @property
    def is_python(self) -> bool:
        return self.file.endswith((".py", ">"))

    @property
    def is_library(self) -> bool:
        """A compiled extension, but not the C library, which everything ends in."""
        return ".so" in self.file and not self.file.startswith(("libc.", "libpython"))


def place_of(frames: Sequence[_Frame]) -> str | None:
    """The innermost Python file, and what it had called down to, if anything.

    None for a loop that waits: py-spy takes that for work when it looks below Python.
    """
    inner = max((index for index, frame in enumerate(frames) if frame.is_python), default=-1)
    below = frames[inner + 1 :]
    if len(below) > 1 and below[-2].function == WAITING:
        return None
    here = frames[inner].file if inner >= 0 else "no Python"
    if not below:
        return here
    libraries = [frame.file for frame in below if frame.is_library]
    named = [frame.function for frame in below if not frame.function.startswith("0x")]
    [called, *_] = [*libraries[-1:], *named[-1:], below[-1].file]
    return f"{here} > {called}"
