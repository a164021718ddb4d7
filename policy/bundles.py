"""The policies that come with Sidelink: the baseline beside every other, and one to begin with."""

from typing import Final

BASELINE_FILE: Final = "(built-in baseline)"
BASELINE_PREFIX: Final = "baseline: "
MANDATORY_PREFIX: Final = "mandatory: "
"""Of rules of the policy that a whole trust domain obeys, wherever they are named."""

BASELINE_POLICY: Final = """\
# What every node needs to be part of a mesh. In force beside your own policy.yaml unless a program
# is told otherwise; a deny rule of yours overrides it. "object" is the node that decides, or the
# far end of a link.
apiVersion: sidelink/v1
kind: Policy
metadata: {name: baseline}
rules:
  - name: "baseline: nodes of the trust domain are admitted and relay"
    effect: allow
    actions: [hop.admit, link.relay]
    from: {kind: [node, authority]}
    when: subject.trust_domain == object.trust_domain

  # That the prefix is one of the node's own credential, the gateway has checked before it asks.
  - name: "baseline: nodes of the trust domain register their prefixes"
    effect: allow
    actions: [route.register]
    from: {kind: node}
    when: subject.trust_domain == object.trust_domain

  # Who has no credential yet gets a hop that reaches the authority and nothing else.
  - name: "baseline: anybody may ask to enrol"
    effect: allow
    actions: [node.enrol]
    from: {kind: [unenrolled, node, authority]}

  - name: "baseline: enrolment and renewal reach the authority"
    effect: allow
    actions: [link.relay, channel.open]
    from: {kind: [unenrolled, node]}
    to: {kind: authority}
"""

STARTER_POLICY: Final = """\
# Who may do what. Nothing is allowed that no rule here allows; a deny rule overrides every allow.
# Check changes with: sidelink policy check
apiVersion: sidelink/v1
kind: Policy
metadata: {name: starter}

# Attributes that rules may use, with their type: text, int, bool or list (of text).
attributes:
  role: text
  clearance: int

rules:
  # To begin with, all agents of one trust domain may write to each other. Make it narrower.
  - name: agents of the trust domain may write to each other
    effect: allow
    actions: [message.tell, message.ask]
    from: {kind: agent}
    to: {kind: agent}
    when: subject.trust_domain == object.trust_domain

  # Their sidecars may tell each other their addresses and speak without a gateway between them.
  - name: sidecars of the trust domain may reach each other directly
    effect: allow
    actions: [path.direct]
    from: {kind: agent}
    to: {kind: agent}
    when: subject.trust_domain == object.trust_domain

  # Only planners may ask billing, and only for what is small:
  # - name: planners ask billing
  #   effect: allow
  #   actions: [message.ask]
  #   from: {role: planner}
  #   to: {name: "agent://acme/billing/*"}      # * is one segment, ** is all the rest
  #   when: message.size < 65536 && subject.clearance >= 2

  # Everybody may call one tool of the MCP server "weather":
  # - name: forecasts, a week at most
  #   effect: allow
  #   actions: [mcp.call]
  #   to: {service: weather}
  #   tools: [get_forecast]
  #   when: args.days <= 7

  # Nobody in quarantine may do anything, and neither may what they started:
  # - name: quarantine
  #   effect: deny
  #   actions: [channel.open, message.tell, message.ask, stream.open]
  #   from: {role: quarantined}

tests:
  - name: two agents of one trust domain may write to each other
    action: message.ask
    from: {name: agent://acme/finance/planner}
    to: {name: agent://acme/billing/main}
    expect: allow
  - name: an agent of another trust domain may not
    action: message.ask
    from: {name: agent://globex/sales/caller}
    to: {name: agent://acme/billing/main}
    expect: deny
"""
