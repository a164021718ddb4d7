"""Runs inputs and judges what they cost: an unknown error, too much time or memory is a finding.

Cheap enough for every input: one call of getrusage (0.8 µs) tells both the time and the greatest
memory of the process. What looks too dear is measured again, exactly; and now and then an input
is measured exactly for no reason, since memory that the process already has hides what is small.
"""

import resource
import time
import tracemalloc
from typing import Final

from tests.fuzz.target import MEMORY_BYTES_MAX, Target

# getrusage counts in KiB. Growth of half the limit is worth an exact look.
_GROWTH_KIB_SUSPECT: Final = MEMORY_BYTES_MAX // 2048
_EXACT_EVERY: Final = 4_096
_ATTEMPTS: Final = 3


class TooSlowError(AssertionError):
    """An input took more of the processor's time than its length allows."""


class TooLargeError(AssertionError):
    """An input made the process take more memory than it may."""


def run_input(target: Target, data: bytes) -> bool:
    """Whether the input was taken, or refused as documented. Everything else is raised."""
    if target.error is None:
        target.run(data)
        return True
    try:
        target.run(data)
    except target.error as error:
        # Whoever logs it will print it: that must work as well.
        str(error)
        return False
    return True


def run_exactly(target: Target, data: bytes) -> bool:
    """The same, measured: raises TooSlowError or TooLargeError."""
    tracemalloc.start()
    try:
        taken = run_input(target, data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    if peak_bytes > MEMORY_BYTES_MAX:
        raise TooLargeError(f"{peak_bytes >> 10} KiB for {len(data)} bytes")
    limit_s = target.cpu_s_max_of(data)
    # A machine with other work, or the garbage of earlier inputs, slows a run but not all of them.
    for _ in range(_ATTEMPTS):
        begun_s = time.process_time()
        run_input(target, data)
        spent_s = time.process_time() - begun_s
        if spent_s <= limit_s:
            return taken
    raise TooSlowError(f"{spent_s:.2f} s for {len(data)} bytes; {limit_s:.2f} s are allowed")


class Guard:
    """Runs one target's inputs, one after another."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.runs = 0
        self._spent_s, self._memory_kib = _usage()

    def run(self, data: bytes) -> None:
        """Raises whatever makes this input a finding."""
        self.runs += 1
        run_input(self._target, data)
        spent_s, memory_kib = _usage()
        is_suspect = (
            spent_s - self._spent_s > self._target.cpu_s_max_of(data)
            or memory_kib - self._memory_kib > _GROWTH_KIB_SUSPECT
            or self.runs % _EXACT_EVERY == 0
        )
        self._spent_s, self._memory_kib = spent_s, memory_kib
        if is_suspect:
            run_exactly(self._target, data)
            self._spent_s, self._memory_kib = _usage()


def _usage() -> tuple[float, int]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss
