"""A trace says of each rule which clause failed on which value, and gives nothing away."""

from dataclasses import replace

import pytest

from policy import Action, Denial, Permit, PolicyEngine, Request, Trace, TracedClause, TracedRule
from policy.trace import SHOWN_CHARS_MAX
from tests.policy.helpers import (
    BILLING,
    DESIGN_EXAMPLE,
    NOW,
    PLANNER,
    agent,
    ask,
    call,
    load,
    node,
    open_channel,
    policy_of,
    unproved,
)


def rule_of(trace: Trace, name: str) -> TracedRule:
    (rule,) = [one for one in trace.rules if one.name == name]
    return rule


def clauses_of(engine: PolicyEngine, request: Request, name: str = "rule 1") -> list[str]:
    """Each clause in one line."""
    rule = rule_of(engine.trace(request, NOW), name)
    return [f"{one.clause} {one.outcome}: {one.expected} | {one.found}" for one in rule.clauses]


def test_says_of_each_clause_whether_it_is_met() -> None:
    engine = load(DESIGN_EXAMPLE)
    request = ask(agent("agent://acme/finance/planner", role="auditor", clearance=1))

    trace = engine.trace(request, NOW)

    rule = rule_of(trace, "planners ask billing")
    assert isinstance(trace.decision, Denial)
    assert (rule.effect, rule.mode, rule.matched, rule.action) == (
        "allow",
        "enforce",
        False,
        Action.MESSAGE_ASK,
    )
    assert (rule.file, rule.line) == ("policy.yaml", 6)
    assert rule.clauses == (
        TracedClause("from.trust_domain", "met", "acme", "acme"),
        TracedClause("from.role", "not met", "planner", "auditor"),
        TracedClause("to.name", "met", "agent://acme/billing/*", "agent://acme/billing/main"),
        TracedClause(
            "when",
            "not met",
            "message.size < 65536 && subject.clearance >= 2",
            "message.size = 10, subject.clearance = 1",
        ),
    )


def test_shows_no_rule_of_another_action() -> None:
    names = [rule.name for rule in load(DESIGN_EXAMPLE).trace(ask(), NOW).rules]

    assert names == ["planners ask billing"]


def test_shows_for_what_is_implied_the_rules_that_may_imply_it() -> None:
    trace = load(DESIGN_EXAMPLE).trace(open_channel(unproved()), NOW)

    assert isinstance(trace.decision, Permit)
    assert rule_of(trace, "planners ask billing").matched
    assert rule_of(trace, "planners ask billing").action is Action.MESSAGE_TELL


FOUND = {
    "an attribute that is missing": (
        policy_of("effect: allow, actions: [message.ask], from: {teams: [red, blue]}"),
        ask(),
        ["from.teams not met: blue or red | nothing"],
    ),
    "an attribute that is a list": (
        policy_of("effect: allow, actions: [message.ask], from: {teams: red}"),
        ask(agent("agent://acme/x", teams=("blue", "green"))),
        ["from.teams not met: red | blue, green"],
    ),
    "somebody who is not proved yet": (
        policy_of("effect: allow, actions: [message.ask], to: {role: x}"),
        ask(to=unproved()),
        ["to.role unknown: x | not proved yet"],
    ),
    "an error": (
        policy_of("effect: allow, actions: [message.ask], when: object.clearance > 1"),
        ask(),
        ["when error: object.clearance > 1 | object.clearance = nothing"],
    ),
    "a service and a tool": (
        policy_of(
            "effect: allow, actions: [mcp.call], to: {service: [a, weather]}, tools: [x, 'put_*']"
        ),
        call(),
        ["to.service met: a or weather | weather", "tools not met: x or put_* | get_forecast"],
    ),
    "a limit": (
        policy_of("effect: allow, actions: [message.ask], limit: {rate: 30/min, burst: 7}"),
        ask(),
        ["limit met: 0.5/s, 7 at once, per subject | 7 left"],
    ),
    "a truth value and a number": (
        policy_of("effect: allow, actions: [message.ask], from: {human: true, clearance: [1, 2]}"),
        ask(agent("agent://acme/x", human=False, clearance=3)),
        ["from.human not met: true | false", "from.clearance not met: 1 or 2 | 3"],
    ),
}


@pytest.mark.parametrize(("engine", "request_", "lines"), FOUND.values(), ids=FOUND.keys())
def test_names_what_was_expected_and_what_was_found(
    engine: PolicyEngine, request_: Request, lines: list[str]
) -> None:
    assert clauses_of(engine, request_) == lines


def test_of_arguments_only_the_names_are_shown() -> None:
    engine = policy_of("effect: allow, actions: [mcp.call], when: args.password == 'x'")

    (line,) = clauses_of(engine, call(args={"password": "hunter2", "user": "u"}))

    assert line == "when not met: args.password == 'x' | args = [password, user]"


def test_long_values_are_cut_and_none_breaks_a_line() -> None:
    engine = policy_of("effect: allow, actions: [message.ask], from: {role: x}")

    (line,) = clauses_of(engine, ask(agent("agent://acme/x", role="a\n\x1b[2J" + "b" * 500)))

    assert line.isprintable()
    assert len(line) <= SHOWN_CHARS_MAX + len("from.role not met: x | ")
    assert line.endswith("…")


def test_says_which_ancestor_a_rule_denies_for() -> None:
    parent = node("agent://acme/finance", role="sidecar")
    engine = policy_of(
        "effect: allow, actions: [message.ask]",
        "effect: deny, actions: [message.ask], from: {kind: node}",
    )

    trace = engine.trace(ask(agent("agent://acme/finance/x", (parent,))), NOW)

    rule = rule_of(trace, "rule 2")
    assert rule.matched
    assert rule.by == "agent://acme/finance"
    assert rule.clauses[0].outcome == "met"


def test_a_rule_in_audit_mode_is_shown_as_such() -> None:
    trace = policy_of("effect: deny, actions: [message.ask], mode: audit").trace(ask(), NOW)

    assert rule_of(trace, "rule 1").mode == "audit"
    assert rule_of(trace, "rule 1").matched


def test_decides_as_the_engine_does() -> None:
    engine = policy_of("effect: allow, actions: [message.ask], from: {role: planner}")

    for subject in (PLANNER, BILLING):
        request = replace(ask(), subject=subject)
        assert type(engine.trace(request, NOW).decision) is type(engine.decide(request, NOW))
