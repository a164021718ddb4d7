"""YAML for policies and settings: plain data and where each value stands. Only importer of PyYAML.

Stricter than YAML 1.2: one document, text keys, no anchors, aliases, tags or directives, and no
value that two readers could take for different things.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
)

from policy.errors import YamlError, quoted

YAML_BYTES_MAX: Final = 1 << 20
YAML_DEPTH_MAX: Final = 32
INTEGER_MIN: Final = -(1 << 63)
INTEGER_MAX: Final = (1 << 63) - 1
NUMBER_CHARS_MAX: Final = 64

Path = tuple[str | int, ...]

_END_OF_LINE: Final = re.compile(r"\r\n|\r|\n")

# The parser in C reads a megabyte in 0.2 s, the one in Python in 5 s. They give the same events.
_PARSER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_parse: Final[Callable[..., Iterator[Any]]] = yaml.parse

# What YAML does not allow, and what YAML 1.1 takes for the end of a line and 1.2 does not.
_FORBIDDEN: Final = re.compile(
    "[^\\t\\n\\r\\x20-\\x7e\\xa0-\\u2027\\u202a-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]"
)

_NULLS: Final = frozenset({"", "~", "null"})
_BOOLEANS: Final = {"true": True, "false": False}
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
# All that some reader of YAML 1.1 or 1.2 takes for a number, and more.
_LIKE_A_NUMBER: Final = re.compile(
    r"[-+]?(?:(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9_]+)(?:[eE][-+]?[0-9]+)?"
    r"|0[xob][0-9a-fA-F_]+|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))"
)
_BEGIN_NUMBERS: Final = frozenset("+-.0123456789")
# Readers of YAML 1.1 take these for a boolean or null, readers of 1.2 for text.
_AMBIGUOUS: Final = frozenset(
    spelling
    for word in ("yes", "no", "on", "off", "true", "false", "null")
    for spelling in (word, word.capitalize(), word.upper())
) - {"true", "false", "null"}


class Position(NamedTuple):
    """A place in a file. Both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Positions:
    """Where each value and each key of a document stands."""

    values: dict[Path, Position] = field(default_factory=dict)
    keys: dict[Path, Position] = field(default_factory=dict)

    def line_of(self, path: Path) -> int | None:
        """The line of the key (or list item) at ``path``; None if the document has none there."""
        position = self.keys.get(path) or self.values.get(path)
        return None if position is None else position.line

    def value_at(self, path: Path) -> Position:
        """The place of the value at ``path``, or of the nearest value round it."""
        for length in range(len(path), -1, -1):
            position = self.values.get(path[:length])
            if position is not None:
                return position
        return Position(1, 1)

    def key_at(self, path: Path) -> Position:
        """The place of the key at ``path``; for a list item, of the item."""
        return self.keys.get(path) or self.value_at(path)


def load_strict(text: str, file: str) -> tuple[Any, Positions]:
    """Read one document into dict, list, str, int, float, bool and None. Raises YamlError.

    ``file`` is for messages only. An empty text is None.
    """
    size_bytes = len(text.encode("utf-8", "surrogatepass"))
    if size_bytes > YAML_BYTES_MAX:
        raise YamlError(
            file,
            1,
            1,
            f"the file has {size_bytes} bytes; at most {YAML_BYTES_MAX} are read.",
            "Make it smaller.",
        )
    text = text.removeprefix("\ufeff")
    _check_characters(file, text)
    builder = _Builder(file)
    try:
        # The parser hands out one event at a time, so a fault ends the work at once.
        for event in _parse(text, Loader=_PARSER):
            builder.take(event)
    except yaml.YAMLError as error:
        raise _syntax_error(file, text, error) from None
    except (ValueError, IndexError, TypeError, AttributeError, RecursionError) as error:
        # Scanners trip over some malformed texts instead of refusing them.
        problem = f"the text is not YAML ({type(error).__name__})."
        raise YamlError(file, 1, 1, problem, "Check quotes, brackets and indentation.") from None
    return builder.document, builder.positions


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    value: dict[str, Any] | list[Any]
    path: Path
    key: str | None = None


