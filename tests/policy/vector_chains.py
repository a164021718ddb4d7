"""Decision vectors on who overrides whom: rules, children, implied permits, limits, audit mode."""

from dataclasses import replace
from typing import Final

from policy import Action, Party, Request
from tests.policy.helpers import BILLING, PLANNER, agent, authority, node, unenrolled
from tests.policy.vector_case import UNIX_S, Case, asks, bundle, calls, named

BUNDLES: Final[dict[str, str]] = {}
CASES: Final[list[Case]] = []

_ALLOW: Final = "effect: allow, actions: [message.ask]"
_DENY: Final = "effect: deny, actions: [message.ask]"

BUNDLES |= {
    "deny last": bundle(
        f"name: open, {_ALLOW}", f"name: shut, {_DENY}, from: {{role: x}}", f"name: also, {_ALLOW}"
    ),
    "deny first": bundle(f"name: shut, {_DENY}, from: {{role: x}}", f"name: open, {_ALLOW}"),
    "only deny": bundle(f"name: shut, {_DENY}, from: {{role: x}}"),
    "narrow allow": bundle(
        f'name: open, {_ALLOW}, from: {{role: x}}, to: {{name: "agent://acme/billing/main"}}',
        f"name: shut, {_DENY}, from: {{trust_domain: acme}}",
    ),
    "two allow": bundle(
        f"name: small, {_ALLOW}, when: message.size < 5", f"name: any size, {_ALLOW}"
    ),
    "two deny": bundle(
        f"name: first, {_DENY}, from: {{role: x}}",
        f"name: second, {_DENY}",
        f"name: open, {_ALLOW}",
    ),
}
CASES += [
    Case("a deny rule overrides, wherever it stands", "deny last", asks(role="x"), "deny shut"),
    Case("a deny rule that does not match", "deny last", asks(role="y"), "allow open"),
    Case("the order means nothing", "deny first", asks(role="x"), "deny shut"),
    Case("the order means nothing, allowed", "deny first", asks(role="y"), "allow open"),
    Case("what no rule denies is not thereby allowed", "only deny", asks(role="y"), "deny"),
    Case(
        "a narrow allow does not win over a wide deny", "narrow allow", asks(role="x"), "deny shut"
    ),
    Case("the rule whose permits serve most is named", "two allow", asks(size=1), "allow any size"),
    Case("of two that deny, the first is named", "two deny", asks(role="x"), "deny first"),
    Case("of two, the one that matches is named", "two deny", asks(role="y"), "deny second"),
]

_PARENT: Final = agent("agent://acme/finance/planner", role="planner", clearance=5)
_BAD_PARENT: Final = agent("agent://acme/finance/planner", role="x")
_HOST: Final = node("agent://acme/nodes/one", role="sidecar")


def _child(*ancestors: Party, **attributes: str) -> Party:
    return agent("agent://acme/finance/planner/child", ancestors=ancestors, **attributes)


def _ask(subject: Party, to: Party = BILLING) -> Request:
    return Request(Action.MESSAGE_ASK, subject, to, message_bytes=10)


