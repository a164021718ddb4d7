"""Reads the rules of a policy: every key, every value, every expression, before any request."""

from typing import Any, Final

from identity.uri import SCHEME
from policy.cel_source import SourceError
from policy.condition import Condition, ConditionCompiler
from policy.fields import NAME_CHARS_MAX, TOOL_NAME_CHARS_MAX
from policy.matcher import (
    RESOURCES,
    AttributeClause,
    Clause,
    FieldClause,
    NameClause,
    Selector,
    ToolNames,
    is_plain_uri,
)
from policy.model import Rule, SelectorReader
from policy.patterns import NamePattern, PatternError
from policy.reader import Place, Reader, kind_of, otherwise, quoted, suggestion
from policy.request import SERVICE_ACTIONS, Action
from policy.strict_yaml import Path
from policy.terms import TERM_KEYS, Terms, read_terms

_RULE_KEYS: Final = (
    "name",
    "description",
    "effect",
    "actions",
    "from",
    "to",
    "tools",
    "prompts",
    "resources",
    "when",
    *TERM_KEYS,
)
# Lists of names, and the actions whose rules may have them.
_LISTED_FOR: Final = {
    "tools": frozenset({Action.MCP_CALL, Action.MCP_RESULT}),
    "prompts": frozenset({Action.MCP_PROMPT}),
    RESOURCES: frozenset({Action.MCP_READ}),
}


class RuleReader:
    """Reads the rules of one file. ``places`` are those of all names so far, its own included."""

    def __init__(
        self,
        reader: Reader,
        conditions: ConditionCompiler,
        places: dict[str, Place],
        defaults: Terms,
    ) -> None:
        self._reader = reader
        self._defaults = defaults
        self._values = SelectorReader(reader, conditions.attributes)
        self._conditions = conditions
        self._places = places

    def read(self, value: Any, path: Path) -> Rule:
        reader = self._reader
        rule = reader.mapping(value, path, "a rule")
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
            tools=self._listed(rule, path, actions),
            condition=self._condition(rule, (*path, "when"), actions),
            terms=read_terms(rule, path, effect == "allow", actions, self._defaults, self._reader),
            file=self._places[name].file,
            line=self._places[name].line,
        )

    def _name(self, value: Any, path: Path) -> str:
        name = self._reader.text(value, path, "a rule's name")
        if len(name) > NAME_CHARS_MAX or not name.isprintable():
            raise self._reader.error(
                path,
                "a rule's name is too long or has characters that do not print.",
                f"Use at most {NAME_CHARS_MAX} characters on one line.",
            )
        place = self._reader.place_of(path)
        first = self._places.setdefault(name, place)
        if first is not place:
            raise self._reader.error(
                path,
                f"a rule named {quoted(name)} is already {first.seen_from(place)}.",
                "Give each rule a name of its own: decisions are reported by it.",
            )
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
            remedy = otherwise(_better_name(text), "Write agent://domain/path.")
            raise self._reader.error(path, f"{quoted(text)} is no name: {error}.", remedy) from None

    def _listed(
        self, rule: dict[str, Any], path: Path, actions: frozenset[Action]
    ) -> ToolNames | None:
        """`tools`, `prompts` or `resources`, whichever the rule has. Each is for one action."""
        found: ToolNames | None = None
        for key, having in _LISTED_FOR.items():
            if key not in rule:
                continue
            here = (*path, key)
            others = sorted(actions - having)
            if others:
                raise self._reader.error_of_key(
                    here,
                    f"`{key}` says nothing about {others[0]}.",
                    f"Keep it to rules for {' and '.join(sorted(having))} alone; mcp.list is "
                    "implied by them.",
                )
            found = self._names_of(key, rule[key], here)
        return found

    def _names_of(self, key: str, value: Any, path: Path) -> ToolNames:
        what = f"one of `{key}`"
        exact: set[str] = set()
        beginnings: set[str] = set()
        for item, at in self._reader.one_or_more(value, path, key):
            name = self._reader.text(item, at, what)
            if key != RESOURCES and len(name) > TOOL_NAME_CHARS_MAX:
                raise self._reader.error(
                    at,
                    f"{what} has {len(name)} characters.",
                    f"Write 1 to {TOOL_NAME_CHARS_MAX}.",
                )
            if "*" in name[:-1]:
                raise self._reader.error(
                    at, f"{quoted(name)} is no name.", "A * can only end a name, as in get_*."
                )
            if key == RESOURCES and not is_plain_uri(name.rstrip("*")):
                raise self._reader.error(
                    at,
                    f"{quoted(name)} is no URI in its plain form.",
                    "Write it as file:///docs/*: with its scheme, in lowercase up to the path, "
                    "without .. and backslashes.",
                )
            if name.endswith("*"):
                beginnings.add(name[:-1])
            else:
                exact.add(name)
        return ToolNames(key, frozenset(exact), tuple(sorted(beginnings)))

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


def _better_name(text: str) -> str | None:
    """The name that was probably meant."""
    better = text.lower()
    if not better.startswith(SCHEME):
        better = SCHEME + better.lstrip("/")
    try:
        NamePattern.parse(better)
    except PatternError:
        return None
    return better
