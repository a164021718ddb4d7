"""``./dev bench policy``: its options, and the run."""

import argparse
import gc
import time
from array import array
from typing import Final

from bench.benchmark import Findings, say
from bench.options import several, several_of, whole
from bench.policy.cases import policy_files, some_asks
from bench.policy.systems import CACHED, OURS, SHORT_NAMES, SYSTEMS, Decide
from bench.report import at_most, find_value
from bench.samples import Samples, percentile
from policy import PolicyEngine

SUMMARY = "decisions by policy, beside Cedar, CEL alone and plain Python"

RULES: Final = (1, 100, 1_000, 10_000)
QUICK_RULES: Final = (1, 100)
RULES_MAX: Final = 10_000
ROUNDS, ROUNDS_MAX = 5, 100
SECONDS, QUICK_SECONDS = 1.0, 0.05
"""For each system and number of rules, in each round."""
DECISIONS_MIN: Final = 16
# One call that is shorter than the clock can tell is timed with others, and its share reported.
CACHED_AT_ONCE: Final = 100

RATE, MEDIAN, LATE, LOADED = "decisions", "median", "p99", "read and compiled"
MICRO: Final = 1e6
NANO: Final = 1e9

UNCACHED_US_TARGET: Final = 15
CACHED_US_TARGET: Final = 1
LOAD_S_TARGET: Final = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rules",
        type=several(whole(1, RULES_MAX)),
        metavar="COUNTS",
        help="with commas between [default: 1,100,1000,10000; --quick: 1,100]",
    )
    parser.add_argument(
        "--systems",
        type=several_of(tuple(SHORT_NAMES)),
        metavar="NAMES",
        help=f"with commas between, ours beside them [default: {','.join(SHORT_NAMES)}]",
    )
    parser.add_argument(
        "--rounds", type=whole(1, ROUNDS_MAX), metavar="COUNT", help="[default: 5; --quick: 1]"
    )


def run(options: argparse.Namespace) -> Findings:
    quick = options.quick
    counts = options.rules or (QUICK_RULES if quick else RULES)
    rounds = options.rounds or (1 if quick else ROUNDS)
    wanted = {OURS, *(SHORT_NAMES[name] for name in options.systems or SHORT_NAMES)}
    chosen = {name: make for name, make in SYSTEMS.items() if name in wanted}
    samples, faults = Samples(), set[str]()
    for rules in counts:
        asks = some_asks(rules)
        say(f"{rules:,} rules: compiling")
        systems = {name: make(rules, asks) for name, make in chosen.items()}
        expected = [systems[OURS](at) for at in range(len(asks))]
        for round_ in range(rounds):
            say(f"{rules:,} rules, round {round_ + 1} of {rounds}")
            samples.add(round_, OURS, case_of(rules), LOADED, _load_s(rules), "s")
            for name, decide in systems.items():
                seconds = QUICK_SECONDS if quick else SECONDS
                at_once = CACHED_AT_ONCE if name == CACHED else 1
                found = _measure(samples, round_, name, rules, decide, seconds, at_once, len(asks))
                if not found <= set(enumerate(expected)):
                    faults.add(f"{name} decides otherwise than {OURS} with {rules:,} rules")
    return findings_of(samples, tuple(sorted(faults)))


def case_of(rules: int) -> str:
    return f"{rules:,} rule" if rules == 1 else f"{rules:,} rules"


def _load_s(rules: int) -> float:
    files = policy_files(rules)
    started_s = time.perf_counter()
    PolicyEngine.load_bundle(files)
    return time.perf_counter() - started_s


def _measure(
    samples: Samples,
    round_: int,
    system: str,
    rules: int,
    decide: Decide,
    seconds: float,
    at_once: int,
    asks: int,
) -> set[tuple[int, bool]]:
    """Decide for so long, one request after the other. Gives back which were answered, and how."""
    gc.collect()
    # Numbers side by side, and bits: a hundred thousand objects of our own would push what is
    # measured out of the processor's caches.
    times_ns, allowed, denied = array("q"), bytearray(asks), bytearray(asks)
    clock = time.perf_counter_ns
    ended_ns = clock()
    until_ns, at = ended_ns + int(seconds * NANO), 0
    while ended_ns < until_ns or len(times_ns) < DECISIONS_MIN:
        started_ns = clock()
        for _ in range(at_once):
            answer = decide(at)
        ended_ns = clock()
        times_ns.append(ended_ns - started_ns)
        (allowed if answer else denied)[at] = 1
        at = (at + 1) % asks
    took_ns = sorted(took / at_once for took in times_ns)
    answers = {(at, True) for at in range(asks) if allowed[at]}
    answers |= {(at, False) for at in range(asks) if denied[at]}
    case = case_of(rules)
    samples.add(round_, system, case, RATE, len(took_ns) * NANO / sum(took_ns), "/s")
    samples.add(round_, system, case, MEDIAN, percentile(took_ns, 0.5) / NANO * MICRO, "µs")
    samples.add(round_, system, case, LATE, percentile(took_ns, 0.99) / NANO * MICRO, "µs")
    return answers


def findings_of(samples: Samples, faults: tuple[str, ...]) -> Findings:
    rows = samples.rows()
    thousand, most = case_of(1_000), case_of(RULES_MAX)
    return Findings(
        rows,
        (
            at_most(
                f"µs p99 of a decision, {thousand}",
                find_value(rows, OURS, thousand, LATE),
                UNCACHED_US_TARGET,
            ),
            at_most(
                f"µs p99 of a cached permit, {thousand}",
                find_value(rows, CACHED, thousand, LATE),
                CACHED_US_TARGET,
            ),
            at_most(
                f"s to read and compile {most}",
                find_value(rows, OURS, most, LOADED),
                LOAD_S_TARGET,
            ),
        ),
        notes=(
            "Of four requests three are allowed. Cedar's policies and entities, CEL's expressions "
            "and all requests are parsed beforehand, to their favour.",
        ),
        faults=faults,
    )