BUNDLES |= {
    "planners": bundle(f"name: planners, {_ALLOW}, from: {{role: planner}}"),
    "no x": bundle(f"name: open, {_ALLOW}", f"name: no x, {_DENY}, from: {{role: x}}"),
    "not to x": bundle(f"name: open, {_ALLOW}", f"name: not to x, {_DENY}, to: {{role: x}}"),
    "no nodes": bundle(f"name: open, {_ALLOW}", f"name: no nodes, {_DENY}, from: {{kind: node}}"),
    "no agents named": bundle(
        f"name: open, {_ALLOW}",
        f'name: not that one, {_DENY}, from: {{name: "agent://acme/finance/planner"}}',
    ),
    "no low": bundle(
        f"name: open, {_ALLOW}", f'name: no low, {_DENY}, when: "subject.clearance < 3"'
    ),
    "not between x": bundle(
        f"name: open, {_ALLOW}",
        f"name: not between, {_DENY}, from: {{role: x}}, to: {{role: x}}",
    ),
}
CASES += [
    Case("a child has not its parent's role", "planners", _ask(_child(_PARENT)), "deny"),
    Case(
        "a child with a role of its own",
        "planners",
        _ask(_child(_BAD_PARENT, role="planner")),
        "allow planners",
    ),
    Case(
        "a child cannot shed what denies its parent", "no x", _ask(_child(_BAD_PARENT)), "deny no x"
    ),
    Case(
        "nor by saying something else",
        "no x",
        _ask(_child(_BAD_PARENT, role="planner")),
        "deny no x",
    ),
    Case("nor can a grandchild", "no x", _ask(_child(_PARENT, _BAD_PARENT)), "deny no x"),
    Case("a child of others", "no x", _ask(_child(_PARENT)), "allow open"),
    Case("a parent is not its child", "no x", _ask(_PARENT), "allow open"),
    Case(
        "nobody reaches the child of x",
        "not to x",
        _ask(PLANNER, _child(_BAD_PARENT)),
        "deny not to x",
    ),
    Case(
        "the child of others is reached", "not to x", _ask(PLANNER, _child(_PARENT)), "allow open"
    ),
    Case("the node that issued is in the chain", "no nodes", _ask(_child(_HOST)), "deny no nodes"),
    Case("without a node in the chain", "no nodes", _ask(_child(_PARENT)), "allow open"),
    Case("a name of the chain", "no agents named", _ask(_child(_PARENT)), "deny not that one"),
    Case(
        "a child whose parent lacks what `when` reads",
        "no low",
        _ask(replace(_child(_HOST), attributes={"clearance": 5})),
        "allow open",
    ),
    Case(
        "a child whose parent has too little",
        "no low",
        _ask(
            replace(
                _child(replace(_PARENT, attributes={"clearance": 1})), attributes={"clearance": 5}
            )
        ),
        "deny no low",
    ),
    Case("a child that lacks it itself", "no low", _ask(_child(_PARENT)), "deny no low"),
    Case(
        "ancestors on both sides",
        "not between x",
        _ask(_child(_BAD_PARENT), _child(_BAD_PARENT)),
        "deny not between",
    ),
    Case("one side alone", "not between x", _ask(_child(_BAD_PARENT)), "allow open"),
]

# What a rule for the action on the left permits besides, written out as in docs/policy.md.
_MESSAGES: Final = ("message.tell", "message.ask")
_GRANTS: Final[dict[str, tuple[str, ...]]] = {
    "hop.admit": (),
    "node.enrol": (),
    "route.register": (),
    "link.relay": (),
    "channel.open": (),
    "path.direct": (),
    **dict.fromkeys(_MESSAGES, ("channel.open",)),
    "stream.open": ("channel.open",),
    "mcp.list": ("channel.open", "stream.open"),
    "mcp.call": ("channel.open", "stream.open", "mcp.list", "mcp.result"),
    "mcp.read": ("channel.open", "stream.open", "mcp.list"),
    "mcp.prompt": ("channel.open", "stream.open", "mcp.list"),
    "mcp.result": (),
}
_STRANGER: Final = agent("agent://globex/x")  # No built-in rule speaks of such a one.


def _asked(action: str, subject: Party = _STRANGER, to: Party = BILLING) -> Request:
    from identity import NamePrefix

    return Request(
        Action(action),
        subject,
        to,
        service="weather",
        tool="get",
        args={},
        message_bytes=1,
        prefix=NamePrefix.parse("agent://globex/x"),
    )


for _granted, _more in _GRANTS.items():
    BUNDLES[f"for {_granted}"] = bundle(f"name: it, effect: allow, actions: [{_granted}]")
    CASES += [
        Case(
            f"a permit for {_granted} {'is' if met else 'is not'} one for {wanted}",
            f"for {_granted}",
            _asked(wanted),
            "allow it" if met else "deny",
        )
        for wanted in _GRANTS
        if (met := wanted == _granted or wanted in _more) or wanted in ("channel.open", "mcp.call")
    ]

_BY_NAME: Final = Party.unproved(BILLING.name)  # type: ignore[arg-type]
BUNDLES |= {
    "implied and denied": bundle(
        f"name: asks, {_ALLOW}", "name: no channels, effect: deny, actions: [channel.open]"
    ),
    "implying and denied": bundle(f"name: asks, {_ALLOW}", f"name: no asks, {_DENY}"),
    "small asks": bundle(f"name: small, {_ALLOW}, when: message.size < 5"),
    "to a role": bundle(f"name: to role, {_ALLOW}, to: {{role: billing}}"),
    "to a name": bundle(f'name: to name, {_ALLOW}, to: {{name: "agent://acme/billing/*"}}'),
    "not to a role": bundle(
        f"name: open, {_ALLOW}",
        "name: not to role, effect: deny, actions: [message.ask, channel.open], "
        "to: {role: billing}",
    ),
    "not to a name": bundle(
        f"name: open, {_ALLOW}",
        'name: not to name, effect: deny, actions: [channel.open], to: {name: "agent://acme/billing/*"}',
    ),
    "one service": bundle("name: one, effect: allow, actions: [mcp.call], to: {service: weather}"),
    "some arguments": bundle(
        "name: some, effect: allow, actions: [mcp.call], tools: [get], when: args.days < 3"
    ),
}


