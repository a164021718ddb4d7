"""``./dev bench soak``: its options, and the run."""

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from bench import proc
from bench.benchmark import Findings, say
from bench.options import whole
from bench.relay.command import HOPS, LINKS, QUICK_HOPS, QUICK_LINKS
from bench.relay.idle import QUICK_SETTLE_S, SETTLE_S, idle_rows
from bench.report import Target
from bench.soak import idle
from bench.soak.crowd import END_S_MAX
from bench.soak.happenings import let_it_happen
from bench.soak.inspected import KINDS, read_growth
from bench.soak.setting import STEADY, Setting, running
from bench.soak.talk import Counted
from bench.soak.verdict import rows_of, targets_of, targets_of_a_short_run, wishes_of
from bench.soak.watch import Watch

SUMMARY = "a whole mesh under steady use: its memory, its descriptors, and what idle things cost"

MINUTES, MINUTES_MAX = 10, 24 * 60
QUICK_S: Final = 12.0
AGENTS, QUICK_AGENTS, AGENTS_MIN, AGENTS_MAX = 40, 12, 12, 500
# Between two talks of one agent: some eight talks a second in all.
PAUSE_S, QUICK_PAUSE_S = 15.0, 3.0
INTERVAL_S: Final = 5.0
SAMPLES_WANTED: Final = 45


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--minutes",
        type=whole(1, MINUTES_MAX),
        metavar="COUNT",
        help="of the run, its warm-up among them [default: 10; --quick: 12 s]",
    )
    parser.add_argument(
        "--agents",
        type=whole(AGENTS_MIN, AGENTS_MAX),
        metavar="COUNT",
        help="of each of the three sidecars [default: 40; --quick: 12]",
    )
    parser.add_argument(
        "--idle",
        action="store_true",
        help="no soak: weigh idle agents, channels, links and hops instead",
    )
    parser.add_argument(
        "--inspect",
        choices=KINDS,
        help="also tell what grew most in each program: its objects by type, its memory by line of"
        " code, or its heaps. But for heaps, what that itself takes spoils the memory figures",
    )


def run(options: argparse.Namespace) -> Findings:
    return _weigh_idle(options) if options.idle else _soak(options)


def _weigh_idle(options: argparse.Namespace) -> Findings:
    quick = options.quick
    hops, links = (QUICK_HOPS, QUICK_LINKS) if quick else (HOPS, LINKS)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        rows = (
            *idle.sidecar_rows(folder, idle.QUICK if quick else idle.FULL),
            *idle_rows(folder, hops, links, QUICK_SETTLE_S if quick else SETTLE_S),
        )
    # So few as in a quick run weigh less than a page of memory each way.
    targets = () if quick else idle.targets_of(rows)
    return Findings(rows, targets, faults=faults_of(targets))


def _soak(options: argparse.Namespace) -> Findings:
    is_short = options.quick and options.minutes is None
    duration_s = QUICK_S if is_short else 60.0 * (options.minutes or MINUTES)
    agents = options.agents or (QUICK_AGENTS if is_short else AGENTS)
    pause_s = QUICK_PAUSE_S if is_short else PAUSE_S
    grown: tuple[str, ...] = ()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        say(f"starting a mesh with {3 * agents} agents")
        with running(folder, agents, pause_s, inspect=options.inspect) as setting:
            begun = _cpu_of(setting)
            with Watch(setting.pids, min(INTERVAL_S, duration_s / SAMPLES_WANTED)) as watch:
                let_it_happen(setting, watch, duration_s)
            spent_s = sum(
                spent - begun[pid] for pid, spent in _cpu_of(setting).items() if pid in begun
            )
            passed_s = watch.passed_s
            if options.inspect is not None:
                grown = tuple(_what_grew(folder, setting))
            say("waiting for the last talks")
            counted = _count(setting)
    rows = rows_of(watch.seen, duration_s, counted, spent_s / passed_s)
    promised, wanted = targets_of_a_short_run(counted), tuple[Target, ...]()
    if not is_short:
        promised = targets_of(watch.seen, duration_s, counted, STEADY)
        wanted = wishes_of(watch.seen, duration_s, STEADY)
    notes = (_note(promised), *grown)
    return Findings(rows, (*promised, *wanted), notes=notes, faults=faults_of(promised))


def faults_of(targets: Iterable[Target]) -> tuple[str, ...]:
    """Unlike those of other benchmarks, these targets are promises: missed, the command fails."""
    return tuple(target.name for target in targets if not target.met)


def _note(targets: tuple[Target, ...]) -> str:
    missed = faults_of(targets)
    if missed:
        return (
            f"NOT flat, or not faultless: {len(missed)} of {len(targets)} promises were not kept."
        )
    return f"All {len(targets)} promises were kept."


def _count(setting: Setting) -> Counted:
    """Ends the talks, and adds up what each process counted."""
    setting.each_crowd("end talks", timeout_s=END_S_MAX)
    total = Counted()
    for found in setting.each_crowd("count"):
        total.add(msgspec.convert(found, Counted))
    setting.each_crowd("close")
    return total


def _cpu_of(setting: Setting) -> dict[int, float]:
    return {pid: proc.cpu_s(pid) for pid in setting.pids().values()}


def _what_grew(folder: Path, setting: Setting) -> Iterable[str]:
    for label, pid in setting.pids().items():
        for what, number in read_growth(folder, pid):
            yield f"{label}: {what} +{number}"
