"""Figures of decisions: bounded names, and what an operator asks of them."""

import pytest

from identity import Code
from node.metrics import LABEL_VALUES_MAX, Metrics
from node.policy_figures import NO_RULE, PolicyFigures
from policy import Denial, Engine, LayeredEngine, PolicyEngine, Request
from tests.policy.helpers import HEADER, NOW, ask, call, load, policy_of

ASKS = "effect: allow, actions: [message.ask]"


class Counting:
    """Figures of a policy that can be replaced."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.metrics = Metrics("sidecar", "0")
        self.figures = PolicyFigures(self.metrics, lambda: self.engine)

    def decide(self, *requests: Request, seconds: float = 1e-5) -> None:
        for request in requests:
            answer = self.engine.decide(request, NOW)
            self.figures.decided(request.action, answer, seconds)

    def by_rule(self, rule: str) -> float | None:
        return self.metrics.value("rule_decisions_total", rule=rule)


def test_counts_by_action_effect_and_rule() -> None:
    counting = Counting(policy_of(ASKS))
    counting.decide(ask(), ask(), call())

    value = counting.metrics.value
    assert value("decisions_total", action="message.ask", effect="allow") == 2
    assert value("decisions_total", action="mcp.call", effect="deny") == 1
    assert counting.by_rule("rule 1") == 2
    assert counting.by_rule(NO_RULE) == 1


def test_counts_what_a_limit_holds_back() -> None:
    counting = Counting(policy_of(f"{ASKS}, limit: {{rate: 1/h}}"))
    counting.decide(ask(), ask(), ask())

    assert counting.metrics.value("decisions_limited_total", action="message.ask") == 2
    assert counting.metrics.value("decisions_limited_total", action="mcp.call") is None


def test_a_rule_of_the_trust_domain_is_counted_under_its_name() -> None:
    upper = policy_of("effect: deny, actions: [message.ask]")
    counting = Counting(LayeredEngine(upper, policy_of(ASKS)))
    counting.decide(ask())

    assert counting.by_rule("mandatory: rule 1") == 1


def test_of_ten_thousand_rules_those_that_decided_most_are_told_apart() -> None:
    count = LABEL_VALUES_MAX + 50
    counting = Counting(PolicyEngine.deny_all())
    names = [f"rule {number}" for number in range(count)]
    counting.engine = load(
        f"{HEADER}rules:\n" + "".join(f"  - {{name: {name}, {ASKS}}}\n" for name in names)
    )
    for number, name in enumerate(names):
        for _ in range(1 + (number < 3)):
            denial = Denial(Code.POLICY_DENIED, name, "", "id", counting.engine.version)
            counting.figures.decided(ask().action, denial, 1e-5)

    assert counting.by_rule("rule 0") == 2
    assert counting.by_rule("other") == 50
    told = counting.metrics.text().decode().count("sidelink_rule_decisions_total{")
    assert told == LABEL_VALUES_MAX + 1


def test_rules_of_a_policy_that_is_gone_are_told_no_more() -> None:
    counting = Counting(policy_of(ASKS))
    counting.decide(ask())
    counting.engine = load(f"{HEADER}rules:\n  - {{name: another, {ASKS}}}\n")
    counting.decide(ask())

    assert counting.by_rule("another") == 1
    assert counting.by_rule("rule 1") is None


@pytest.mark.parametrize(("seconds", "bucket"), [(8e-6, "1e-05"), (3e-4, "0.0005")])
def test_times_of_decisions_fall_into_buckets_that_tell_them_apart(
    seconds: float, bucket: str
) -> None:
    counting = Counting(policy_of(ASKS))
    counting.decide(ask(), seconds=seconds)

    assert counting.metrics.value("decision_seconds_bucket", le=bucket) == 1
    assert counting.metrics.value("decision_seconds_count") == 1
