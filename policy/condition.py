"""A rule's `when`: taken apart by what it depends on, so that answers can be cached safely.

Of the clauses that && joins, some look at subject and object only: they stay as they are while the
credentials do. Some bound the size of the message: they travel in the permit. The rest depend on
the request, and what they decide is never cached.
"""

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from identity import AttributeValue
from policy.cel import (
    PYTHON_TYPES,
    CelExpression,
    CelFault,
    CelSchema,
    ValueType,
    has_type,
    plain_arguments,
    timestamp,
)
from policy.cel_source import (
    COMPARED_BY,
    SIZE_VARIABLE,
    Clause,
    Comparison,
    SourceError,
    read_clauses,
)
from policy.matcher import MAYBE, NO, YES
from policy.reader import suggestion
from policy.request import ARGUMENT_ACTIONS, MESSAGE_ACTIONS, Action, Party, Request

FAULT: Final = 3
"""No result: a value was missing or of the wrong type. Grants nothing, and denies."""

FIELDS: Final = ("identifier", "issuer", "kind", "name", "role_of_node", "trust_domain")
FURTHER: Final = "from"
_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_PARTIES: Final = ("subject", "object")
_ROOTS: Final = ("subject", "object", "message", "args", "result", "now")
_OF_REQUEST: Final = frozenset({"message", "args", "result", "now"})


@dataclass(slots=True)
class Facts:
    """What is known while one request is decided.

    ``probing`` asks whether the action could be allowed at all: then what a message or a call will
    carry is unknown rather than missing. ``waits_for_proof`` says the same of what an unproved
    object will turn out to be.
    """

    request: Request
    unix_s: float
    probing: bool
    waits_for_proof: bool = True
    _arguments: dict[str, Any] | CelFault | None = None
    _result: dict[str, Any] | CelFault | None = None

    @property
    def arguments(self) -> dict[str, Any] | None:
        """The arguments as CEL takes them; None if there are none, or none that it can take."""
        if self._arguments is None and self.request.args is not None:
            self._arguments = plain_arguments(self.request.args)
        return self._arguments if isinstance(self._arguments, dict) else None

    @property
    def result(self) -> dict[str, Any] | None:
        """What a call gave back, as CEL takes it."""
        if self._result is None and self.request.result is not None:
            self._result = plain_arguments(self.request.result)
        return self._result if isinstance(self._result, dict) else None

    @property
    def message_bytes(self) -> int | None:
        size = self.request.message_bytes
        return size if type(size) is int and size >= 0 else None

    def is_unknown(self, name: str, obj: Party) -> bool:
        """Whether a missing variable may still turn out to have a value."""
        if name.startswith("object."):
            # At a relay nothing more is ever learned of the far end; elsewhere it is proved later.
            never = not self.waits_for_proof or self.request.action == Action.LINK_RELAY
            return not obj.verified and not never
        if name == "args":
            return self.probing and self.request.args is None
        if name == "result":
            return self.probing and self.request.result is None
        return self.probing and name == SIZE_VARIABLE


_RESULTS: Final = frozenset({Action.MCP_RESULT})
_Getter = Callable[[Facts, Party, Party], Any]


class Part(ABC):
    """Some clauses, with the way to each value that they read."""

    __slots__ = ("_getters",)

    def __init__(self, names: Iterable[str], schema: CelSchema) -> None:
        self._getters: tuple[tuple[str, _Getter], ...] = tuple(
            (name, _getter(name, schema.variables[name])) for name in sorted(names)
        )

    @abstractmethod
    def judge(self, facts: Facts, subject: Party, obj: Party) -> int:
        """NO, MAYBE, YES or FAULT."""

    def read(self, facts: Facts, subject: Party, obj: Party) -> dict[str, Any]:
        """What it reads; None for what is missing. Arguments are replaced by their names."""
        values = {name: getter(facts, subject, obj) for name, getter in self._getters}
        return {
            name: sorted(value) if name in ("args", "result") and value is not None else value
            for name, value in values.items()
        }


