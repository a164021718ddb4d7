"""Vectors of what no policy may hold: each text is refused at its line and column."""

from typing import Final

from tests.policy.vector_case import HEAD

_RULE_LINE: Final = 5
_LINES: Final = HEAD.count("\n")

assert _LINES + 2 == _RULE_LINE


def _attribute(declared: str) -> str:
    return f"apiVersion: sidelink/v1\nkind: Policy\nattributes: {{{declared}}}\n"


def _rule(fields: str) -> str:
    return f"{HEAD}rules:\n  - {{{fields}}}\n"


_ASK: Final = "name: a, effect: allow, actions: [message.ask]"
_NAME: Final = f"{_ASK}, to: {{name: "
_AT_NAME: Final = (_RULE_LINE, len(f"  - {{{_NAME}") + 1)
_ROLE: Final = f"{_ASK}, from: {{"
_AT_KEY: Final = (_RULE_LINE, len(f"  - {{{_ROLE}") + 1)
_WHEN: Final = f"{_ASK}, when: "
_AT_WHEN: Final = (_RULE_LINE, len(f"  - {{{_WHEN}") + 1)
_SERVICE: Final = "name: a, effect: allow, actions: [mcp.list], to: {service: "
_AT_SERVICE: Final = (_RULE_LINE, len(f"  - {{{_SERVICE}") + 1)
_ACTION: Final = "name: a, effect: allow, actions: ["
_AT_ACTION: Final = (_RULE_LINE, len(f"  - {{{_ACTION}") + 1)

REFUSALS: Final[dict[str, tuple[str, int, int]]] = {}

for _reserved in (
    "identifier",
    "name",
    "trust_domain",
    "issuer",
    "kind",
    "role_of_node",
    "from",
    "service",
):
    REFUSALS[f"an attribute of the reserved name {_reserved}"] = (
        _attribute(f"{_reserved}: text"),
        3,
        14,
    )
for _word, _why in {
    "Role": "a capital",
    "r\u043ele": "a Cyrillic letter",
    "role\u200b": "a space of no width",
    "\uff52ole": "a fullwidth letter",
    "ro-le": "a hyphen",
    "_role": "an underscore at the beginning",
    "1role": "a digit at the beginning",
    '""': "no letter",
    "r" * 64: "more letters than there may be",
}.items():
    REFUSALS[f"an attribute's name with {_why}"] = (_attribute(f"{_word}: text"), 3, 14)
for _kind in ("string", "Text", "integer", "map", "time", "5"):
    REFUSALS[f"an attribute of the type {_kind}"] = (_attribute(f"role: {_kind}"), 3, 20)
for _text, _why in {
    "agent://\u0430cme/x": "a Cyrillic letter in the domain",
    "agent://acme/bill\u0456ng": "a Cyrillic letter in a segment",
    "agent://acme/\uff42illing": "a fullwidth letter",
    "agent://acme/bil\u200bling": "a space of no width",
    "agent://acme/b\u0131lling": "a dotless i",
    "agent://acme/Billing": "a capital",
    "agent://acme/bill%69ng": "an escape",
    "agent://acme/": "an empty segment at the end",
    "agent://acme//x": "an empty segment",
    "agent://acme": "no path",
    "agent:/acme/x": "one slash",
    "AGENT://acme/x": "the scheme in capitals",
    "acme/x": "no scheme",
    "agent://acme/../x": "two dots",
    "agent://acme/.x": "a dot at the beginning",
    "agent://acme/bill*": "a star within a segment",
    "agent://acme/**/x": "two stars in the middle",
    "agent://*/x": "a star for the domain",
    "agent://acme/***": "three stars",
    "agent://acme/a/b/c/d/e/f/g/h/i": "nine segments",
    "agent://acme/x?y": "a question",
    "agent://acme/x#y": "a fragment",
    "agent://acme/x y": "a space",
    "agent://acme:7440/x": "a port",
    "agent://acme/" + "x" * 64: "a segment that is too long",
}.items():
    REFUSALS[f"a name with {_why}"] = (_rule(f'{_NAME}"{_text}"}}'), *_AT_NAME)
for _text, _why in {
    "Weather": "a capital",
    "we\u0430ther": "a Cyrillic letter",
    "weather*": "a star",
    "-weather": "a hyphen at the beginning",
    "weather/maps": "a slash",
}.items():
    REFUSALS[f"a service with {_why}"] = (_rule(f'{_SERVICE}"{_text}"}}'), *_AT_SERVICE)
