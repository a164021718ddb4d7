"""The adapter to CEL, and the only importer of cel_expr_python.

Unknown names and wrong types are refused when an expression is compiled. A fault while it runs is
a value, never an exception.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from cel_expr_python import cel

from policy.cel_source import SourceError
from policy.reader import suggestion

ARGUMENT_DEPTH_MAX: Final = 64
"""The library walks arguments by recursion in native code and crashes at some thousand levels."""
ARGUMENT_VALUES_MAX: Final = 100_000
INTEGER_MIN: Final = -(1 << 63)
INTEGER_MAX: Final = (1 << 63) - 1

_NATIVE_ERROR: Final = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): ([^\n]*)")

_UNKNOWN: Final = re.compile(r"undeclared reference to '([^']*)'")
_OVERLOAD: Final = re.compile(r"found no matching overload for '([^']*)' applied to '\(([^']*)\)'")


class ValueType(StrEnum):
    """The types that a policy can declare for an attribute, and a few for our own variables."""

    TEXT = "text"
    INT = "int"
    BOOL = "bool"
    LIST = "list"
    TIME = "time"
    MAP = "map"


_CEL_TYPES: Final[Mapping[ValueType, Any]] = {
    ValueType.TEXT: cel.Type.STRING,
    ValueType.INT: cel.Type.INT,
    ValueType.BOOL: cel.Type.BOOL,
    ValueType.LIST: cel.Type.List(cel.Type.STRING),
    ValueType.TIME: cel.Type.TIMESTAMP,
    ValueType.MAP: cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
}
# Looked up, since comparing with each member of an enumeration costs more than the check itself.
PYTHON_TYPES: Final[Mapping[ValueType, type]] = {
    ValueType.TEXT: str,
    ValueType.INT: int,
    ValueType.BOOL: bool,
}


@dataclass(frozen=True, slots=True)
class CelFault:
    """Evaluation came to no result: a value was missing, or of the wrong type."""

    detail: str


class CelExpression:
    """A compiled boolean expression, and the variables it may read."""

    __slots__ = ("_compiled", "names")

    def __init__(self, compiled: Any, names: frozenset[str]) -> None:
        self._compiled = compiled
        self.names = names

    def evaluate(self, values: Mapping[str, Any]) -> bool | CelFault:
        """Never raises. A variable that is not among the values is a fault where it matters."""
        try:
            value = self._compiled.eval(data=values).value()
        except Exception as error:
            # The library raises some faults (iteration budget, text it cannot take) and returns
            # others; they are alike to a policy.
            return CelFault(str(error))
        # The compiler has seen to it that what is no fault is a bool.
        return value if type(value) is bool else CelFault(str(value))


class CelSchema:
    """The variables that exist, with their types."""

    def __init__(self, variables: Mapping[str, ValueType]) -> None:
        self.variables = dict(variables)
        self._environment = cel.NewEnv(
            variables={name: _CEL_TYPES[kind] for name, kind in variables.items()}
        )

    def compile(self, source: str, names: Collection[str]) -> CelExpression:
        """Compile what ``cel_source`` let through. Raises SourceError."""
        try:
            compiled = self._environment.compile(source)
        except Exception as error:
            raise _refusal(str(error), self.variables) from None
        if compiled.return_type() != cel.Type.BOOL:
            kind = compiled.return_type().name().lower()
            raise SourceError(
                f"the expression gives {kind}, not bool.",
                "Compare it with something, for example `args.flag == true`.",
            )
        used = {name for name in self.variables if name in names}
        return CelExpression(compiled, frozenset(used))


def has_type(value: object, kind: ValueType) -> bool:
    """Whether an attribute's value is of the declared type; a boolean is no integer."""
    python_type = PYTHON_TYPES.get(kind)
    if python_type is int:
        return type(value) is int and INTEGER_MIN <= value <= INTEGER_MAX
    if python_type is not None:
        return type(value) is python_type
    return isinstance(value, tuple | list) and all(type(item) is str for item in value)


def plain_arguments(value: Mapping[str, Any]) -> dict[str, Any] | CelFault:
    """A copy that CEL can take: integers beyond 64 bits become doubles, as JSON readers have them.

    A fault for what is too deep, too large or no JSON.
    """
    budget = [ARGUMENT_VALUES_MAX]
    try:
        plain = _plain(value, 0, budget)
    except (ValueError, RecursionError) as error:
        return CelFault(str(error))
    return plain if isinstance(plain, dict) else CelFault("the arguments are no object")


def timestamp(unix_s: float) -> datetime | None:
    """The time as CEL takes it; None if it is beyond the years it knows."""
    try:
        return datetime.fromtimestamp(unix_s, UTC)
    except (ValueError, OverflowError, OSError, TypeError):
        return None


def _plain(value: Any, depth: int, budget: list[int]) -> Any:
    budget[0] -= 1
    if depth > ARGUMENT_DEPTH_MAX or budget[0] < 0:
        raise ValueError("the arguments are too deep or too many")
    if value is None or isinstance(value, bool | float | str):
        return value
    if isinstance(value, int):
        return value if INTEGER_MIN <= value <= INTEGER_MAX else _double(value)
    if isinstance(value, Mapping):
        return {_key(key): _plain(item, depth + 1, budget) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1, budget) for item in value]
    raise ValueError(f"the arguments hold a {type(value).__name__}")


def _key(key: object) -> str:
    if type(key) is not str:
        raise ValueError("the arguments have a key that is no text")
    return key


def _double(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _refusal(message: str, variables: Collection[str]) -> SourceError:
    """What the library says, in the words of whoever wrote the expression."""
    match = _NATIVE_ERROR.search(message)
    if match is None:
        detail = " ".join(message.split())[:160]
        return SourceError(f"the expression is not CEL ({detail}).", "Correct the expression.")
    column = int(match.group(2))
    where = f" at position {column}" if column > 0 else ""
    problem = match.group(3).removesuffix(" [INVALID_ARGUMENT]").removesuffix(" (in container '')")
    problem = problem.split(" expecting {")[0][:200].rstrip(".")
    if unknown := _UNKNOWN.fullmatch(problem):
        roots = {name.partition(".")[0] for name in variables}
        name = unknown.group(1).partition(".")[0]
        return SourceError(f"unknown name {name}{where}.", suggestion(name, roots))
    if unlike := _OVERLOAD.fullmatch(problem):
        operator, types = unlike.group(1).strip("_"), unlike.group(2).replace(", ", " and ")
        return SourceError(
            f"{operator} does not go with {types}{where}.",
            "Compare values of one type; a number is not text.",
        )
    if "'<EOF>'" in problem:
        return SourceError(f"the expression ends too early{where}.", "Write what is missing.")
    return SourceError(f"{problem}{where}.", "Correct the expression.")
