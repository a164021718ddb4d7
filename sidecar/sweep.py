"""Asks about many things little by little, or about one at once that somebody needs now."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

# As for channels, in ``sidecar.standing``.
ASKED_SECONDS_MAX: Final = 0.003
ASK_SECONDS: Final = 0.001

Thing = TypeVar("Thing")


class Sweep(Generic[Thing]):
    """Each thing, which can be hashed, is asked about once: those that were named last first."""

    def __init__(self, ask: Callable[[Thing], None]) -> None:
        self._ask = ask
        self._waiting: dict[Thing, None] = {}
        self._is_running = False

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def begin(self, things: Iterable[Thing]) -> None:
        """Ask about all of these, and about nothing that still waits of before."""
        self._waiting = dict.fromkeys(things)
        if not self._is_running:
            self._ask_some()

    def ask_now(self, thing: Thing) -> None:
        """Ask about this one before anything else happens with it, if it waits."""
        if thing in self._waiting:
            del self._waiting[thing]
            self._ask(thing)

    def forget(self, thing: Thing) -> None:
        """It has ended: there is nothing to ask any more."""
        self._waiting.pop(thing, None)

    def _ask_some(self) -> None:
        waiting, loop = self._waiting, asyncio.get_running_loop()
        until_s = loop.time() + ASKED_SECONDS_MAX
        try:
            while waiting and loop.time() < until_s:
                self._ask(waiting.popitem()[0])
        finally:
            # Also when one of them meets a fault of ours.
            self._is_running = bool(waiting)
            if waiting:
                loop.call_later(ASK_SECONDS, self._ask_some)
