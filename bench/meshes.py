"""Meshes of real programs, as benchmarks use them: those of the tests, with other errors."""

from collections.abc import Iterator
from contextlib import contextmanager

from bench.errors import BenchError
from bench.signals import held_back


@contextmanager
def awaiting() -> Iterator[None]:
    """What a program of the mesh did not come to within its time is a BenchError."""
    try:
        yield
    except AssertionError as error:
        raise BenchError(str(error)) from error


@contextmanager
def starting() -> Iterator[None]:
    """The same while programs are started: a signal waits until each has its owner."""
    with awaiting(), held_back():
        yield
