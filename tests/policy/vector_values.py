"""Decision vectors on attributes: types, what is missing, fields that everybody has."""

from dataclasses import replace
from typing import Any, Final

from policy import Action, Party, Request
from tests.policy.helpers import BILLING, PLANNER, agent, authority, node, unenrolled
from tests.policy.vector_case import Case, asks, bundle, named, without_name

BUNDLES: Final[dict[str, str]] = {}
CASES: Final[list[Case]] = []

# By the clause of `from`: the attribute somebody has, and whether it matches.
_TYPES: Final[dict[str, list[tuple[str, dict[str, Any], bool]]]] = {
    "role: planner": [
        ("the same text", {"role": "planner"}, True),
        ("another text", {"role": "clerk"}, False),
        ("nothing", {}, False),
        ("a list with the text", {"role": ("planner",)}, False),
        ("a number", {"role": 1}, False),
        ("true", {"role": True}, False),
        ("the text under another name", {"teams": ("planner",)}, False),
    ],
    "role: [planner, clerk]": [
        ("the first", {"role": "planner"}, True),
        ("the last", {"role": "clerk"}, True),
        ("neither", {"role": "x"}, False),
    ],
    "clearance: 1": [
        ("the same number", {"clearance": 1}, True),
        ("another number", {"clearance": 2}, False),
        ("the number below nothing", {"clearance": -1}, False),
        ("true, which is no number", {"clearance": True}, False),
        ("the number as text", {"clearance": "1"}, False),
        ("the number in a list", {"clearance": ("1",)}, False),
        ("nothing", {}, False),
    ],
    "clearance: 0": [
        ("zero", {"clearance": 0}, True),
        ("false, which is no number", {"clearance": False}, False),
        ("nothing, which is not zero", {}, False),
    ],
    "clearance: 9223372036854775807": [
        ("the largest number", {"clearance": 2**63 - 1}, True),
        ("the one below it", {"clearance": 2**63 - 2}, False),
    ],
    "human: true": [
        ("true", {"human": True}, True),
        ("false", {"human": False}, False),
        ("one, which is not true", {"human": 1}, False),
        ("the word", {"human": "true"}, False),
        ("nothing", {}, False),
    ],
    "human: false": [
        ("false", {"human": False}, True),
        ("zero, which is not false", {"human": 0}, False),
        ("nothing, which is not false", {}, False),
    ],
    "teams: red": [
        ("a list with it alone", {"teams": ("red",)}, True),
        ("a list with it last", {"teams": ("blue", "red")}, True),
        ("a list without it", {"teams": ("blue",)}, False),
        ("an empty list", {"teams": ()}, False),
        ("the text, which is no list", {"teams": "red"}, False),
        ("a list in which it is a part", {"teams": ("reddish",)}, False),
        ("nothing", {}, False),
    ],
    "teams: [red, green]": [
        ("one of them", {"teams": ("blue", "green")}, True),
        ("none of them", {"teams": ("blue",)}, False),
    ],
    "role: planner, clearance: 2": [
        ("both", {"role": "planner", "clearance": 2}, True),
        ("the first alone", {"role": "planner"}, False),
        ("the second alone", {"clearance": 2}, False),
    ],
}

for _clause, _rows in _TYPES.items():
    BUNDLES[f"from {_clause}"] = bundle(
        f"name: they, effect: allow, actions: [message.ask], from: {{{_clause}}}"
    )
    BUNDLES[f"deny {_clause}"] = bundle(
        "name: all, effect: allow, actions: [message.ask]",
        f"name: not they, effect: deny, actions: [message.ask], from: {{{_clause}}}",
    )
    for _what, _has, _met in _rows:
        CASES.append(
            Case(
                f"from {{{_clause}}}: {_what}",
                f"from {_clause}",
                asks(**_has),
                "allow they" if _met else "deny",
            )
        )
        # What does not match cannot deny: no rule hangs on an absence.
        CASES.append(
            Case(
                f"deny from {{{_clause}}}: {_what}",
                f"deny {_clause}",
                asks(**_has),
                "deny not they" if _met else "allow all",
            )
        )

_NODE: Final = node("agent://acme/nodes/one")
_GATEWAY: Final = node("agent://acme/nodes/gateway", role="gateway")
_CARD: Final = str(named("agent://acme/finance/planner"))
_ISSUER: Final = str(named("issuer"))

