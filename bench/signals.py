"""A signal that asks us to end becomes an exception, but never while a process is being started."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Final

ENDING: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class EndedError(BaseException):
    """A signal asked us to end; its argument is the signal's number. Nothing but us catches it."""


class _Ending:
    """The first signal raises EndedError; further ones find us at ending already."""

    def __init__(self) -> None:
        self._holds = 0
        self._held_back: int | None = None

    def end(self, number: int, _frame: FrameType | None) -> None:
        for ending in ENDING:
            signal.signal(ending, signal.SIG_IGN)
        if self._holds:
            self._held_back = number
        else:
            raise EndedError(number)

    def hold(self) -> None:
        self._holds += 1

    def release(self) -> None:
        self._holds -= 1
        number, self._held_back = self._held_back, self._held_back if self._holds else None
        if number is not None and not self._holds:
            raise EndedError(number)


_ending: Final = _Ending()


@contextlib.contextmanager
def ending_by_signal() -> Iterator[None]:
    """Inside, the signals of ENDING raise EndedError."""
    before = {ending: signal.signal(ending, _ending.end) for ending in ENDING}
    try:
        yield
    finally:
        for ending, handler in before.items():
            signal.signal(ending, handler)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Inside, a signal waits: a process that was just started would be lost to its owner."""
    _ending.hold()
    try:
        yield
    finally:
        _ending.release()
