"""An event loop without sockets whose clock moves when told: a new one costs next to nothing."""

import asyncio
from typing import Any


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs tasks and timers. Nothing outside can wake it, and it never waits."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._selector = self

    def time(self) -> float:
        return self.now_s

    def select(self, _timeout: float | None) -> list[Any]:
        return []

    def _process_events(self, _events: list[Any]) -> None: ...

    def _write_to_self(self) -> None: ...
