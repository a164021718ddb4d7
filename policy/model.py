"""What a policy is once it is read: rules and documents; and how single values are read."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from identity import Identifier, IdentityError, validate_trust_domain
from policy.cel import ValueType, has_type
from policy.condition import Condition
from policy.fields import ATTRIBUTE_NAME, KINDS, ROLES_OF_NODE, SERVICE_NAME
from policy.matcher import Selector, ToolNames
from policy.reader import Reader, kind_of, otherwise, quoted, suggestion
from policy.request import Action
from policy.strict_yaml import Path
from policy.terms import Terms

_SELECTOR_KEYS: Final = ("identifier", "issuer", "kind", "name", "role_of_node", "trust_domain")


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
    terms: Terms
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """What a file says. ``tests`` stays as it was written, for the runner to read.

    ``attributes`` and ``rule_names`` are those of all files that were read together.
    """

    name: str | None
    defaults: Terms
    attributes: Mapping[str, ValueType]
    rules: tuple[Rule, ...]
    tests: tuple[Any, ...]
    reader: Reader
    rule_names: frozenset[str]


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
            if key == "service":
                hint = "The service that somebody offers belongs to `to`."
            elif ATTRIBUTE_NAME.fullmatch(key):
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
            better = text.lower() if SERVICE_NAME.fullmatch(text.lower()) else None
            remedy = "Use lowercase letters, digits, '.', '_' and '-'; patterns are not read here."
            raise self._reader.error(
                path, f"{quoted(text)} is no name of a service.", otherwise(better, remedy)
            )
        return text

    def _trust_domain(self, value: Any, path: Path) -> Hashable:
        text = self._reader.text(value, path, "trust_domain")
        if (found := _domain(text)) is not None:
            return found
        raise self._reader.error(
            path,
            f"{quoted(text)} is no trust domain.",
            otherwise(_domain(text.lower()), "Write it as in a name, for example acme."),
        )

    def _identifier(self, value: Any, path: Path) -> Hashable:
        text = self._reader.text(value, path, "an identifier")
        try:
            return Identifier.parse(text)
        except IdentityError as error:
            raise self._reader.error(
                path,
                f"{quoted(text)} is no identifier: {error.detail}.",
                "Copy it from `sidelink status`.",
            ) from None


def _domain(text: str) -> str | None:
    try:
        return validate_trust_domain(text)
    except IdentityError:
        return None


def _example(kind: ValueType) -> str:
    return {ValueType.INT: "a whole number", ValueType.BOOL: "true or false"}.get(kind, "text")
