"""Policy files that are refused: each complaint says where, what, and what to do instead."""

import pytest

from identity import Code
from policy import Denial, PolicyEngine, PolicyError
from tests.policy.helpers import DESIGN_EXAMPLE, HEADER, NOW, ask, denied, load

RULE = "  - {name: r, effect: allow, actions: [message.ask], from: {role: x}, to: {role: y}}\n"


def with_rule(rule: str) -> str:
    """The rule stands on line 6, after the header and `rules:`."""
    return f"{HEADER}rules:\n  - {{{rule}}}\n"


def with_when(when: str, action: str = "message.ask") -> str:
    rule = f"{HEADER}rules:\n  - name: r\n    effect: allow\n    actions: [{action}]\n"
    return f"{rule}    when: |-\n      {when}\n"


# What is wrong: the text, the line of the complaint, words of the problem, words of the remedy.
REFUSED = {
    "no apiVersion": ("kind: Policy\n", 1, 'lacks the key "apiVersion"', "apiVersion: "),
    "another apiVersion": (
        "apiVersion: sidelink/v2\nkind: Policy\n",
        1,
        'not "sidelink/v1"',
        "apiVersion: sidelink/v1",
    ),
    "another kind": ("apiVersion: sidelink/v1\nkind: Role\n", 2, 'not "Policy"', "kind: Policy"),
    "a list instead of a policy": ("- a\n", 1, "a list, not a mapping", "pairs"),
    "not YAML": ("a: 'x", 1, "end of stream", "quotes"),
    "a key twice": (HEADER + "kind: Policy\n", 5, "given twice", "Remove"),
    "an anchor": (HEADER + "rules: &r []\n", 5, "anchors", "out in each place"),
    "a tab": (HEADER + "rules:\n\t- a\n", 6, "tab", "spaces"),
    "no for a truth value": (HEADER + "rules: no\n", 5, "truth value", "true, false"),
    "deep nesting": (HEADER + "rules: " + "[" * 64, 5, "levels of nesting", "flatter"),
    "an unknown key at the top": (HEADER + "rule: []\n", 5, 'unknown key "rule"', '"rules"'),
    "an unknown key in metadata": (
        "apiVersion: sidelink/v1\nkind: Policy\nmetadata:\n  nmae: x\n",
        4,
        'unknown key "nmae"',
        '"name"',
    ),
    "an unknown key in a rule": (
        with_rule("name: r, effect: allow, actions: [message.ask], form: {}"),
        6,
        'unknown key "form" in a rule',
        '"from"',
    ),
    "an unknown key in from": (
        with_rule("name: r, effect: allow, actions: [message.ask], from: {rol: x}"),
        6,
        'unknown key "rol" in from',
        'Did you mean "role"?',
    ),
    "an attribute that is not declared": (
        with_rule("name: r, effect: allow, actions: [message.ask], to: {zone: x}"),
        6,
        'unknown key "zone" in to',
        "attributes: {zone: text}",
    ),
    "a service in from": (
        with_rule("name: r, effect: allow, actions: [mcp.call], from: {service: x}"),
        6,
        'unknown key "service" in from',
        "",
    ),
    "an unknown action": (
        with_rule("name: r, effect: allow, actions: [mesage.ask]"),
        6,
        'unknown action "mesage.ask"',
        '"message.ask"',
    ),
    "a pattern of actions": (
        with_rule("name: r, effect: allow, actions: ['message.*']"),
        6,
        'unknown action "message.*"',
        "list the actions",
    ),
    "no actions": (
        with_rule("name: r, effect: allow, actions: []"),
        6,
        "empty list",
        "at least one",
    ),
    "actions that are missing": (
        with_rule("name: r, effect: allow"),
        6,
        'lacks the key "actions"',
        "actions: ",
    ),
    "an unknown effect": (
        with_rule("name: r, effect: permit, actions: [message.ask]"),
        6,
        'effect cannot be "permit"',
        "allow",
    ),
    "a rule without a name": (
        with_rule("effect: allow, actions: [message.ask]"),
        6,
        'lacks the key "name"',
        "name: ",
    ),
    "two rules of one name": (
        f"{HEADER}rules:\n{RULE}{RULE}",
        7,
        "already on line 6",
        "name of its own",
    ),
    "a name that only built-in rules have": (
        with_rule('name: "baseline: x", effect: allow, actions: [message.ask]'),
        6,
        "built-in rules",
        "another name",
    ),
    "a name that does not print": (
        with_rule('name: "a\\u001b[2J", effect: allow, actions: [message.ask]'),
        6,
        "do not print",
        "one line",
    ),
    "a rule that is text": (f"{HEADER}rules: [x]\n", 5, 'the text "x", not a mapping', "pairs"),
    "rules that are a mapping": (f"{HEADER}rules: {{a: 1}}\n", 5, "a mapping, not a list", "[a"),
    "rules that are false": (f"{HEADER}rules: false\n", 5, "not a list", "[a"),
    "a number where an attribute is text": (
        with_rule("name: r, effect: allow, actions: [message.ask], from: {role: 5}"),
        6,
        "role is declared as text, but this is the number 5",
        "Write text",
    ),
    "text where an attribute is a number": (
        with_rule('name: r, effect: allow, actions: [message.ask], from: {clearance: "2"}'),
        6,
        'clearance is declared as int, but this is the text "2"',
        "whole number",
    ),
    "true where an attribute is a number": (
        with_rule("name: r, effect: allow, actions: [message.ask], from: {clearance: true}"),
        6,
        "clearance is declared as int",
        "whole number",
    ),
    "an empty list of values": (
        with_rule("name: r, effect: allow, actions: [message.ask], from: {role: []}"),
        6,
        "empty list",
        "at least one",
    ),
    "an unknown type of attribute": (
        "apiVersion: sidelink/v1\nkind: Policy\nattributes: {a: string}\n",
        3,
        'the type of a cannot be "string"',
        "text",
    ),
    "a reserved attribute": (
        "apiVersion: sidelink/v1\nkind: Policy\nattributes: {issuer: text}\n",
        3,
        "issuer has a meaning of its own",
        "Remove it",
    ),
    "an attribute with a capital": (
        "apiVersion: sidelink/v1\nkind: Policy\nattributes: {Role: text}\n",
        3,
        "no attribute name",
        "lowercase",
    ),
    "a name that is no name": (
        with_rule("name: r, effect: allow, actions: [message.ask], to: {name: acme/x}"),
        6,
        '"acme/x" is no name',
        "agent://",
    ),
    "a star within a segment": (
        with_rule('name: r, effect: allow, actions: [message.ask], to: {name: "agent://a/b*"}'),
        6,
        "whole segment",
        "agent://",
    ),
    "two stars in the middle": (
        with_rule('name: r, effect: allow, actions: [message.ask], to: {name: "agent://a/**/b"}'),
        6,
        "only come last",
        "agent://",
    ),
    "a star for a trust domain": (
        with_rule('name: r, effect: allow, actions: [message.ask], to: {name: "agent://*/b"}'),
        6,
        "not a trust domain",
        "agent://",
    ),
    "a name with capitals": (
        with_rule('name: r, effect: allow, actions: [message.ask], to: {name: "agent://a/B"}'),
        6,
        "not a segment",
        "agent://",
    ),
    "an identifier with a typing error": (
        with_rule("name: r, effect: allow, actions: [message.ask], from: {identifier: sl1qq}"),
        6,
        "identifier",
        "sidelink status",
    ),
    "an unknown kind of party": (
        with_rule("name: r, effect: allow, actions: [message.ask], from: {kind: agnet}"),
        6,
        'kind cannot be "agnet"',
        '"agent"',
    ),
    "a service for messages": (
        with_rule("name: r, effect: deny, actions: [message.ask], to: {service: x}"),
        6,
        "message.ask has no service",
        "rule of its own",
    ),
    "a pattern for a service": (
        with_rule("name: r, effect: deny, actions: [mcp.call], to: {service: 'we*'}"),
        6,
        "no name of a service",
        "patterns are not read",
    ),
    "tools for messages": (
        with_rule("name: r, effect: deny, actions: [mcp.call, message.ask], tools: [x]"),
        6,
        "nothing about message.ask",
        "mcp.call and mcp.result alone",
    ),
    "a star in the middle of a tool": (
        with_rule("name: r, effect: deny, actions: [mcp.call], tools: ['a*b']"),
        6,
        "no name",
        "only end a name",
    ),
    "a condition that is true": (
        with_rule("name: r, effect: allow, actions: [message.ask], when: true"),
        6,
        "when is true, not text",
        "CEL",
    ),
    "an unknown name in CEL": (
        with_when("subject.clearence >= 2"),
        9,
        "unknown name subject.clearence",
        '"subject.clearance"',
    ),
    "an unknown root in CEL": (
        with_when("sender.role == 'x'"),
        9,
        "unknown name sender",
        "Known are: message, now, object, subject",
    ),
    "another field of a message": (
        with_when("message.sender == 'x'"),
        9,
        "unknown name message.sender",
        "message.size",
    ),
    "wrong types in CEL": (
        with_when("subject.role + 1 == 2"),
        9,
        "+ does not go with string and int",
        "one type",
    ),
    "CEL that is a number": (with_when("message.size"), 9, "gives int, not bool", "Compare"),
    "CEL that may be anything": (with_when("args.x", "mcp.call"), 9, "gives dyn", "Compare"),
    "CEL that does not parse": (with_when("message.size <"), 9, "in `when`", ""),
    "CEL with nothing in it": (with_when("''"), 9, "not bool", ""),
    "has()": (with_when("has(args.x)", "mcp.call"), 9, "has() is refused", "missing"),
    "has () with a space": (with_when("has (subject.role)"), 9, "has() is refused", "missing"),
    "has() deep inside": (
        with_when("true || [1].exists(x, has(args.x))", "mcp.call"),
        9,
        "has() is refused",
        "missing",
    ),
    "CEL nested 33 deep": (with_when("(" * 33 + "true" + ")" * 33), 9, "deeper than 32", "Split"),
    "CEL of brackets": (with_when("[" * 3000), 9, "deeper than 32", "Split"),
    "CEL of signs": (with_when("!" * 3000 + "true"), 9, "deeper than 32", "Split"),
    "CEL of choices": (with_when("true ? true : " * 200 + "true"), 9, "deeper than 32", ""),
    "CEL of 4097 bytes": (with_when("true || " + "t" * 4089), 9, "longer than 4096", "Split"),
    "CEL of long paths": (with_when("args" + ".a" * 1500 + "==1", "mcp.call"), 9, "recursion", ""),
    "an absolute name in CEL": (with_when(".subject.role == 'x'"), 9, "follows nothing", ""),
    "an absolute name behind `in`": (with_when("'a' in .subject.tags"), 9, "follows nothing", ""),
    "a name in backticks in CEL": (with_when("`args`.x == 1"), 9, "no meaning", ""),
    "a comment in CEL": (with_when("true // && false"), 9, "comments", "YAML comment"),
    "bytes in CEL": (with_when("b'x' == b'x'"), 9, "kind of quote", ""),
    "three quotes in CEL": (with_when("'''x''' == 'x'"), 9, "kind of quote", ""),
    "a bracket that closes nothing": (with_when("true)"), 9, "closes nothing", "brackets"),
    "args for a message": (with_when("args.x == 1"), 9, "args is not known for message.ask", ""),
    "message for a call": (
        with_when("message.size < 9", "mcp.call"),
        9,
        "message is not known for mcp.call",
        "message.ask",
    ),
    "message for a message and a channel": (
        with_when("message.size < 9", "message.ask, channel.open"),
        9,
        "message is not known for channel.open",
        "alone",
    ),
}


