"""What holds for every policy and every request, whatever they are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from policy import Action, Denial, Party, Permit, PolicyEngine, Request
from policy.condition import Facts
from policy.documents import read_policy
from policy.matcher import YES
from tests.policy.helpers import HEADER, NOW, agent, is_allowed, node

NAMES = ("agent://acme/a", "agent://acme/a/b", "agent://acme/c", "agent://globex/a")
ROLES = ("x", "z")
ACTIONS = (
    Action.MESSAGE_ASK,
    Action.MESSAGE_TELL,
    Action.CHANNEL_OPEN,
    Action.STREAM_OPEN,
    Action.MCP_LIST,
    Action.MCP_CALL,
)
MESSAGES = frozenset({Action.MESSAGE_ASK, Action.MESSAGE_TELL})
ON_SERVICES = frozenset({Action.STREAM_OPEN, Action.MCP_LIST, Action.MCP_CALL})


@dataclass(frozen=True)
class RuleText:
    effect: str
    actions: tuple[Action, ...]
    subject: str
    to: str
    when: str

    def __str__(self) -> str:
        condition = f', when: "{self.when}"' if self.when else ""
        return (
            f"effect: {self.effect}, actions: [{', '.join(self.actions)}], "
            f"from: {{{self.subject}}}, to: {{{self.to}}}{condition}"
        )


SELECTORS = st.sampled_from(
    [
        "",
        "role: x",
        "role: [x, z]",
        "clearance: 2",
        "trust_domain: acme",
        "kind: agent",
        "kind: node",
        "name: agent://acme/a",
        "name: 'agent://acme/*'",
        "name: 'agent://acme/**', role: z",
    ]
)
ANY_WHEN: tuple[str, ...] = (
    "",
    "subject.clearance >= 2",
    "object.clearance < 2",
    "subject.role == object.role",
    "subject.role == 'x' || object.human",
    "now > timestamp(0)",
)
MESSAGE_WHEN = ("message.size < 5", "message.size >= 5 && subject.clearance == 2")
CALL_WHEN = ("args.n <= 5", "args.n == 1 || subject.role == 'x'")


@st.composite
def rule_texts(draw: st.DrawFn, effects: Sequence[str] = ("allow", "deny")) -> RuleText:
    actions = tuple(draw(st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=3, unique=True)))
    to = draw(SELECTORS)
    whens = ANY_WHEN
    if set(actions) <= MESSAGES:
        whens += MESSAGE_WHEN
    if set(actions) <= {Action.MCP_CALL}:
        whens += CALL_WHEN
    if set(actions) <= ON_SERVICES and draw(st.booleans()):
        to = f"{to}, service: s".removeprefix(", ")
    return RuleText(
        draw(st.sampled_from(effects)), actions, draw(SELECTORS), to, draw(st.sampled_from(whens))
    )


RULES = st.lists(rule_texts(), max_size=5)
ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(ROLES),
        "clearance": st.integers(0, 3),
        "human": st.booleans(),
    },
)


@st.composite
def parties(draw: st.DrawFn, depth: int = 2) -> Party:
    above: tuple[Party, ...] = ()
    if depth and draw(st.booleans()):
        parent = draw(parties(depth=depth - 1))
        above = (replace(parent, ancestors=()), *parent.ancestors)
    name = draw(st.sampled_from(NAMES))
    attributes: dict[str, Any] = draw(ATTRIBUTES)
    if draw(st.booleans()):
        return agent(name, above, **attributes)
    return replace(node(name, **attributes), ancestors=above)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    to = draw(parties())
    if draw(st.integers(0, 3)) == 0:
        assert to.name is not None
        to = Party.unproved(to.name)
    return Request(
        draw(st.sampled_from(ACTIONS)),
        draw(parties()),
        to,
        service=draw(st.sampled_from([None, "s", "t"])),
        message_bytes=draw(st.none() | st.integers(0, 10)),
        tool=draw(st.sampled_from([None, "get"])),
        args=draw(st.none() | st.fixed_dictionaries({}, optional={"n": st.integers(0, 9)})),
    )


def text_of(rules: Sequence[RuleText]) -> str:
    listed = "".join(f"  - {{name: rule {at}, {rule}}}\n" for at, rule in enumerate(rules))
    return f"{HEADER}rules:\n{listed}"


def engine_of(rules: Sequence[RuleText]) -> PolicyEngine:
    return PolicyEngine.load(text_of(rules), file="p", baseline=False)


def all_rules() -> RuleText:
    """A rule that allows everything, so that only what denies is left to be seen."""
    return RuleText("allow", ACTIONS, "", "", "")


@given(st.lists(rule_texts(effects=["deny"]), max_size=5), requests())
def test_what_no_rule_allows_is_denied(rules: list[RuleText], request: Request) -> None:
    assert not is_allowed(engine_of(rules), request)


@given(RULES, rule_texts(effects=["deny"]), st.integers(0, 6), requests())
def test_adding_a_deny_rule_never_grants(
    rules: list[RuleText], added: RuleText, at: int, request: Request
) -> None:
    stricter = engine_of([*rules[:at], added, *rules[at:]])

    if is_allowed(stricter, request):
        assert is_allowed(engine_of(rules), request)


@given(RULES, rule_texts(effects=["allow"]), requests())
def test_removing_an_allow_rule_never_grants(
    rules: list[RuleText], removed: RuleText, request: Request
) -> None:
    if is_allowed(engine_of(rules), request):
        assert is_allowed(engine_of([*rules, removed]), request)


@given(RULES, rule_texts(effects=["deny"]), requests())
def test_a_deny_rule_overrides_whatever_allows(
    rules: list[RuleText], denying: RuleText, request: Request
) -> None:
    alone = engine_of([all_rules(), denying]).decide(request, NOW)

    if isinstance(alone, Denial) and alone.rule is not None:
        answer = engine_of([*rules, all_rules(), denying]).decide(request, NOW)
        assert isinstance(answer, Denial)
        assert answer.rule is not None


@given(RULES.flatmap(lambda rules: st.tuples(st.just(rules), st.permutations(rules))), requests())
def test_the_order_of_rules_is_irrelevant(
    orders: tuple[list[RuleText], list[RuleText]], request: Request
) -> None:
    first, second = (engine_of(rules).decide(request, NOW) for rules in orders)

    assert type(first) is type(second)
    if isinstance(first, Permit) and isinstance(second, Permit):
        assert (first.cacheable, first.message_bytes_max) == (
            second.cacheable,
            second.message_bytes_max,
        )


@given(rule_texts(effects=["deny"]), requests(), parties(depth=0))
def test_a_child_never_sheds_a_deny_of_its_parent(
    denying: RuleText, request: Request, child: Party
) -> None:
    engine = engine_of([all_rules(), denying])
    parent = request.subject
    of_parent = replace(child, ancestors=(replace(parent, ancestors=()), *parent.ancestors))
    answer = engine.decide(request, NOW)

    # What denies only because the parent lacks an attribute says nothing of the parent.
    if isinstance(answer, Denial) and answer.rule and not is_fault(denying, request):
        assert not is_allowed(engine, replace(request, subject=of_parent))


def is_fault(rule: RuleText, request: Request) -> bool:
    """Whether the rule's condition has no result for any of the chain that `from` matches."""
    document = read_policy(text_of([rule]), "p")
    assert document is not None
    (compiled,) = document.rules
    if compiled.condition is None:
        return False
    facts = Facts(request, NOW, probing=False)
    subject, obj = request.subject, request.object
    return not any(
        compiled.condition.judge(facts, one, other) == YES
        for one in (subject, *subject.ancestors)
        for other in (obj, *obj.ancestors)
        if compiled.subject.match(one) == YES and compiled.object.match(other) == YES
    )


