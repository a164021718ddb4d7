"""The built-in rules, and who may register which prefix."""

import pytest

from identity import AgentUri, Code, NamePrefix
from policy import Action, Party, PolicyEngine, Request
from tests.policy.helpers import (
    HEADER,
    PLANNER,
    ask,
    authority,
    denied,
    is_allowed,
    node,
    policy_of,
    unenrolled,
    unproved,
)

OWN_GATEWAY = node("agent://acme/gateway", "gateway")
NODE = node("agent://acme/east", "sidecar")
STRANGER = node("agent://globex/east", "sidecar")
PREFIX = NamePrefix.parse("agent://acme/east")
BARE = policy_of("effect: allow, actions: [message.ask], from: {kind: agent}")

BASELINE = {
    "a node of the trust domain is admitted": (Request(Action.HOP_ADMIT, NODE, OWN_GATEWAY), True),
    "a gateway is admitted by a node": (Request(Action.HOP_ADMIT, OWN_GATEWAY, NODE), True),
    "the authority is admitted": (Request(Action.HOP_ADMIT, authority(), OWN_GATEWAY), True),
    "a node of another trust domain is not": (
        Request(Action.HOP_ADMIT, STRANGER, OWN_GATEWAY),
        False,
    ),
    "an agent is not admitted": (Request(Action.HOP_ADMIT, PLANNER, OWN_GATEWAY), False),
    "somebody unenrolled is not admitted": (
        Request(Action.HOP_ADMIT, unenrolled(), OWN_GATEWAY),
        False,
    ),
    "somebody unenrolled may enrol": (Request(Action.NODE_ENROL, unenrolled(), OWN_GATEWAY), True),
    "a gateway is dialled for enrolment": (
        Request(Action.NODE_ENROL, OWN_GATEWAY, unenrolled()),
        True,
    ),
    "a node registers a prefix": (
        Request(Action.ROUTE_REGISTER, NODE, OWN_GATEWAY, prefix=PREFIX),
        True,
    ),
    "nobody registers without a prefix": (Request(Action.ROUTE_REGISTER, NODE, OWN_GATEWAY), False),
    "a stranger registers no prefix": (
        Request(Action.ROUTE_REGISTER, STRANGER, OWN_GATEWAY, prefix=PREFIX),
        False,
    ),
    "a node is relayed to a name of the trust domain": (
        Request(Action.LINK_RELAY, NODE, unproved()),
        True,
    ),
    "a node is not relayed to another trust domain": (
        Request(Action.LINK_RELAY, NODE, Party.unproved(AgentUri.parse("agent://globex/a"))),
        False,
    ),
    "somebody unenrolled is relayed to the authority": (
        Request(Action.LINK_RELAY, unenrolled(), authority()),
        True,
    ),
    "somebody unenrolled is relayed to nobody else": (
        Request(Action.LINK_RELAY, unenrolled(), unproved()),
        False,
    ),
    "somebody unenrolled opens a channel to the authority": (
        Request(Action.CHANNEL_OPEN, unenrolled(), authority()),
        True,
    ),
    "somebody unenrolled opens no channel to anybody else": (
        Request(Action.CHANNEL_OPEN, unenrolled(), unproved()),
        False,
    ),
}


@pytest.mark.parametrize(("request_", "allowed"), BASELINE.values(), ids=BASELINE.keys())
def test_the_baseline(request_: Request, allowed: bool) -> None:
    assert is_allowed(BARE, request_) is allowed


def test_a_deny_rule_overrides_the_baseline_and_the_baseline_can_be_left_out() -> None:
    request = Request(Action.HOP_ADMIT, NODE, OWN_GATEWAY)
    denying = policy_of("effect: deny, actions: [hop.admit], from: {name: 'agent://acme/east'}")
    text = f"{HEADER}rules:\n  - {{name: r, effect: allow, actions: [message.ask]}}\n"
    without = PolicyEngine.load(text, file="p", baseline=False)

    assert denied(denying, request).rule == "rule 1"
    assert denied(without, request).code is Code.POLICY_NO_RULE
    assert is_allowed(without, ask())


# The effect and the name of a rule, the prefix to be registered, and whether it may be.
ROUTES = {
    "the prefix itself": ("allow", "agent://acme/east", "agent://acme/east", True),
    "what two stars cover": ("allow", "agent://acme/**", "agent://acme/east", True),
    "the root of what two stars cover": (
        "allow",
        "agent://acme/east/**",
        "agent://acme/east",
        True,
    ),
    "more than two stars cover": ("allow", "agent://acme/east/**", "agent://acme", False),
    "more than one star covers": ("allow", "agent://acme/*", "agent://acme/east", False),
    "beside it": ("allow", "agent://acme/west/**", "agent://acme/east", False),
    "denied outright": ("deny", "agent://acme/east", "agent://acme/east", False),
    "a prefix that holds a denied name": ("deny", "agent://acme/east/vip", "agent://acme", False),
    "a prefix below denied ones": ("deny", "agent://acme/**", "agent://acme/east", False),
    "a prefix beside denied ones": ("deny", "agent://acme/west/**", "agent://acme/east", True),
    "a prefix below a denied name": ("deny", "agent://acme/east", "agent://acme/east/a", True),
    "a prefix of stars": ("deny", "agent://acme/*/vip", "agent://acme/east", False),
}


@pytest.mark.parametrize(
    ("effect", "name", "prefix", "allowed"), ROUTES.values(), ids=ROUTES.keys()
)
def test_a_rule_on_registration_speaks_of_the_prefix(
    effect: str, name: str, prefix: str, allowed: bool
) -> None:
    rules = [f"effect: {effect}, actions: [route.register], to: {{name: '{name}'}}"]
    if effect == "deny":
        rules.append("effect: allow, actions: [route.register]")
    text = "".join(f"  - {{name: r{at}, {rule}}}\n" for at, rule in enumerate(rules))
    engine = PolicyEngine.load(f"{HEADER}rules:\n{text}", file="p", baseline=False)
    request = Request(Action.ROUTE_REGISTER, NODE, OWN_GATEWAY, prefix=NamePrefix.parse(prefix))

    assert is_allowed(engine, request) is allowed
