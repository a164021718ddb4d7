"""Decision vectors on `when`: what holds, what fails, what is missing, sizes and times."""

from dataclasses import replace
from typing import Any, Final

from policy import Action, Request
from tests.policy.helpers import BILLING, PLANNER, agent
from tests.policy.vector_case import UNIX_S, Case, asks, bundle, calls

BUNDLES: Final[dict[str, str]] = {}
CASES: Final[list[Case]] = []

HOLDS, FAILS, FAULT = "holds", "fails", "is an error"

_LIST: Final = ("a", "b")
_BIG: Final = 2**70

# By the condition: what somebody has, and whether it holds, fails or comes to no result.
_CONDITIONS: Final[dict[str, list[tuple[str, dict[str, Any], str]]]] = {
    "subject.clearance >= 2": [
        ("enough", {"clearance": 2}, HOLDS),
        ("too little", {"clearance": 1}, FAILS),
        ("none", {}, FAULT),
        ("a text instead", {"clearance": "2"}, FAULT),
        ("true instead", {"clearance": True}, FAULT),
    ],
    "subject.clearance != 2": [
        ("another number", {"clearance": 3}, HOLDS),
        ("none, which is not another", {}, FAULT),
    ],
    "!subject.human": [
        ("false", {"human": False}, HOLDS),
        ("true", {"human": True}, FAILS),
        ("none, which is not false", {}, FAULT),
    ],
    "subject.role == 'x' || subject.clearance > 0": [
        ("the first settles it", {"role": "x"}, HOLDS),
        ("the second settles it", {"clearance": 1}, HOLDS),
        ("the second settles it for the worse", {"role": "y", "clearance": 0}, FAILS),
        ("the first is false and the second missing", {"role": "y"}, FAULT),
        ("both are missing", {}, FAULT),
    ],
    "subject.role == 'x' && subject.clearance > 0": [
        ("both", {"role": "x", "clearance": 1}, HOLDS),
        ("the first fails, the second is missing", {"role": "y"}, FAILS),
        ("the second fails, the first is missing", {"clearance": 0}, FAILS),
        ("the first holds, the second is missing", {"role": "x"}, FAULT),
    ],
    "'a' in subject.teams": [
        ("in the list", {"teams": _LIST}, HOLDS),
        ("not in the list", {"teams": ("c",)}, FAILS),
        ("an empty list", {"teams": ()}, FAILS),
        ("no list", {}, FAULT),
    ],
    "size(subject.teams) == 2": [
        ("two of them", {"teams": _LIST}, HOLDS),
        ("one of them", {"teams": ("a",)}, FAILS),
    ],
    "subject.teams.all(t, t.startsWith('a'))": [
        ("all of them", {"teams": ("a", "ab")}, HOLDS),
        ("not all", {"teams": _LIST}, FAILS),
        ("all of none", {"teams": ()}, HOLDS),
    ],
    "10 / subject.clearance > 1": [
        ("a division", {"clearance": 2}, HOLDS),
        ("a division by zero", {"clearance": 0}, FAULT),
    ],
    "subject.clearance + 1 > 0": [
        ("a sum", {"clearance": 1}, HOLDS),
        ("a sum beyond 64 bits", {"clearance": 2**63 - 1}, FAULT),
    ],
    "subject.role.matches(r'^pla[a-z]+$')": [
        ("it matches", {"role": "planner"}, HOLDS),
        ("it does not match", {"role": "clerk"}, FAILS),
        ("a line break is no end", {"role": "planner\nx"}, FAILS),
    ],
    "subject.role == object.role": [
        ("the same as the far end's", {"role": "billing"}, HOLDS),
        ("another than the far end's", {"role": "x"}, FAILS),
    ],
    "subject.trust_domain == object.trust_domain": [("one domain", {}, HOLDS)],
    "subject.role_of_node == 'sidecar'": [("a field that an agent lacks", {}, FAULT)],
    "true": [("always", {}, HOLDS)],
    "false": [("never", {}, FAILS)],
}


