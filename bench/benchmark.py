"""What a benchmark is to the command: a name, options of its own, and what it found."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, cast

from bench.report import Row, Target
from bench.svg import Chart


@dataclass(frozen=True, slots=True)
class Findings:
    """Rows and targets go into the report, charts beside it."""

    rows: tuple[Row, ...]
    targets: tuple[Target, ...] = ()
    charts: tuple[Chart, ...] = ()
    notes: tuple[str, ...] = ()
    """What a person should know who reads the table: sentences."""
    faults: tuple[str, ...] = ()
    """Promises that were not kept. Any of them makes the command fail, once it has reported."""


class Benchmark(Protocol):
    """What a module of a benchmark has at its top level."""

    SUMMARY: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, options: argparse.Namespace) -> Findings:
        """Measure. ``options.quick`` asks for the shortest run that still works.

        Raises BenchError. Nothing that it started is left when it returns or raises.
        """
        ...


_MODULES: Final = {
    "messages": "bench.messages.command",
    "relay": "bench.relay.command",
    "handshakes": "bench.handshakes.command",
    "identity": "bench.identity.command",
    "policy": "bench.policy.command",
    "hop": "bench.hop.command",
    "fairness": "bench.fairness.command",
    "hostile": "bench.hostile.command",
    "soak": "bench.soak.command",
}

NAMES: Final[Sequence[str]] = tuple(_MODULES)


def load_benchmark(name: str) -> Benchmark:
    return cast("Benchmark", importlib.import_module(_MODULES[name]))


def say(text: str) -> None:
    """A line for whoever waits: standard output belongs to the report."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
