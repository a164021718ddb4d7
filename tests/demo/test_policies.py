"""The demo's policies: they load, they pass their own tests, and hold the rules that steps name."""

import pytest

from cli.demo.proofs import RECEIVER_RULE, SENDER_RULE, TOOL_RULE
from cli.demo.venvs import FILES
from policy import PolicyEngine


@pytest.mark.parametrize(
    ("name", "rules"),
    [("sender.yaml", {SENDER_RULE}), ("receiver.yaml", {RECEIVER_RULE, TOOL_RULE})],
)
def test_a_policy_passes_its_own_tests_by_the_rules_that_steps_name(
    name: str, rules: set[str]
) -> None:
    engine = PolicyEngine.load((FILES / name).read_text(), file=name)

    outcomes = engine.run_tests()

    assert [outcome for outcome in outcomes if not outcome.passed] == []
    assert rules <= {outcome.rule for outcome in outcomes if outcome.decided == "deny"}
