"""``./dev bench hostile``: its options, and the run."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.benchmark import Findings, say
from bench.children import Children
from bench.hostile.running import Setting, running
from bench.options import seconds, several_of, whole
from bench.report import Row, Target, at_most
from bench.samples import Samples
from bench.svg import Bar, Chart, Panel
from tests.mesh.sins import SINS

SUMMARY = "asks of honest agents while a peer sins, beside those when none does"

ROUNDS, ROUNDS_MAX = 3, 100
SECONDS, QUICK_SECONDS = 3.0, 0.3
ASKS_PER_S: Final = 100.0

IDLE, UNDER = "ask before it", "ask meanwhile"
P50, P99 = "p50", "p99"
MEMORY: Final = "peak resident memory"
COUNTED: Final = "counted"
BUSY: Final = "another program takes a core, and nobody sins"
TIMES_IDLE_TARGET: Final = 10.0
MIB: Final = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sins",
        type=several_of([sin.name for sin in SINS.values()]),
        metavar="NAME,…",
        help=f"{', '.join(sin.name for sin in SINS.values())} [default: all]",
    )
    parser.add_argument(
        "--rounds", type=whole(1, ROUNDS_MAX), metavar="COUNT", help="[default: 3; --quick: 1]"
    )
    parser.add_argument(
        "--seconds",
        type=seconds,
        metavar="SECONDS",
        help="of asks, before each sin and during it [default: 3; --quick: 0.3]",
    )
    parser.add_argument(
        "--real-time",
        action="store_true",
        help="real-time priority for all but the sinner: for a machine that is busy with others",
    )


def run(options: argparse.Namespace) -> Findings:
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    seconds_of_each = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    titles = [
        title for title, sin in SINS.items() if options.sins is None or sin.name in options.sins
    ]
    samples = Samples()
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        Children(Path(folder)) as children,
        running(children, real_time=options.real_time) as setting,
    ):
        for round_ in range(rounds):
            for title in (BUSY, *titles):
                say(f"round {round_ + 1} of {rounds}: {title}")
                _one_run(samples, round_, setting, title, seconds_of_each)
    return findings_of(samples, titles)


def _one_run(
    samples: Samples, round_: int, setting: Setting, title: str, seconds_of_each: float
) -> None:
    setting.settle()
    wishes = {"seconds": seconds_of_each, "per_s": ASKS_PER_S}
    before = setting.ask(**wishes)
    with setting.pressed(SINS.get(title)) as pressure:
        meanwhile = setting.ask(**wishes)
    for system, asked in ((IDLE, before), (UNDER, meanwhile)):
        samples.add(round_, system, title, P50, asked.p50_s * 1e3, "ms")
        samples.add(round_, system, title, P99, asked.p99_s * 1e3, "ms")
    for label, peak in pressure.peak_bytes.items():
        samples.add(round_, label, title, MEMORY, peak / MIB, "MiB")
    if title in SINS:
        samples.add(round_, SINS[title].counted.program, title, COUNTED, pressure.counted, "")


def findings_of(samples: Samples, titles: Sequence[str]) -> Findings:
    times = {title: samples.ratio(UNDER, IDLE, title, P99) for title in (BUSY, *titles)}
    ratios = [
        Row(UNDER, title, "p99, times that before", value, "")
        for title, value in times.items()
        if value is not None
    ]
    targets: tuple[Target, ...] = tuple(
        at_most(f"ask p99, times idle: {title}", times[title], TIMES_IDLE_TARGET)
        for title in titles
    )
    chart = Chart(
        "hostile",
        "Asks of honest agents while a peer sins",
        "Less is better. The 99th percentile, times that of the seconds before.",
        (
            Panel(
                "p99, times idle",
                "",
                tuple(Bar(row.case, row.value, row.case != BUSY) for row in ratios),
            ),
        ),
    )
    return Findings((*samples.rows(), *ratios), targets, (chart,))
