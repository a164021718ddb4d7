"""A policy below another: what both allow, and nothing else."""

from dataclasses import replace

import pytest
from hypothesis import given

from identity import Code
from policy import (
    AuditedRule,
    Disclosure,
    LayeredEngine,
    Permit,
    PolicyEngine,
    PolicyError,
    Request,
)
from policy.layers import NO_RULE_ALLOWS
from tests.policy.helpers import (
    HEADER,
    NOW,
    ask,
    call,
    denied,
    is_allowed,
    load,
    open_channel,
    permitted,
    policy_of,
    unproved,
)
from tests.policy.test_properties import RULES, RuleText, engine_of, requests

ALLOW = "effect: allow, actions: [message.ask]"
DENY = "effect: deny, actions: [message.ask]"
AUDITED = HEADER.replace("{name: test}", "{name: test, mode: audit}") + "rules:\n"


def layered(upper: str | PolicyEngine, lower: str | PolicyEngine) -> LayeredEngine:
    above, below = (policy_of(one) if isinstance(one, str) else one for one in (upper, lower))
    return LayeredEngine(above, below)


def audits(rule: str) -> PolicyEngine:
    """An upper policy that is as a whole in audit mode."""
    return load(f"{AUDITED}  - {{name: rule 1, {rule}}}\n")


@given(RULES, RULES, requests())
def test_allows_what_both_allow_and_nothing_else(
    upper: list[RuleText], lower: list[RuleText], request: Request
) -> None:
    above, below = engine_of(upper), engine_of(lower)

    both = is_allowed(LayeredEngine(above, below), request)

    assert both == (is_allowed(above, request) and is_allowed(below, request))


@given(RULES, RULES, requests())
def test_could_allow_never_rules_out_what_is_allowed(
    upper: list[RuleText], lower: list[RuleText], request: Request
) -> None:
    engine = LayeredEngine(engine_of(upper), engine_of(lower))

    if is_allowed(engine, request):
        assert engine.could_allow(request, NOW)


@given(RULES, RULES, requests())
def test_a_cached_permit_says_no_more_than_both(
    upper: list[RuleText], lower: list[RuleText], request: Request
) -> None:
    above, below = engine_of(upper), engine_of(lower)
    answer = LayeredEngine(above, below).decide(request, NOW)

    if isinstance(answer, Permit) and answer.cacheable:
        for one in (above, below):
            part = permitted(one, request)
            assert part.cacheable
            if part.message_bytes_max is not None:
                assert answer.message_bytes_max is not None
                assert answer.message_bytes_max <= part.message_bytes_max


def test_a_denial_of_the_upper_says_whose_it_is() -> None:
    answer = denied(layered(DENY, ALLOW), ask())

    assert (answer.code, answer.rule) == (Code.POLICY_DENIED, "mandatory: rule 1")
    assert answer.reason.endswith("So says the mandatory policy of the trust domain.")


def _tells(disclosure: str | None, rule: str) -> PolicyEngine:
    said = "" if disclosure is None else f", disclose: {disclosure}"
    header = HEADER.replace("{name: test}", f"{{name: test{said}}}")
    return load(f"{header}rules:\n  - {{name: rule 1, {rule}}}\n")


@pytest.mark.parametrize(
    ("above", "below", "told"),
    [
        (None, None, None),
        (None, "none", Disclosure.NONE),
        (None, "reason", None),
        ("reason", None, Disclosure.REASON),
        ("reason", "none", Disclosure.NONE),
        ("rule", "reason", Disclosure.RULE),
    ],
)
def test_of_a_denial_of_the_upper_no_more_is_told_than_the_node_tells(
    above: str | None, below: str | None, told: Disclosure | None
) -> None:
    answer = denied(layered(_tells(above, DENY), _tells(below, ALLOW)), ask())

    assert answer.disclose is told


def test_a_denial_of_the_lower_is_told_as_ever() -> None:
    answer = denied(layered(ALLOW, DENY), ask())

    assert (answer.code, answer.rule) == (Code.POLICY_DENIED, "rule 1")
    assert "mandatory" not in answer.reason


def test_every_answer_has_the_version_of_both() -> None:
    upper, lower = policy_of(ALLOW), policy_of(f"{ALLOW}, from: {{role: planner}}")
    engine = LayeredEngine(upper, lower)

    assert engine.version == f"{lower.version}+{upper.version}"
    assert permitted(engine, ask()).policy_version == engine.version
    assert denied(engine, call()).policy_version == engine.version
    assert denied(layered(DENY, lower), ask()).policy_version.startswith(lower.version)


def test_a_permit_is_bound_by_the_smaller_size_the_earlier_end_and_all_obligations() -> None:
    upper = policy_of(f'{ALLOW}, when: "message.size < 100"')
    lower = policy_of(f'{ALLOW}, when: "message.size < 50"')

    assert permitted(LayeredEngine(upper, lower), ask()).message_bytes_max == 49
    assert permitted(LayeredEngine(lower, upper), ask()).message_bytes_max == 49


