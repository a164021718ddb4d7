"""Targets of policy/: strict YAML, policy files, and the conditions in them."""

import datetime
import math
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from policy import STARTER_POLICY, Action, Party, PolicyEngine, Request
from policy.bundles import BASELINE_POLICY
from policy.cel import ValueType
from policy.cel_source import SourceError, read_clauses
from policy.condition import FAULT, ConditionCompiler, Facts
from policy.errors import PolicyError, YamlError
from policy.patterns import NamePattern, PatternError
from policy.strict_yaml import load_strict
from tests.fuzz.program import Program, text_of
from tests.fuzz.target import Target
from tests.fuzz.targets_link import ALICE, BOB, NODE
from tests.fuzz.targets_node import SIDECAR_YAML

UNIX_S: Final = 1_900_000_000.0
CLAUSES: Final = (
    "subject.role == 'planner'",
    "object.role == 'x'",
    "subject.clearance >= 2",
    "subject.ok",
    "message.size < 65536",
    "10 <= message.size",
    "message.size > 3",
    "subject.name.startsWith('agent://acme/')",
    "subject.trust_domain == object.trust_domain",
    "'a' in subject.tags",
    "subject.role in ['planner', 'auditor']",
    "now > timestamp('2026-01-01T00:00:00Z')",
    "1 / (subject.clearance - 2) == 1",
    "true",
    "false",
    "size(subject.tags) == 2",
)


def run_yaml(data: bytes) -> None:
    """Whatever is read, another reader of YAML 1.2 reads as the same."""
    text = text_of(data)
    found, positions = load_strict(text, "file.yaml")
    assert positions.value_at(()).line >= 1
    try:
        other = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError):
        return  # Its constructor refuses some dates that never were; the text stays a text here.
    assert _are_alike(found, other), f"{found!r:.200} and to another reader {other!r:.200}"


def _are_alike(ours: Any, other: Any) -> bool:
    if isinstance(other, datetime.date | datetime.datetime):
        return isinstance(ours, str)
    if isinstance(ours, dict):
        return (
            isinstance(other, dict)
            and list(ours) == list(other)
            and all(_are_alike(value, other[key]) for key, value in ours.items())
        )
    if isinstance(ours, list):
        return (
            isinstance(other, list)
            and len(ours) == len(other)
            and all(map(_are_alike, ours, other))
        )
    if isinstance(ours, float):
        return isinstance(other, float | int) and math.isclose(ours, other)
    return type(ours) is type(other) and bool(ours == other)


def run_policy(data: bytes) -> None:
    """A whole policy file: loaded, its own tests run, and asked something."""
    engine = PolicyEngine.load(text_of(data), file="policy.yaml")
    engine.run_tests()
    for action in (Action.MESSAGE_ASK, Action.MCP_CALL, Action.ROUTE_REGISTER):
        request = Request(action, _party(1), _party(0), service="weather", message_bytes=10)
        decided = engine.decide(request, UNIX_S)
        assert "could not be judged" not in getattr(decided, "reason", "")


def _policies() -> list[bytes]:
    own_rules = b"""\
apiVersion: sidelink/v1
kind: Policy
metadata: {name: finance}
attributes: {role: text, clearance: int, ok: bool, tags: list}
rules:
  - name: planners ask billing
    effect: allow
    actions: [message.ask, message.tell]
    from: {trust_domain: acme, role: [planner, x]}
    to: {name: "agent://acme/*/bob"}
    when: message.size < 65536 && subject.clearance >= 2
  - name: forecasts
    effect: allow
    actions: mcp.call
    to: {service: weather}
    tools: [get_*, list]
    when: args.days <= 7
tests:
  - name: a planner may
    action: message.ask
    from: {name: agent://acme/alpha/alice, role: planner, clearance: 2}
    to: {name: agent://acme/beta/bob}
    size: 10
    at: 2026-11-22T10:00:00Z
    expect: allow
    rule: planners ask billing
"""
    return [own_rules, STARTER_POLICY.encode(), BASELINE_POLICY.encode()]


