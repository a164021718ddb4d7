"""A policy file, read and checked: every key, every value, every expression, before any request."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from identity import RESERVED_ATTRIBUTES, Identifier, IdentityError, validate_trust_domain
from policy.cel import ValueType, has_type
from policy.cel_source import SourceError
from policy.condition import Condition, ConditionCompiler
from policy.errors import PolicyError, YamlError
from policy.fields import (
    ATTRIBUTE_NAME,
    ATTRIBUTES_MAX,
    KINDS,
    NAME_CHARS_MAX,
    ROLES_OF_NODE,
    SERVICE_NAME,
    TOOL_NAME_CHARS_MAX,
)
from policy.matcher import (
    AttributeClause,
    Clause,
    FieldClause,
    NameClause,
    Selector,
    ToolNames,
)
from policy.patterns import NamePattern, PatternError
from policy.reader import Reader, kind_of, quoted, suggestion
from policy.request import SERVICE_ACTIONS, Action
from policy.strict_yaml import Path, load_strict

API_VERSION: Final = "sidelink/v1"
KIND: Final = "Policy"
RULES_MAX: Final = 10_000
TESTS_MAX: Final = 10_000

_DECLARABLE: Final = (ValueType.TEXT, ValueType.INT, ValueType.BOOL, ValueType.LIST)
_TOP_KEYS: Final = ("apiVersion", "kind", "metadata", "attributes", "rules", "tests")
_METADATA_KEYS: Final = ("name", "description")
_RULE_KEYS: Final = (
    "name",
    "description",
    "effect",
    "actions",
    "from",
    "to",
    "tools",
    "when",
)
_SELECTOR_KEYS: Final = ("identifier", "issuer", "kind", "name", "role_of_node", "trust_domain")
_NOT_BUILT: Final = "limit"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, compiled. ``services`` and ``tools`` are None when the rule does not ask."""

    name: str
    allows: bool
    actions: frozenset[Action]
    subject: Selector
    object: Selector
    services: frozenset[str] | None
    tools: ToolNames | None
    condition: Condition | None
    line: int


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """What a file says. ``tests`` stays as it was written, for the runner to read."""

    name: str | None
    attributes: Mapping[str, ValueType]
    rules: tuple[Rule, ...]
    tests: tuple[Any, ...]
    reader: Reader


def read_policy(text: str, file: str) -> PolicyDocument | None:
    """None for a text without any content. Raises PolicyError."""
    try:
        data, positions = load_strict(text, file)
    except YamlError as error:
        raise PolicyError(
            error.file, error.line, error.column, error.problem, error.remedy
        ) from None
    if data is None:
        return None
    reader = Reader(positions, file)
    top = reader.mapping(data, (), "the policy")
    reader.known_keys(top, (), "the policy", _TOP_KEYS)
    for key, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        value = reader.required(top, key, (), "the policy")
        if value != expected:
            raise reader.error(
                (key,), f"{key} is not {quoted(expected)}.", f"Write `{key}: {expected}`."
            )
    name = _read_metadata(top, reader)
    attributes = _read_attributes(top, reader)
    builder = _RuleReader(reader, attributes)
    rules = reader.items(_filled(top, "rules", []), ("rules",), "rules", RULES_MAX)
    compiled = tuple(builder.read(rule, ("rules", index)) for index, rule in enumerate(rules))
    tests = reader.items(_filled(top, "tests", []), ("tests",), "tests", TESTS_MAX)
    return PolicyDocument(name, attributes, compiled, tuple(tests), reader)


def _filled(top: dict[str, Any], key: str, empty: Any) -> Any:
    """The value; a key whose contents are all commented out counts as empty."""
    value = top.get(key)
    return empty if value is None else value


def _read_metadata(top: dict[str, Any], reader: Reader) -> str | None:
    if "metadata" not in top:
        return None
    path: Path = ("metadata",)
    metadata = reader.mapping(top["metadata"], path, "metadata")
    reader.known_keys(metadata, path, "metadata", _METADATA_KEYS)
    for key, value in metadata.items():
        reader.text(value, (*path, key), f"metadata.{key}")
    return metadata.get("name")


def _read_attributes(top: dict[str, Any], reader: Reader) -> dict[str, ValueType]:
    path: Path = ("attributes",)
    declared = reader.mapping(_filled(top, "attributes", {}), path, "attributes")
    if len(declared) > ATTRIBUTES_MAX:
        raise reader.error(
            path, f"{len(declared)} attributes are declared.", f"Declare {ATTRIBUTES_MAX} at most."
        )
    attributes: dict[str, ValueType] = {}
    for name, kind in declared.items():
        here = (*path, name)
        if name in RESERVED_ATTRIBUTES or name == "service":
            raise reader.error_of_key(
                here, f"{name} has a meaning of its own in rules.", "Remove it, or rename it."
            )
        if not ATTRIBUTE_NAME.fullmatch(name):
            raise reader.error_of_key(
                here,
                f"{quoted(name)} is no attribute name.",
                "Use lowercase letters, digits and _, beginning with a letter.",
            )
        choice = reader.choice(kind, here, f"the type of {name}", [str(one) for one in _DECLARABLE])
        attributes[name] = ValueType(choice)
    return attributes


