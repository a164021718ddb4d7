"""Coverage-guided runs: libFuzzer by way of atheris, one forked child for each target.

The parent imports everything once, instrumented; children are forked from it. A child notes each
input in memory that it shares with the parent before it runs it, so the parent has the input
whatever becomes of the child: an error, a fault in native code, a hang, too much memory.
"""

import io
import math
import mmap
import os
import resource
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, Final, NoReturn

from tests.fuzz.findings import Outcome, describe, inputs_of, keep_finding
from tests.fuzz.guard import Guard
from tests.fuzz.target import INPUT_BYTES_MAX, Target

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
_NOTE: Final = struct.Struct("=QI")


class Note:
    """How many inputs a child has begun, and the last of them."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _NOTE.size + INPUT_BYTES_MAX)

    def write(self, count: int, data: bytes) -> None:
        _NOTE.pack_into(self._memory, 0, count, len(data))
        self._memory[_NOTE.size : _NOTE.size + len(data)] = data

    def read(self) -> tuple[int, bytes]:
        count, length = _NOTE.unpack_from(self._memory)
        return count, self._memory[_NOTE.size : _NOTE.size + length]

    def close(self) -> None:
        self._memory.close()


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
        # Where libFuzzer leaves what it thinks worth it. What fails is kept by the parent.
        f"-artifact_prefix={left}/",
        "-use_value_profile=1",
        *([] if runs is None else [f"-runs={runs}"]),
        str(corpus),
    ]
    begun_s = time.monotonic()
    with closing(Note()) as note:
        status = _in_child(lambda: _fuzz(target, arguments, begun_s + seconds, note, work))
        count, data = note.read()
    finding = None if status == 0 else keep_finding(target, data, work / "findings")
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


def _fuzz(target: Target, arguments: list[str], until_s: float, note: Note, work: Path) -> NoReturn:
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
        note.write(guard.runs + 1, data)
        try:
            guard.run(data)
        except BaseException as error:
            os.write(2, describe(error).encode(errors="backslashreplace"))
            os._exit(_CRASHED)

    atheris_: Any = atheris
    atheris_.Setup(arguments, one)
    atheris_.Fuzz()
    os._exit(0)
