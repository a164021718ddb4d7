"""What a soak says in the end: figures of each process, what talks came to, and the verdicts."""

from collections.abc import Iterator, Mapping
from typing import Final

from bench.report import Row, Target, at_least, at_most
from bench.soak.talk import Counted
from bench.soak.trend import Trend, trend_of
from bench.soak.watch import ANONYMOUS, DESCRIPTORS, RESIDENT, THREADS, Seen

MEMORY_PERCENT_MAX: Final = 5.0
MEMORIES: Final = (RESIDENT, ANONYMOUS)
COUNTS: Final = (DESCRIPTORS, THREADS)
FIRST, LAST, CHANGE, LINE = "first third", "last third", "change", "line"
TALKS: Final = "what the agents' talks came to"
FAILURES: Final = "failures that agents were told of"
HAPPENED: Final = "what happened meanwhile"
AGENTS: Final = "agents"


def trends_of(seen: Seen, duration_s: float) -> dict[tuple[str, str], Trend]:
    """By label and figure, of the programs that lived from the beginning to the end."""
    found = {}
    for label in seen.lives:
        life = seen.the_life_of(label)
        for name, points in ({} if life is None else life.points).items():
            trend = trend_of(points, duration_s)
            if trend is not None:
                found[label, name] = trend
    return found


def rows_of(seen: Seen, duration_s: float, counted: Counted, cpu_share: float) -> tuple[Row, ...]:
    return (*_process_rows(seen, duration_s), *_talk_rows(seen, counted, cpu_share))


def targets_of(
    seen: Seen, duration_s: float, counted: Counted, steady: tuple[str, ...]
) -> tuple[Target, ...]:
    """What is promised. ``steady`` are the programs that nobody restarts: each is judged, or found
    missing.

    A program that was restarted begins with a small heap, so that its growth means nothing.
    """
    trends = trends_of(seen, duration_s)
    return (*_judged(trends, steady), *_judged_talks(counted))


def wishes_of(seen: Seen, duration_s: float, steady: tuple[str, ...]) -> tuple[Target, ...]:
    """What is wanted beyond: that memory without what files stand behind is as flat by itself."""
    trends = trends_of(seen, duration_s)
    return tuple(_flat(trends, label, ANONYMOUS) for label in steady)


def targets_of_a_short_run(counted: Counted) -> tuple[Target, ...]:
    """Of a run in which no process has come to its size yet."""
    return tuple(_judged_talks(counted))


def _process_rows(seen: Seen, duration_s: float) -> Iterator[Row]:
    trends = trends_of(seen, duration_s)
    for name in (*MEMORIES, *COUNTS):
        unit = "MiB" if name in MEMORIES else ""
        for (label, figure), trend in trends.items():
            if figure != name:
                continue
            yield Row(label, FIRST, name, trend.first, unit)
            yield Row(label, LAST, name, trend.last, unit)
            if name in MEMORIES:
                yield Row(label, CHANGE, name, 100 * trend.change, "%")
                yield Row(label, LINE, name, trend.per_hour, "MiB/h")
        yield from _restarted_rows(seen, name, unit)


def _restarted_rows(seen: Seen, name: str, unit: str) -> Iterator[Row]:
    """Of a program with several lives: the most in the first life that was whole, and in the last.

    The very last is cut short by the end of the run.
    """
    for label, lives in seen.lives.items():
        if len(lives) > 1:
            first, *_, last = lives[:-1] if len(lives) > 2 else lives
            for case, life in (("most in first life", first), ("most in last life", last)):
                yield Row(label, case, name, max(value for _, value in life.points[name]), unit)


def _talk_rows(seen: Seen, counted: Counted, cpu_share: float) -> Iterator[Row]:
    for case, value in (
        ("talks", counted.talks),
        ("tells accepted", counted.told),
        ("asks answered", counted.answered),
        ("tool calls", counted.streams),
        ("told of their loss", counted.told_lost),
        ("talks not checked", counted.unchecked),
        ("lost", counted.lost),
        ("out of order", counted.disordered),
    ):
        yield Row(AGENTS, case, TALKS, value, "")
    yield Row("all programs", "of one core", "CPU time", 100 * cpu_share, "%")
    for code, number in sorted(counted.failures.items()):
        yield Row(AGENTS, code, FAILURES, number, "")
    for what in dict.fromkeys(what for _, what in seen.marks):
        number = sum(mark == what for _, mark in seen.marks)
        yield Row("mesh", what, HAPPENED, number, "")


def _judged(trends: Mapping[tuple[str, str], Trend], steady: tuple[str, ...]) -> Iterator[Target]:
    for label in steady:
        yield _flat(trends, label, RESIDENT)
        for name in COUNTS:
            trend = trends.get((label, name))
            yield at_most(f"{label}: {name} gained", None if trend is None else trend.gained, 0)


def _flat(trends: Mapping[tuple[str, str], Trend], label: str, name: str) -> Target:
    trend = trends.get((label, name))
    percent = None if trend is None else 100 * trend.unrest
    return at_most(f"{label}: {name} moved, %", percent, MEMORY_PERCENT_MAX)


def _judged_talks(counted: Counted) -> Iterator[Target]:
    yield at_most("messages lost in silence", counted.lost, 0)
    yield at_most("messages twice or out of order", counted.disordered, 0)
    yield at_least("talks", counted.talks, 1)
    yield at_least("byte streams", counted.streams, 1)
