"""What a caller is told of a denial: as much as the policy says, and no more."""

import pytest

from policy import Disclosure, PolicyEngine
from tests.policy.helpers import HEADER, agent, ask, denied, policy_of

ALL = "effect: allow, actions: [message.ask]"
NONE = "effect: deny, actions: [message.ask]"
STRANGER = agent("agent://globex/sales/caller")


def test_colleagues_are_told_all_and_strangers_nothing_where_the_policy_is_silent() -> None:
    answer = denied(policy_of(ALL, NONE), ask())

    assert answer.disclose is None
    assert answer.told(colleague=True) == ("rule 2", answer.reason)
    assert answer.told(colleague=False) == ("", "")


@pytest.mark.parametrize("colleague", [True, False])
@pytest.mark.parametrize("level", Disclosure)
def test_a_rule_says_what_everybody_is_told_of_it(level: Disclosure, colleague: bool) -> None:
    answer = denied(policy_of(ALL, f"{NONE}, disclose: {level}"), ask(STRANGER))

    assert (
        answer.told(colleague=colleague)
        == {
            Disclosure.NONE: ("", ""),
            Disclosure.RULE: ("rule 2", ""),
            Disclosure.REASON: ("rule 2", answer.reason),
        }[level]
    )


def of_file(level: str, rules: str = "") -> PolicyEngine:
    header = HEADER.replace("{name: test}", f"{{name: test, disclose: {level}}}")
    listed = f"  - {{name: other, {ALL}, from: {{role: nobody}}}}\n"
    return PolicyEngine.load(f"{header}rules:\n{listed}{rules}", file="p")


def test_a_file_says_it_for_its_rules_and_for_what_no_rule_allows() -> None:
    by_rule = denied(of_file("rule", f"  - {{name: d, {NONE}}}\n"), ask())
    by_none = denied(of_file("none"), ask())

    assert by_rule.told(colleague=True) == ("d", "")
    assert by_none.told(colleague=True) == ("", "")


def test_a_rule_knows_better_than_its_file() -> None:
    answer = denied(of_file("none", f"  - {{name: d, {NONE}, disclose: rule}}\n"), ask())

    assert answer.told(colleague=False) == ("d", "")