def _opens(to: Party, subject: Party = PLANNER) -> Request:
    return Request(Action.CHANNEL_OPEN, subject, to)


CASES += [
    Case(
        "what is implied can be denied", "implied and denied", _opens(BILLING), "deny no channels"
    ),
    Case(
        "what implies is denied, and so implies nothing",
        "implying and denied",
        _opens(BILLING),
        "deny",
    ),
    Case(
        "a size is not known yet when a channel opens", "small asks", _opens(BILLING), "allow small"
    ),
    Case("a role that is not proved yet may be", "to a role", _opens(_BY_NAME), "allow to role"),
    Case("a role that is proved, and is it", "to a role", _opens(BILLING), "allow to role"),
    Case("a role that is proved, and is another", "to a role", _opens(PLANNER), "deny"),
    Case("a name is known before", "to a name", _opens(_BY_NAME), "allow to name"),
    Case(
        "and so is another name",
        "to a name",
        _opens(Party.unproved(PLANNER.name)),  # type: ignore[arg-type]
        "deny",
    ),
    Case("a deny needs certainty", "not to a role", _opens(_BY_NAME), "allow open"),
    Case(
        "and has it once the role is proved", "not to a role", _opens(BILLING), "deny not to role"
    ),
    Case("a deny by name needs no proof", "not to a name", _opens(_BY_NAME), "deny not to name"),
    Case(
        "an ask to somebody unproved is not granted on a maybe",
        "to a role",
        _ask(PLANNER, _BY_NAME),
        "deny",
    ),
    Case(
        "a list of another service",
        "one service",
        replace(_asked("mcp.list"), service="maps"),
        "deny",
    ),
    Case(
        "a list where only some arguments would do",
        "some arguments",
        replace(_asked("mcp.list"), tool=None, args=None),
        "allow some",
    ),
    Case(
        "a stream of no service",
        "one service",
        replace(_asked("stream.open"), service=None),
        "deny",
    ),
    Case("a call of no tool", "every tool", calls(tool=""), "deny"),
    Case(
        "a registration of no prefix",
        "for route.register",
        replace(_asked("route.register"), prefix=None),
        "deny",
    ),
]
BUNDLES["every tool"] = bundle("name: all, effect: allow, actions: [mcp.call]")

# What the subject's issuer may pass on.
CASES += [
    Case(
        f"an issuer that may pass on {list(passed)!r}",
        "deny first",
        replace(asks(role="y"), subject=replace(PLANNER, allowed_actions=passed)),
        expect,
    )
    for passed, expect in (
        (("message.ask",), "allow open"),
        (("message.*",), "allow open"),
        (("message.tell",), "deny"),
        (("mcp.*", "message.ask"), "allow open"),
        (("*",), "deny"),
        (("message.as",), "deny"),
        ((), "deny"),
    )
]
CASES += [
    Case(
        "an issuer that may pass on asks implies channels",
        "deny first",
        _opens(BILLING, replace(PLANNER, allowed_actions=("message.ask",))),
        "allow open",
    ),
    Case(
        "an issuer that may pass on streams implies no channel for asks",
        "deny first",
        _opens(BILLING, replace(PLANNER, allowed_actions=("stream.open",))),
        "deny",
    ),
]

# What other issuers say is theirs, and never mixed with what proves the name.
_GLOBEX: Final = str(named("globex"))
BUNDLES["vouched"] = bundle(
    f'name: auditors, {_ALLOW}, when: \'subject.from["{_GLOBEX}"].role == "auditor"\''
)
BUNDLES["auditors"] = bundle(f"name: auditors, {_ALLOW}, from: {{role: auditor}}")
_VOUCHED: Final = replace(PLANNER, further={_GLOBEX: {"role": "auditor"}})
CASES += [
    Case(
        "what another issuer says, asked for by its name",
        "vouched",
        _ask(_VOUCHED),
        "allow auditors",
    ),
    Case("another issuer says nothing", "vouched", _ask(PLANNER), "deny"),
    Case(
        "another issuer says something else",
        "vouched",
        _ask(replace(PLANNER, further={_GLOBEX: {"role": "x"}})),
        "deny",
    ),
    Case(
        "a third issuer says it",
        "vouched",
        _ask(replace(PLANNER, further={str(named("x")): {"role": "auditor"}})),
        "deny",
    ),
    Case(
        "the own issuer says it", "vouched", _ask(agent("agent://acme/a", role="auditor")), "deny"
    ),
    Case("what another says is no attribute", "auditors", _ask(_VOUCHED), "deny"),
]

