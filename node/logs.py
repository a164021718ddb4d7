"""Logs of a program: an event's name and fields, to standard error. Never a key or a plaintext."""

import contextlib
import io
import logging
import sys
from collections.abc import Mapping
from typing import Any, Final

import structlog

LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class _StandardError(io.StringIO):
    """Standard error as it is now. A reader that went away must not stop the program."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except ValueError:  # It is closed.
        return False


def configure_logs(program: str, log_format: str, log_level: str) -> None:
    """Once per process. ``log_format`` auto writes for people when stderr is a terminal."""
    for_people = log_format == "console" or (log_format == "auto" and _is_terminal())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=_is_terminal())
        if for_people
        else structlog.processors.JSONRenderer()
    )
    exceptions = [] if for_people else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_program(program),
            *exceptions,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[log_level]),
        logger_factory=structlog.PrintLoggerFactory(file=_StandardError()),
    )
    # Libraries speak through the standard library: warnings of theirs, on the same stream.
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")


def _add_program(program: str) -> Any:
    def add(_: Any, __: str, event: Any) -> Any:
        event["program"] = program
        return event

    return add
