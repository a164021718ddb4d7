"""Meshes of real programs, as benchmarks use them: those of the tests, with other errors."""

from collections.abc import Iterator
from contextlib import contextmanager

from bench.errors import BenchError
from bench.signals import held_back


@contextmanager
def starting() -> Iterator[None]:
    """Round the start of programs: what did not come to pass is a BenchError, and a signal waits
    until each process has its owner."""
    try:
        with held_back():
            yield
    except AssertionError as error:
        raise BenchError(str(error)) from error
