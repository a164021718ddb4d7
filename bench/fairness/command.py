"""``./dev bench fairness``: its options, and the run."""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.benchmark import Findings, say
from bench.children import Children, Worker
from bench.messages import ours
from bench.messages.asks import Asked, AskPlan
from bench.options import whole
from bench.report import Row, Target
from bench.samples import Samples
from bench.svg import Bar, Chart, Panel

SUMMARY = "asks of one pair of agents beside the bulk of another, on the same hops"

VARIANTS: Final = ("gateway", "direct")
BULK_SIZES: Final = (1 << 10, 60_000)
ASK_BYTES: Final = 1 << 10
ROUNDS, ROUNDS_MAX = 5, 100
SECONDS, QUICK_SECONDS = 3.0, 0.3
# Until the bulk has filled every window on the way.
SETTLE_S, QUICK_SETTLE_S = 0.5, 0.1
RATIO_MAX: Final = 5.0
IDLE: Final = "idle"
P50, P99, BULK, RATIO = "ask, p50", "ask, p99", "bulk, at its receiver", "p99, times idle"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rounds", type=whole(1, ROUNDS_MAX), metavar="COUNT", help="[default: 5; --quick: 1]"
    )


def run(options: argparse.Namespace) -> Findings:
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    seconds = QUICK_SECONDS if options.quick else SECONDS
    settle_s = QUICK_SETTLE_S if options.quick else SETTLE_S
    samples = Samples()
    for variant in VARIANTS:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = Path(name)
            with Children(folder) as children, ours.run_programs(variant, folder, children) as mesh:
                pairs = Pairs(children, mesh.place, settle_s)
                for round_ in range(rounds):
                    say(f"{variant}, round {round_ + 1} of {rounds}")
                    measure(pairs, samples, variant, round_, seconds)
                    mesh.check()
    return findings_of(samples)


class Pairs:
    """Four agents, each a process; each side's two share a sidecar, and so a hop."""

    def __init__(self, children: Children, place: Any, settle_s: float) -> None:
        self._settle_s = settle_s
        self._workers: dict[str, Worker] = {}
        for role, socket in (
            ("answerer", place["receiver_socket"]),
            ("receiver", place["receiver_socket"]),
            ("asker", place["sender_socket"]),
            ("sender", place["sender_socket"]),
        ):
            worker = children.start_worker(role, "bench.fairness.agent")
            worker.post(f"open {role}", socket=socket)
            self._workers[role] = worker
        for worker in self._workers.values():
            worker.answer()

    def ask(self, seconds: float) -> Asked:
        plan = AskPlan(ASK_BYTES, in_flight=1, warm_up_s=self._settle_s, counted_s=seconds)
        asked = self._workers["asker"].call("ask", plan=msgspec.to_builtins(plan))
        return msgspec.convert(asked, Asked)

    def begin_bulk(self, size_bytes: int) -> None:
        self._workers["sender"].call("begin bulk", size_bytes=size_bytes)

    def end_bulk(self) -> None:
        """Returns when all of it has arrived."""
        self._workers["sender"].call("end bulk")
        last = -1
        while (count := self.counted_bytes()) != last:
            last = count
            time.sleep(self._settle_s)

    def counted_bytes(self) -> int:
        counted: int = self._workers["receiver"].call("count")
        return counted


def measure(pairs: Pairs, samples: Samples, variant: str, round_: int, seconds: float) -> None:
    idle = pairs.ask(seconds)
    _add(samples, round_, variant, IDLE, idle)
    for size_bytes in BULK_SIZES:
        case = case_of(size_bytes)
        pairs.begin_bulk(size_bytes)
        before_bytes, begun_s = pairs.counted_bytes(), time.perf_counter()
        beside = pairs.ask(seconds)
        rate = (pairs.counted_bytes() - before_bytes) / (time.perf_counter() - begun_s)
        pairs.end_bulk()
        _add(samples, round_, variant, case, beside)
        samples.add(round_, variant, case, BULK, rate / 1e6, "MB/s")
        if beside.p99_s is not None and idle.p99_s is not None:
            samples.add(round_, variant, case, RATIO, beside.p99_s / idle.p99_s, "")


def case_of(size_bytes: int) -> str:
    return f"beside messages of {size_bytes:,} B"


def _add(samples: Samples, round_: int, variant: str, case: str, asked: Asked) -> None:
    samples.add(round_, variant, case, P50, asked.p50_s * 1e6, "µs")
    if asked.p99_s is not None:
        samples.add(round_, variant, case, P99, asked.p99_s * 1e6, "µs")


def findings_of(samples: Samples) -> Findings:
    rows = samples.rows()
    return Findings(rows, targets_of(rows), (chart_of(rows),))


def targets_of(rows: tuple[Row, ...]) -> tuple[Target, ...]:
    found = {(row.system, row.case): row.value for row in rows if row.metric == RATIO}
    targets = []
    for variant in VARIANTS:
        for size_bytes in BULK_SIZES:
            value = found.get((variant, case_of(size_bytes)))
            name = f"{variant}, p99 of asks {case_of(size_bytes)}, times idle"
            targets.append(Target(name, value, RATIO_MAX, value is not None and value <= RATIO_MAX))
    return tuple(targets)


def chart_of(rows: tuple[Row, ...]) -> Chart:
    bars = tuple(
        Bar(f"{row.system}, {row.case}", row.value, True) for row in rows if row.metric == P99
    )
    return Chart(
        "fairness",
        "Asks beside bulk, on the same hops",
        "Less is better. 1 KiB, one in flight.",
        (Panel("p99 at the asker", " µs", bars),),
    )
