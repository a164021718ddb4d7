"""The tests that a policy carries itself: hypothetical requests, and what is expected of them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

from identity import AgentUri, AttributeValue, Identifier, IdentityError, NamePrefix
from policy.cel import ValueType, has_type
from policy.decision import Denial, Permit
from policy.model import PolicyDocument, SelectorReader
from policy.reader import Reader, quoted
from policy.request import ARGUMENT_ACTIONS, MESSAGE_ACTIONS, Action, Kind, Party, Request
from policy.strict_yaml import Path, Positions

TEST_UNIX_S: Final = 1_767_225_600.0
"""The time of a test that says no `at`: 2026-01-01T00:00:00Z."""

TEST_KEYS: Final = (
    "name",
    "action",
    "from",
    "to",
    "tool",
    "prompt",
    "resource",
    "args",
    "result",
    "size",
    "prefix",
    "at",
    "expect",
    "rule",
)
_NODE_ACTIONS: Final = frozenset(
    {Action.HOP_ADMIT, Action.NODE_ENROL, Action.ROUTE_REGISTER, Action.LINK_RELAY}
)

Decide = Callable[[Request, float], Permit | Denial]


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """A test as it was written: what is asked and when, and what is expected."""

    name: str
    file: str
    line: int
    request: Request
    unix_s: float
    expected: str
    rule: str | None

    def run(self, decide: Decide) -> "PolicyTestOutcome":
        decision = decide(self.request, self.unix_s)
        decided = "allow" if isinstance(decision, Permit) else "deny"
        reason = ""
        if decided != self.expected:
            by = f'the rule "{decision.rule}" allows it' if isinstance(decision, Permit) else ""
            reason = by or cast("Denial", decision).reason
        elif self.rule is not None and decision.rule != self.rule:
            by = quoted(decision.rule or "no rule")
            reason = f"decided by {by}, not by {quoted(self.rule)}"
        return PolicyTestOutcome(
            self.name,
            self.file,
            self.line,
            not reason,
            self.expected,
            decided,
            decision.rule,
            reason,
            tuple(one.name for one in decision.audited),
        )


@dataclass(frozen=True, slots=True)
class PolicyTestOutcome:
    """``rule`` is what decided; ``reason`` says what is wrong, for a person, or is empty.

    ``audited`` are the rules in audit mode that would have had an effect.
    """

    name: str
    file: str
    line: int
    passed: bool
    expected: str
    decided: str
    rule: str | None
    reason: str
    audited: tuple[str, ...] = ()


def read_tests(document: PolicyDocument) -> tuple[PolicyTest, ...]:
    """Every test of the document. Raises PolicyError for one that cannot be read."""
    reader = _TestReader(document.reader, document.attributes, document.rule_names)
    return tuple(reader.read(test, ("tests", index)) for index, test in enumerate(document.tests))


def read_question(
    fields: dict[str, Any], attributes: Mapping[str, ValueType], where: str
) -> tuple[Request, float]:
    """What somebody asks who gives the keys of a test, and no expectation; and the time.

    ``where`` stands for the file in what PolicyError says.
    """
    reader = _TestReader(Reader(Positions(), where), attributes, frozenset())
    keys = [key for key in TEST_KEYS if key not in ("name", "expect", "rule")]
    reader.check_keys(fields, "the request", keys)
    return reader.question(fields, (), "the request")


class _TestReader:
    def __init__(
        self, reader: Reader, attributes: Mapping[str, ValueType], rules: frozenset[str]
    ) -> None:
        self._reader = reader
        self._rules = rules
        self._values = SelectorReader(reader, attributes)

    def check_keys(self, fields: dict[str, Any], what: str, known: Sequence[str]) -> None:
        self._reader.known_keys(fields, (), what, known)

    def question(self, test: dict[str, Any], path: Path, what: str) -> tuple[Request, float]:
        return self._request(test, path, what), self._time(test, path)

    def read(self, value: Any, path: Path) -> PolicyTest:
        reader = self._reader
        test = reader.mapping(value, path, "a test")
        reader.known_keys(test, path, "a test", TEST_KEYS)
        name = reader.text(reader.required(test, "name", path, "a test"), (*path, "name"), "name")
        what = f"the test {quoted(name)}"
        expected = reader.choice(
            reader.required(test, "expect", path, what),
            (*path, "expect"),
            "expect",
            ("allow", "deny"),
        )
        rule: str | None = None
        if "rule" in test:
            rule = reader.choice(test["rule"], (*path, "rule"), "rule", self._rules)
        request, unix_s = self.question(test, path, what)
        place = reader.place_of(path)
        return PolicyTest(name, place.file, place.line, request, unix_s, expected, rule)

    def _request(self, test: dict[str, Any], path: Path, what: str) -> Request:
        reader = self._reader
        text = reader.required(test, "action", path, what)
        choices = [str(one) for one in Action]
        action = Action(reader.choice(text, (*path, "action"), "action", choices))
        kind: Kind = "node" if action in _NODE_ACTIONS else "agent"
        to = dict(reader.mapping(test.get("to", {}), (*path, "to"), "to"))
        service = to.pop("service", None)
        args: dict[str, Any] | None = None
        if "args" in test:
            args = reader.mapping(test["args"], (*path, "args"), "args")
        elif action in ARGUMENT_ACTIONS:
            args = {}
        named = {
            key: reader.text(test[key], (*path, key), key)
            for key in ("tool", "prompt", "resource")
            if key in test
        }
        uri = named.get("resource")
        if uri is not None and "args" not in test:
            args = {"uri": uri}
        result = None
        if "result" in test:
            result = reader.mapping(test["result"], (*path, "result"), "result")
        size: int | None = 0 if action in MESSAGE_ACTIONS else None
        if "size" in test:
            size = reader.integer(test["size"], (*path, "size"), "size", least=0)
        if service is not None:
            service = self._values.service(service, (*path, "to", "service"))
        return Request(
            action,
            self._party(test.get("from", {}), (*path, "from"), "from", kind),
            self._party(to, (*path, "to"), "to", kind),
            service=service,
            message_bytes=size,
            prefix=self._prefix(test, path),
            tool=named.get("tool", named.get("prompt")),
            args=args,
            uri=uri,
            result=result,
        )

    def _party(self, value: Any, path: Path, what: str, kind: Kind) -> Party:
        mapping = self._reader.mapping(value, path, what)
        more = ("service",) if what == "to" else ()
        self._values.check_keys(mapping, path, what, more)
        fields: dict[str, Any] = {}
        attributes: dict[str, AttributeValue] = {}
        for key, given in mapping.items():
            here = (*path, key)
            if key == "name":
                fields["name"] = self._name(given, here)
            elif key in self._values.attributes:
                attributes[key] = self._attribute(key, given, here)
            else:
                fields[key] = self._values.value(key, given, here)
        name = fields.get("name")
        # Nobody's own: a test that cares about the identifier says it.
        made_up = Identifier(hashlib.sha256(f"{what} of a policy test".encode()).digest())
        return Party(
            identifier=fields.get("identifier", made_up),
            name=name,
            kind=fields.get("kind", kind),
            role_of_node=fields.get("role_of_node"),
            trust_domain=fields.get("trust_domain", None if name is None else name.trust_domain),
            issuer=fields.get("issuer"),
            attributes=attributes,
        )

    def _name(self, value: Any, path: Path) -> AgentUri:
        text = self._reader.text(value, path, "name")
        try:
            return AgentUri.parse(text)
        except IdentityError as error:
            raise self._reader.error(
                path, f"{error.detail}.", "A test names one agent; patterns are for rules."
            ) from None

    def _attribute(self, key: str, value: Any, path: Path) -> AttributeValue:
        kind = self._values.attributes[key]
        if kind is ValueType.LIST and isinstance(value, list) and has_type(value, kind):
            return tuple(value)
        if kind is ValueType.LIST or isinstance(value, list):
            raise self._reader.error(
                path, f"{key} is declared as {kind}.", "Give it a value of that type."
            )
        return cast("AttributeValue", self._values.value(key, value, path))

    def _prefix(self, test: dict[str, Any], path: Path) -> NamePrefix | None:
        if "prefix" not in test:
            return None
        here = (*path, "prefix")
        try:
            return NamePrefix.parse(self._reader.text(test["prefix"], here, "prefix"))
        except IdentityError as error:
            raise self._reader.error(
                here, f"{error.detail}.", "Write agent://domain/path."
            ) from None

    def _time(self, test: dict[str, Any], path: Path) -> float:
        if "at" not in test:
            return TEST_UNIX_S
        here = (*path, "at")
        try:
            moment = datetime.fromisoformat(self._reader.text(test["at"], here, "at"))
        except ValueError:
            raise self._reader.error(
                here, "at is no time.", "Write it as 2026-11-22T10:00:00Z."
            ) from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
