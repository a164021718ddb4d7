"""What a permit asks of whoever acts on it, and what a denial lets the caller know."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

REDACTED: Final = "[redacted]"
STRUCTURED: Final = "structuredContent"
_EVERY: Final = "*"


class Disclosure(StrEnum):
    """How much of a denial its caller is told. In rising order."""

    NONE = "none"
    RULE = "rule"
    REASON = "reason"


@dataclass(frozen=True, slots=True)
class Obligations:
    """Holds for the one call that was permitted.

    ``redact`` are fields of the result, ``audit_args`` the arguments to record; ``max_bytes`` is
    the size of the result, ``max_seconds`` the time that the whole call may take.
    """

    redact: tuple[str, ...] = ()
    audit_args: tuple[str, ...] = ()
    max_bytes: int | None = None
    max_seconds: float | None = None

    def joined(self, other: "Obligations") -> "Obligations":
        """Both of them: for a request that needed more than one permit."""
        return Obligations(
            tuple(dict.fromkeys((*self.redact, *other.redact))),
            tuple(dict.fromkeys((*self.audit_args, *other.audit_args))),
            _least(self.max_bytes, other.max_bytes),
            _least(self.max_seconds, other.max_seconds),
        )


NO_OBLIGATIONS: Final = Obligations()


def redact(result: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """A copy of a tool's result without the fields that ``paths`` name: `customer.phones.*.number`.

    Paths are those of the structured content. Servers repeat it as text for older clients: text
    that is JSON is redacted alike, and all other content is left out, since nobody can say what
    it holds.
    """
    if not paths:
        return dict(result)
    ways = [path.split(".") for path in paths]
    redacted = dict(result)
    if STRUCTURED in redacted:
        redacted[STRUCTURED] = _redact_all(redacted[STRUCTURED], ways)
    content = redacted.get("content")
    if content is not None:
        items = content if isinstance(content, list) else [content]
        redacted["content"] = [_redact_item(item, ways) for item in items]
    return redacted


def _redact_item(item: Any, ways: Sequence[Sequence[str]]) -> dict[str, Any]:
    text = item.get("text") if isinstance(item, dict) and item.get("type") == "text" else None
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict | list):
        return {"type": "text", "text": REDACTED}
    shown = json.dumps(_redact_all(found, ways), ensure_ascii=False)
    # What else an item holds, such as annotations, may say it again.
    return {"type": "text", "text": shown}


def _redact_all(value: Any, ways: Sequence[Sequence[str]]) -> Any:
    for way in ways:
        value = _redact(value, way)
    return value


def _redact(value: Any, way: Sequence[str]) -> Any:
    if not way:
        return REDACTED if isinstance(value, str) else None
    first, rest = way[0], way[1:]
    if isinstance(value, dict):
        return {
            key: _redact(item, rest) if first in (key, _EVERY) else item
            for key, item in value.items()
        }
    if isinstance(value, list):
        # A list stands for each of its items, whether or not the path says `*` for it.
        return [_redact(item, rest if first == _EVERY else way) for item in value]
    return value


def _least(one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else min(one, other)
