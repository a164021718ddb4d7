"""Every system in turn, size by size, round by round: what comes out are samples."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.benchmark import say
from bench.messages.asks import AskPlan
from bench.messages.ruler import (
    WINDOW_MESSAGES_MIN,
    Plan,
    plan_for,
)
from bench.messages.running import RunningSystem, running
from bench.messages.systems import System
from bench.options import size_label
from bench.samples import Samples

ONE_WAY: Final = "one-way rate"
CPU: Final = "CPU time for 100,000 one-way messages"
MEMORY: Final = "peak resident memory"
ASKS_IN_FLIGHT: Final = (1, 64)
MIB: Final = 1 << 20

CALIBRATION_S: Final = 0.5
CALIBRATION_ROUNDS_MAX: Final = 6
ASK_WARM_UP_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Wishes:
    """What to measure, and for how long."""

    systems: tuple[System, ...]
    sizes: tuple[int, ...]
    rounds: int
    seconds: float
    """Of each run of each case, about."""
    messages: int | None = None
    """Counted in each one-way run, instead of what fits the seconds."""


def ask_metric(in_flight: int, name: str) -> str:
    return f"ask {name}, {in_flight} in flight"


def measure(wishes: Wishes, folder: Path) -> Samples:
    """All systems stay up from the first round to the last, and wait for their turn in silence.

    So the same case of two systems is measured seconds apart, whatever the machine does meanwhile.
    """
    samples = Samples()
    with contextlib.ExitStack() as stack:
        systems = []
        for system in wishes.systems:
            say(f"starting {system.title}")
            systems.append(stack.enter_context(running(system, folder / system.name)))
        plans: dict[tuple[str, int], Plan] = {}
        for round_ in range(wishes.rounds):
            for size in wishes.sizes:
                say(f"round {round_ + 1} of {wishes.rounds}, {size_label(size)}")
                turn = Turn(samples, round_, size, wishes)
                for one in _rotated(systems, round_):
                    key = (one.system.name, size)
                    if key not in plans:
                        plans[key] = calibrate(one, size, wishes)
                    turn.one_way(one, plans[key])
                for in_flight in ASKS_IN_FLIGHT:
                    for one in _rotated(systems, round_):
                        turn.ask(one, in_flight)
        samples.drop_incomplete(wishes.rounds)
        for one in systems:
            for label, peak in one.peak_resident_bytes_of().items():
                samples.add(0, one.system.name, label, MEMORY, peak / MIB, "MiB")
    return samples


@dataclass(frozen=True, slots=True)
class Turn:
    """One round of one size."""

    samples: Samples
    round_: int
    size: int
    wishes: Wishes

    def one_way(self, one: RunningSystem, plan: Plan) -> None:
        run = one.one_way(plan)
        cpu_s = run.cpu_s / run.counted.messages * 100_000
        self._add(one, ONE_WAY, run.counted.per_s, "messages/s")
        self._add(one, CPU, cpu_s, "s")

    def ask(self, one: RunningSystem, in_flight: int) -> None:
        seconds = self.wishes.seconds
        plan = AskPlan(self.size, in_flight, seconds * ASK_WARM_UP_SHARE, seconds)
        asked = one.ask(plan)
        for name, value_s in (("p50", asked.p50_s), ("p99", asked.p99_s), ("p99.9", asked.p999_s)):
            if value_s is not None:
                self._add(one, ask_metric(in_flight, name), value_s * 1e6, "µs")
        self._add(one, ask_metric(in_flight, "rate"), asked.per_s, "asks/s")

    def _add(self, one: RunningSystem, metric: str, value: float, unit: str) -> None:
        self.samples.add(self.round_, one.system.name, size_label(self.size), metric, value, unit)


def calibrate(one: RunningSystem, size_bytes: int, wishes: Wishes) -> Plan:
    """Find out how many messages fill the time. Longer runs, until one takes long enough."""
    plan = Plan(size_bytes, WINDOW_MESSAGES_MIN, 4 * WINDOW_MESSAGES_MIN, WINDOW_MESSAGES_MIN)
    for _ in range(CALIBRATION_ROUNDS_MAX):
        begun_s = time.perf_counter()
        run = one.one_way(plan)
        taken_s = time.perf_counter() - begun_s
        # By the time of the whole run: a short one, measured at its receiver, is one burst.
        per_s = run.counted.messages / taken_s
        if taken_s >= CALIBRATION_S:
            break
        plan = plan_for(size_bytes, per_s, CALIBRATION_S)
    return plan_for(size_bytes, per_s, wishes.seconds, wishes.messages)


def _rotated(systems: Sequence[RunningSystem], round_: int) -> Sequence[RunningSystem]:
    """Each round begins with another system, so that none is always the first after a pause."""
    start = round_ % len(systems)
    return (*systems[start:], *systems[:start])