class SelectorReader:
    """Reads the single values that `from` and `to` compare with."""

    def __init__(self, reader: Reader, attributes: Mapping[str, ValueType]) -> None:
        self._reader = reader
        self.attributes = attributes
        self._fields: Mapping[str, Callable[[Any, Path], Hashable]] = {
            "trust_domain": self._trust_domain,
            "identifier": self._identifier,
            "issuer": self._identifier,
            "kind": lambda value, path: reader.choice(value, path, "kind", KINDS),
            "role_of_node": lambda value, path: reader.choice(
                value, path, "role_of_node", ROLES_OF_NODE
            ),
        }

    def check_keys(
        self, mapping: dict[str, Any], path: Path, what: str, more: tuple[str, ...] = ()
    ) -> None:
        """Refuse keys that are neither ours nor declared; say how to declare one."""
        known = (*_SELECTOR_KEYS, *more, *self.attributes)
        for key in mapping:
            if key in known:
                continue
            hint = suggestion(key, known)
            if ATTRIBUTE_NAME.fullmatch(key):
                hint += f" An attribute is declared first: `attributes: {{{key}: text}}`."
            raise self._reader.error_of_key(
                (*path, key), f"unknown key {quoted(key)} in {what}.", hint
            )

    def value(self, key: str, value: Any, path: Path) -> Hashable:
        """One value of a field or an attribute, in the type that a party has it."""
        if key in self._fields:
            return self._fields[key](value, path)
        kind = self.attributes[key]
        item_kind = ValueType.TEXT if kind is ValueType.LIST else kind
        if not has_type(value, item_kind):
            raise self._reader.error(
                path,
                f"{key} is declared as {kind}, but this is {kind_of(value)}.",
                f"Write {_example(item_kind)}, or change the declaration.",
            )
        plain: Hashable = value
        return plain

    def service(self, value: Any, path: Path) -> str:
        text = self._reader.text(value, path, "service")
        if not SERVICE_NAME.fullmatch(text):
            raise self._reader.error(
                path,
                f"{quoted(text)} is no name of a service.",
                "Use lowercase letters, digits, '.', '_' and '-'; patterns are not read here.",
            )
        return text

    def _trust_domain(self, value: Any, path: Path) -> Hashable:
        text = self._reader.text(value, path, "trust_domain")
        try:
            return validate_trust_domain(text)
        except IdentityError as error:
            raise self._reader.error(
                path, f"{error.detail}.", "Write it as in a name, for example acme."
            ) from None

    def _identifier(self, value: Any, path: Path) -> Hashable:
        text = self._reader.text(value, path, "an identifier")
        try:
            return Identifier.parse(text)
        except IdentityError as error:
            raise self._reader.error(
                path, f"{error.detail}.", "Copy it from `sidelink status`: sl1…"
            ) from None


