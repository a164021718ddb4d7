"""Parties, requests and policies for the tests of policy, in few words."""

import hashlib
from typing import Any

from identity import AgentUri, AttributeValue, Identifier
from policy import Action, Denial, Engine, Party, Permit, PolicyEngine, Request

NOW = 1_800_000_000.0

HEADER = """\
apiVersion: sidelink/v1
kind: Policy
metadata: {name: test}
attributes: {role: text, clearance: int, human: bool, teams: list}
"""

DESIGN_EXAMPLE = """\
apiVersion: sidelink/v1
kind: Policy
metadata: {name: finance}
attributes: {role: text, clearance: int}          # declared, so that a typo is a load error
rules:
  - name: planners ask billing
    effect: allow
    actions: [message.ask, message.tell]
    from: {trust_domain: acme, role: planner}
    to: {name: "agent://acme/billing/*"}          # * one segment, ** the rest
    when: message.size < 65536 && subject.clearance >= 2     # CEL
  - name: forecasts, a week at most
    effect: allow
    actions: [mcp.call]
    from: {role: planner}
    to: {service: weather}
    tools: [get_forecast]
    when: args.days <= 7
tests:
  - name: a planner may ask billing
    action: message.ask
    from: {trust_domain: acme, role: planner, clearance: 2}
    to: {name: agent://acme/billing/main}
    expect: allow
"""


def identifier(seed: str) -> Identifier:
    return Identifier(hashlib.sha256(seed.encode()).digest())


def agent(name: str, ancestors: tuple[Party, ...] = (), **attributes: AttributeValue) -> Party:
    uri = AgentUri.parse(name)
    return Party(
        identifier=identifier(name),
        name=uri,
        kind="agent",
        role_of_node=None,
        trust_domain=uri.trust_domain,
        issuer=identifier("issuer"),
        attributes=attributes,
        ancestors=ancestors,
    )


def node(name: str, role: str = "sidecar", **attributes: AttributeValue) -> Party:
    uri = AgentUri.parse(name)
    return Party(
        identifier=identifier(name),
        name=uri,
        kind="node",
        role_of_node=role,
        trust_domain=uri.trust_domain,
        issuer=identifier("issuer"),
        attributes=attributes,
    )


def authority(trust_domain: str = "acme") -> Party:
    return Party(
        identifier=identifier("authority"),
        name=None,
        kind="authority",
        role_of_node="authority",
        trust_domain=trust_domain,
        issuer=None,
        attributes={},
    )


def unenrolled() -> Party:
    return Party(
        identifier=identifier("new"),
        name=None,
        kind="unenrolled",
        role_of_node=None,
        trust_domain=None,
        issuer=None,
        attributes={},
    )


PLANNER = agent("agent://acme/finance/planner", role="planner", clearance=2)
BILLING = agent("agent://acme/billing/main", role="billing")


def load(text: str) -> PolicyEngine:
    return PolicyEngine.load(text, file="policy.yaml")


def policy_of(*rules: str) -> PolicyEngine:
    """A policy of rules given in YAML's flow style, without their names and braces."""
    listed = "".join(f"  - {{name: rule {at}, {rule}}}\n" for at, rule in enumerate(rules, 1))
    return load(f"{HEADER}rules:\n{listed}")


def ask(subject: Party = PLANNER, to: Party = BILLING, size: int | None = 10) -> Request:
    return Request(Action.MESSAGE_ASK, subject, to, message_bytes=size)


def call(tool: str = "get_forecast", args: Any = None, subject: Party = PLANNER) -> Request:
    return Request(Action.MCP_CALL, subject, BILLING, service="weather", tool=tool, args=args)


def permitted(engine: Engine, request: Request) -> Permit:
    answer = engine.decide(request, NOW)
    assert isinstance(answer, Permit), answer
    return answer


def denied(engine: Engine, request: Request) -> Denial:
    answer = engine.decide(request, NOW)
    assert isinstance(answer, Denial), answer
    return answer


def is_allowed(engine: Engine, request: Request) -> bool:
    return isinstance(engine.decide(request, NOW), Permit)


def unproved(party: Party = BILLING) -> Party:
    assert party.name is not None
    return Party.unproved(party.name)


def open_channel(to: Party, subject: Party = PLANNER) -> Request:
    return Request(Action.CHANNEL_OPEN, subject, to)


def on_service(action: Action, service: str = "weather") -> Request:
    return Request(action, PLANNER, BILLING, service=service, tool="get", args={})
