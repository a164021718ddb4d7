"""The machine that a benchmark ran on, as the report describes it."""

import os
import platform
from pathlib import Path

from bench.report import Machine

_CPUINFO = Path("/proc/cpuinfo")


def describe_machine() -> Machine:
    """Call it before the run: the load is that of whatever else the machine is doing."""
    return Machine(
        cpu=_cpu_model(_CPUINFO.read_text(encoding="utf-8", errors="replace")),
        cores=len(os.sched_getaffinity(0)),
        kernel=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        load=os.getloadavg(),
    )


def _cpu_model(cpuinfo: str) -> str:
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() in ("model name", "cpu model", "hardware"):
            return value.strip()
    return platform.machine()
