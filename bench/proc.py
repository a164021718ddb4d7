"""What Linux counts of a process: CPU seconds, memory, descriptors, and the cores it may run on."""

import os
import re
from pathlib import Path

from bench.errors import BenchError

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system time of all its threads so far. In steps of a clock tick, mostly 10 ms."""
    # The name of the program, in parentheses, may hold spaces and parentheses of its own.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    utime, stime = int(fields[11]), int(fields[12])
    return (utime + stime) / _TICKS_PER_S


def resident_bytes(pid: int) -> int:
    """Memory that is in RAM now, shared pages among it."""
    return _status_bytes(pid, "VmRSS")


def peak_resident_bytes(pid: int) -> int:
    """The most that was in RAM at once since the process began."""
    return _status_bytes(pid, "VmHWM")


def anonymous_bytes(pid: int) -> int:
    """Memory in RAM that no file stands behind: heaps and stacks, which is where a leak would be.

    Exact, where the figures of ``status`` may be off by the pages that each core has yet to count.
    """
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return _bytes_of(rollup, "Anonymous")


def cpu_exact_s(pid: int) -> float:
    """As ``cpu_s``, in nanoseconds rather than clock ticks, without threads that have ended."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def descriptors(pid: int) -> int:
    """Open file descriptors: files, sockets, pipes and what event loops have."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def threads(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())


def pin(pid: int, core: int) -> None:
    """Let every thread of a process run on this core only; threads to come inherit it."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def prefer(pid: int) -> None:
    """Run it before every ordinary program, on a machine that is busy with others. Needs root."""
    try:
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))
    except PermissionError as error:
        raise BenchError(f"real-time priority: {error.strerror}; run as root, or without") from None


def _status_bytes(pid: int, field: str) -> int:
    return _bytes_of(Path(f"/proc/{pid}/status").read_text(), field)


def _bytes_of(text: str, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    if not found:  # Of one that has ended, and that its parent has not yet heard of.
        raise ProcessLookupError(f"no {field} in what the kernel says of a process")
    return int(found[1]) * 1024
