"""How a soak judges: what moves, what leaks, what was lost; and what a talk finds out."""

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from sidelink.errors import SidelinkError

from bench.soak.command import faults_of
from bench.soak.inspected import count_objects, grown, weigh_heaps
from bench.soak.talk import TALKS_HEARD_MAX, Counted, Hearing, Plan, converse
from bench.soak.trend import SAMPLES_MIN, WARM_UP_S_MAX, Trend, trend_of, warm_up_s
from bench.soak.verdict import rows_of, targets_of, wishes_of
from bench.soak.watch import ANONYMOUS, DESCRIPTORS, RESIDENT, THREADS, Life, Seen, Watch

DURATION_S = 600.0
WAIT_S = 10.0


def measure(value_at: Callable[[float], float]) -> Trend:
    """A run of ten minutes, looked at every five seconds."""
    found = trend_of([(5.0 * n, value_at(5.0 * n)) for n in range(121)], DURATION_S)
    assert found is not None
    return found


def test_what_grows_before_the_end_of_the_warm_up_is_no_growth() -> None:
    trend = measure(lambda at_s: min(at_s, 0.3 * DURATION_S))

    assert trend.unrest == pytest.approx(0)


def test_a_steady_rise_is_seen_by_its_ends_and_by_its_line() -> None:
    trend = measure(lambda at_s: 100 + at_s / 60)

    assert trend.per_hour == pytest.approx(60)
    assert trend.change == pytest.approx(trend.drift * 2 / 3, rel=0.05)
    assert trend.unrest == trend.drift > 0.05


def test_a_fall_is_unrest_as_a_rise_is() -> None:
    trend = measure(lambda at_s: 100 - at_s / 60)

    assert trend.unrest > 0.05


def test_a_peak_between_two_looks_changes_no_median() -> None:
    trend = measure(lambda at_s: 150.0 if at_s == 595 else 100.0)

    assert trend.change == 0


COUNTS: dict[str, tuple[Callable[[float], float], float]] = {
    "what stays": (lambda _: 20, 0),
    "what comes and goes, at the end a little more": (
        lambda at_s: 20 + (at_s % 10 == 0 or (at_s > 500 and at_s % 50 != 0)),
        0,
    ),
    "what was away for most of the first third": (lambda at_s: 18 + 2 * (at_s > 320), 0),
    "what is never given back": (lambda at_s: 20 + at_s // 100, 2),
}


@pytest.mark.parametrize("title", COUNTS)
def test_descriptors_gained(title: str) -> None:
    value_at, gained = COUNTS[title]

    assert measure(value_at).gained == gained


def test_too_few_looks_are_no_trend() -> None:
    points = [(100.0 - n, 1.0) for n in range(SAMPLES_MIN - 1)]

    assert trend_of(points, 100.0) is None


def test_a_long_run_has_no_longer_warm_up_than_it_needs() -> None:
    assert warm_up_s(60.0) == 20.0
    assert warm_up_s(24 * 3600.0) == WARM_UP_S_MAX


def seen_of(**values: Callable[[float], float]) -> Seen:
    """One program, ``gateway``, that lived from the beginning to the end."""
    life = Life(1)
    flat: Mapping[str, Callable[[float], float]] = {
        RESIDENT: lambda _: 100.0,
        ANONYMOUS: lambda _: 50.0,
        DESCRIPTORS: lambda _: 20.0,
        THREADS: lambda _: 4.0,
    }
    for name, value_at in (flat | values).items():
        life.points[name] = [(5.0 * n, value_at(5.0 * n)) for n in range(121)]
    return Seen({"gateway": [life]})


FINE = Counted(talks=10, streams=5)

FAULTS: dict[str, tuple[Seen, Counted, str]] = {
    "memory that grows": (
        seen_of(**{RESIDENT: lambda at_s: 100 + at_s / 50}),
        FINE,
        "gateway: resident memory",
    ),
    "descriptors that grow": (
        seen_of(**{DESCRIPTORS: lambda at_s: 20 + at_s // 60}),
        FINE,
        "gateway: descriptors",
    ),
    "a message that nobody heard": (seen_of(), Counted(talks=1, streams=1, lost=1), "lost"),
    "a message that came twice": (seen_of(), Counted(talks=1, streams=1, disordered=1), "twice"),
    "agents that were silent all the time": (seen_of(), Counted(streams=1), "talks"),
}


@pytest.mark.parametrize("title", FAULTS)
def test_a_soak_fails_for(title: str) -> None:
    seen, counted, expected = FAULTS[title]
    [fault] = faults_of(targets_of(seen, DURATION_S, counted, ("gateway",)))

    assert expected in fault


def test_a_flat_and_faultless_run_has_no_faults() -> None:
    targets = targets_of(seen_of(), DURATION_S, FINE, ("gateway",))

    assert faults_of(targets) == ()
    assert len(targets) == 7


def test_memory_without_files_behind_it_is_wanted_flat_and_not_promised() -> None:
    seen = seen_of(**{ANONYMOUS: lambda at_s: 50 + at_s / 100})
    [wish] = wishes_of(seen, DURATION_S, ("gateway",))

    assert not wish.met
    assert faults_of(targets_of(seen, DURATION_S, FINE, ("gateway",))) == ()


def test_a_program_that_was_to_live_and_did_not_is_a_fault() -> None:
    seen = seen_of()
    seen.lives["gateway"].append(Life(2))
    faults = faults_of(targets_of(seen, DURATION_S, FINE, ("gateway",)))

    assert len(faults) == 3


def test_a_restarted_program_has_the_figures_of_its_lives_and_no_trend() -> None:
    seen = seen_of()
    for pid in (2, 3):
        seen.lives["gateway"].append(Life(pid))
        seen.lives["gateway"][-1].points[RESIDENT] = [(0.0, 100.0 + pid)]
        for name in (ANONYMOUS, DESCRIPTORS, THREADS):
            seen.lives["gateway"][-1].points[name] = [(0.0, 1.0)]
    rows = rows_of(seen, DURATION_S, FINE, 0.1)
    found = {row.case: row.value for row in rows if row.metric == RESIDENT}

    assert found == {"most in first life": 100.0, "most in last life": 102.0}


def test_a_watch_sees_this_process_and_that_it_holds_a_descriptor_more() -> None:
    watch = Watch(lambda: {"we": os.getpid()}, 60.0)
    watch.look()
    reader, writer = os.pipe()
    watch.look()
    os.close(reader)
    os.close(writer)
    life = watch.seen.the_life_of("we")

    assert life is not None
    before, after = (value for _, value in life.points[DESCRIPTORS])
    assert after == before + 2
    assert life.points[RESIDENT][0][1] > life.points[ANONYMOUS][0][1] > 0


def test_a_watch_passes_over_a_process_that_has_ended() -> None:
    watch = Watch(lambda: {"gone": 2**22 + 1}, 60.0)
    watch.look()

    assert watch.seen.lives == {"gone": []}


class Gone:
    """Objects of this type are counted."""


def test_what_grew_most_comes_first() -> None:
    before = count_objects()
    kept = [Gone() for _ in range(5_000)]
    for one in kept:
        one.__dict__["itself"] = one  # The collector knows of those only that hold something.
    found = grown(before, count_objects())

    assert (f"{__name__}.Gone", 5_000) in found


def test_what_a_heap_lends_is_in_use_until_it_is_given_back() -> None:
    name = "bytes of malloc in use"
    before = weigh_heaps()[name]
    lent = bytearray(50 << 20)
    held = weigh_heaps()[name]
    size_bytes = len(lent)
    del lent
    after = weigh_heaps()[name]

    assert held - before >= size_bytes
    assert held - after >= size_bytes


# Talks.


@dataclass
class Line:
    """From a teller to a hearing. ``lose``, ``double`` and ``refuse`` are numbers of tells."""

    hearing: Hearing
    lose: int = 0
    double: int = 0
    refuse: int = 0
    told_of_loss: bool = False

    async def tell(self, to: str, body: Any, *, timeout: float) -> None:  # noqa: ASYNC109
        number = body["number"]
        if number == self.refuse:
            raise SidelinkError("message.queue_full", "full")
        for _ in range((number != self.lose) + (number == self.double)):
            self.hearing.note(body["talk"], number)

    async def ask(self, to: str, body: Any, *, timeout: float) -> Any:  # noqa: ASYNC109
        return Heard(self.hearing.answer(body))

    async def flush(self) -> None:
        if self.told_of_loss:
            raise SidelinkError("message.outcome_unknown", "nobody knows")


@dataclass
class Heard:
    body: dict[str, Any]


TALKS: dict[str, tuple[dict[str, Any], Counted]] = {
    "all heard": ({}, Counted(talks=1, told=4, answered=1)),
    "one lost in silence": ({"lose": 2}, Counted(talks=1, told=4, answered=1, lost=1)),
    "one lost, and its teller told": (
        {"lose": 2, "told_of_loss": True},
        Counted(talks=1, told=4, answered=1, told_lost=1, failures={"message.outcome_unknown": 1}),
    ),
    "one heard twice": ({"double": 3}, Counted(talks=1, told=4, answered=1, disordered=1)),
    "one refused": (
        {"refuse": 3},
        Counted(talks=1, told=3, answered=1, failures={"message.queue_full": 1}),
    ),
}


@pytest.mark.parametrize("title", TALKS)
async def test_a_talk_with(title: str) -> None:
    faults, expected = TALKS[title]
    counted = Counted()
    plan = Plan("talk 1", [0.0] * 4, [10] * 4, frozenset({2}))
    async with asyncio.timeout(WAIT_S):
        await converse(Line(Hearing(), **faults), "agent://x/y", plan, counted, asyncio.Event())

    assert counted == expected


async def test_a_run_that_ends_cuts_a_talk_short_and_checks_what_was_said() -> None:
    counted, ending = Counted(), asyncio.Event()
    ending.set()
    plan = Plan("talk 1", [60.0], [10], frozenset())
    async with asyncio.timeout(WAIT_S):
        await converse(Line(Hearing()), "agent://x/y", plan, counted, ending)

    assert counted == Counted(talks=1)


def test_talks_whose_end_never_came_are_forgotten_in_time() -> None:
    hearing = Hearing()
    for number in range(TALKS_HEARD_MAX + 1):
        hearing.note(f"talk {number}", 1)

    assert hearing.take("talk 0") == []
    assert hearing.take("talk 1") == [1]