_NODE: Final = node("agent://acme/nodes/one")
_GATEWAY: Final = node("agent://acme/nodes/gateway", role="gateway")
_FAR: Final = node("agent://globex/nodes/one")
_ADMIT: Final = "allow baseline: nodes of the trust domain are admitted and relay"
_ENROL: Final = "allow baseline: enrolment and renewal reach the authority"
BUNDLES["baseline"] = bundle("name: x, effect: deny, actions: [path.direct]")
BUNDLES["no hops"] = bundle("name: no hops, effect: deny, actions: [hop.admit], from: {kind: node}")
CASES += [
    Case(
        "a node of the domain is admitted",
        "baseline",
        Request(Action.HOP_ADMIT, _NODE, _GATEWAY),
        _ADMIT,
    ),
    Case(
        "a node of another domain is not",
        "baseline",
        Request(Action.HOP_ADMIT, _FAR, _GATEWAY),
        "deny",
    ),
    Case(
        "the authority is admitted",
        "baseline",
        Request(Action.HOP_ADMIT, authority(), _GATEWAY),
        _ADMIT,
    ),
    Case("an agent is no node", "baseline", Request(Action.HOP_ADMIT, PLANNER, _GATEWAY), "deny"),
    Case(
        "somebody unenrolled is not admitted",
        "baseline",
        Request(Action.HOP_ADMIT, unenrolled(), _GATEWAY),
        "deny",
    ),
    Case(
        "somebody unenrolled may ask to enrol",
        "baseline",
        Request(Action.NODE_ENROL, unenrolled(), _GATEWAY),
        "allow baseline: anybody may ask to enrol",
    ),
    Case(
        "somebody unenrolled reaches the authority",
        "baseline",
        Request(Action.LINK_RELAY, unenrolled(), authority()),
        _ENROL,
    ),
    Case(
        "somebody unenrolled reaches nobody else",
        "baseline",
        Request(Action.LINK_RELAY, unenrolled(), BILLING),
        "deny",
    ),
    Case(
        "a node relays within the domain",
        "baseline",
        Request(Action.LINK_RELAY, _NODE, _BY_NAME),
        _ADMIT,
    ),
    Case(
        "a node relays to no other domain",
        "baseline",
        Request(Action.LINK_RELAY, _NODE, Party.unproved(_FAR.name)),
        "deny",
    ),  # type: ignore[arg-type]
    Case(
        "a deny rule overrides what is built in",
        "no hops",
        Request(Action.HOP_ADMIT, _NODE, _GATEWAY),
        "deny no hops",
    ),
    Case("and nothing else", "no hops", Request(Action.HOP_ADMIT, authority(), _GATEWAY), _ADMIT),
]

BUNDLES |= {
    "limit": bundle(f"name: few, {_ALLOW}, limit: {{rate: 1/min, burst: 2}}"),
    "limit and more": bundle(
        f"name: few, {_ALLOW}, limit: {{rate: 1/min, burst: 1}}",
        f"name: any, {_ALLOW}, from: {{role: vip}}",
    ),
    "audit mode": bundle(
        f"name: open, {_ALLOW}", f"name: candidate, {_DENY}, from: {{role: x}}, mode: audit"
    ),
    "audited allow": bundle(
        f"name: candidate, {_ALLOW}, mode: audit", f"name: shut, {_DENY}, from: {{role: x}}"
    ),
}
CASES += [
    Case("within the limit", "limit", asks(), "allow few", asked_before=1),
    Case("beyond the limit", "limit", asks(), "deny few", asked_before=2),
    Case(
        "beyond it, another rule allows",
        "limit and more",
        asks(role="vip"),
        "allow any",
        asked_before=3,
    ),
    Case(
        "asked again, nothing is charged",
        "limit",
        replace(asks(), again=True),
        "allow few",
        asked_before=5,
    ),
    Case("a deny rule in audit mode denies nothing", "audit mode", asks(role="x"), "allow open"),
    Case("an allow rule in audit mode allows nothing", "audited allow", asks(), "deny"),
    Case(
        "one in audit mode that does not match", "audit mode", asks(role="y"), "allow open", UNIX_S
    ),
]