def _expected(outcome: str) -> tuple[str, str]:
    """An allow rule grants where it holds; a deny rule denies unless it fails."""
    return (
        "allow they" if outcome == HOLDS else "deny",
        "allow all" if outcome == FAILS else "deny not they",
    )


for _when, _rows in _CONDITIONS.items():
    _quoted = '"' + _when.replace("\\", "\\\\") + '"'
    BUNDLES[f"when {_when}"] = bundle(
        f"name: they, effect: allow, actions: [message.ask], when: {_quoted}"
    )
    BUNDLES[f"deny when {_when}"] = bundle(
        "name: all, effect: allow, actions: [message.ask]",
        f"name: not they, effect: deny, actions: [message.ask], when: {_quoted}",
    )
    for _what, _has, _outcome in _rows:
        _granted, _denied = _expected(_outcome)
        _request = asks(**_has)
        CASES.append(
            Case(f"when {_when}: {_what}: {_outcome}", f"when {_when}", _request, _granted)
        )
        CASES.append(Case(f"deny when {_when}: {_what}", f"deny when {_when}", _request, _denied))

_ARGUMENTS: Final[dict[str, list[tuple[str, Any, str]]]] = {
    "args.days <= 7": [
        ("few", {"days": 7}, HOLDS),
        ("many", {"days": 8}, FAILS),
        ("none", {}, FAULT),
        ("a text", {"days": "7"}, FAULT),
        ("null", {"days": None}, FAULT),
        ("a fraction", {"days": 6.5}, HOLDS),
        ("a number beyond 64 bits, which becomes a double", {"days": _BIG}, FAILS),
        ("one far below, likewise", {"days": -_BIG}, HOLDS),
        ("true, which is no number", {"days": True}, FAULT),
        ("the name in capitals", {"Days": 3}, FAULT),
        ("the name with a Cyrillic letter", {"d\u0430ys": 3}, FAULT),
        ("one more that nobody asked about", {"days": 1, "x": [1, {"y": None}]}, HOLDS),
    ],
    "'days' in args": [
        ("it is there", {"days": None}, HOLDS),
        ("it is not", {}, FAILS),
    ],
    "args.to.city == 'Rome'": [
        ("within", {"to": {"city": "Rome"}}, HOLDS),
        ("nothing within", {"to": {}}, FAULT),
        ("a list instead", {"to": ["Rome"]}, FAULT),
    ],
    "args.tags.exists(t, t == 'x')": [
        ("among them", {"tags": ["y", "x"]}, HOLDS),
        ("not among them", {"tags": []}, FAILS),
    ],
}

for _when, _calls in _ARGUMENTS.items():
    BUNDLES[f"when {_when}"] = bundle(
        f'name: they, effect: allow, actions: [mcp.call], when: "{_when}"'
    )
    BUNDLES[f"deny when {_when}"] = bundle(
        "name: all, effect: allow, actions: [mcp.call]",
        f'name: not they, effect: deny, actions: [mcp.call], when: "{_when}"',
    )
    for _what, _args, _outcome in _calls:
        _granted, _denied = _expected(_outcome)
        _request = calls(_args)
        CASES.append(
            Case(f"when {_when}: {_what}: {_outcome}", f"when {_when}", _request, _granted)
        )
        CASES.append(Case(f"deny when {_when}: {_what}", f"deny when {_when}", _request, _denied))

_DEEP: Any = 1
for _ in range(70):
    _DEEP = [_DEEP]
CASES += [
    Case(
        "arguments that are nested too deep are an error to who reads them",
        "when args.days <= 7",
        calls({"days": 1, "x": _DEEP}),
        "deny",
    ),
    Case(
        "arguments that nobody reads may be nested so",
        "every call",
        calls({"x": _DEEP}),
        "allow all",
    ),
    Case(
        "arguments that are not known grant nothing",
        "when args.days <= 7",
        replace(calls(), args=None),
        "deny",
    ),
    Case(
        "arguments that are not known deny",
        "deny when args.days <= 7",
        replace(calls(), args=None),
        "deny not they",
    ),
]
BUNDLES["every call"] = bundle("name: all, effect: allow, actions: [mcp.call]")