def test_the_obligations_of_both_hold() -> None:
    calls = "effect: allow, actions: [mcp.call]"
    upper, lower = f"{calls}, redact: [secret], max_seconds: 5", f"{calls}, redact: [name]"

    answer = permitted(layered(upper, lower), call())

    assert answer.obligations.redact == ("secret", "name")
    assert answer.obligations.max_seconds == 5


def test_a_limit_of_either_is_charged_once_for_each_that_is_allowed() -> None:
    limited, free = f"{ALLOW}, limit: {{rate: 1/h, burst: 3}}", ALLOW

    for engine in (layered(limited, free), layered(free, limited)):
        assert [is_allowed(engine, ask()) for _ in range(4)] == [True, True, True, False]


def test_what_the_lower_denies_charges_nothing_of_the_upper() -> None:
    engine = layered(
        f"{ALLOW}, limit: {{rate: 1/h, burst: 1}}", f'{ALLOW}, when: "message.size < 50"'
    )

    for _ in range(3):
        denied(engine, ask(size=60))

    assert is_allowed(engine, ask())


def test_what_is_asked_again_charges_nothing() -> None:
    engine = layered(f"{ALLOW}, limit: {{rate: 1/h, burst: 1}}", ALLOW)

    for _ in range(3):
        permitted(engine, replace(ask(), again=True))

    assert is_allowed(engine, ask())
    assert denied(engine, ask()).code is Code.POLICY_LIMITED


def test_a_channel_opens_only_where_both_may_have_a_use_for_it() -> None:
    tells = "effect: allow, actions: [message.tell]"
    no_channels = "effect: deny, actions: [channel.open]"
    opening = open_channel(unproved())

    assert is_allowed(layered(tells, ALLOW), opening)
    assert not is_allowed(layered(no_channels, ALLOW), opening)
    assert not is_allowed(layered(tells, no_channels), opening)


def test_an_upper_policy_that_only_audits_denies_nothing_and_is_recorded() -> None:
    engine = LayeredEngine(audits(DENY), policy_of(ALLOW))

    answer = permitted(engine, ask())

    assert answer.audited == (
        AuditedRule("mandatory: rule 1", "deny"),
        AuditedRule(NO_RULE_ALLOWS, "deny"),
    )
    assert not answer.cacheable
    assert engine.could_allow(ask(), NOW)


def test_an_upper_policy_that_only_audits_and_would_allow_says_so() -> None:
    answer = permitted(LayeredEngine(audits(ALLOW), policy_of(ALLOW)), ask())

    assert answer.audited == (AuditedRule("mandatory: rule 1", "allow"),)


def test_an_upper_policy_that_only_audits_counts_its_limits() -> None:
    limited = audits(f"{ALLOW}, limit: {{rate: 1/h, burst: 2}}")
    engine = LayeredEngine(limited, policy_of(f'{ALLOW}, when: "message.size < 50"'))
    denied(engine, ask(size=60))

    effects = [permitted(engine, ask()).audited[0].effect for _ in range(3)]

    assert effects == ["allow", "allow", "limit"]


def test_an_upper_policy_that_only_audits_grants_nothing() -> None:
    assert not is_allowed(LayeredEngine(audits(ALLOW), policy_of(DENY)), ask())


def test_one_rule_in_audit_mode_leaves_the_others_in_force() -> None:
    upper = policy_of(f"{DENY}, mode: audit", "effect: allow, actions: [message.tell]")

    assert not is_allowed(LayeredEngine(upper, policy_of(ALLOW)), ask())


def test_without_rules_in_either_all_is_denied_and_it_is_said() -> None:
    empty = load(HEADER + "rules: []\n")

    for engine in (LayeredEngine(empty, policy_of(ALLOW)), LayeredEngine(policy_of(ALLOW), empty)):
        assert not engine.ready
        assert denied(engine, ask()).code is Code.POLICY_NOT_READY


def test_a_trace_has_the_rules_of_both_and_the_one_answer() -> None:
    trace = layered(DENY, ALLOW).trace(ask(), NOW)

    named = {rule.name: rule.matched for rule in trace.rules if "baseline" not in rule.name}
    assert named == {"mandatory: rule 1": True, "rule 1": True}
    assert not isinstance(trace.decision, Permit)


def test_a_question_may_use_the_attributes_of_both() -> None:
    upper = load(HEADER.replace("role: text", "team: text") + "rules: []\n")
    engine = LayeredEngine(upper, policy_of(ALLOW))
    fields = {
        "action": "message.ask",
        "from": {"name": "agent://acme/a", "team": "red", "role": "planner"},
        "to": {"name": "agent://acme/b"},
    }

    request, _ = engine.question(fields, "(asked)")

    assert request.subject.attributes == {"team": "red", "role": "planner"}


def test_rules_of_a_file_may_not_pass_for_mandatory_ones() -> None:
    with pytest.raises(PolicyError, match="those of the trust domain's own rules"):
        load(HEADER + f'rules:\n  - {{name: "mandatory: mine", {ALLOW}}}\n')