class _RuleReader:
    """Reads the rules of one file, whose names are unique."""

    def __init__(self, reader: Reader, attributes: Mapping[str, ValueType]) -> None:
        self._reader = reader
        self._values = SelectorReader(reader, attributes)
        self._conditions = ConditionCompiler(attributes)
        self._lines: dict[str, int] = {}

    def read(self, value: Any, path: Path) -> Rule:
        reader = self._reader
        rule = reader.mapping(value, path, "a rule")
        if _NOT_BUILT in rule:
            raise reader.error_of_key(
                (*path, _NOT_BUILT),
                "the key `limit` is not built yet, and a limit that is ignored would protect no "
                "one.",
                "Remove it.",
            )
        reader.known_keys(rule, path, "a rule", _RULE_KEYS)
        name = self._name(reader.required(rule, "name", path, "a rule"), (*path, "name"))
        what = f"the rule {quoted(name)}"
        if "description" in rule:
            reader.text(rule["description"], (*path, "description"), "description")
        effect = reader.choice(
            reader.required(rule, "effect", path, what),
            (*path, "effect"),
            "effect",
            ("allow", "deny"),
        )
        actions = self._actions(reader.required(rule, "actions", path, what), (*path, "actions"))
        to, services = self._object(rule, path, actions)
        return Rule(
            name=name,
            allows=effect == "allow",
            actions=actions,
            subject=self._selector(rule.get("from", {}), (*path, "from"), "from"),
            object=to,
            services=services,
            tools=self._tools(rule, (*path, "tools"), actions),
            condition=self._condition(rule, (*path, "when"), actions),
            line=self._lines[name],
        )

    def _name(self, value: Any, path: Path) -> str:
        name = self._reader.text(value, path, "a rule's name")
        if len(name) > NAME_CHARS_MAX or not name.isprintable():
            raise self._reader.error(
                path,
                "a rule's name is too long or has characters that do not print.",
                f"Use at most {NAME_CHARS_MAX} characters on one line.",
            )
        if name in self._lines:
            raise self._reader.error(
                path,
                f"a rule named {quoted(name)} is already on line {self._lines[name]}.",
                "Give each rule a name of its own: decisions are reported by it.",
            )
        self._lines[name] = self._reader.positions.value_at(path).line
        return name

    def _actions(self, value: Any, path: Path) -> frozenset[Action]:
        known = [str(action) for action in Action]
        actions: set[Action] = set()
        for item, where in self._reader.one_or_more(value, path, "actions"):
            text = self._reader.text(item, where, "an action")
            if text not in known:
                hint = suggestion(text, known)
                if "*" in text:
                    hint = "Patterns are not read here: list the actions."
                raise self._reader.error(where, f"unknown action {quoted(text)}.", hint)
            actions.add(Action(text))
        return frozenset(actions)

    def _object(
        self, rule: dict[str, Any], path: Path, actions: frozenset[Action]
    ) -> tuple[Selector, frozenset[str] | None]:
        here = (*path, "to")
        to = dict(self._reader.mapping(rule.get("to", {}), here, "to"))
        if "service" not in to:
            return self._selector(to, here, "to", ("service",)), None
        where = (*here, "service")
        given = to.pop("service")
        others = sorted(actions - SERVICE_ACTIONS)
        if others:
            raise self._reader.error_of_key(
                where,
                f"{others[0]} has no service, so this rule could never apply to it.",
                "Give it a rule of its own, without `service`.",
            )
        found = self._reader.one_or_more(given, where, "service")
        services = frozenset(self._values.service(item, at) for item, at in found)
        return self._selector(to, here, "to", ("service",)), services

    def _selector(self, value: Any, path: Path, what: str, more: tuple[str, ...] = ()) -> Selector:
        mapping = self._reader.mapping(value, path, what)
        self._values.check_keys(mapping, path, what, more)
        return Selector(
            tuple(self._clause(key, given, (*path, key)) for key, given in mapping.items())
        )

    def _clause(self, key: str, value: Any, path: Path) -> Clause:
        found = self._reader.one_or_more(value, path, key)
        if key == "name":
            patterns = [self._pattern(item, at) for item, at in found]
            exact = frozenset(one.exact for one in patterns if one.exact is not None)
            return NameClause(key, exact, tuple(one for one in patterns if one.exact is None))
        values = frozenset(self._values.value(key, item, at) for item, at in found)
        kind = self._values.attributes.get(key)
        return FieldClause(key, values) if kind is None else AttributeClause(key, kind, values)

    def _pattern(self, value: Any, path: Path) -> NamePattern:
        text = self._reader.text(value, path, "name")
        try:
            return NamePattern.parse(text)
        except PatternError as error:
            raise self._reader.error(
                path, f"{quoted(text)} is no name: {error}.", "Write agent://domain/path."
            ) from None

    def _tools(
        self, rule: dict[str, Any], path: Path, actions: frozenset[Action]
    ) -> ToolNames | None:
        if "tools" not in rule:
            return None
        others = sorted(actions - {Action.MCP_CALL})
        if others:
            raise self._reader.error_of_key(
                path,
                f"`tools` says nothing about {others[0]}.",
                "Keep it to rules for mcp.call alone; mcp.list is implied by them.",
            )
        exact: set[str] = set()
        beginnings: set[str] = set()
        for item, at in self._reader.one_or_more(rule["tools"], path, "tools"):
            tool = self._reader.text(item, at, "a tool")
            if "*" in tool[:-1] or len(tool) > TOOL_NAME_CHARS_MAX:
                raise self._reader.error(
                    at, f"{quoted(tool)} is no tool.", "A * can only end a name, as in get_*."
                )
            if tool.endswith("*"):
                beginnings.add(tool[:-1])
            else:
                exact.add(tool)
        return ToolNames(frozenset(exact), tuple(sorted(beginnings)))

    def _condition(
        self, rule: dict[str, Any], path: Path, actions: frozenset[Action]
    ) -> Condition | None:
        if "when" not in rule:
            return None
        source = rule["when"]
        if not isinstance(source, str):
            raise self._reader.error(
                path, f"when is {kind_of(source)}, not text.", "Write a CEL expression."
            )
        try:
            return self._conditions.compile(source, actions)
        except SourceError as error:
            raise self._reader.error(path, f"in `when`: {error.problem}", error.remedy) from None


def _example(kind: ValueType) -> str:
    return {ValueType.INT: "a whole number", ValueType.BOOL: "true or false"}.get(kind, "text")
