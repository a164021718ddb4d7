"""What Linux counts of a process: CPU seconds, resident memory, and the cores it may run on."""

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
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found, f"/proc/{pid}/status without {field}"
    return int(found[1]) * 1024
