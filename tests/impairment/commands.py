"""What a running proxy is told: one JSON object a line, each answered by one. Pure.

{"do": "set", "direction": "up", "loss": 0.1}   both directions without one; the rest stays
{"do": "clear"}                                 no impairment, no blackhole, no rebinding
{"do": "blackhole", "seconds": 10}              without seconds: until "heal"
{"do": "heal"}
{"do": "rebind"}                                now; with "every_s": again and again, 0 ends it
{"do": "stats"}
"""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from tests.impairment.core import Direction, Impairer
from tests.impairment.settings import NO_IMPAIRMENT, ImpairmentError

COMMAND_BYTES_MAX: Final = 16_384


def perform(core: Impairer, line: bytes, now_s: float) -> dict[str, Any] | None:
    """Do what a line says. None: it asks for numbers. Raises ImpairmentError, and then nothing
    has changed."""
    try:
        command = json.loads(line)
    except ValueError as error:
        raise ImpairmentError(f"not JSON: {error}") from error
    if not isinstance(command, dict):
        raise ImpairmentError("a command is an object")
    match command.pop("do", None):
        case "set":
            _set(core, command)
        case "clear":
            _check_empty(command)
            for way in core.ways.values():
                way.change(NO_IMPAIRMENT)
            core.blackhole(now_s)
            core.rebind_every(0.0, now_s)
        case "blackhole":
            seconds = _seconds(command, "seconds")
            core.blackhole(math.inf if seconds is None else now_s + seconds)
        case "heal":
            _check_empty(command)
            core.blackhole(now_s)
        case "rebind":
            every_s = _seconds(command, "every_s")
            if every_s is None:
                core.rebind()
            else:
                core.rebind_every(every_s, now_s)
        case "stats":
            _check_empty(command)
            return None
        case other:
            raise ImpairmentError(f"no such command: {other!r}")
    return {"ok": True}


def _set(core: Impairer, command: dict[str, Any]) -> None:
    named = command.pop("direction", None)
    if named is not None and named not in list(Direction):
        raise ImpairmentError("a direction is up or down")
    ways = [way for direction, way in core.ways.items() if named in (None, direction)]
    try:
        changed = [replace(way.impairment, **command) for way in ways]
    except TypeError as error:
        raise ImpairmentError(f"no such setting: {error}") from error
    for way, impairment in zip(ways, changed, strict=True):
        way.change(impairment)


def _seconds(command: Mapping[str, Any], name: str) -> float | None:
    """The one argument that there may be."""
    _check_empty({key: value for key, value in command.items() if key != name})
    if name not in command:
        return None
    value = command[name]
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise ImpairmentError(f"{name} must be a number from 0 up")
    return float(value)


def _check_empty(rest: Mapping[str, Any]) -> None:
    if rest:
        raise ImpairmentError(f"unknown: {', '.join(rest)}")
