"""Reads what a rule asks beyond yes or no: its limit, its mode, what it tells, its obligations."""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from policy.limits import BURST_MAX, Limit, Per
from policy.obligations import NO_OBLIGATIONS, Disclosure, Obligations
from policy.reader import Reader, kind_of, otherwise, quoted
from policy.request import ARGUMENT_ACTIONS, RESULT_ACTIONS, Action
from policy.strict_yaml import Path

TERM_KEYS: Final = (
    "limit",
    "mode",
    "disclose",
    "redact",
    "audit_args",
    "max_bytes",
    "max_seconds",
)
MODES: Final = ("enforce", "audit")
RATE_MAX: Final = 1_000_000
RESULT_BYTES_MAX: Final = 1 << 30
RESULT_SECONDS_MAX: Final = 86_400

_LIMIT_KEYS: Final = ("rate", "burst", "per")
RATE: Final = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,3})?) ?/ ?(s|min|h|d)")
_SECONDS: Final = {"s": 1, "min": 60, "h": 3_600, "d": 86_400}
_LONG_RATE: Final = re.compile(r"([0-9.]+) ?(?:/|per) ?([a-z]+)")
_LONG_UNITS: Final = {
    "sec": "s",
    "second": "s",
    "seconds": "s",
    "m": "min",
    "minute": "min",
    "minutes": "min",
    "hour": "h",
    "hours": "h",
    "day": "d",
    "days": "d",
}
FIELD: Final = re.compile(r"(?:[^.*\s]+|\*)(?:\.(?:[^.*\s]+|\*))*")

# What enforces an obligation, and so the actions that it may stand beside.
_ENFORCED_FOR: Final = {
    "redact": frozenset({Action.MCP_CALL}),
    "audit_args": ARGUMENT_ACTIONS - {Action.MCP_RESULT},
    "max_bytes": RESULT_ACTIONS,
    "max_seconds": RESULT_ACTIONS,
}


@dataclass(frozen=True, slots=True)
class Terms:
    """``disclose`` is None where neither the rule nor its file says it."""

    limit: Limit | None = None
    enforced: bool = True
    disclose: Disclosure | None = None
    obligations: Obligations = NO_OBLIGATIONS


def read_defaults(metadata: dict[str, Any], path: Path, reader: Reader) -> Terms:
    """The mode and disclosure of all rules of a file that say none of their own."""
    return Terms(
        enforced=_enforced(metadata, path, True, reader),
        disclose=_disclosure(metadata, path, None, reader),
    )


def read_terms(
    rule: dict[str, Any],
    path: Path,
    allows: bool,
    actions: Collection[Action],
    defaults: Terms,
    reader: Reader,
) -> Terms:
    if rule.keys().isdisjoint(TERM_KEYS):
        return defaults
    if not allows:
        for key in ("limit", *_ENFORCED_FOR):
            if key in rule:
                raise reader.error_of_key(
                    (*path, key),
                    f"`{key}` belongs to what is allowed, and this rule denies.",
                    "Move it to the rule that allows.",
                )
    return Terms(
        _limit(rule, path, reader),
        _enforced(rule, path, defaults.enforced, reader),
        _disclosure(rule, path, defaults.disclose, reader),
        _obligations(rule, path, actions, reader),
    )


def _enforced(mapping: dict[str, Any], path: Path, default: bool, reader: Reader) -> bool:
    if "mode" not in mapping:
        return default
    return reader.choice(mapping["mode"], (*path, "mode"), "mode", MODES) == "enforce"


def _disclosure(
    mapping: dict[str, Any], path: Path, default: Disclosure | None, reader: Reader
) -> Disclosure | None:
    if "disclose" not in mapping:
        return default
    choices = [str(one) for one in Disclosure]
    return Disclosure(reader.choice(mapping["disclose"], (*path, "disclose"), "disclose", choices))


def _limit(rule: dict[str, Any], path: Path, reader: Reader) -> Limit | None:
    if "limit" not in rule:
        return None
    here = (*path, "limit")
    if isinstance(rule["limit"], str):
        raise reader.error(
            here,
            f"limit is {kind_of(rule['limit'])}, not a mapping.",
            "Write `limit: {rate: 50/s}`, with burst and per if need be.",
        )
    limit = reader.mapping(rule["limit"], here, "limit")
    reader.known_keys(limit, here, "limit", _LIMIT_KEYS)
    rate_per_s = _rate(reader.required(limit, "rate", here, "limit"), (*here, "rate"), reader)
    burst = max(1, math.ceil(rate_per_s))
    if "burst" in limit:
        burst = reader.integer(limit["burst"], (*here, "burst"), "burst", 1, BURST_MAX)
    per = Per.SUBJECT
    if "per" in limit:
        choices = [str(one) for one in Per]
        per = Per(reader.choice(limit["per"], (*here, "per"), "per", choices))
    return Limit(rate_per_s, burst, per)


def _rate(value: Any, path: Path, reader: Reader) -> float:
    match = RATE.fullmatch(value) if isinstance(value, str) else None
    count = float(match.group(1)) if match else 0.0
    if match is None or not 0 < count <= RATE_MAX:
        better = None
        word = _LONG_RATE.fullmatch(value) if isinstance(value, str) else None
        if word is not None and word.group(2) in _LONG_UNITS:
            better = f"{word.group(1)}/{_LONG_UNITS[word.group(2)]}"
        raise reader.error(
            path,
            f"the rate is {kind_of(value)}, not a number up to {RATE_MAX} and a time.",
            otherwise(better, "Write it as 50/s, 30/min, 5/h or 1/d."),
        )
    return count / _SECONDS[match.group(2)]


def _obligations(
    rule: dict[str, Any], path: Path, actions: Collection[Action], reader: Reader
) -> Obligations:
    for key, having in _ENFORCED_FOR.items():
        others = sorted(set(actions) - having)
        if key in rule and others:
            raise reader.error_of_key(
                (*path, key),
                f"nothing enforces `{key}` for {others[0]}.",
                f"Keep it to rules for {', '.join(sorted(having))} alone.",
            )
    max_bytes = max_seconds = None
    if "max_bytes" in rule:
        here = (*path, "max_bytes")
        max_bytes = reader.integer(rule["max_bytes"], here, "max_bytes", 1, RESULT_BYTES_MAX)
    if "max_seconds" in rule:
        here = (*path, "max_seconds")
        max_seconds = reader.integer(
            rule["max_seconds"], here, "max_seconds", 1, RESULT_SECONDS_MAX
        )
    redact = _fields(rule, "redact", path, reader)
    audit_args = _fields(rule, "audit_args", path, reader)
    if not (redact or audit_args or max_bytes or max_seconds):
        return NO_OBLIGATIONS
    return Obligations(redact, audit_args, max_bytes, max_seconds)


def _fields(rule: dict[str, Any], key: str, path: Path, reader: Reader) -> tuple[str, ...]:
    if key not in rule:
        return ()
    fields: list[str] = []
    for item, at in reader.one_or_more(rule[key], (*path, key), key):
        text = reader.text(item, at, "a field")
        if not FIELD.fullmatch(text):
            raise reader.error(
                at,
                f"{quoted(text)} is no field.",
                "Write names with dots between them, or * for every item, as in phones.*.number.",
            )
        fields.append(text)
    return tuple(fields)
