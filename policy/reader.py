"""Reads a policy's plain data value by value; each complaint says where, what, and what instead."""

from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from policy.errors import SHOWN_CHARS_MAX, PolicyError
from policy.errors import quoted as quoted
from policy.strict_yaml import Path, Position, Positions

TEXT_CHARS_MAX: Final = 1024
LIST_ITEMS_MAX: Final = 1024
EXAMPLES: Final = {
    "apiVersion": "sidelink/v1",
    "kind": "Policy",
    "name": "planners ask billing",
    "effect": "allow",
    "actions": "[message.ask]",
    "action": "message.ask",
    "expect": "allow",
    "rate": "50/s",
}
"""What a key that is missing could say."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where something stands, in a sentence about something else."""

    file: str
    line: int

    def seen_from(self, other: "Place") -> str:
        return f"on line {self.line}" + ("" if self.file == other.file else f" of {self.file}")


class Reader:
    """Every method raises PolicyError, and nothing else."""

    def __init__(self, positions: Positions, file: str) -> None:
        self.positions = positions
        self._file = file

    def place_of(self, path: Path) -> Place:
        return Place(self._file, self.positions.value_at(path).line)

    def error(self, path: Path, problem: str, remedy: str) -> PolicyError:
        """A complaint about the value at ``path``."""
        return self._error_at(self.positions.value_at(path), problem, remedy)

    def error_of_key(self, path: Path, problem: str, remedy: str) -> PolicyError:
        """A complaint about the key at ``path``."""
        return self._error_at(self.positions.key_at(path), problem, remedy)

    def _error_at(self, position: Position, problem: str, remedy: str) -> PolicyError:
        return PolicyError(self._file, position.line, position.column, problem, remedy)

    def mapping(self, value: Any, path: Path, what: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.error(
                path, f"{what} is {kind_of(value)}, not a mapping.", "Write `key: value` pairs."
            )
        return value

    def known_keys(
        self, mapping: dict[str, Any], path: Path, what: str, known: Collection[str]
    ) -> None:
        for key in mapping:
            if key not in known:
                raise self.error_of_key(
                    (*path, key), f"unknown key {quoted(key)} in {what}.", suggestion(key, known)
                )

    def required(self, mapping: dict[str, Any], key: str, path: Path, what: str) -> Any:
        if key not in mapping:
            example = EXAMPLES.get(key, "…")
            raise self.error(
                path, f"{what} lacks the key {quoted(key)}.", f"Add `{key}: {example}`."
            )
        return mapping[key]

    def text(self, value: Any, path: Path, what: str) -> str:
        if not isinstance(value, str):
            raise self.error(
                path, f"{what} is {kind_of(value)}, not text.", "Write text, in quotes if need be."
            )
        if not value or len(value) > TEXT_CHARS_MAX:
            raise self.error(
                path, f"{what} has {len(value)} characters.", f"Write 1 to {TEXT_CHARS_MAX}."
            )
        return value

    def integer(
        self, value: Any, path: Path, what: str, least: int, most: int | None = None
    ) -> int:
        if type(value) is not int or value < least or (most is not None and value > most):
            span = f"from {least}" if most is None else f"from {least} to {most}"
            raise self.error(
                path,
                f"{what} is {kind_of(value)}, not a whole number {span}.",
                f"Write a number {span}.",
            )
        return value

    def items(self, value: Any, path: Path, what: str, items_max: int) -> list[Any]:
        if not isinstance(value, list):
            raise self.error(path, f"{what} is {kind_of(value)}, not a list.", "Write [a, b].")
        if len(value) > items_max:
            raise self.error(
                path, f"{what} has {len(value)} items; at most {items_max} are read.", "Split it."
            )
        return value

    def one_or_more(self, value: Any, path: Path, what: str) -> list[tuple[Any, Path]]:
        """A single value, or a list that is not empty; each item with its path."""
        if not isinstance(value, list):
            return [(value, path)]
        if not value:
            raise self.error(path, f"{what} is an empty list.", "Name at least one value.")
        items = self.items(value, path, what, LIST_ITEMS_MAX)
        return [(item, (*path, index)) for index, item in enumerate(items)]

    def choice(self, value: Any, path: Path, what: str, choices: Collection[str]) -> str:
        text = self.text(value, path, what)
        if text not in choices:
            raise self.error(path, f"{what} cannot be {quoted(text)}.", suggestion(text, choices))
        return text


def kind_of(value: Any) -> str:
    """What a person would call this value, and what it is if that is short."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {quoted(value)}"
    return "a list" if isinstance(value, list) else "a mapping"


def otherwise(better: str | None, remedy: str) -> str:
    """The remedy, behind what was probably meant."""
    return remedy if better is None else f"Did you mean {quoted(better)}? {remedy}"


def suggestion(word: str, known: Collection[str]) -> str:
    # Some letters look like others. Whoever looks for a difference is told of it.
    foreign = next((one for one in word if not one.isascii()), None)
    note = "" if foreign is None else f" What is written has the character U+{ord(foreign):04X}."
    close = get_close_matches(word[:SHOWN_CHARS_MAX], list(known), n=1)
    if close:
        return f"Did you mean {quoted(close[0])}?{note}"
    return f"Known are: {', '.join(sorted(known))}.{note}"