_SIZES: Final[dict[str, dict[int | None, str]]] = {
    "message.size < 100": {0: HOLDS, 99: HOLDS, 100: FAILS, None: FAULT, -1: FAULT},
    "message.size <= 100": {100: HOLDS, 101: FAILS},
    "message.size > 10": {10: FAILS, 11: HOLDS},
    "10 <= message.size": {9: FAILS, 10: HOLDS},
    "message.size == 7": {7: HOLDS, 8: FAILS},
    "message.size >= 10 && message.size < 20": {9: FAILS, 10: HOLDS, 19: HOLDS, 20: FAILS},
    "message.size * 2 < 100": {49: HOLDS, 50: FAILS},
    "message.size < 0": {0: FAILS},
    "message.size < 100 && subject.clearance > 0": {50: FAULT, 100: FAILS},
}

for _when, _sizes in _SIZES.items():
    BUNDLES[f"when {_when}"] = bundle(
        f'name: they, effect: allow, actions: [message.ask], when: "{_when}"'
    )
    BUNDLES[f"deny when {_when}"] = bundle(
        "name: all, effect: allow, actions: [message.ask]",
        f'name: not they, effect: deny, actions: [message.ask], when: "{_when}"',
    )
    for _size, _outcome in _sizes.items():
        _granted, _denied = _expected(_outcome)
        _request = asks(size=_size)
        CASES.append(
            Case(f"when {_when}: {_size} bytes: {_outcome}", f"when {_when}", _request, _granted)
        )
        CASES.append(
            Case(f"deny when {_when}: {_size} bytes", f"deny when {_when}", _request, _denied)
        )

_UNTIL: Final = "now < timestamp('2027-01-15T08:00:00Z')"  # UNIX_S
BUNDLES["until"] = bundle(f'name: until, effect: allow, actions: [message.ask], when: "{_UNTIL}"')
BUNDLES["from then on"] = bundle(
    "name: all, effect: allow, actions: [message.ask]",
    f'name: too late, effect: deny, actions: [message.ask], when: "!({_UNTIL})"',
)
BUNDLES["hours"] = bundle(
    "name: by day, effect: allow, actions: [message.ask], "
    "when: \"now.getHours('UTC') >= 8 && now.getHours('UTC') < 18\""
)
CASES += [
    Case("a moment before the end", "until", asks(), "allow until", UNIX_S - 0.001),
    Case("at the end", "until", asks(), "deny", UNIX_S),
    Case("a moment before the end, no deny", "from then on", asks(), "allow all", UNIX_S - 0.001),
    Case("at the end, a deny", "from then on", asks(), "deny too late", UNIX_S),
    Case("at eight", "hours", asks(), "allow by day", UNIX_S),
    Case("before eight", "hours", asks(), "deny", UNIX_S - 1),
    Case("before 1970", "until", asks(), "allow until", -1.0),
    Case("a time that no calendar has grants nothing", "until", asks(), "deny", 1e18),
    Case("a time that no calendar has denies", "from then on", asks(), "deny too late", 1e18),
]

BUNDLES["to fields"] = bundle(
    "name: they, effect: allow, actions: [message.ask], "
    "when: \"object.name.startsWith('agent://acme/billing/')\""
)
CASES += [
    Case("the far end's name", "to fields", asks(), "allow they"),
    Case("another far end's name", "to fields", asks(agent("agent://acme/x")), "deny"),
    Case(
        "a rule for tells is none for asks",
        "tells",
        Request(Action.MESSAGE_ASK, PLANNER, BILLING, message_bytes=1),
        "deny",
    ),
    Case(
        "a rule for tells",
        "tells",
        Request(Action.MESSAGE_TELL, PLANNER, BILLING, message_bytes=1),
        "allow tells",
    ),
]
BUNDLES["tells"] = bundle("name: tells, effect: allow, actions: [message.tell]")
