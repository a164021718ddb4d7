"""What `when` means: values, faults, and which answers may be used again."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy import Action, Party, Permit, PolicyError, Request
from policy.cel import CelSchema, ValueType
from policy.cel_source import read_clauses
from policy.condition import ConditionCompiler, Facts, InterpretedPart, Part, PlainPart
from tests.policy.helpers import (
    BILLING,
    HEADER,
    NOW,
    PLANNER,
    agent,
    ask,
    call,
    denied,
    is_allowed,
    load,
    permitted,
    policy_of,
    unproved,
)

ALLOW_ASK = "effect: allow, actions: [message.ask]"
DENY_ASK = "effect: deny, actions: [message.ask]"
ALLOW_CALL = "effect: allow, actions: [mcp.call]"
DENY_CALL = "effect: deny, actions: [mcp.call]"
ANYBODY = "effect: allow, actions: [message.ask, mcp.call]"

DEEP: Any = {}
for _ in range(100_000):
    DEEP = {"a": DEEP}

# A condition, the arguments of a call, and whether it holds; None is a fault.
ON_ARGUMENTS = {
    "an equal integer": ("args.n == 7", {"n": 7}, True),
    "a larger integer": ("args.n <= 7", {"n": 8}, False),
    "a double beside an integer": ("args.n <= 7", {"n": 6.5}, True),
    "an integer beyond 64 bits": ("args.n <= 7", {"n": 1 << 64}, False),
    "a negative integer beyond 64 bits": ("args.n <= 7", {"n": -(1 << 70)}, True),
    "an integer beyond a double": ("args.n <= 7", {"n": 10**400}, False),
    "a huge integer elsewhere": ("args.n <= 7", {"n": 7, "other": [{"x": 1 << 64}]}, True),
    "a missing argument": ("args.n <= 7", {}, None),
    "no arguments at all": ("args.n <= 7", None, None),
    "text for a number": ("args.n <= 7", {"n": "7"}, None),
    "null for a number": ("args.n <= 7", {"n": None}, None),
    "a boolean for a number": ("args.n <= 7", {"n": True}, None),
    "not a number": ("args.n <= 7", {"n": float("nan")}, False),
    "a nested value": ("args.a.b[1].c == 'x'", {"a": {"b": [0, {"c": "x"}]}}, True),
    "a list as tuple": ("args.l.all(x, x < 3)", {"l": (1, 2)}, True),
    "a key that is asked for": ("'n' in args", {"n": 1}, True),
    "half a character": ("args.t == 'x'", {"t": "\ud800"}, None),
    "half a character elsewhere": ("args.n == 7", {"n": 7, "t": "\ud800"}, None),
    "a value that is no JSON": ("args.n == 7", {"n": 7, "o": object()}, None),
    "a key that is no text": ("args.n == 7", {"n": 7, 5: 5}, None),
    "nesting that would break the library": ("args.n == 7", {"n": 7, "o": DEEP}, None),
    "more values than are looked at": ("args.n == 7", {"n": 7, "o": [0] * 200_000}, None),
    "a loop in a loop in a loop": (
        "args.l.all(a, args.l.all(b, args.l.all(c, a + b + c >= 0)))",
        {"l": [0] * 300},
        None,
    ),
    "an expression that back-tracks elsewhere": (
        "args.t.matches('(a+)+$')",
        {"t": "a" * 5000 + "b"},
        False,
    ),
    "a pattern that does not compile": ("args.t.matches('((')", {"t": "a"}, None),
    "a division by zero": ("1 / args.n == 1", {"n": 0}, None),
    "an index beyond the list": ("args.l[3] == 1", {"l": [1]}, None),
    "true beside a fault": ("args.x == 1 || args.n == 7", {"n": 7}, True),
    "false beside a fault": ("args.x == 1 && args.n == 7", {"n": 8}, False),
}


@pytest.mark.parametrize(
    ("condition", "args", "holds"), ON_ARGUMENTS.values(), ids=ON_ARGUMENTS.keys()
)
def test_a_fault_grants_nothing_and_denies(condition: str, args: Any, holds: bool | None) -> None:
    allowing = policy_of(f'{ALLOW_CALL}, when: "{condition}"')
    denying = policy_of(ALLOW_CALL, f'{DENY_CALL}, when: "{condition}"')

    assert is_allowed(allowing, call(args=args)) is (holds is True)
    assert is_allowed(denying, call(args=args)) is (holds is False)


# A condition on a planner with clearance 2, asking for an agent of billing; None is a fault.
ON_PARTIES = {
    "an attribute": ("subject.clearance >= 2", True),
    "an attribute that is too low": ("subject.clearance >= 3", False),
    "an attribute of the object": ("object.role == 'billing'", True),
    "a missing attribute": ("object.clearance >= 0", None),
    "the negation of a missing attribute": ("!(object.clearance >= 0)", None),
    "a missing list": ("'x' in subject.teams", None),
    "the name": ("subject.name == 'agent://acme/finance/planner'", True),
    "the trust domains": ("subject.trust_domain == object.trust_domain", True),
    "the kind": ("subject.kind == 'agent'", True),
    "a role of node that agents have not": ("subject.role_of_node == 'sidecar'", None),
    "the identifier": ("subject.identifier.startsWith('sl1')", True),
    "the issuer": ("subject.issuer != object.identifier", True),
    "the time": ("now > timestamp('2027-01-01T00:00:00Z')", True),
    "the time of day": ("now.getHours('UTC') == 8", True),
    "the size of the message": ("message.size == 10", True),
    "the size the other way round": ("10 >= message.size", True),
    "a size in brackets": ("(message.size <= 9)", False),
    "a size in hexadecimal": ("message.size < 0xb", True),
    "sizes that leave nothing": ("message.size < 5 && message.size > 5", False),
    "a choice": ("subject.clearance > 1 ? message.size < 20 : false", True),
}


@pytest.mark.parametrize(("condition", "holds"), ON_PARTIES.values(), ids=ON_PARTIES.keys())
def test_conditions_on_who_and_when(condition: str, holds: bool | None) -> None:
    allowing = policy_of(f'{ALLOW_ASK}, when: "{condition}"')
    denying = policy_of(ALLOW_ASK, f'{DENY_ASK}, when: "{condition}"')

    assert is_allowed(allowing, ask()) is (holds is True)
    assert is_allowed(denying, ask()) is (holds is False)


def test_an_attribute_of_another_type_than_declared_is_missing() -> None:
    engine = policy_of(f'{ALLOW_ASK}, when: "subject.clearance >= 1"')

    for value in ("2", True, 1 << 64, ("2",)):
        assert not is_allowed(engine, ask(agent("agent://acme/a", clearance=value)))


# The rules, and the cached bound for a permit of 10 bytes; False if it may not be cached.
REUSE: dict[str, tuple[tuple[str, ...], int | bool | None]] = {
    "no condition": ((ALLOW_ASK,), None),
    "a condition on subject and object": (
        (f"{ALLOW_ASK}, when: subject.clearance >= 2 && object.role != 'x'",),
        None,
    ),
    "a bound": ((f"{ALLOW_ASK}, when: message.size < 100",), 99),
    "an inclusive bound": ((f"{ALLOW_ASK}, when: message.size <= 100",), 100),
    "a bound the other way round": ((f"{ALLOW_ASK}, when: 100 > message.size",), 99),
    "two bounds": ((f"{ALLOW_ASK}, when: message.size < 100 && message.size < 50",), 49),
    "a bound beside a condition": (
        (f"{ALLOW_ASK}, when: message.size < 100 && subject.clearance >= 2",),
        99,
    ),
    "a bound within a choice": (
        (f"{ALLOW_ASK}, when: message.size < 100 || subject.clearance > 9",),
        False,
    ),
    "a least size": ((f"{ALLOW_ASK}, when: message.size > 5",), False),
    "arithmetic on the size": ((f"{ALLOW_ASK}, when: message.size * 2 < 100",), False),
    "the time": ((f"{ALLOW_ASK}, when: now > timestamp(0)",), False),
    "the wider of two rules": (
        (f"{ALLOW_ASK}, when: message.size < 100", f"{ALLOW_ASK}, when: message.size < 200"),
        199,
    ),
    "a rule with the time beside one without": (
        (f"{ALLOW_ASK}, when: now > timestamp(0)", f"{ALLOW_ASK}, when: message.size < 100"),
        99,
    ),
    "a deny rule for larger messages": ((ALLOW_ASK, f"{DENY_ASK}, when: message.size > 50"), 50),
    "a deny rule from a size on": ((ALLOW_ASK, f"{DENY_ASK}, when: message.size >= 50"), 49),
    "a deny rule for smaller messages": (
        (ALLOW_ASK, f"{DENY_ASK}, when: message.size < 5"),
        False,
    ),
    "a deny rule by the time": ((ALLOW_ASK, f"{DENY_ASK}, when: now < timestamp(0)"), False),
    "a deny rule by the time that is for others": (
        (ALLOW_ASK, f"{DENY_ASK}, from: {{role: x}}, when: now < timestamp(0)"),
        None,
    ),
    "a deny rule by size and credential": (
        (ALLOW_ASK, f"{DENY_ASK}, when: message.size > 50 && subject.clearance < 9"),
        50,
    ),
    "a deny rule by size that the credential rules out": (
        (ALLOW_ASK, f"{DENY_ASK}, when: message.size > 50 && subject.clearance > 9"),
        None,
    ),
    "a deny rule by size whose credential lacks what it asks": (
        (ALLOW_ASK, f"{DENY_ASK}, when: message.size > 50 && object.clearance > 9"),
        50,
    ),
}


@pytest.mark.parametrize(("rules", "bound"), REUSE.values(), ids=REUSE.keys())
def test_what_a_permit_holds_for(rules: tuple[str, ...], bound: int | bool | None) -> None:
    permit = permitted(
        policy_of(*(rule.replace("when: ", 'when: "') + _end(rule) for rule in rules)), ask()
    )

    assert permit.cacheable is (bound is not False)
    if bound is not False:
        assert permit.message_bytes_max == bound


def _end(rule: str) -> str:
    return '"' if "when: " in rule else ""


SIZES = st.integers(0, 12)
CONDITIONS = st.lists(
    st.tuples(
        st.sampled_from(["allow", "deny"]),
        st.lists(
            st.one_of(
                st.builds(
                    "message.size {} {}".format,
                    st.sampled_from(["<", "<=", ">", ">=", "=="]),
                    SIZES,
                ),
                st.builds("subject.clearance {} 2".format, st.sampled_from(["<", ">=", "=="])),
                st.builds("object.clearance {} 2".format, st.sampled_from(["<", ">="])),
            ),
            min_size=1,
            max_size=3,
        ).map(" && ".join),
    ),
    min_size=1,
    max_size=5,
)


@given(CONDITIONS, SIZES, SIZES)
def test_a_cached_permit_answers_as_the_engine_would(
    rules: list[tuple[str, str]], first: int, second: int
) -> None:
    engine = policy_of(
        *(f'effect: {effect}, actions: [message.ask], when: "{when}"' for effect, when in rules)
    )
    permit = engine.decide(ask(size=first), NOW)

    if isinstance(permit, Permit) and permit.cacheable and permit.covers(second):
        assert is_allowed(engine, ask(size=second))


def test_a_permit_for_a_call_or_for_an_unproved_peer_is_never_cached() -> None:
    engine = policy_of(ANYBODY)
    assert BILLING.name is not None

    assert not permitted(engine, call(args={})).cacheable
    assert not permitted(engine, ask(to=Party.unproved(BILLING.name))).cacheable
    assert permitted(engine, ask()).cacheable


def test_without_a_size_a_bound_grants_nothing_and_denies() -> None:
    bounded = policy_of(f'{ALLOW_ASK}, when: "message.size < 100"')
    denying = policy_of(ALLOW_ASK, f'{DENY_ASK}, when: "message.size > 100"')

    assert not is_allowed(bounded, ask(size=None))
    assert denied(denying, ask(size=None)).rule == "rule 2"


@given(st.text(alphabet="()[]{}!-&|.,:?<>='\"\\ \nhasrgtue.subject10_", max_size=80))
def test_any_source_compiles_or_is_refused_in_one_way(source: str) -> None:
    quoted = source.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    text = f'{HEADER}rules:\n  - {{name: r, {ALLOW_CALL}, when: "{quoted}"}}\n'
    try:
        engine = load(text)
    except PolicyError:
        return

    engine.decide(call(args={}), NOW)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["n", "l", "x"]), JSON))
def test_any_arguments_get_an_answer(args: dict[str, Any]) -> None:
    request = Request(Action.MCP_CALL, PLANNER, BILLING, service="weather", tool="get", args=args)
    allowing = policy_of(f'{ALLOW_CALL}, when: "args.n <= 7"')
    denying = policy_of(ALLOW_CALL, f'{DENY_CALL}, when: "args.n <= 7"')

    assert not (is_allowed(allowing, request) and is_allowed(denying, request))


COMPARED = (
    "subject.clearance >= 2",
    "(subject.clearance != 0x2)",
    "subject.clearance < object.clearance",
    "subject.role == object.role",
    "subject.role != 'x'",
    'subject.role == "x" && object.clearance > 1',
    "subject.human == true",
    "subject.human != object.human && subject.role == 'y'",
    "object.trust_domain == subject.trust_domain",
)
INTERPRETED = (
    "subject.role < 'x'",
    "subject.role == 'a\\\\n'",
    "subject.teams == object.teams",
    "subject.clearance >= 2 || subject.role == 'x'",
    "subject.clearance + 1 >= 2",
    "subject.human",
)


KINDS = {
    "clearance": ValueType.INT,
    "role": ValueType.TEXT,
    "human": ValueType.BOOL,
    "teams": ValueType.LIST,
}


def part_of(source: str) -> Part:
    part = ConditionCompiler(KINDS).compile(source, frozenset({Action.MESSAGE_ASK})).static
    assert part is not None
    return part


def interpreted(source: str) -> Part:
    """The same, whatever it is, by CEL."""
    parties = ("subject", "object")
    variables = {f"{party}.{name}": kind for party in parties for name, kind in KINDS.items()}
    variables |= {f"{party}.trust_domain": ValueType.TEXT for party in parties}
    schema = CelSchema(variables)
    names = frozenset[str]().union(*(clause.names for clause in read_clauses(source)))
    return InterpretedPart(schema.compile(source, names), schema)


@pytest.mark.parametrize("source", COMPARED)
@given(st.data())
def test_comparisons_give_what_the_interpreter_gives(source: str, data: st.DataObject) -> None:
    part, by_cel = part_of(source), interpreted(source)
    assert isinstance(part, PlainPart)
    subject, obj, parent = (
        agent(
            f"agent://{data.draw(st.sampled_from(['acme', 'globex']))}/x",
            **data.draw(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "clearance": st.integers(0, 3) | st.just("2"),
                        "role": st.sampled_from(["x", "y"]) | st.just(5),
                        "human": st.booleans(),
                    },
                )
            ),
        )
        for _ in range(3)
    )
    to = data.draw(st.sampled_from([obj, unproved(obj)]))
    facts = Facts(ask(replace(subject, ancestors=(parent,)), to), NOW, data.draw(st.booleans()))

    for one in (facts.request.subject, parent):
        assert part.judge(facts, one, to) == by_cel.judge(facts, one, to)


@pytest.mark.parametrize("source", INTERPRETED)
def test_anything_else_is_left_to_the_interpreter(source: str) -> None:
    assert isinstance(part_of(source), InterpretedPart)