class _Builder:
    """Builds plain data from the parser's events, without recursion."""

    def __init__(self, file: str) -> None:
        self.document: Any = None
        self.positions = Positions()
        self._file = file
        self._open: list[_Open] = []
        self._documents = 0
        self._here = Position(1, 1)

    def take(self, event: Any) -> None:
        self._here = Position(event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, DocumentStartEvent):
            self._start_document(event)
        elif isinstance(event, NodeEvent):
            self._take_node(event)
        elif isinstance(event, CollectionEndEvent):
            self._open.pop()

    def _start_document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            raise self._error("a second document begins here.", "Keep one document in a file.")
        if event.version or event.tags:
            raise self._error("YAML directives are not read.", "Remove the line with the %.")

    def _take_node(self, event: Any) -> None:
        if isinstance(event, AliasEvent) or event.anchor is not None:
            raise self._error(
                "anchors (&name) and aliases (*name) are not read.",
                "Write the value out in each place, or quote a text that begins with & or *.",
            )
        if event.tag is not None:
            raise self._error(
                "tags (!name) are not read.", "Remove the tag, or quote a text that begins with !."
            )
        parent = self._open[-1] if self._open else None
        if parent is not None and isinstance(parent.value, dict) and parent.key is None:
            self._take_key(parent, parent.value, event)
            return
        path = self._next_path(parent)
        self.positions.values[path] = self._here
        if isinstance(event, ScalarEvent):
            self._attach(parent, self._scalar(event))
        else:
            self._push(parent, [] if isinstance(event, SequenceStartEvent) else {}, path)

    def _take_key(self, parent: _Open, mapping: dict[str, Any], event: Any) -> None:
        key = self._scalar(event) if isinstance(event, ScalarEvent) else None
        if not isinstance(key, str):
            raise self._error("a key must be text.", "Write a name, or put the key in quotes.")
        if key in mapping:
            first = self.positions.keys[(*parent.path, key)]
            raise self._error(
                f"the key {quoted(key)} is given twice; it is first on line {first.line}.",
                "Remove one of them.",
            )
        parent.key = key
        self.positions.keys[(*parent.path, key)] = self._here

    def _next_path(self, parent: _Open | None) -> Path:
        if parent is None:
            return ()
        if isinstance(parent.value, list):
            return (*parent.path, len(parent.value))
        assert parent.key is not None
        return (*parent.path, parent.key)

    def _attach(self, parent: _Open | None, value: Any) -> None:
        if parent is None:
            self.document = value
        elif isinstance(parent.value, list):
            parent.value.append(value)
        else:
            assert parent.key is not None
            parent.value[parent.key] = value
            parent.key = None

    def _push(self, parent: _Open | None, value: dict[str, Any] | list[Any], path: Path) -> None:
        if len(self._open) >= YAML_DEPTH_MAX:
            raise self._error(f"more than {YAML_DEPTH_MAX} levels of nesting.", "Write it flatter.")
        self._attach(parent, value)
        self._open.append(_Open(value, path))

    def _scalar(self, event: Any) -> str | int | float | bool | None:
        text: str = event.value
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise self._error(
                "half of a character, written as \\uD800 to \\uDFFF.", "Write the character itself."
            )
        if not event.implicit[0]:  # Quoted, or a block.
            return text
        if text in _NULLS:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if text in _AMBIGUOUS:
            raise self._error(
                f"{text} is text to some readers of YAML and a truth value to others.",
                f'Write true, false or null, or "{text}" for the text.',
            )
        if text[0] not in _BEGIN_NUMBERS or not _LIKE_A_NUMBER.fullmatch(text):
            return text
        return self._number(text)

    def _number(self, text: str) -> int | float:
        if len(text) <= NUMBER_CHARS_MAX:
            if _INTEGER.fullmatch(text) and INTEGER_MIN <= int(text) <= INTEGER_MAX:
                return int(text)
            if not _INTEGER.fullmatch(text) and _FLOAT.fullmatch(text):
                number = float(text)
                if math.isfinite(number):
                    return number
        raise self._error(
            f"{quoted(text)} is not a number that every reader takes for the same.",
            "Write a plain decimal number within 64 bits, or quote it if it is text.",
        )

    def _error(self, problem: str, remedy: str) -> YamlError:
        return YamlError(self._file, self._here.line, self._here.column, problem, remedy)


def _check_characters(file: str, text: str) -> None:
    found = _FORBIDDEN.search(text)
    if found is None:
        return
    lines = _END_OF_LINE.split(text[: found.start()])
    raise YamlError(
        file,
        len(lines),
        len(lines[-1]) + 1,
        f"the character U+{ord(found.group()):04X}, which YAML does not allow here.",
        'Remove it, or write it as an escape in double quotes, such as "\\u2028".',
    )


# What the parser says, by a part of it; what that means to whoever wrote it; what to do about it.
_COMPLAINTS: Final = {
    "mapping values": (
        'a ": " where no key can stand (mapping values)',
        'Put a text with ": " in it in quotes, or indent the line like those above it.',
    ),
    "could not find expected ':'": (
        "the line before this one is no `key: value`",
        "Write a value for it, or indent what continues a text.",
    ),
    "',' or ']'": (
        "a list in brackets is not closed: here stands neither ',' nor ']'",
        "Put commas between the items and close the [ with a ].",
    ),
    "',' or '}'": (
        "a mapping in braces is not closed: here stands neither ',' nor '}'",
        "Put commas between the pairs and close the { with a }.",
    ),
    "expected key": (
        "the line is indented otherwise than the keys above it",
        "Begin it below the other keys of its mapping.",
    ),
    "'-' indicator": (
        "the line is indented otherwise than the items above it",
        "Begin it below the other items of its list, or below the keys of the last one.",
    ),
    "end of stream": (
        "the text ends within quotes (end of stream)",
        "Close the quotes that are open.",
    ),
    "character escape": (
        "a character escape that stands for no character",
        "Write the character itself; \\uD800 to \\uDFFF are only halves of one.",
    ),
    "maximum nesting depth": (
        f"more than {YAML_DEPTH_MAX} levels of nesting",
        "Write it flatter.",
    ),
}


def _syntax_error(file: str, text: str, error: yaml.YAMLError) -> YamlError:
    mark = None
    problem = ""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        problem = _one_line(error.problem or "")
    line, column = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
    remedy = "Check quotes, brackets and indentation on this line and the one before it."
    if "cannot start any token" in problem:
        found = _END_OF_LINE.split(text)[line - 1][column - 1 : column]
        problem, remedy = f"{found} means something else in YAML here", "Put the text in quotes."
        if found == "\t":
            problem, remedy = "a tab where YAML wants spaces", "Indent with spaces."
    for part, said in _COMPLAINTS.items():
        if part in problem:
            problem, remedy = said
            break
    return YamlError(file, line, column, f"{problem or 'the text is not YAML'}.", remedy)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]
