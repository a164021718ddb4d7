"""``./dev bench handshakes``: its options, and the run."""

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench import proc
from bench.benchmark import Findings, say
from bench.children import Children, Worker
from bench.handshakes.hops import Opened
from bench.handshakes.round_trips import Trips
from bench.options import whole
from bench.report import Target, at_least, at_most, find_value
from bench.samples import Samples
from bench.svg import Bar, Chart, Panel

SUMMARY = "hops and channels that one core opens; round trips to the first reply"

ROUNDS, ROUNDS_MAX = 5, 100
COUNT, QUICK_COUNT, COUNT_MAX = 300, 20, 5_000
STEP_S_MAX: Final = 120.0

CHANNEL: Final = "channel"
HOP: Final = "hop"
ASK: Final = "ask over one gateway"
RATE: Final = "opened for each second of one core, both sides"
FIRST, AGAIN = "agents meet for the first time", "agents meet again"
TIME: Final = "median time to open"
TRIPS: Final = "round trips to the reply"
FLIGHT: Final = "flight in which the ask leaves"
COLD, OPEN = "no channel yet", "channel open"

CHANNELS_TARGET: Final = 300
FLIGHT_TARGET: Final = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rounds", type=whole(1, ROUNDS_MAX), metavar="COUNT", help="[default: 5; --quick: 1]"
    )
    parser.add_argument(
        "--count",
        type=whole(1, COUNT_MAX),
        metavar="COUNT",
        help="handshakes in each round [default: 300; --quick: 20]",
    )


def run(options: argparse.Namespace) -> Findings:
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    count = options.count or (QUICK_COUNT if options.quick else COUNT)
    samples = Samples()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Children(Path(folder)) as children:
        worker = children.start_worker("handshakes", "bench.handshakes.worker")
        proc.pin(worker.pid, min(os.sched_getaffinity(0)))
        for round_ in range(rounds):
            say(f"round {round_ + 1} of {rounds}")
            _one_round(samples, round_, worker, count)
        trips = msgspec.convert(worker.call("round trips", timeout_s=STEP_S_MAX), list[Trips])
    for case, found in zip((COLD, OPEN), trips, strict=True):
        samples.add(0, ASK, case, TRIPS, found.to_reply, "round trips")
        samples.add(0, ASK, case, FLIGHT, found.flight, "")
    return findings_of(samples)


def _one_round(samples: Samples, round_: int, worker: Worker, count: int) -> None:
    rates: Sequence[float] = worker.call("channels", timeout_s=STEP_S_MAX, count=count)
    for case, rate in zip((FIRST, AGAIN), rates, strict=True):
        samples.add(round_, CHANNEL, case, RATE, rate, "/s")
    opened = msgspec.convert(worker.call("hops", timeout_s=STEP_S_MAX, count=count), Opened)
    samples.add(round_, HOP, opened.engine, RATE, opened.per_cpu_s, "/s")
    samples.add(round_, HOP, opened.engine, TIME, opened.median_s * 1e3, "ms")


def findings_of(samples: Samples) -> Findings:
    rows = samples.rows()
    targets: tuple[Target, ...] = (
        at_least(
            "channels of agents that meet for the first time, each second of one core",
            find_value(rows, CHANNEL, FIRST, RATE),
            CHANNELS_TARGET,
        ),
        at_most(
            "flight of the initiator in which its first message leaves",
            find_value(rows, ASK, COLD, FLIGHT),
            FLIGHT_TARGET,
        ),
    )
    bars = [Bar(f"{row.system}, {row.case}", row.value, True) for row in rows if row.metric == RATE]
    chart = Chart(
        "handshakes",
        "Handshakes that one core completes",
        "More is better. Both sides in one process; hops over real UDP, channels without sockets.",
        (Panel("For each second of one core", "/s", tuple(bars)),),
    )
    return Findings(rows, targets, (chart,))
