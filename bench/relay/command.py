"""``./dev bench relay``: its options, and the run."""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Final

from bench.benchmark import Findings
from bench.options import seconds, several, size_label, whole
from bench.relay.idle import IDLE_LINK, MEMORY, QUICK_SETTLE_S, SETTLE_S, idle_rows
from bench.relay.load import BUSY, BYTES, CPU_RATE, GATEWAY, GENERATOR, RATE, load_rows
from bench.report import Row, Target, at_least, at_most, find_value
from bench.svg import Bar, Chart, Panel

SUMMARY = "records through one gateway on one core; memory of idle hops and links"

SIZES: Final = (64, 1024, 16 * 1024)
SIZE_MIN, SIZE_MAX = 32, 65_535
ROUNDS, ROUNDS_MAX = 5, 100
SECONDS, QUICK_SECONDS = 3.0, 0.3
HOPS, QUICK_HOPS, HOPS_MAX = 200, 8, 1_000
LINKS, QUICK_LINKS, LINKS_MAX = 10_000, 200, 60_000

FULL_PERCENT: Final = 80.0
FRAMES_TARGET: Final = 80_000
IDLE_LINK_KIB_TARGET: Final = 4.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sizes",
        type=several(whole(SIZE_MIN, SIZE_MAX)),
        metavar="BYTES,…",
        help="of a record [default: 64,1024,16384; --quick: 1024]",
    )
    parser.add_argument(
        "--rounds", type=whole(1, ROUNDS_MAX), metavar="COUNT", help="[default: 5; --quick: 1]"
    )
    parser.add_argument(
        "--seconds", type=seconds, metavar="SECONDS", help="of each run [default: 3; --quick: 0.3]"
    )
    parser.add_argument(
        "--hops", type=whole(1, HOPS_MAX), metavar="COUNT", help="idle [default: 200; --quick: 8]"
    )
    parser.add_argument(
        "--links",
        type=whole(1, LINKS_MAX),
        metavar="COUNT",
        help="idle [default: 10000; --quick: 200]",
    )


def run(options: argparse.Namespace) -> Findings:
    quick = options.quick
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        idle = idle_rows(
            Path(folder),
            options.hops or (QUICK_HOPS if quick else HOPS),
            options.links or (QUICK_LINKS if quick else LINKS),
            QUICK_SETTLE_S if quick else SETTLE_S,
        )
        load = load_rows(
            Path(folder) / "load",
            options.sizes or ((1024,) if quick else SIZES),
            options.rounds or (1 if quick else ROUNDS),
            options.seconds or (QUICK_SECONDS if quick else SECONDS),
        )
    return findings_of((*load, *idle))


def findings_of(rows: tuple[Row, ...]) -> Findings:
    return Findings(rows, targets_of(rows), charts_of(rows), (_limit_note(rows),))


def targets_of(rows: tuple[Row, ...]) -> tuple[Target, ...]:
    case = size_label(1024)
    return (
        at_least(
            f"records of {case} relayed each second by one core",
            find_value(rows, GATEWAY, case, RATE),
            FRAMES_TARGET,
        ),
        at_least(
            f"records of {case} relayed for each second of the gateway's CPU",
            find_value(rows, GATEWAY, case, CPU_RATE),
            FRAMES_TARGET,
        ),
        at_most(
            "KiB of memory for an idle link",
            find_value(rows, GATEWAY, IDLE_LINK, MEMORY),
            IDLE_LINK_KIB_TARGET,
        ),
    )


def _limit_note(rows: tuple[Row, ...]) -> str:
    """Which of the two cores was full: only the gateway's makes the rate the gateway's own."""
    busy = {
        name: statistics.median(
            [row.value for row in rows if (row.system, row.metric) == (name, BUSY)]
        )
        for name in (GATEWAY, GENERATOR)
    }
    limit = max(busy, key=lambda name: busy[name])
    if busy[limit] < FULL_PERCENT:
        return (
            "Neither core was full with this: other programs took the time. Only the figures for "
            "each second of the gateway's CPU mean something."
        )
    if limit == GATEWAY:
        return "The gateway's core was the fuller one: the rate is what the gateway can do."
    return (
        "The generator's core was the fuller one and limits the rate; the figures for each second "
        "of the gateway's CPU say what the gateway could do."
    )


def charts_of(rows: tuple[Row, ...]) -> tuple[Chart, ...]:
    def panel(title: str, metric: str, unit: str) -> Panel:
        bars = [Bar(row.case, row.value, True) for row in rows if row.metric == metric]
        return Panel(title, unit, tuple(bars))

    return (
        Chart(
            "relay",
            "What one gateway process relays on one core",
            "More is better. Records over real UDP hops, counted at their receiver.",
            (
                panel("Records each second, by size", RATE, "/s"),
                panel("Records for each second of the gateway's CPU", CPU_RATE, "/s"),
                panel("Bytes of records each second", BYTES, " MiB/s"),
            ),
        ),
    )
