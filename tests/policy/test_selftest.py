"""The tests that a policy carries itself, and the policies that come with Sidelink."""

from pathlib import Path

import pytest

from policy import BASELINE_POLICY, STARTER_POLICY, PolicyEngine, PolicyError
from tests.policy.helpers import DESIGN_EXAMPLE, HEADER, load, policy_of

RULES = """\
rules:
  - name: forecasts
    effect: allow
    actions: [mcp.call]
    from: {teams: red}
    to: {service: weather}
    tools: [get_forecast]
    when: args.days <= 7 && now < timestamp("2026-06-01T00:00:00Z")
  - {name: small, effect: allow, actions: [message.ask], when: message.size < 100}
  - {name: no robots, effect: deny, actions: [message.ask], from: {human: false}}
  - {name: routes, effect: allow, actions: [route.register], to: {name: "agent://acme/east/**"}}
"""

# The test, and whether it is passed; its name stands for it.
OUTCOMES = {
    "a call that is allowed": (
        "action: mcp.call, from: {teams: [blue, red]}, to: {service: weather}, "
        "tool: get_forecast, args: {days: 3}, expect: allow, rule: forecasts",
        True,
    ),
    "a call after the date": (
        "action: mcp.call, from: {teams: [red]}, to: {service: weather}, "
        "tool: get_forecast, args: {days: 3}, at: '2026-07-01T00:00:00Z', expect: deny",
        True,
    ),
    "a call that is denied though it should not be": (
        "action: mcp.call, from: {teams: [red]}, to: {service: weather}, tool: x, expect: allow",
        False,
    ),
    "a message of no size": ("action: message.ask, expect: allow", True),
    "a message that is too large": ("action: message.ask, size: 100, expect: deny", True),
    "a deny rule": (
        "action: message.ask, from: {human: false}, expect: deny, rule: no robots",
        True,
    ),
    "the right answer by another rule": (
        "action: message.ask, size: 100, expect: deny, rule: no robots",
        False,
    ),
    "a message that is allowed though it should not be": (
        "action: message.ask, expect: deny",
        False,
    ),
    "a registration": (
        "action: route.register, prefix: agent://acme/east/a, expect: allow, rule: routes",
        True,
    ),
}


@pytest.mark.parametrize(("test", "passed"), OUTCOMES.values(), ids=OUTCOMES.keys())
def test_runs(test: str, passed: bool) -> None:
    engine = load(f"{HEADER}{RULES}tests:\n  - {{name: it, {test}}}\n")

    (outcome,) = engine.run_tests()

    assert outcome.passed is passed, outcome
    assert bool(outcome.reason) is not passed
    assert (outcome.name, outcome.line) == ("it", 17)


REFUSED = {
    "an unknown key": ("action: message.ask, expct: allow", 'unknown key "expct" in a test'),
    "no expectation": ("action: message.ask", 'lacks the key "expect"'),
    "another expectation": ("action: message.ask, expect: maybe", 'cannot be "maybe"'),
    "an unknown action": ("action: message.aks, expect: deny", 'cannot be "message.aks"'),
    "an unknown attribute": (
        "action: message.ask, from: {rol: x}, expect: deny",
        'unknown key "rol" in from',
    ),
    "an attribute of another type": (
        "action: message.ask, from: {clearance: high}, expect: deny",
        "declared as int",
    ),
    "a list for a text": ("action: message.ask, from: {role: [a]}, expect: deny", "as text"),
    "a text for a list": ("action: message.ask, from: {teams: a}, expect: deny", "as list"),
    "a pattern of names": (
        "action: message.ask, to: {name: 'agent://acme/*'}, expect: deny",
        "segment",
    ),
    "a size below zero": ("action: message.ask, size: -1, expect: deny", "whole number from 0"),
    "a size that is true": ("action: message.ask, size: true, expect: deny", "whole number"),
    "a time that is none": ("action: message.ask, at: soon, expect: deny", "at is no time"),
    "a prefix that is none": ("action: message.ask, prefix: east, expect: deny", "starts with"),
    "a rule that is not there": ("action: message.ask, expect: deny, rule: x", 'cannot be "x"'),
}


@pytest.mark.parametrize(("test", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses(test: str, words: str) -> None:
    engine = load(f"{HEADER}{RULES}tests:\n  - {{name: it, {test}}}\n")

    with pytest.raises(PolicyError) as caught:
        engine.run_tests()

    assert words in caught.value.problem
    assert caught.value.line == 17


@pytest.mark.parametrize("text", [STARTER_POLICY, DESIGN_EXAMPLE], ids=["starter", "design"])
def test_the_tests_of_our_own_policies_pass(text: str) -> None:
    outcomes = load(text).run_tests()

    assert outcomes
    assert [outcome for outcome in outcomes if not outcome.passed] == []


def test_a_policy_without_tests_has_none() -> None:
    assert policy_of("effect: allow, actions: [message.ask]").run_tests() == ()
    assert PolicyEngine.deny_all().run_tests() == ()


def test_the_baseline_is_a_policy_like_any_other() -> None:
    with pytest.raises(PolicyError, match="built-in rules"):
        load(BASELINE_POLICY)
    renamed = BASELINE_POLICY.replace("baseline: ", "")

    assert PolicyEngine.load(renamed, file="p", baseline=False).ready


def test_what_the_starter_shows_in_comments_is_valid_too() -> None:
    lines = [
        line.replace("  # ", "  ", 1) if line.startswith(("  # - ", "  #   ")) else line
        for line in STARTER_POLICY.splitlines()
    ]

    engine = load("\n".join(lines) + "\n")

    assert {"planners ask billing", "forecasts, a week at most", "quarantine"} < set(
        engine.rule_names
    )


def test_the_manual_shows_the_baseline_as_it_is_and_an_example_that_works() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")
    example = manual.split("```yaml\n")[1].split("```")[0]

    assert f"```yaml\n{BASELINE_POLICY}```" in manual
    assert [outcome.passed for outcome in load(example).run_tests()] == [True]


def test_prompts_resources_and_results_can_be_tested() -> None:
    engine = load(
        f"""{HEADER}rules:
  - {{name: a, effect: allow, actions: mcp.read, resources: ["file:///docs/*"]}}
  - {{name: b, effect: allow, actions: mcp.prompt, prompts: [greet], when: args.n == 1}}
  - {{name: c, effect: allow, actions: mcp.call}}
  - {{name: d, effect: deny, actions: mcp.result, when: result.total > 5 && args.n == 1}}
tests:
  - {{name: t, action: mcp.read, to: {{service: s}}, resource: "file:///docs/a", expect: allow}}
  - {{name: t, action: mcp.read, to: {{service: s}}, resource: "file:///a", expect: deny}}
  - {{name: t, action: mcp.prompt, to: {{service: s}}, prompt: greet, args: {{n: 1}},
     expect: allow}}
  - {{name: t, action: mcp.result, to: {{service: s}}, args: {{n: 1}}, result: {{total: 6}},
     expect: deny, rule: d}}
  - {{name: t, action: mcp.result, to: {{service: s}}, args: {{n: 1}}, result: {{total: 5}},
     expect: allow, rule: c}}
"""
    )

    assert [outcome.reason for outcome in engine.run_tests()] == [""] * 5
