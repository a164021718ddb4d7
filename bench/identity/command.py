"""``./dev bench identity``: its options, and the run."""

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench import proc
from bench.benchmark import Findings, say
from bench.children import Children, Worker
from bench.identity.idle import Crowd, weigh
from bench.identity.verifying import Verified
from bench.options import whole
from bench.report import Row, Target, at_least, at_most, find_value
from bench.samples import Samples

SUMMARY = "agents minted and proofs verified by one core; a sidecar that keeps a crowd of agents"

ROUNDS, ROUNDS_MAX = 5, 100
PROOFS, QUICK_PROOFS = 1_000, 50
AGENTS, QUICK_AGENTS, FULL_AGENTS = 100_000, 500, 1_000_000
AGENTS_MAX: Final = 5_000_000
STARTS, QUICK_STARTS = 3, 1
STEP_S_MAX: Final = 300.0

MILLION: Final = 1_000_000
KIB, MIB = 1 << 10, 1 << 20

AGENT: Final = "agent"
PROOF: Final = "proof of depth 4"
SIDECAR: Final = "sidecar"
MINTED: Final = "with identity, Noise key, credential and row"
RATE, WALL_RATE = "for each second of one core", "for each second that passes"
NEW, AGAIN = "a new peer, its issuers known", "a peer seen before"
NO_AGENTS: Final = "without agents"
READY, MEMORY = "from its start to ready", "resident memory"
GROWTH: Final = "growth of resident memory"
DISK: Final = "on disk for each agent"

MINTED_TARGET: Final = 3_000
NEW_TARGET: Final = 2_000
AGAIN_TARGET: Final = 100_000
MEMORY_MIB_TARGET: Final = 300
DISK_KIB_TARGET: Final = 1.5
READY_S_TARGET: Final = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--full", action="store_true", help="a million idle agents")
    parser.add_argument(
        "--agents",
        type=whole(1, AGENTS_MAX),
        metavar="COUNT",
        help="idle agents [default: 100000; --full: 1000000; --quick: 500]",
    )
    parser.add_argument(
        "--rounds",
        type=whole(1, ROUNDS_MAX),
        metavar="COUNT",
        help="of verifying [default: 5; --quick: 1]",
    )


def run(options: argparse.Namespace) -> Findings:
    quick = options.quick
    agents = options.agents or (FULL_AGENTS if options.full else QUICK_AGENTS if quick else AGENTS)
    rounds = options.rounds or (1 if quick else ROUNDS)
    samples = Samples()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Children(Path(folder)) as children:
        worker = children.start_worker("identity", "bench.identity.worker")
        proc.pin(worker.pid, min(os.sched_getaffinity(0)))
        for round_ in range(rounds):
            say(f"verifying, round {round_ + 1} of {rounds}")
            _verify(samples, round_, worker, QUICK_PROOFS if quick else PROOFS)
        crowd = weigh(worker, agents, QUICK_STARTS if quick else STARTS)
    return findings_of(
        (*_minting_rows(crowd), *samples.rows(), *_crowd_rows(crowd, agents)), agents
    )


def _verify(samples: Samples, round_: int, worker: Worker, count: int) -> None:
    found = msgspec.convert(worker.call("verify", timeout_s=STEP_S_MAX, count=count), Verified)
    samples.add(round_, PROOF, NEW, RATE, found.new_per_cpu_s, "/s")
    samples.add(round_, PROOF, AGAIN, RATE, found.again_per_cpu_s, "/s")


def _minting_rows(crowd: Crowd) -> Sequence[Row]:
    """The median of its parts: of the CPU time of its process, and of the time that passed."""
    cpu = statistics.median(part.count / part.cpu_s for part in crowd.minted)
    wall = statistics.median(part.count / part.wall_s for part in crowd.minted)
    return (Row(AGENT, MINTED, RATE, cpu, "/s"), Row(AGENT, MINTED, WALL_RATE, wall, "/s"))


def _crowd_rows(crowd: Crowd, agents: int) -> Sequence[Row]:
    case = crowd_case(agents)
    grown_mib = (crowd.full.resident_bytes - crowd.empty.resident_bytes) / MIB
    return (
        Row(SIDECAR, NO_AGENTS, READY, crowd.empty.ready_s, "s"),
        Row(SIDECAR, NO_AGENTS, MEMORY, crowd.empty.resident_bytes / MIB, "MiB"),
        Row(SIDECAR, case, READY, crowd.full.ready_s, "s"),
        Row(SIDECAR, case, MEMORY, crowd.full.resident_bytes / MIB, "MiB"),
        Row(SIDECAR, case, GROWTH, grown_mib, "MiB"),
        Row(SIDECAR, case, DISK, crowd.disk_bytes / agents / KIB, "KiB"),
    )


def crowd_case(agents: int) -> str:
    return f"with {agents:,} idle agents"


def findings_of(rows: tuple[Row, ...], agents: int) -> Findings:
    case = crowd_case(agents)
    targets: tuple[Target, ...] = (
        at_least(
            "agents minted by one core each second",
            find_value(rows, AGENT, MINTED, RATE),
            MINTED_TARGET,
        ),
        at_least(f"proofs of depth 4, {NEW}", find_value(rows, PROOF, NEW, RATE), NEW_TARGET),
        at_least(f"proofs of depth 4, {AGAIN}", find_value(rows, PROOF, AGAIN, RATE), AGAIN_TARGET),
        at_most(
            f"MiB of memory more {case}",
            find_value(rows, SIDECAR, case, GROWTH),
            MEMORY_MIB_TARGET * agents / MILLION,
        ),
        at_most(
            "KiB on disk for each agent", find_value(rows, SIDECAR, case, DISK), DISK_KIB_TARGET
        ),
        at_most(f"s to ready {case}", find_value(rows, SIDECAR, case, READY), READY_S_TARGET),
    )
    return Findings(rows, targets)
