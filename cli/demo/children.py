"""Every process of the demo: in a session of its own, ended by its own id, none forgotten."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from cli.demo.faults import DemoError

# A little more than the programs give themselves for a graceful stop.
STOP_S_MAX: Final = 6.0
LAST_WORDS_CHARACTERS: Final = 400

Words = Sequence[str | Path]


class Child:
    """A running process; what it says beside its report goes to ``log``."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @property
    def status(self) -> int | None:
        return self._process.returncode

    async def wait(self) -> int:
        return await self._process.wait()

    def say(self, line: bytes) -> None:
        """Write to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line)

    def say_end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def report(self, within_s: float) -> bytes:
        """All of its standard output, once it has ended. Raises DemoError if that is no success."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(within_s):
                said = await self._process.stdout.read()
                status = await self._process.wait()
        except TimeoutError:
            raise DemoError(f"{self.name}: no report within {within_s:g} s") from None
        if status != 0:
            raise DemoError(self.last_words())
        return said

    def last_words(self) -> str:
        """How it ended, and the end of its log, which says why."""
        lines = self.log.read_text(errors="replace").strip().splitlines() or ["(it said nothing)"]
        return f"{self.name} ended with {self.status}: {lines[-1][:LAST_WORDS_CHARACTERS]}"

    def ask_to_stop(self) -> None:
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    async def stop(self) -> None:
        """Gracefully if it can; then whatever is left of its session is killed."""
        self.ask_to_stop()
        try:
            async with asyncio.timeout(STOP_S_MAX):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()


class Children:
    """Use as an async context manager: at its end all of them have ended, however it came to it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._starting: set[asyncio.Task[Child]] = set()
        self._running: list[Child] = []

    async def __aenter__(self) -> "Children":
        return self

    async def __aexit__(self, *_: object) -> None:
        closing = asyncio.create_task(self._close())
        try:
            await asyncio.shield(closing)
        finally:
            # Interrupted meanwhile, it goes on all the same.
            await closing

    async def start(
        self,
        name: str,
        words: Words,
        *,
        talks: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """``talks``: it gets its wishes and gives its report by pipes; else all goes to its log."""
        starting = asyncio.create_task(self._start(name, words, talks, environment or {}))
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)
        return await asyncio.shield(starting)

    async def run(
        self, name: str, words: Words, *, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it and wait for its success. Raises DemoError."""
        child = await self.start(name, words, environment=environment)
        if await child.wait() != 0:
            raise DemoError(child.last_words())
        await self.stop([child])

    async def stop(self, children: Sequence[Child]) -> None:
        """End some of them, all at once."""
        for child in children:
            child.ask_to_stop()
        await asyncio.gather(*(child.stop() for child in children))
        self._running = [child for child in self._running if child not in children]

    async def _close(self) -> None:
        # One that was being started when we were interrupted is a child too.
        await asyncio.gather(*self._starting, return_exceptions=True)
        await self.stop(self._running)

    async def _start(
        self, name: str, words: Words, talks: bool, environment: Mapping[str, str]
    ) -> Child:
        log = self._folder / f"{name.replace(' ', '-')}.log"
        pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        with log.open("ab") as errors:
            try:
                process = await asyncio.create_subprocess_exec(
                    *words,
                    stdin=pipe if talks else null,
                    stdout=pipe if talks else errors,
                    stderr=errors,
                    env=child_environment() | dict(environment),
                    cwd=self._folder,
                    start_new_session=True,
                )
            except OSError as error:
                raise DemoError(f"{name} could not be started: {error}") from None
        child = Child(name, process, log)
        self._running.append(child)
        return child


def child_environment() -> dict[str, str]:
    """Ours, without what would change what a program or an interpreter does."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("SIDELINK_", "PYTHON")) and name != "VIRTUAL_ENV"
    }
