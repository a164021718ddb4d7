"""What a person reads who made a mistake: where, what was found, what was expected, what was meant.

The texts are pinned whole, so that each change of one is read by somebody.
"""

import re

import pytest

from policy import PolicyEngine, PolicyError
from tests.policy.helpers import HEADER as DECLARATIONS

TOP = "apiVersion: sidelink/v1\nkind: Policy\n"
HEADER = DECLARATIONS + "rules:\n"


def rule(more: str, action: str = "message.ask") -> str:
    """The last line, which is the ninth, is what it is about."""
    return f"{HEADER}  - name: r\n    effect: allow\n    actions: [{action}]\n    {more}\n"


# The text of a policy, and what is said of it behind the name of the file.
TEXTS = {
    "a key at the top with a typing error": (
        TOP + "rulez: []\n",
        '3:1: unknown key "rulez" in the policy. Did you mean "rules"?',
    ),
    "another version": (
        "apiVersion: sidelink/v2\nkind: Policy\n",
        '1:13: apiVersion is the text "sidelink/v2", not "sidelink/v1". Write '
        "`apiVersion: sidelink/v1`.",
    ),
    "a kind in lowercase": (
        "apiVersion: sidelink/v1\nkind: policy\n",
        '2:7: kind is the text "policy", not "Policy". Write `kind: Policy`.',
    ),
    "no kind": (
        "apiVersion: sidelink/v1\nrules: []\n",
        '1:1: the policy lacks the key "kind". Add `kind: Policy`.',
    ),
    "a list instead of a policy": (
        "- a\n",
        "1:1: the policy is a list, not a mapping. Write `key: value` pairs.",
    ),
    "a key of metadata with a typing error": (
        TOP + "metadata: {nmae: x}\n",
        '3:12: unknown key "nmae" in metadata. Did you mean "name"?',
    ),
    "a number for a name": (
        TOP + "metadata: {name: 5}\n",
        "3:18: metadata.name is the number 5, not text. Write text, in quotes if need be.",
    ),
    "a mode with a typing error": (
        TOP + "metadata: {mode: adit}\n",
        '3:18: mode cannot be "adit". Did you mean "audit"?',
    ),
    "a type of attribute with a typing error": (
        TOP + "attributes: {role: txt}\n",
        '3:20: the type of role cannot be "txt". Did you mean "text"?',
    ),
    "an attribute with a capital": (
        TOP + "attributes: {Role: text}\n",
        '3:14: "Role" is no attribute name. Did you mean "role"? Use lowercase '
        "letters, digits and _, beginning with a letter.",
    ),
    "a reserved attribute": (
        TOP + "attributes: {kind: text}\n",
        "3:14: kind has a meaning of its own in rules. Remove it, or rename it.",
    ),
    "attributes without types": (
        TOP + "attributes: [role]\n",
        "3:13: attributes is a list, not a mapping. Write `key: value` pairs.",
    ),
    "rules that are no list": (
        TOP + "rules: {a: 1}\n",
        "3:8: rules is a mapping, not a list. Write [a, b].",
    ),
    "a rule that is text": (
        HEADER + "  - x\n",
        '6:5: a rule is the text "x", not a mapping. Write `key: value` pairs.',
    ),
    "a rule without an effect": (
        HEADER + "  - name: r\n    actions: [message.ask]\n",
        '6:5: the rule "r" lacks the key "effect". Add `effect: allow`.',
    ),
    "an unknown effect": (
        HEADER + "  - name: r\n    effect: permit\n    actions: [message.ask]\n",
        '7:13: effect cannot be "permit". Known are: allow, deny.',
    ),
    "a key of a rule with a typing error": (
        rule("form: {role: x}"),
        '9:5: unknown key "form" in a rule. Did you mean "from"?',
    ),
    "an action with a typing error": (
        rule("from: {}", "mesage.ask"),
        '8:15: unknown action "mesage.ask". Did you mean "message.ask"?',
    ),
    "a pattern of actions": (
        rule("from: {}", "'message.*'"),
        '8:15: unknown action "message.*". Patterns are not read here: list the actions.',
    ),
    "a number for an action": (
        rule("from: {}", "5"),
        "8:15: an action is the number 5, not text. Write text, in quotes if need be.",
    ),
    "an attribute with a typing error": (
        rule("from: {rol: x}"),
        '9:12: unknown key "rol" in from. Did you mean "role"? An attribute is '
        "declared first: `attributes: {rol: text}`.",
    ),
    "an attribute that is not declared": (
        rule("from: {zone: x}"),
        '9:12: unknown key "zone" in from. Known are: clearance, human, identifier, '
        "issuer, kind, name, role, role_of_node, teams, trust_domain. An attribute "
        "is declared first: `attributes: {zone: text}`.",
    ),
    "a list for from": (
        rule("from: [role]"),
        "9:11: from is a list, not a mapping. Write `key: value` pairs.",
    ),
    "a service of who asks": (
        rule("from: {service: x}", "mcp.call"),
        '9:12: unknown key "service" in from. The service that somebody offers belongs to `to`.',
    ),
    "text for a number": (
        rule("from: {clearance: high}"),
        '9:23: clearance is declared as int, but this is the text "high". Write a '
        "whole number, or change the declaration.",
    ),
    "a number for a truth value": (
        rule("from: {human: 1}"),
        "9:19: human is declared as bool, but this is the number 1. Write true or "
        "false, or change the declaration.",
    ),
    "a number in a list of text": (
        rule("from: {teams: 5}"),
        "9:19: teams is declared as list, but this is the number 5. Write text, or "
        "change the declaration.",
    ),
    "an empty list": (
        rule("from: {role: []}"),
        "9:18: role is an empty list. Name at least one value.",
    ),
    "a value that is left out": (
        rule("from: {role: }"),
        "9:18: role is declared as text, but this is empty. Write text, or change the declaration.",
    ),
    "a kind of party with a typing error": (
        rule("from: {kind: agnet}"),
        '9:18: kind cannot be "agnet". Did you mean "agent"?',
    ),
    "a role of nodes with a typing error": (
        rule("from: {role_of_node: sidecars}"),
        '9:26: role_of_node cannot be "sidecars". Did you mean "sidecar"?',
    ),
    "a trust domain with a capital": (
        rule("from: {trust_domain: Acme}"),
        '9:26: "Acme" is no trust domain. Did you mean "acme"? Write it as in a '
        "name, for example acme.",
    ),
    "an identifier that is cut": (
        rule("from: {identifier: sl1qq}"),
        '9:24: "sl1qq" is no identifier: an identifier is 61 characters and starts '
        "with sl1. Copy it from `sidelink status`.",
    ),
    "a name without its scheme": (
        rule("to: {name: acme/x}"),
        '9:16: "acme/x" is no name: a name begins with agent://. Did you mean '
        '"agent://acme/x"? Write agent://domain/path.',
    ),
    "a star within a segment": (
        rule("to: {name: 'agent://acme/b*'}"),
        '9:16: "agent://acme/b*" is no name: * stands for a whole segment, not for a '
        "part of one. Write agent://domain/path.",
    ),
    "a name with a capital": (
        rule("to: {name: agent://acme/Billing}"),
        '9:16: "agent://acme/Billing" is no name: not a segment of a name: '
        "'Billing'. Did you mean \"agent://acme/billing\"? Write agent://domain/path.",
    ),
    "a service with a capital": (
        rule("to: {service: Weather}", "mcp.call"),
        '9:19: "Weather" is no name of a service. Did you mean "weather"? Use '
        "lowercase letters, digits, '.', '_' and '-'; patterns are not read here.",
    ),
    "a service for messages": (
        rule("to: {service: weather}"),
        "9:10: message.ask has no service, so this rule could never apply to it. "
        "Give it a rule of its own, without `service`.",
    ),
    "tools for messages": (
        rule("tools: [x]"),
        "9:5: `tools` says nothing about message.ask. Keep it to rules for mcp.call "
        "and mcp.result alone; mcp.list is implied by them.",
    ),
    "a star within a tool": (
        rule("tools: ['a*b']", "mcp.call"),
        '9:13: "a*b" is no name. A * can only end a name, as in get_*.',
    ),
    "a number for a tool": (
        rule("tools: [7]", "mcp.call"),
        "9:13: one of `tools` is the number 7, not text. Write text, in quotes if need be.",
    ),
    "a resource without its scheme": (
        rule("resources: [docs]", "mcp.read"),
        '9:17: "docs" is no URI in its plain form. Write it as file:///docs/*: with '
        "its scheme, in lowercase up to the path, without .. and backslashes.",
    ),
    "a condition that is no text": (
        rule("when: true"),
        "9:11: when is true, not text. Write a CEL expression.",
    ),
    "a variable with a typing error": (
        rule("when: subject.clearence >= 2"),
        '9:11: in `when`: unknown name subject.clearence. Did you mean "subject.clearance"?',
    ),
    "an unknown variable": (
        rule("when: sender.role == 'x'"),
        "9:11: in `when`: unknown name sender at position 7. Known are: message, "
        "now, object, subject.",
    ),
    "text compared with a number": (
        rule("when: subject.role >= 2"),
        "9:11: in `when`: >= does not go with string and int at position 14. Compare "
        "values of one type; a number is not text.",
    ),
    "a condition that is a number": (
        rule("when: message.size"),
        "9:11: in `when`: the expression gives int, not bool. Compare it with "
        "something, for example `args.flag == true`.",
    ),
    "a condition that ends too early": (
        rule("when: subject.role =="),
        "9:11: in `when`: the expression ends too early at position 16. Write what is missing.",
    ),
    "one equals sign": (
        rule("when: subject.role = 'x'"),
        "9:11: in `when`: the character '=' at position 14 has no meaning in CEL. "
        "Write == to compare.",
    ),
    "has()": (
        rule("when: has(subject.role)"),
        "9:11: in `when`: has() is refused, for a rule must not hang on absence. "
        "Compare the value itself; where it is missing, an allow rule does not match.",
    ),
    "arguments of a message": (
        rule("when: args.days < 7"),
        "9:11: in `when`: args is not known for message.ask. Keep args to rules for "
        "mcp.call, mcp.prompt, mcp.read, mcp.result alone.",
    ),
    "a quote that is not closed in a condition": (
        rule('when: "subject.role == \'x"'),
        "9:11: in `when`: the quote ' at position 17 is not closed. Close it.",
    ),
    "a bracket that is not closed in a condition": (
        rule("when: (subject.role == 'x'"),
        "9:11: in `when`: a bracket ( is not closed. Check the brackets.",
    ),
    "a limit in short": (
        rule("limit: 50/s"),
        '9:12: limit is the text "50/s", not a mapping. Write `limit: {rate: 50/s}`, '
        "with burst and per if need be.",
    ),
    "a rate without a time": (
        rule("limit: {rate: 50}"),
        "9:19: the rate is the number 50, not a number up to 1000000 and a time. "
        "Write it as 50/s, 30/min, 5/h or 1/d.",
    ),
    "a rate with another unit": (
        rule("limit: {rate: 50/sec}"),
        '9:19: the rate is the text "50/sec", not a number up to 1000000 and a time. '
        'Did you mean "50/s"? Write it as 50/s, 30/min, 5/h or 1/d.',
    ),
    "a key of a limit with a typing error": (
        rule("limit: {rate: 50/s, bursts: 5}"),
        '9:25: unknown key "bursts" in limit. Did you mean "burst"?',
    ),
    "a limit without a rate": (
        rule("limit: {burst: 5}"),
        '9:12: limit lacks the key "rate". Add `rate: 50/s`.',
    ),
    "a burst of nothing": (
        rule("limit: {rate: 50/s, burst: 0}"),
        "9:32: burst is the number 0, not a whole number from 1 to 1000000. Write a "
        "number from 1 to 1000000.",
    ),
    "an unknown way to count": (
        rule("limit: {rate: 50/s, per: agent}"),
        '9:30: per cannot be "agent". Known are: pair, rule, subject.',
    ),
    "a limit of what is denied": (
        HEADER
        + "  - name: r\n    effect: deny\n    actions: [message.ask]\n    limit: {rate: 50/s}\n",
        "9:5: `limit` belongs to what is allowed, and this rule denies. Move it to "
        "the rule that allows.",
    ),
    "an unknown mode": (
        rule("mode: dry-run"),
        '9:11: mode cannot be "dry-run". Known are: audit, enforce.',
    ),
    "a disclosure with a typing error": (
        rule("disclose: reasons"),
        '9:15: disclose cannot be "reasons". Did you mean "reason"?',
    ),
    "redaction of messages": (
        rule("redact: [a]"),
        "9:5: nothing enforces `redact` for message.ask. Keep it to rules for mcp.call alone.",
    ),
    "a field with two dots": (
        rule("redact: ['a..b']", "mcp.call"),
        '9:14: "a..b" is no field. Write names with dots between them, or * for '
        "every item, as in phones.*.number.",
    ),
    "a size with a unit": (
        rule("max_bytes: 1MB", "mcp.call"),
        '9:16: max_bytes is the text "1MB", not a whole number from 1 to 1073741824. '
        "Write a number from 1 to 1073741824.",
    ),
    "no time at all": (
        rule("max_seconds: 0", "mcp.call"),
        "9:18: max_seconds is the number 0, not a whole number from 1 to 86400. "
        "Write a number from 1 to 86400.",
    ),
    "two rules of one name": (
        rule("from: {}") + "  - name: r\n    effect: deny\n    actions: [message.ask]\n",
        '10:11: a rule named "r" is already on line 6. Give each rule a name of its '
        "own: decisions are reported by it.",
    ),
    "a name of built-in rules": (
        HEADER
        + "  - name: 'baseline: r'\n    effect: allow\n    actions: [message.ask]\n    from: {}\n",
        '6:11: names that begin with "baseline: " are those of built-in rules. Give '
        "the rule another name.",
    ),
    "a key given twice": (
        rule("effect: deny"),
        '9:5: the key "effect" is given twice; it is first on line 7. Remove one of them.',
    ),
    "a tab": (
        HEADER + "\t- name: r\n",
        "6:1: a tab where YAML wants spaces. Indent with spaces.",
    ),
    "an anchor": (
        rule("from: &x {role: a}"),
        "9:11: anchors (&name) and aliases (*name) are not read. Write the value out "
        "in each place, or quote a text that begins with & or *.",
    ),
    "no for a truth value": (
        rule("from: {human: no}"),
        "9:19: no is text to some readers of YAML and a truth value to others. Write "
        'true, false or null, or "no" for the text.',
    ),
    "an octal number": (
        rule("from: {clearance: 010}"),
        '9:23: "010" is not a number that every reader takes for the same. Write a '
        "plain decimal number within 64 bits, or quote it if it is text.",
    ),
    "a colon within text": (
        rule("description: see: below"),
        '9:21: a ": " where no key can stand (mapping values). Put a text with ": " '
        "in it in quotes, or indent the line like those above it.",
    ),
    "a list that is not closed": (
        HEADER + "  - {name: r, effect: allow, actions: [message.ask}\n",
        "6:51: a list in brackets is not closed: here stands neither ',' nor ']'. "
        "Put commas between the items and close the [ with a ].",
    ),
    "a line indented too little": (
        HEADER + "  - name: r\n   effect: allow\n",
        "7:4: the line is indented otherwise than the items above it. Begin it below "
        "the other items of its list, or below the keys of the last one.",
    ),
    "an at sign": (
        rule("from: {role: @x}"),
        "9:18: @ means something else in YAML here. Put the text in quotes.",
    ),
    "a second document": (
        HEADER
        + "  - name: r\n    effect: allow\n    actions: [message.ask]\n    from: {}\n---\na: 1\n",
        "10:1: a second document begins here. Keep one document in a file.",
    ),
}


@pytest.mark.parametrize(("text", "said"), TEXTS.values(), ids=TEXTS.keys())
def test_says(text: str, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        PolicyEngine.load(text, file="policy.yaml")

    assert str(caught.value) == f"config.policy_invalid: policy.yaml:{said}"


@pytest.mark.parametrize("said", [said for _, said in TEXTS.values()], ids=TEXTS.keys())
def test_names_a_place_and_ends_in_something_to_do(said: str) -> None:
    assert re.match(r"[1-9][0-9]*:[1-9][0-9]*: ", said)
    assert said[-1] in ".?`"
    assert len(re.findall(r"[.?](?: |$)", said)) >= 2
    assert said.isprintable()


def test_there_are_enough_of_them() -> None:
    assert len(TEXTS) >= 40