# By the clause: who it is, and whether it matches.
_FIELDS: Final[dict[str, list[tuple[str, Party, bool]]]] = {
    "kind: agent": [
        ("an agent", PLANNER, True),
        ("a node", _NODE, False),
        ("an authority", authority(), False),
        ("somebody unenrolled", unenrolled(), False),
    ],
    "kind: [node, authority]": [
        ("a node", _NODE, True),
        ("an authority", authority(), True),
        ("an agent", PLANNER, False),
    ],
    "kind: unenrolled": [("somebody unenrolled", unenrolled(), True), ("a node", _NODE, False)],
    "role_of_node: gateway": [
        ("a gateway", _GATEWAY, True),
        ("a sidecar", _NODE, False),
        ("an agent", PLANNER, False),
        ("an agent whose attribute says so", agent("agent://acme/a", role="gateway"), False),
    ],
    "trust_domain: acme": [
        ("one of the domain", PLANNER, True),
        ("one of another", agent("agent://globex/a"), False),
        ("one whose domain begins so", agent("agent://acme2/a"), False),
        ("one without a domain", unenrolled(), False),
        ("the authority, which has no name", authority(), True),
    ],
    f"identifier: {_CARD}": [
        ("the same", PLANNER, True),
        ("another by the same name", replace(PLANNER, identifier=named("other")), False),
    ],
    f"issuer: {_ISSUER}": [
        ("issued by that one", PLANNER, True),
        ("issued by another", replace(PLANNER, issuer=named("other")), False),
        ("issued by nobody", replace(PLANNER, issuer=None), False),
    ],
    'name: "agent://acme/**"': [
        ("a name below it", PLANNER, True),
        ("no name", without_name(PLANNER), False),
    ],
}

for _clause, _people in _FIELDS.items():
    _short = _clause if len(_clause) < 40 else _clause.partition(":")[0]
    BUNDLES[f"field {_short}"] = bundle(
        f"name: they, effect: allow, actions: [message.ask], from: {{{_clause}}}"
    )
    BUNDLES[f"to field {_short}"] = bundle(
        f"name: to them, effect: allow, actions: [message.ask], to: {{{_clause}}}"
    )
    for _what, _who, _met in _people:
        _asked = Request(Action.MESSAGE_ASK, _who, BILLING, message_bytes=1)
        CASES.append(
            Case(
                f"from {{{_short}}}: {_what}",
                f"field {_short}",
                _asked,
                "allow they" if _met else "deny",
            )
        )
        _told = Request(Action.MESSAGE_ASK, agent("agent://acme/z"), _who, message_bytes=1)
        CASES.append(
            Case(
                f"to {{{_short}}}: {_what}",
                f"to field {_short}",
                _told,
                "allow to them" if _met else "deny",
            )
        )

BUNDLES["anybody"] = bundle("name: all, effect: allow, actions: [message.ask]")
CASES += [
    Case("without from and to, anybody", "anybody", asks(), "allow all"),
    Case(
        "anybody, also of another domain",
        "anybody",
        asks(agent("agent://globex/x")),
        "allow all",
    ),
    Case(
        "nobody who has not proved who they are",
        "anybody",
        replace(asks(), subject=Party.unproved(PLANNER.name)),  # type: ignore[arg-type]
        "deny",
    ),
    Case(
        "nobody whose identifier is not known",
        "anybody",
        replace(asks(), subject=replace(PLANNER, identifier=None)),
        "deny",
    ),
    Case(
        "nobody whose credential has lapsed",
        "anybody",
        asks(),
        "deny",
        expires_unix_s=1_800_000_000.0,
    ),
    Case(
        "whoever's credential lapses a moment later",
        "anybody",
        asks(),
        "allow all",
        expires_unix_s=1_800_000_000.5,
    ),
    Case(
        "an action that no rule speaks of",
        "anybody",
        replace(asks(), action=Action.MESSAGE_TELL),
        "deny",
    ),
]
BUNDLES["no rules"] = "apiVersion: sidelink/v1\nkind: Policy\nrules: []\n"
BUNDLES["nothing at all"] = ""
CASES += [
    Case("without a rule, everything is denied", "no rules", asks(), "deny"),
    Case(
        "without a rule, not even the built-in ones hold",
        "no rules",
        Request(Action.HOP_ADMIT, _NODE, _GATEWAY),
        "deny",
    ),
    Case("an empty file denies", "nothing at all", asks(), "deny"),
]
