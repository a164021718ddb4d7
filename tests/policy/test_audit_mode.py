"""Rules in audit mode are decided and recorded, and change no answer."""

from random import Random

import pytest

from policy import AuditedRule, Denial, Permit, PolicyEngine
from tests.policy.helpers import HEADER, NOW, ask, denied, permitted, policy_of
from tests.policy.naive import some_policy, some_request

ALL = "effect: allow, actions: [message.ask]"
NONE = "effect: deny, actions: [message.ask]"


def test_a_deny_rule_in_audit_mode_denies_nobody_and_is_named() -> None:
    answer = permitted(policy_of(ALL, f"{NONE}, mode: audit"), ask())

    assert answer.rule == "rule 1"
    assert answer.audited == (AuditedRule("rule 2", "deny"),)


def test_an_allow_rule_in_audit_mode_allows_nobody_and_is_named() -> None:
    answer = denied(policy_of(f"{ALL}, mode: audit"), ask())

    assert answer.rule is None
    assert answer.audited == (AuditedRule("rule 1", "allow"),)


def test_a_limit_in_audit_mode_holds_nobody_back_and_says_when_it_would_have() -> None:
    engine = policy_of(ALL, f"{ALL}, mode: audit, limit: {{rate: 1/h}}")

    effects = [permitted(engine, ask()).audited[0].effect for _ in range(3)]

    assert effects == ["allow", "limit", "limit"]


def test_a_rule_in_audit_mode_that_does_not_match_is_not_named() -> None:
    engine = policy_of(ALL, f"{NONE}, mode: audit, from: {{role: nobody}}")

    assert permitted(engine, ask()).audited == ()


def test_a_permit_is_not_used_again_where_a_rule_in_audit_mode_might_have_denied() -> None:
    by_size = policy_of(ALL, f'{NONE}, mode: audit, when: "message.size >= 100"')
    big = permitted(by_size, ask(size=100))
    by_time = policy_of(ALL, f'{NONE}, mode: audit, when: "now < timestamp(0)"')

    assert permitted(by_size, ask()).message_bytes_max == 99
    assert not big.cacheable
    assert big.audited
    assert not permitted(by_time, ask()).cacheable


def test_a_file_can_be_in_audit_mode_as_a_whole_but_for_rules_that_say_otherwise() -> None:
    header = HEADER.replace("{name: test}", "{name: test, mode: audit}")
    enforced = f"  - {{name: a, {ALL}, mode: enforce}}\n"
    engine = PolicyEngine.load(f"{header}rules:\n{enforced}  - {{name: d, {NONE}}}\n", file="p")

    answer = permitted(engine, ask())

    assert (answer.rule, answer.audited) == ("a", (AuditedRule("d", "deny"),))


@pytest.mark.parametrize("seed", range(8))
def test_the_answer_is_that_of_the_policy_without_those_rules(seed: int) -> None:
    chance = Random(seed)
    text = some_policy(chance, 6)
    extra = "".join(
        line.replace("- {name: ", "- {name: extra ").replace(", effect", ", mode: audit, effect")
        for line in some_policy(chance, 6).removeprefix(f"{HEADER}rules:\n").splitlines(True)
    )
    without = PolicyEngine.load(text, file="p", baseline=False)
    with_them = PolicyEngine.load(text + extra, file="p", baseline=False)

    for _ in range(100):
        request = some_request(chance)
        one, other = without.decide(request, NOW), with_them.decide(request, NOW)
        assert type(one) is type(other)
        assert one.rule == other.rule
        if isinstance(one, Denial):
            assert isinstance(other, Denial)
            assert (one.code, one.reason) == (other.code, other.reason)
        else:
            assert isinstance(other, Permit)
        assert with_them.could_allow(request, NOW) is without.could_allow(request, NOW)
