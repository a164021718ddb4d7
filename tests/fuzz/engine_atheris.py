"""Coverage-guided runs: libFuzzer by way of atheris, one forked child for each target.

The parent imports everything once, instrumented; children are forked from it. A child that dies by
itself (a fault in native code, a time-out, too much memory) leaves libFuzzer's own file.
"""

import io
import math
import mmap
import os
import resource
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, Final, NoReturn

from tests.fuzz.findings import Outcome, describe, inputs_of, keep_finding
from tests.fuzz.guard import Guard
from tests.fuzz.target import Target

INSTRUMENTED: Final = (
    "authority",
    "channel",
    "cli",
    "gateway",
    "identity",
    "link",
    "node",
    "policy",
    "sidecar",
    "sidelink",
    "transport",
)
HANG_S_MAX: Final = 25
# libFuzzer counts in whole seconds and looks at its clock now and then; we stop it on time.
LATE_S_MAX: Final = 5
MEMORY_MIB_MAX: Final = 2_048
_CRASHED: Final = 77
_COUNT: Final = struct.Struct("=Q")


@contextmanager
def instrumented() -> Iterator[None]:
    """Import the project within this, so that the engine sees which branches an input takes."""
    import atheris

    # It would name each module on standard error.
    with (
        redirect_stderr(io.StringIO()),
        atheris.instrument_imports(include=list(INSTRUMENTED), enable_loader_override=False),
    ):
        yield


def run(target: Target, *, seconds: float, runs: int | None, work: Path) -> Outcome:
    """Run until one of the bounds is reached or an input fails."""
    corpus, left = work / "corpus" / target.name, work / "left"
    for folder in (corpus, left):
        folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(inputs_of(target)):
        (corpus / f"seed-{number}").write_bytes(data)
    arguments = [
        target.name,
        f"-max_total_time={math.ceil(seconds) + LATE_S_MAX}",
        f"-max_len={target.bytes_max}",
        f"-timeout={HANG_S_MAX}",
        f"-rss_limit_mb={MEMORY_MIB_MAX}",
        f"-artifact_prefix={left}/",
        "-use_value_profile=1",
        *([] if runs is None else [f"-runs={runs}"]),
        str(corpus),
    ]
    begun_s = time.monotonic()
    with mmap.mmap(-1, _COUNT.size) as counter:
        status = _in_child(lambda: _fuzz(target, arguments, begun_s + seconds, counter, work))
        (count,) = _COUNT.unpack(counter)
    finding = None if status == 0 else _finding_of(target, work, left, status)
    return Outcome(target.name, count, time.monotonic() - begun_s, finding)


def _in_child(call: Callable[[], NoReturn]) -> int:
    child = os.fork()
    if child == 0:
        try:
            call()
        finally:
            os._exit(1)
    try:
        _, status = os.waitpid(child, 0)
    except KeyboardInterrupt:
        os.kill(child, 9)
        os.waitpid(child, 0)
        raise
    return os.waitstatus_to_exitcode(status)


def _fuzz(
    target: Target, arguments: list[str], until_s: float, counter: mmap.mmap, work: Path
) -> NoReturn:
    import atheris

    log = os.open(work / f"{target.name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    limit = 2 * MEMORY_MIB_MAX << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    guard = Guard(target)

    def one(data: bytes) -> None:
        if time.monotonic() > until_s and guard.runs:
            os._exit(0)  # What it has learned is in its corpus already.
        # Before the run: a fault in native code leaves no time to count.
        _COUNT.pack_into(counter, 0, guard.runs + 1)
        try:
            guard.run(data)
        except BaseException as error:
            keep_finding(target, data, work / "findings")
            os.write(2, describe(error).encode(errors="backslashreplace"))
            os._exit(_CRASHED)

    atheris_: Any = atheris
    atheris_.Setup(arguments, one)
    atheris_.Fuzz()
    os._exit(0)


def _finding_of(target: Target, work: Path, left: Path, status: int) -> Path:
    """What the child wrote; else what libFuzzer wrote for it; else the log says why it ended."""
    ours = sorted((work / "findings").glob(f"{target.name}-*.bin"), key=os.path.getmtime)
    if status == _CRASHED and ours:
        return ours[-1]
    theirs = sorted(left.iterdir(), key=os.path.getmtime)
    if theirs:
        return keep_finding(target, theirs[-1].read_bytes(), work / "findings")
    return work / f"{target.name}.log"
