"""Runs without coverage: hypothesis cuts, joins and changes the inputs that a target begins with.

Slower to find its way than the other engine, but it needs nothing to be installed, shrinks what it
finds, and is what the test suite uses.
"""

import random
import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed
from hypothesis import strategies as st

from tests.fuzz.findings import Outcome, describe, inputs_of, keep_finding
from tests.fuzz.guard import Guard
from tests.fuzz.target import Target

BATCH: int = 100
CHANGES_MAX = 8


@st.composite
def changed(draw: st.DrawFn, inputs: list[bytes], bytes_max: int) -> bytes:
    """One of the inputs with a few changes, each at a place of its own."""
    data = draw(st.sampled_from(inputs))
    for _ in range(draw(st.integers(1, CHANGES_MAX))):
        at = draw(st.integers(0, max(0, len(data))))
        length = draw(st.sampled_from([0, 1, 1, 2, 4, 16, 64]))
        kind = draw(st.integers(0, 3))
        if kind == 0:  # Other bytes in the place of some.
            put = draw(st.binary(max_size=8))
        elif kind == 1:  # A part of another input.
            other = draw(st.sampled_from(inputs))
            start = draw(st.integers(0, len(other)))
            put = other[start : start + draw(st.integers(0, 64))]
        elif kind == 2:  # A single bit.
            here = data[at : at + 1] or b"\0"
            put, length = bytes([here[0] ^ 1 << draw(st.integers(0, 7))]), 1
        else:  # A part of itself, again.
            put = data[at : at + length] * 2
        data = data[:at] + put + data[at + length :]
    return data[:bytes_max]


def strategy_of(target: Target) -> st.SearchStrategy[bytes]:
    inputs = [data for data in inputs_of(target) if len(data) <= target.bytes_max]
    return st.one_of(
        changed(inputs, target.bytes_max),
        changed(inputs, target.bytes_max),
        st.binary(max_size=min(256, target.bytes_max)),
    )


def run(
    target: Target,
    *,
    seconds: float,
    runs: int | None,
    work: Path,
    begin: int | None = None,
) -> Outcome:
    """Run until one of the bounds is reached or an input fails. ``begin`` makes it repeatable."""
    guard = Guard(target)
    begun_s = time.monotonic()
    chance = random.Random(begin)
    failed: list[tuple[bytes, BaseException]] = []

    def feed(data: bytes) -> None:
        try:
            guard.run(data)
        except BaseException as error:
            failed[:] = [(data, error)]
            raise

    for data in inputs_of(target):
        if not _passes(feed, data):
            break
    inputs = strategy_of(target)
    while not failed and time.monotonic() - begun_s < seconds:
        batch = BATCH if runs is None else min(BATCH, runs - guard.runs)
        if batch <= 0:
            break
        _run_batch(inputs, feed, batch, chance.getrandbits(32))
    finding = None
    if failed:
        [(data, error)] = failed
        finding = keep_finding(target, data, work / "findings")
        work.mkdir(parents=True, exist_ok=True)
        (work / f"{target.name}.log").write_text(describe(error), encoding="utf-8")
    return Outcome(target.name, guard.runs, time.monotonic() - begun_s, finding)


def _passes(feed: Callable[[bytes], None], data: bytes) -> bool:
    try:
        feed(data)
    except Exception:
        return False
    return True


def _run_batch(
    inputs: st.SearchStrategy[bytes], feed: Callable[[bytes], None], batch: int, number: int
) -> None:
    """The failing input, made as small as may be, is the last one that ``feed`` sees."""

    @with_seed(number)
    @settings(
        max_examples=batch,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def one(data: bytes) -> None:
        feed(data)

    try:
        one()
    except Exception:
        return  # It is in the hands of whoever gave us ``feed``.