class InterpretedPart(Part):
    """What CEL's interpreter has to say."""

    __slots__ = ("_expression",)

    def __init__(self, expression: CelExpression, schema: CelSchema) -> None:
        super().__init__(expression.names, schema)
        self._expression = expression

    def judge(self, facts: Facts, subject: Party, obj: Party) -> int:
        values: dict[str, Any] = {}
        missing: list[str] = []
        for name, getter in self._getters:
            value = getter(facts, subject, obj)
            if value is None:
                missing.append(name)
            else:
                values[name] = value
        result = self._expression.evaluate(values)
        if result is True:
            return YES
        if result is False:
            return NO
        return _without(missing, facts, subject, obj)


def _text(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _without(missing: Sequence[str], facts: Facts, subject: Party, obj: Party) -> int:
    """What becomes of an expression that came to no result."""
    if any(facts.is_unknown(name, obj) for name in missing):
        return MAYBE
    if any(_lacks_by_right(name, facts, subject, obj) for name in missing):
        return NO
    return FAULT


class PlainPart(Part):
    """Comparisons joined by &&, compared as they are. The interpreter says the same, in 3 µs."""

    __slots__ = ("_tests",)

    def __init__(self, comparisons: Sequence[Comparison], schema: CelSchema) -> None:
        names = {one.left for one in comparisons}
        names |= {str(one.right) for one in comparisons if one.right_is_name}
        super().__init__(names, schema)
        getters = dict(self._getters)
        self._tests = tuple(
            (
                one.left,
                getters[one.left],
                _OPERATORS[one.operator],
                one.right,
                getters[str(one.right)] if one.right_is_name else None,
            )
            for one in comparisons
        )

    def judge(self, facts: Facts, subject: Party, obj: Party) -> int:
        missing: list[str] = []
        for name, getter, compare, right, right_getter in self._tests:
            left = getter(facts, subject, obj)
            other = right if right_getter is None else right_getter(facts, subject, obj)
            if left is None:
                missing.append(name)
            if other is None:
                missing.append(str(right))
            elif left is not None and not compare(left, other):
                return NO
        return _without(missing, facts, subject, obj) if missing else YES


def _lacks_by_right(name: str, facts: Facts, subject: Party, obj: Party) -> bool:
    """Whether it is an ancestor that lacks the attribute.

    A deny rule speaks of ancestors too, but a node need not have every attribute of its agents.
    """
    if name.startswith("subject."):
        return subject is not facts.request.subject
    return name.startswith("object.") and obj is not facts.request.object


@dataclass(frozen=True, slots=True)
class Condition:
    """The parts of a `when`. None where there is no such part."""

    source: str
    static: Part | None
    dynamic: Part | None
    size_min: int | None
    size_max: int | None

    @property
    def bounds_size(self) -> bool:
        return self.size_min is not None or self.size_max is not None

    def judge_static(self, facts: Facts, subject: Party, obj: Party) -> int:
        """What holds for every request between these two."""
        return YES if self.static is None else self.static.judge(facts, subject, obj)

    def judge_rest(self, facts: Facts, subject: Party, obj: Party) -> int:
        """What depends on this request."""
        answer = self._judge_size(facts)
        if answer == NO or self.dynamic is None:
            return answer
        return both(answer, self.dynamic.judge(facts, subject, obj))

    def judge(self, facts: Facts, subject: Party, obj: Party) -> int:
        static = self.judge_static(facts, subject, obj)
        return NO if static == NO else both(static, self.judge_rest(facts, subject, obj))

    def found(self, facts: Facts, subject: Party, obj: Party) -> str:
        """The values that it reads, for a person; of arguments no more than their names."""
        values: dict[str, Any] = {}
        if self.bounds_size:
            values[SIZE_VARIABLE] = facts.message_bytes
        for part in (self.static, self.dynamic):
            if part is not None:
                values |= part.read(facts, subject, obj)
        shown = (f"{name} = {_text(value)}" for name, value in sorted(values.items()))
        return ", ".join(shown)

    def _judge_size(self, facts: Facts) -> int:
        if self.size_min is None and self.size_max is None:
            return YES
        size = facts.message_bytes
        if size is None:
            return MAYBE if facts.probing else FAULT
        too_small = self.size_min is not None and size < self.size_min
        too_large = self.size_max is not None and size > self.size_max
        return NO if too_small or too_large else YES


def both(one: int, other: int) -> int:
    """CEL's &&: false wins over a fault. A fault beside what is unknown is no certain answer."""
    return _BOTH[one][other]


# By one and other, in the order NO, MAYBE, YES, FAULT.
_BOTH: Final = (
    (NO, NO, NO, NO),
    (NO, MAYBE, MAYBE, NO),
    (NO, MAYBE, YES, FAULT),
    (NO, NO, FAULT, FAULT),
)


class ConditionCompiler:
    """Compiles the conditions of one policy: knows its attributes, keeps a schema per kind."""

    def __init__(self, attributes: Mapping[str, ValueType]) -> None:
        self.attributes = attributes
        self._variables: dict[str, ValueType] = {}
        for party in _PARTIES:
            self._variables |= {f"{party}.{field}": ValueType.TEXT for field in FIELDS}
            self._variables |= {f"{party}.{name}": kind for name, kind in attributes.items()}
            self._variables[f"{party}.{FURTHER}"] = ValueType.MAP
        self._variables["now"] = ValueType.TIME
        self._schemas: dict[tuple[bool, bool, bool], CelSchema] = {}
        # Many rules have the same condition, and compiling is most of reading one.
        self._compiled: dict[tuple[str, frozenset[Action]], Condition] = {}

    def compile(self, source: str, actions: frozenset[Action]) -> Condition:
        """Raises SourceError for anything that could not work for each of the actions."""
        key = source, actions
        condition = self._compiled.get(key)
        if condition is None:
            condition = self._compiled[key] = self._compile(source, actions)
        return condition

    def _compile(self, source: str, actions: frozenset[Action]) -> Condition:
        clauses = read_clauses(source)
        schema = self._schema(actions)
        names = frozenset[str]().union(*(clause.names for clause in clauses))
        self._check_names(names, schema, actions)
        # The whole first: its complaints are in terms of what was written.
        whole = schema.compile(source, names)
        static = [clause for clause in clauses if _is_static(clause)]
        bounds = [clause for clause in clauses if _is_bound(clause)]
        dynamic = [clause for clause in clauses if not _is_static(clause) and not _is_bound(clause)]
        size_mins = [clause.size_min for clause in bounds if clause.size_min is not None]
        size_maxs = [clause.size_max for clause in bounds if clause.size_max is not None]

        def part(of: list[Clause]) -> Part | None:
            return _part(of, schema, whole if len(of) == len(clauses) else None)

        return Condition(
            source=source,
            static=part(static),
            dynamic=part(dynamic),
            size_min=max(size_mins, default=None),
            size_max=min(size_maxs, default=None),
        )

    def _schema(self, actions: frozenset[Action]) -> CelSchema:
        has_message = actions <= MESSAGE_ACTIONS
        has_arguments = actions <= ARGUMENT_ACTIONS
        has_result = actions <= _RESULTS
        key = has_message, has_arguments, has_result
        schema = self._schemas.get(key)
        if schema is None:
            variables = dict(self._variables)
            if has_message:
                variables[SIZE_VARIABLE] = ValueType.INT
            if has_arguments:
                variables["args"] = ValueType.MAP
            if has_result:
                variables["result"] = ValueType.MAP
            schema = self._schemas[key] = CelSchema(variables)
        return schema

    def _check_names(
        self, names: frozenset[str], schema: CelSchema, actions: frozenset[Action]
    ) -> None:
        """Say of our own variables what the library cannot: what was meant, and where it exists."""
        for root, having in (
            ("message", MESSAGE_ACTIONS),
            ("args", ARGUMENT_ACTIONS),
            ("result", _RESULTS),
        ):
            others = sorted(actions - having)
            if root in names and others:
                raise SourceError(
                    f"{root} is not known for {others[0]}.",
                    f"Keep {root} to rules for {', '.join(sorted(having))} alone.",
                )
        for name in sorted(names):
            root, dot, _ = name.partition(".")
            is_ours = root in _ROOTS and root not in schema.variables and dot
            if is_ours and name not in schema.variables:
                raise SourceError(
                    f"unknown name {name}.",
                    suggestion(name, [known for known in schema.variables if "." in known]),
                )


def _is_static(clause: Clause) -> bool:
    return not clause.names & _OF_REQUEST


def _is_bound(clause: Clause) -> bool:
    return clause.size_min is not None or clause.size_max is not None


def _part(clauses: Sequence[Clause], schema: CelSchema, whole: CelExpression | None) -> Part | None:
    """``whole`` is the expression if these are all of its clauses."""
    if not clauses:
        return None
    comparisons = [one.comparison for one in clauses if _is_plain(one.comparison, schema)]
    if len(comparisons) == len(clauses):
        return PlainPart([one for one in comparisons if one is not None], schema)
    if whole is None:
        source = " && ".join(f"({clause.source})" for clause in clauses)
        names = frozenset[str]().union(*(clause.names for clause in clauses))
        whole = schema.compile(source, names)
    return InterpretedPart(whole, schema)


def _is_plain(comparison: Comparison | None, schema: CelSchema) -> bool:
    """Whether Python compares the two exactly as CEL does."""
    if comparison is None:
        return False
    kind = schema.variables.get(comparison.left)
    if comparison.right_is_name and schema.variables.get(str(comparison.right)) is not kind:
        return False
    if comparison.operator in ("==", "!="):
        return kind in (ValueType.TEXT, ValueType.INT, ValueType.BOOL)
    return kind is ValueType.INT


def _getter(name: str, kind: ValueType) -> _Getter:
    if name == "now":
        return lambda facts, subject, obj: timestamp(facts.unix_s)
    if name == "args":
        return lambda facts, subject, obj: facts.arguments
    if name == "result":
        return lambda facts, subject, obj: facts.result
    if name == SIZE_VARIABLE:
        return lambda facts, subject, obj: facts.message_bytes
    party, _, field = name.partition(".")
    of_subject = party == "subject"
    if field == FURTHER:
        return _further_getter(of_subject)
    return (
        _field_getter(field, of_subject)
        if field in FIELDS
        else _attribute_getter(field, kind, of_subject)
    )


def _further_getter(of_subject: bool) -> _Getter:
    """What other issuers say, as ``subject.from["sl1…"].role`` reads it; None if none says any."""

    def get(facts: Facts, subject: Party, obj: Party) -> dict[str, Any] | None:
        party = subject if of_subject else obj
        if not party.verified or not party.further:
            return None
        return {
            issuer: {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in said.items()
            }
            for issuer, said in party.further.items()
        }

    return get


def _field_getter(field: str, of_subject: bool) -> _Getter:
    def get(facts: Facts, subject: Party, obj: Party) -> str | None:
        party = subject if of_subject else obj
        if not party.verified and field not in ("name", "trust_domain"):
            return None
        value = getattr(party, field)
        return None if value is None else str(value)

    return get


def _attribute_getter(name: str, kind: ValueType, of_subject: bool) -> _Getter:
    is_plain = kind in PYTHON_TYPES

    def get(facts: Facts, subject: Party, obj: Party) -> AttributeValue | list[str] | None:
        party = subject if of_subject else obj
        value = party.attributes.get(name) if party.verified else None
        if value is None or not has_type(value, kind):
            return None
        return value if is_plain or not isinstance(value, tuple | list) else list(value)

    return get


assert set(_OPERATORS) == COMPARED_BY
assert len(_BOTH) == FAULT + 1