def _party(kind: int) -> Party:
    if kind == 0:
        return Party.unproved(BOB)
    return Party(
        identifier=NODE,
        name=ALICE,
        kind="agent",
        role_of_node=None,
        trust_domain="acme",
        issuer=NODE,
        attributes={
            1: {"role": "planner", "clearance": 3, "ok": True, "tags": ("a", "b")},
            2: {"role": "x"},
            3: {},
        }[kind],
    )


_ATTRIBUTES: Final = {
    "role": ValueType.TEXT,
    "clearance": ValueType.INT,
    "ok": ValueType.BOOL,
    "tags": ValueType.LIST,
}
_COMPILER: Final = ConditionCompiler(_ATTRIBUTES)
_MESSAGES: Final = frozenset({Action.MESSAGE_ASK, Action.MESSAGE_TELL})


def run_cel(data: bytes) -> None:
    """An expression: cut into parts for caching, it still decides as it does in one piece."""
    source = text_of(data)
    clauses = read_clauses(source)
    assert all(clause.source in source for clause in clauses)
    condition = _COMPILER.compile(source, _MESSAGES)
    schema = _COMPILER._schema(_MESSAGES)
    whole = schema.compile(source, frozenset(schema.variables))
    for number, size in ((1, 2), (1, 70_000), (2, 20), (3, 10)):
        subject, target = _party(number), _party(3 - number % 3)
        request = Request(Action.MESSAGE_ASK, subject, target, message_bytes=size)
        facts = Facts(request, UNIX_S, probing=False)
        judged = condition.judge(facts, subject, target)
        values = _values_of(facts, subject, target)
        expected = whole.evaluate(values)
        if isinstance(expected, bool):
            # Where one part has no result the other may still be false: then both are false.
            assert judged in (2 if expected else 0, FAULT if not expected else 2), source
        else:
            assert judged in (FAULT, 0), source


def _values_of(facts: Facts, subject: Party, target: Party) -> dict[str, Any]:
    from policy.condition import _getter

    schema = _COMPILER._schema(_MESSAGES)
    found = {
        name: _getter(name, kind)(facts, subject, target) for name, kind in schema.variables.items()
    }
    return {name: value for name, value in found.items() if value is not None}


def run_clauses(data: bytes) -> None:
    """Expressions put together from sound parts, so that most of them compile."""
    program = Program(data)
    source = program.choose(CLAUSES)
    for _ in range(program.below(6)):
        sign = program.choose(("&&", "||", "&&", "&& !", "? true :", "&& ("))
        source = f"{source} {sign} {program.choose(CLAUSES)}"
        if sign.endswith("("):
            source += ")"
        elif program.below(4) == 0:
            source = f"({source})"
    run_cel(source.encode())


def run_pattern(data: bytes) -> None:
    text = text_of(data)
    pattern = NamePattern.parse(text)
    exact = pattern.exact
    assert exact is None or pattern.matches(exact)
    pattern.matches(ALICE)


TARGETS: Final[list[Target]] = [
    Target(
        "policy.yaml",
        "strict YAML, compared with another reader",
        run_yaml,
        lambda: [SIDECAR_YAML, *_policies(), b"a: [1, -2.5e3, true, ~, 'x', \"\\u00e9\"]\n"],
        YamlError,
        bytes_max=1_024,
        is_own_file=True,
    ),
    Target(
        "policy.file",
        "a policy file with its own tests",
        run_policy,
        _policies,
        PolicyError,
        bytes_max=4_096,
        cpu_s_max=2.0,
        is_own_file=True,
    ),
    Target(
        "policy.cel",
        "the text of a condition",
        run_cel,
        lambda: [clause.encode() for clause in CLAUSES],
        SourceError,
        bytes_max=256,
    ),
    Target(
        "policy.clauses",
        "conditions put together from sound parts",
        run_clauses,
        lambda: [bytes([0, 2, 0, 4, 0, 1, 2, 1]), bytes([4, 1, 1, 0, 1])],
        SourceError,
        bytes_max=32,
        is_program=True,
    ),
    Target(
        "policy.pattern",
        "a pattern of names",
        run_pattern,
        lambda: [b"agent://acme/billing/*", b"agent://acme/**", b"agent://acme/a/b"],
        PatternError,
        bytes_max=512,
    ),
]
