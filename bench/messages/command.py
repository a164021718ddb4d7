"""``./dev bench messages``: its options, and the run."""

import argparse
import tempfile
from pathlib import Path
from typing import Final

from bench.benchmark import Findings
from bench.messages.findings import findings_of
from bench.messages.profile import profile
from bench.messages.rounds import Wishes, measure
from bench.messages.ruler import COUNTED_MIN
from bench.messages.systems import System, known_systems
from bench.options import seconds, several, whole

SUMMARY = "messages between agents, ours beside NATS, pyzmq, gRPC and SLIM"

SIZES: Final = (64, 1024, 16 * 1024)
SIZE_MIN, SIZE_MAX = 16, 65_535
ROUNDS: Final = 5
ROUNDS_MAX: Final = 100
SECONDS: Final = 2.0
MESSAGES_MAX: Final = 10_000_000
QUICK_SECONDS: Final = 0.3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(system.name for system in known_systems())
    parser.add_argument(
        "--systems", type=_systems, metavar="NAME,…", help=f"some of: {names} [default: all]"
    )
    parser.add_argument(
        "--sizes",
        type=several(whole(SIZE_MIN, SIZE_MAX)),
        metavar="BYTES,…",
        help="of a message [default: 64,1024,16384; --quick: 1024]",
    )
    parser.add_argument(
        "--rounds", type=whole(1, ROUNDS_MAX), metavar="COUNT", help="[default: 5; --quick: 1]"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--seconds", type=seconds, metavar="SECONDS", help="of each run [default: 2; --quick: 0.3]"
    )
    length.add_argument(
        "--messages",
        type=whole(COUNTED_MIN, MESSAGES_MAX),
        metavar="COUNT",
        help="counted in each one-way run, instead of what fits the seconds",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="instead of comparing, sample our own processes by py-spy [default size: 1024]",
    )


def run(options: argparse.Namespace) -> Findings:
    wishes = wishes_of(options)
    # Short, since Unix sockets are in it.
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        if options.profile:
            return profile(wishes, Path(folder))
        return findings_of(measure(wishes, Path(folder)), wishes)


def wishes_of(options: argparse.Namespace) -> Wishes:
    quick = options.quick
    return Wishes(
        systems=options.systems or default_systems(ours_only=options.profile),
        sizes=options.sizes or ((1024,) if quick or options.profile else SIZES),
        rounds=options.rounds or (1 if quick else ROUNDS),
        seconds=options.seconds or (QUICK_SECONDS if quick else SECONDS),
        messages=options.messages,
    )


def default_systems(*, ours_only: bool) -> tuple[System, ...]:
    return tuple(system for system in known_systems() if system.is_ours or not ours_only)


def _systems(text: str) -> tuple[System, ...]:
    known = {system.name: system for system in known_systems()}
    wanted = dict.fromkeys(text.split(","))
    if unknown := [name for name in wanted if name not in known]:
        raise argparse.ArgumentTypeError(
            f"{unknown[0]!r} cannot be measured here; there are {', '.join(known)}"
        )
    return tuple(known[name] for name in wanted)