@pytest.mark.parametrize(("text", "line", "words", "hint"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses(text: str, line: int, words: str, hint: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load(text)

    error = caught.value
    assert error.code is Code.CONFIG_POLICY_INVALID
    assert words in error.problem
    assert hint in error.remedy
    assert error.line == line
    assert f"policy.yaml:{line}:{error.column}: {error.problem} {error.remedy}" in str(error)
    assert "\n" not in str(error)


def test_an_unknown_key_is_shown_at_its_own_column() -> None:
    with pytest.raises(PolicyError) as caught:
        load(f"{HEADER}rules:\n  - name: r\n    effect: allow\n    actoins: []\n")

    assert (caught.value.line, caught.value.column) == (8, 5)


NOT_READY = {
    "a policy that is not there": PolicyEngine.deny_all(),
    "an empty file": load(""),
    "a file of comments": load("# nothing\n"),
    "a policy without rules": load(HEADER),
    "a policy whose rules are commented out": load(HEADER + "rules:\n# - name: x\n"),
}


@pytest.mark.parametrize("engine", NOT_READY.values(), ids=NOT_READY.keys())
def test_denies_everything_and_is_not_ready(engine: PolicyEngine) -> None:
    answer = denied(engine, ask())

    assert not engine.ready
    assert isinstance(answer, Denial)
    assert answer.code is Code.POLICY_NOT_READY
    assert engine.unready is not None
    assert "everything is denied" in answer.reason
    assert not engine.could_allow(ask(), NOW)


def test_the_version_is_that_of_the_text_and_of_the_baseline() -> None:
    text = DESIGN_EXAMPLE
    versions = {
        load(text).version,
        load(text + "\n").version,
        PolicyEngine.load(text, file="p", baseline=False).version,
    }

    assert len(versions) == 3
    assert load(text).version == PolicyEngine.load(text, file="elsewhere").version
