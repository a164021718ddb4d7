"""What the engine should answer, found by asking every rule; and policies and requests by chance.

Slow and simple: no index, no order, no cache. Whatever the engine does to be quick has to agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from identity import NamePrefix
from policy import Action, Party, Request
from policy.condition import Facts
from policy.documents import read_policy
from policy.evaluation import Reuse, allows, could_allow, denies
from policy.model import Rule
from policy.request import IMPLIED_BY, SERVICE_ACTIONS
from tests.policy.helpers import HEADER, NOW, agent, identifier, node


@dataclass(frozen=True)
class Naive:
    rules: Sequence[Rule]

    @classmethod
    def load(cls, text: str) -> "Naive":
        document = read_policy(text, "p")
        return cls(() if document is None else document.rules)

    def effects(self, request: Request) -> tuple[bool, frozenset[str]]:
        """Whether it is allowed, and the names of the rules that deny it."""
        facts = Facts(request, NOW, probing=False)
        denying = frozenset(
            rule.name for rule in self._of(request, False) if denies(rule, facts, Reuse(True))
        )
        if denying or not self._is_well_formed(request):
            return False, denying
        granted = any(allows(rule, facts, Reuse(True)) for rule in self._of(request, True))
        waits = request.action is Action.CHANNEL_OPEN
        implied = request.action in IMPLIED_BY and self._could(request, waits=waits)
        return granted or implied, frozenset()

    def could_allow(self, request: Request) -> bool:
        if not self.rules or not self._is_well_formed(request):
            return False
        return not self._surely_denied(request) and self._could(request, waits=True)

    def _could(self, request: Request, *, waits: bool) -> bool:
        for action in (request.action, *IMPLIED_BY.get(request.action, ())):
            asked = replace(request, action=action)
            facts = Facts(asked, NOW, probing=True, waits_for_proof=waits)
            if not self._surely_denied(asked) and any(
                could_allow(rule, facts) for rule in self._of(asked, True)
            ):
                return True
        return False

    def _surely_denied(self, request: Request) -> bool:
        facts = Facts(request, NOW, probing=True)
        return any(denies(rule, facts, Reuse(False)) for rule in self._of(request, False))

    def _of(self, request: Request, allowing: bool) -> list[Rule]:
        return [
            rule
            for rule in self.rules
            if rule.allows is allowing and request.action in rule.actions
        ]

    @staticmethod
    def _is_well_formed(request: Request) -> bool:
        return bool(
            (request.action is not Action.ROUTE_REGISTER or request.prefix)
            and (request.action not in SERVICE_ACTIONS or request.service)
            and (request.action is not Action.MCP_CALL or request.tool)
        )


NAMES = (
    "agent://acme/a",
    "agent://acme/a/b",
    "agent://acme/a/b/c",
    "agent://acme/c",
    "agent://globex/a",
    "agent://globex/a/b",
)
NAME_CLAUSES = (*NAMES, "agent://acme/*", "agent://acme/a/*", "agent://acme/**", "agent://acme/*/b")
ROLES = ("x", "y", "z")
ACTIONS = (
    Action.MESSAGE_ASK,
    Action.MESSAGE_TELL,
    Action.CHANNEL_OPEN,
    Action.STREAM_OPEN,
    Action.MCP_LIST,
    Action.MCP_CALL,
    Action.ROUTE_REGISTER,
    Action.LINK_RELAY,
)
MESSAGES = frozenset({Action.MESSAGE_ASK, Action.MESSAGE_TELL})
CALLS = frozenset({Action.MCP_CALL})
WHENS = (
    "subject.clearance >= 2",
    "object.clearance < 2",
    "subject.role == object.role",
    "subject.role == 'x' || object.human",
    "subject.trust_domain == object.trust_domain",
    "now > timestamp(0)",
)


def some_policy(chance: Random, rules: int) -> str:
    listed = "".join(f"  - {{name: r{at}, {_rule(chance)}}}\n" for at in range(rules))
    if chance.random() < 0.5:  # Else nearly everything is denied for want of a rule.
        actions = ", ".join(action for action in ACTIONS if chance.random() < 0.8) or "hop.admit"
        listed += f"  - {{name: most, effect: allow, actions: [{actions}]}}\n"
    return f"{HEADER}rules:\n{listed}"


def _rule(chance: Random) -> str:
    actions = set(chance.choices(ACTIONS, k=chance.randint(1, 2)))
    to = _selector(chance)
    whens = ["", *WHENS]
    parts = [
        f"effect: {chance.choice(['allow', 'allow', 'deny'])}",
        f"actions: [{', '.join(sorted(actions))}]",
        f"from: {{{', '.join(_selector(chance))}}}",
    ]
    if actions <= SERVICE_ACTIONS and chance.random() < 0.6:
        to.append(f"service: [{', '.join(chance.sample(['s', 't', 'u'], k=chance.randint(1, 2)))}]")
    if actions == CALLS and chance.random() < 0.6:
        parts.append(f"tools: [{', '.join(chance.sample(['get', 'put', 'g*'], k=2))}]")
    if actions == CALLS:
        whens += ["args.n <= 5", "args.n == 1 || subject.role == 'x'"]
    if actions <= MESSAGES:
        whens += ["message.size < 5", "message.size >= 5 && subject.clearance == 2"]
    when = chance.choice(whens)
    return ", ".join([*parts, f"to: {{{', '.join(to)}}}", *([f'when: "{when}"'] if when else [])])


def _selector(chance: Random) -> list[str]:
    clauses = {
        "role": lambda: _some(chance, ROLES),
        "clearance": lambda: _some(chance, range(4)),
        "human": lambda: chance.choice(["true", "false"]),
        "teams": lambda: _some(chance, ["red", "blue"]),
        "kind": lambda: _some(chance, ["agent", "node"]),
        "trust_domain": lambda: _some(chance, ["acme", "globex"]),
        "name": lambda: _some(chance, [f'"{name}"' for name in NAME_CLAUSES]),
        "role_of_node": lambda: _some(chance, ["sidecar", "gateway"]),
        "identifier": lambda: str(identifier(chance.choice(NAMES))),
    }
    keys = chance.sample(list(clauses), k=chance.choice([0, 1, 1, 1, 2, 3]))
    return [f"{key}: {clauses[key]()}" for key in keys]


def _some(chance: Random, values: Sequence[object]) -> str:
    return f"[{', '.join(map(str, chance.sample(list(values), k=chance.randint(1, 2))))}]"


def some_request(chance: Random) -> Request:
    to = _party(chance)
    if chance.random() < 0.25:
        assert to.name is not None
        to = Party.unproved(to.name)
    return Request(
        chance.choice(ACTIONS),
        _party(chance),
        to,
        service=chance.choice([None, "s", "t"]),
        message_bytes=chance.choice([None, 0, 4, 5, 9]),
        prefix=NamePrefix.parse(chance.choice(NAMES)) if chance.random() < 0.8 else None,
        tool=chance.choice([None, "get", "put"]),
        args=chance.choice([None, {}, {"n": 1}, {"n": 9}, {"n": "x"}]),
    )


def _party(chance: Random, depth: int = 2) -> Party:
    above: tuple[Party, ...] = ()
    if depth and chance.random() < 0.5:
        parent = _party(chance, depth - 1)
        above = (replace(parent, ancestors=()), *parent.ancestors)
    attributes: dict[str, Any] = {}
    for name, values in {
        "role": [*ROLES, 5],  # The last is not of the declared type.
        "clearance": [0, 1, 2, 3, True],
        "human": [True, False, 1],
        "teams": [("red",), ("red", "blue"), (), "red"],
    }.items():
        if chance.random() < 0.6:
            attributes[name] = chance.choice(values)
    name = chance.choice(NAMES)
    if chance.random() < 0.6:
        return agent(name, above, **attributes)
    made = node(name, chance.choice(["sidecar", "gateway"]))
    return replace(made, ancestors=above, attributes=attributes)
