"""An index finds rules sooner, and changes no answer."""

from dataclasses import replace
from random import Random

import pytest

from policy import Action, Denial, Permit, PolicyEngine
from policy.evaluation import find_allowing
from policy.index import RuleIndex
from tests.policy.helpers import HEADER, NOW, PLANNER, agent, ask, call, unproved
from tests.policy.naive import Naive, some_policy, some_request

PAIRS = 400
PAIRS_PROVED = 100_000


def compare(seed: int, pairs: int, of_one_policy: int) -> None:
    """Ask both of them ``pairs`` questions. The message of what fails is enough to ask again."""
    for start in range(0, pairs, of_one_policy):
        chance = Random(seed + start)
        text = some_policy(chance, chance.choice([1, 3, 8, 40]))
        naive = Naive.load(text)
        engine = PolicyEngine.load(text, file="p", baseline=False)
        for _ in range(of_one_policy):
            request = some_request(chance)
            answer = engine.decide(request, NOW)
            allowed, denying = naive.effects(request)
            said = f"seed {seed + start}: {request} by\n{text}"
            assert isinstance(answer, Permit) is allowed, said
            if isinstance(answer, Denial) and answer.rule is not None:
                assert answer.rule in denying, said
            assert engine.could_allow(request, NOW) is naive.could_allow(request), said


def test_answers_as_if_every_rule_were_asked() -> None:
    compare(1, PAIRS, 20)


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_a_hundred_thousand_answers_are_as_if_every_rule_were_asked() -> None:
    compare(1_000_000, PAIRS_PROVED, 200)


MANY = (
    HEADER
    + "rules:\n"
    + "".join(
        f"  - {{name: r{at}, effect: allow, actions: [message.ask], from: {{role: r{at}}}, "
        f"to: {{name: 'agent://acme/b{at}/*'}}}}\n"
        for at in range(300)
    )
)


def test_asks_only_the_rules_that_share_the_narrowest_clause() -> None:
    engine = PolicyEngine.load(MANY, file="p", baseline=False)
    index: RuleIndex = engine._allowing[Action.MESSAGE_ASK]
    request = ask(agent("agent://acme/p", role="r7"), agent("agent://acme/b7/x"))

    found = index.find(request, (request.subject,), (request.object,), waits=False)

    assert [rule.name for rule in found] == ["r7"]
    assert isinstance(engine.decide(request, NOW), Permit)


def test_a_deny_rule_is_found_by_anybody_in_the_chain() -> None:
    denies = "  - {name: d, effect: deny, actions: [message.ask], from: {role: r999}}\n"
    engine = PolicyEngine.load(MANY + denies, file="p", baseline=False)
    grandparent = agent("agent://acme/g", role="r999")
    parent = agent("agent://acme/q", role="r1")
    subject = agent("agent://acme/p", (parent, grandparent), role="r7")

    answer = engine.decide(ask(subject, agent("agent://acme/b7/x")), NOW)

    assert isinstance(answer, Denial)
    assert answer.rule == "d"


def test_what_is_not_known_yet_is_not_left_out() -> None:
    of_object = MANY.replace("from: {role", "to: {role").replace(", to: {name", ", from: {name")
    by_service = "  - {name: s, effect: allow, actions: [mcp.call], to: {service: weather}}\n"
    engine = PolicyEngine.load(of_object + by_service, file="p", baseline=False)
    asker = agent("agent://acme/b7/x")

    assert engine.could_allow(ask(asker, unproved()), NOW)
    assert not engine.could_allow(ask(asker, agent("agent://acme/x", role="r8")), NOW)
    assert engine.could_allow(replace(call(subject=PLANNER), action=Action.CHANNEL_OPEN), NOW)


def test_a_rule_that_lists_several_items_of_a_list_is_asked_once_and_in_its_place() -> None:
    rules = "".join(
        f"  - {{name: r{at}, effect: allow, actions: [message.ask], from: {{teams: [{items}]}}}}\n"
        for at, items in enumerate(("b", "a, b", "c", "a"))
    )
    engine = PolicyEngine.load(f"{HEADER}rules:\n{rules}", file="p", baseline=False)
    request = ask(agent("agent://acme/p", teams=("a", "b", "x")))

    found = find_allowing(engine._allowing[Action.MESSAGE_ASK], request)

    assert [rule.name for rule in found] == ["r0", "r1", "r3"]
