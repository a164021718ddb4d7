"""Limits: how often a rule allows, to whom that is charged, and what a reload leaves of it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity import Code
from policy import Denial, LimitTable, Permit, PolicyEngine, PolicySource, Request
from policy.limits import Limit, Per
from tests.policy.helpers import BILLING, HEADER, NOW, PLANNER, agent, ask, node, policy_of

ASKS = "effect: allow, actions: [message.ask]"
TWO_AT_ONCE = f"{ASKS}, limit: {{rate: 1/s, burst: 2}}"
OTHER = agent("agent://acme/billing/other", role="billing")


def answers(engine: PolicyEngine, *requests: Request, at: float = NOW) -> list[bool]:
    return [isinstance(engine.decide(request, at), Permit) for request in requests]


def test_lets_through_what_the_burst_has_and_then_the_rate() -> None:
    engine = policy_of(TWO_AT_ONCE)

    at_once = answers(engine, ask(), ask(), ask())
    after_a_second = answers(engine, ask(), ask(), at=NOW + 1)

    assert at_once == [True, True, False]
    assert after_a_second == [True, False]


def test_a_denial_names_the_rule_whose_limit_is_spent() -> None:
    engine = policy_of(f"{ASKS}, limit: {{rate: 1/h}}")
    engine.decide(ask(), NOW)

    answer = engine.decide(ask(), NOW)

    assert isinstance(answer, Denial)
    assert (answer.code, answer.rule) == (Code.POLICY_LIMITED, "rule 1")
    assert 'the limit of the rule "rule 1" is spent' in answer.reason


def test_a_permit_under_a_limit_is_never_cached() -> None:
    answer = policy_of(TWO_AT_ONCE).decide(ask(), NOW)

    assert isinstance(answer, Permit)
    assert not answer.cacheable


def test_a_rule_without_a_limit_allows_before_one_that_has_one_is_charged() -> None:
    engine = policy_of(TWO_AT_ONCE, f"{ASKS}, from: {{role: planner}}")

    assert answers(engine, *[ask()] * 5) == [True] * 5
    assert len(engine.limits) == 0


def test_where_one_limit_is_spent_another_rule_may_allow() -> None:
    engine = policy_of(TWO_AT_ONCE, f"{ASKS}, limit: {{rate: 1/s, burst: 1}}")

    assert answers(engine, *[ask()] * 4) == [True] * 3 + [False]


PARENT = agent("agent://acme/finance/parent", role="planner")
NODE = node("agent://acme/finance")


def child(name: str) -> Request:
    return ask(agent(f"agent://acme/finance/{name}", (PARENT, NODE), role="planner"))


def test_a_child_spends_what_its_parent_has_and_its_siblings_with_it() -> None:
    engine = policy_of(TWO_AT_ONCE)

    assert answers(engine, child("a"), child("b"), child("c"), ask(PARENT)) == [
        True,
        True,
        False,
        False,
    ]


def test_nodes_are_not_charged_for_their_agents() -> None:
    engine = policy_of(TWO_AT_ONCE)
    agents = [ask(agent(f"agent://acme/finance/{name}", (NODE,))) for name in "abc"]

    assert answers(engine, *agents) == [True] * 3


def test_who_is_refused_for_an_ancestor_is_not_charged() -> None:
    engine = policy_of(TWO_AT_ONCE)
    answers(engine, ask(PARENT), ask(PARENT))

    assert answers(engine, child("a"), at=NOW) == [False]
    assert answers(engine, child("a"), child("b"), at=NOW + 2) == [True, True]


SHARED_BY = {
    "subject": [True, False, True],
    "pair": [True, True, True],
    "rule": [True, False, False],
}


@pytest.mark.parametrize("per", SHARED_BY)
def test_counts_by_subject_by_pair_or_for_all(per: str) -> None:
    engine = policy_of(f"{ASKS}, limit: {{rate: 1/min, burst: 1, per: {per}}}")

    found = answers(engine, ask(PLANNER, BILLING), ask(PLANNER, OTHER), ask(PARENT, BILLING))

    assert found == SHARED_BY[per]


def test_what_is_asked_again_is_neither_charged_nor_held_back() -> None:
    engine = policy_of(TWO_AT_ONCE)
    again = replace(ask(), again=True)

    assert answers(engine, again, again, again, ask(), ask(), ask(), again) == [
        *[True] * 5,
        False,
        True,
    ]


def test_what_is_only_asked_about_is_not_charged() -> None:
    engine = policy_of(TWO_AT_ONCE)

    for _ in range(3):
        engine.could_allow(ask(), NOW)
        engine.trace(ask(), NOW)

    assert len(engine.limits) == 0


def test_what_is_spent_stays_spent_when_the_policy_is_loaded_anew() -> None:
    text = f"{HEADER}rules:\n  - {{name: r, {TWO_AT_ONCE}}}\n"
    engine = PolicyEngine.load(text, file="p")
    answers(engine, ask(), ask())

    changed = text.replace("burst: 2", "burst: 5")
    newer = PolicyEngine.load_bundle([PolicySource("p", changed)], limits=engine.limits)

    assert answers(newer, ask()) == [False]
    assert answers(newer, *[ask()] * 6, at=NOW + 60) == [True] * 5 + [False]


def test_a_clock_that_is_set_back_gives_nothing_and_takes_nothing() -> None:
    engine = policy_of(TWO_AT_ONCE)
    answers(engine, ask(), ask())

    assert answers(engine, ask(), at=NOW - 3600) == [False]
    assert answers(engine, ask(), at=NOW - 3598) == [True]


def test_the_table_keeps_so_many_buckets_and_no_more() -> None:
    table = LimitTable(buckets_max=10)
    limit = Limit(1.0, 1, Per.SUBJECT)
    asked = [ask(agent(f"agent://acme/a{at}")) for at in range(50)]

    taken = [table.take("r", limit, request, NOW) for request in asked]

    assert all(taken)
    assert len(table) == 10
    assert not table.take("r", limit, asked[-1], NOW)


@given(
    st.integers(1, 5),
    st.integers(1, 20),
    st.lists(st.floats(0, 3), max_size=40),
)
def test_never_lets_through_more_than_burst_and_rate(
    rate: int, burst: int, pauses: list[float]
) -> None:
    table, limit, now = LimitTable(), Limit(float(rate), burst, Per.SUBJECT), NOW
    taken = 0
    for pause in pauses:
        now += pause
        taken += table.take("r", limit, ask(), now)

    assert taken <= burst + rate * (now - NOW) + 1e-3


RATES = {"50/s": 50.0, "30/min": 0.5, "36/h": 0.01, "864 / d": 0.01, "0.5/s": 0.5}


@pytest.mark.parametrize("rate", RATES)
def test_reads_rates(rate: str) -> None:
    engine = policy_of(f"{ASKS}, limit: {{rate: '{rate}'}}")
    (rule,) = [one for one in engine.rules if one.name == "rule 1"]

    assert rule.terms.limit is not None
    assert rule.terms.limit.rate_per_s == pytest.approx(RATES[rate])
    assert rule.terms.limit.burst == max(1, RATES[rate])