for _text, _why in {
    "message.aks": "two letters swapped",
    "message.*": "a star",
    "Message.ask": "a capital",
    "mess\u0430ge.ask": "a Cyrillic letter",
    "message": "a half",
    "hop.admitt": "a letter too many",
}.items():
    REFUSALS[f"an action with {_why}"] = (_rule(f'{_ACTION}"{_text}"]'), *_AT_ACTION)
for _text, _why in {
    "rol: x": "misspelt",
    "Role: x": "in capitals",
    "r\u043ele: x": "with a Cyrillic letter",
    "service: x": "of the other side",
    "not_declared: x": "not declared",
}.items():
    REFUSALS[f"a key of from that is {_why}"] = (_rule(f"{_ROLE}{_text}}}"), *_AT_KEY)
for _text, _why, _more in (
    ("role: 5", "a number for a text", 6),
    ("clearance: high", "a text for a number", 11),
    ("clearance: true", "true for a number", 11),
    ("human: 1", "a number for true", 7),
    ("teams: true", "true for a text in a list", 7),
    ("role: []", "an empty list", 6),
    ("role: null", "nothing", 6),
    ("kind: human", "a kind that does not exist", 6),
    ("role_of_node: relay", "a role of a node that does not exist", 14),
    ("trust_domain: Acme", "a domain in capitals", 14),
    ("identifier: sl1x", "an identifier that is cut", 12),
    ("role: {a: b}", "a mapping", 6),
):
    REFUSALS[f"from with {_why}"] = (
        _rule(f"{_ROLE}{_text}}}"),
        _AT_KEY[0],
        _AT_KEY[1] + _more,
    )
for _text, _why in {
    "subject.clearence > 1": "a name that is misspelt",
    "subject.role > 1": "a text that is compared with a number",
    "subject.clearance": "a number for its result",
    "args.days < 3": "arguments of a message",
    "has(subject.role)": "has()",
    "subject.role == 'x' // why": "a comment",
    "(subject.human": "a bracket that is open",
    "": "nothing",
    "subject.r\u043ele == 'x'": "a Cyrillic letter in a name",
    "'''x''' == 'x'": "a kind of quote that is not read",
    "(" * 40 + "true" + ")" * 40: "too many brackets",
    "true && " * 600 + "true": "too many bytes",
    "nobody.role == 'x'": "a variable that does not exist",
}.items():
    REFUSALS[f"when with {_why}"] = (_rule(f'{_WHEN}"{_text}"'), *_AT_WHEN)
REFUSALS |= {
    "a rule without a name": (_rule("effect: allow, actions: [message.ask]"), 5, 5),
    "a rule without an effect": (_rule("name: a, actions: [message.ask]"), 5, 5),
    "a rule without actions": (_rule("name: a, effect: allow"), 5, 5),
    "a rule with an empty list of actions": (_rule("name: a, effect: allow, actions: []"), 5, 39),
    "an effect that does not exist": (
        _rule("name: a, effect: permit, actions: [message.ask]"),
        5,
        23,
    ),
    "a key of a rule that does not exist": (_rule(f"{_ASK}, form: {{}}"), 5, 54),
    "a rule's name that a built-in rule could have": (
        _rule('name: "baseline: mine", effect: allow, actions: [message.ask]'),
        5,
        12,
    ),
    "two rules of one name": (f"{_rule(_ASK)}  - {{{_ASK}}}\n", 6, 12),
    "a service beside an action that has none": (
        _rule(f"{_ASK}, to: {{service: x}}"),
        5,
        59,
    ),
    "tools beside an action that has none": (_rule(f"{_ASK}, tools: [x]"), 5, 54),
    "another version": ("apiVersion: sidelink/v2\nkind: Policy\n", 1, 13),
    "another kind": ("apiVersion: sidelink/v1\nkind: Role\n", 2, 7),
    "no kind": ("apiVersion: sidelink/v1\n", 1, 1),
    "a key that comes twice": ("apiVersion: sidelink/v1\nkind: Policy\nkind: Policy\n", 3, 1),
    "an anchor": ("apiVersion: &a sidelink/v1\nkind: Policy\n", 1, 13),
    "a list instead of a policy": ("- a\n", 1, 1),
    "a second document": ("apiVersion: sidelink/v1\nkind: Policy\n---\n", 3, 1),
}