@given(RULES, requests())
def test_what_could_not_be_allowed_is_not_allowed(rules: list[RuleText], request: Request) -> None:
    engine = engine_of(rules)

    if is_allowed(engine, request):
        assert engine.could_allow(request, NOW)


@given(RULES, requests())
def test_whoever_may_do_something_may_open_the_channel_unless_that_is_denied(
    rules: list[RuleText], request: Request
) -> None:
    engine = engine_of(rules)
    opening = Request(Action.CHANNEL_OPEN, request.subject, request.object)

    if is_allowed(engine, request):
        answer = engine.decide(opening, NOW)
        assert isinstance(answer, Permit) or answer.rule is not None


GARBAGE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.lists(st.integers(), max_size=2)
    | st.builds(object)
)


@given(RULES, requests(), st.data())
def test_decide_answers_whatever_it_is_asked(
    rules: list[RuleText], request: Request, data: st.DataObject
) -> None:
    fields = data.draw(st.sets(st.sampled_from(Request.__slots__), min_size=1, max_size=3))
    outside: dict[str, Any] = {field: data.draw(GARBAGE) for field in sorted(fields)}
    broken = replace(request, **outside)
    within: dict[str, Any] = {
        str(field): data.draw(GARBAGE)
        for field in sorted(data.draw(st.sets(st.sampled_from(Party.__slots__), max_size=3)))
    }
    engine = engine_of([*rules, all_rules()])
    unix_s: Any = data.draw(st.just(NOW) | st.floats() | GARBAGE)

    for asked in (broken, replace(request, subject=replace(request.subject, **within)), within):
        answer = engine.decide(asked, unix_s)  # type: ignore[arg-type]
        assert isinstance(answer, Permit | Denial)
        assert engine.could_allow(asked, unix_s) in (True, False)  # type: ignore[arg-type]
