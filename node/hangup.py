"""What SIGHUP means to a program: read again what may have changed. Without it, nothing."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

STANDARD_INPUT: Final = 0
STANDARD_ERROR: Final = 2

_log = structlog.get_logger("node.hangup")


@contextmanager
def on_hangup(call: Callable[[], None]) -> Iterator[None]:
    """Call this, on the loop, at each SIGHUP. Where signals do not arrive, it is never called."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    had_terminal = _has_terminal()

    def hung_up() -> None:
        if had_terminal and not _has_terminal():
            # Not a request: the window that it ran in was closed. It ends as it would have.
            signal.raise_signal(signal.SIGTERM)
            return
        _log.info("hangup")
        call()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, hung_up)
    try:
        yield
    finally:
        # To the end of the program one that comes late is no reason to fall over.
        loop.add_signal_handler(signal.SIGHUP, _log.info, "hangup_ignored")


def _has_terminal() -> bool:
    return any(map(os.isatty, (STANDARD_INPUT, STANDARD_ERROR)))
