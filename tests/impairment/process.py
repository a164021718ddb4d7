"""A proxy in a process of its own, so that it takes no time from the event loop of a test."""

import asyncio
import json
import os
import select
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self

from node.addresses import SocketAddress

REPOSITORY: Final = Path(__file__).parents[2]
ANSWER_S_MAX: Final = 20.0
LINE_BYTES_MAX: Final = 65_536


class ProxyError(Exception):
    """The proxy has refused a command, or is gone."""


class ProxyProcess:
    """Starts at once. Its calls block, each for the blink that one answer takes."""

    def __init__(
        self, target: str, *, listen: str = "127.0.0.1:0", seed: int = 0, **impairment: float
    ) -> None:
        """``target`` and ``listen`` are HOST:PORT; the rest are fields of ``Impairment``, with
        ``up_`` or ``down_`` before the name for one direction only."""
        options = [
            f"--{name.replace('_', '-')}={value}"
            for name, value in ({"to": target, "listen": listen, "seed": seed} | impairment).items()
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.impairment", *options],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._unread = b""
        try:
            self.address = SocketAddress.parse(self._read_answer()["listening"])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def set(self, **impairment: Any) -> None:
        """Change these settings; ``direction`` may be given. What is not named stays."""
        self._ask("set", **impairment)

    def clear(self) -> None:
        """Only forward, from now on."""
        self._ask("clear")

    def blackhole(self, seconds: float | None = None) -> None:
        """Nothing passes, for so long or until ``heal``."""
        self._ask("blackhole", **({} if seconds is None else {"seconds": seconds}))

    def heal(self) -> None:
        self._ask("heal")

    def rebind(self) -> None:
        """Each client comes from another port from now on."""
        self._ask("rebind")

    def rebind_every(self, interval_s: float) -> None:
        self._ask("rebind", every_s=interval_s)

    def stats(self) -> dict[str, Any]:
        return self._ask("stats")

    def close(self) -> None:
        """Closes its input, which ends it. Harmless when it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(ANSWER_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ProxyError(f"the proxy is gone: {error}") from error
        answer = self._read_answer()
        if "error" in answer:
            raise ProxyError(answer["error"])
        return answer

    def _read_answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            readable, _, _ = select.select([descriptor], [], [], ANSWER_S_MAX)
            data = os.read(descriptor, LINE_BYTES_MAX) if readable else b""
            if not data or len(self._unread) > LINE_BYTES_MAX:
                raise ProxyError("the proxy has ended" if readable else "the proxy is silent")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def impaired(target: str, **options: Any) -> AsyncIterator[ProxyProcess]:
    """A proxy before ``target`` for the length of a block; options are those of ProxyProcess."""
    proxy = await asyncio.to_thread(ProxyProcess, target, **options)
    try:
        yield proxy
    finally:
        await asyncio.to_thread(proxy.close)
