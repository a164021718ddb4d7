"""Every process that a benchmark starts: in a session of its own, ended by its id, none forgotten.

What talks to us does so line by line over pipes, one JSON document a line: see `bench.worker`.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from bench.errors import BenchError
from bench.signals import held_back

REPOSITORY: Final = Path(__file__).resolve().parent.parent
STOP_S_MAX: Final = 5.0
ANSWER_S_MAX: Final = 60.0
LAST_WORDS_CHARACTERS: Final = 1_500
_CHUNK_BYTES: Final = 1 << 16


class Child:
    """A running process. What it says on its standard error is in ``log``."""

    def __init__(self, label: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.label = label
        self.log = log
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_success(self, timeout_s: float) -> None:
        """Wait until it has ended by itself, in peace. Raises BenchError."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.label} did not end within {timeout_s:g} s") from None
        if status != 0:
            raise BenchError(self.last_words())

    def last_words(self) -> str:
        said = self.log.read_text(errors="replace").strip() or "(it said nothing)"
        return f"{self.label}, exit status {self._process.poll()}: {said[-LAST_WORDS_CHARACTERS:]}"

    def stop(self) -> None:
        """Ask it to end, wait a little, then kill whatever is left of its session."""
        try:
            if self.is_running:
                self._process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(STOP_S_MAX)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()


class Worker(Child):
    """A process of ours that carries out commands: a program below ``bench.worker.serve``."""

    def __init__(self, label: str, process: subprocess.Popen[bytes], log: Path) -> None:
        super().__init__(label, process, log)
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._said = bytearray()
        os.set_blocking(self._stdout.fileno(), False)

    def call(self, do: str, *, timeout_s: float = ANSWER_S_MAX, **wishes: Any) -> Any:
        """Send a command and return its answer. Raises BenchError."""
        self.post(do, **wishes)
        return self.answer(timeout_s)

    def post(self, do: str, **wishes: Any) -> None:
        """Send a command; its answer is for ``answer`` to read."""
        line = msgspec.json.encode({"do": do, **wishes}) + b"\n"
        try:
            self._stdin.write(line)
            self._stdin.flush()
        except OSError:
            raise BenchError(self.last_words()) from None

    def answer(self, timeout_s: float = ANSWER_S_MAX) -> Any:
        """The answer to the oldest command that has none yet. Raises BenchError."""
        deadline_s = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            while b"\n" not in self._said:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise BenchError(f"no answer within {timeout_s:g} s. {self.last_words()}")
                if selector.select(left_s):
                    chunk = os.read(self._stdout.fileno(), _CHUNK_BYTES)
                    if not chunk:
                        self._process.wait(STOP_S_MAX)
                        raise BenchError(self.last_words())
                    self._said += chunk
        line, _, self._said = self._said.partition(b"\n")
        answer = msgspec.json.decode(line)
        if "error" in answer:
            raise BenchError(f"{self.label}: {answer['error']}")
        return answer["is"]


class Children:
    """Use as a context manager: at its end all of them have ended, however it came to it."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._running:
            self._running.pop().stop()

    def start(self, label: str, words: Sequence[str | Path]) -> Child:
        """A program that talks to nobody here: all it says goes to its log."""
        log = self._log_of(label)
        with log.open("ab") as output, held_back():
            process = self._popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            child = Child(label, process, log)
            self._running.append(child)
        return child

    def start_worker(
        self, label: str, module: str, *arguments: str, descriptors: Sequence[int] = ()
    ) -> Worker:
        """``python -m module arguments``, which keeps these open file descriptors."""
        log = self._log_of(label)
        words = (sys.executable, "-m", module, *arguments)
        pipe = subprocess.PIPE
        with log.open("ab") as output, held_back():
            process = self._popen(
                words, stdin=pipe, stdout=pipe, stderr=output, pass_fds=tuple(descriptors)
            )
            worker = Worker(label, process, log)
            self._running.append(worker)
        return worker

    def _log_of(self, label: str) -> Path:
        return self._logs / f"{label.replace(' ', '-')}.log"

    @staticmethod
    def _popen(words: Sequence[str | Path], **options: Any) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                words, cwd=REPOSITORY, env=child_environment(), start_new_session=True, **options
            )
        except OSError as error:
            raise BenchError(f"{words[0]} could not be started: {error}") from None


def child_environment() -> dict[str, str]:
    """Ours, without settings that were meant for another mesh."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SIDELINK_")}
    return kept | {"PYTHONUNBUFFERED": "1"}
