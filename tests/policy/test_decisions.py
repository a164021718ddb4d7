"""Who may do what: matching, overriding, chains, and requests that no rule can make good."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from identity import AgentUri, Code, VerifiedIdentity
from policy import Action, Denial, Party, Permit, PolicyEngine, Request
from tests.policy.helpers import (
    BILLING,
    DESIGN_EXAMPLE,
    NOW,
    PLANNER,
    agent,
    ask,
    call,
    denied,
    identifier,
    is_allowed,
    load,
    node,
    on_service,
    open_channel,
    policy_of,
    unenrolled,
    unproved,
)

EXAMPLE = load(DESIGN_EXAMPLE)
NODE = node("agent://acme/east", "sidecar")
OWN_GATEWAY = node("agent://acme/gateway", "gateway")

EXAMPLE_CASES = {
    "a planner asks billing": (ask(), True),
    "a planner tells billing": (replace(ask(), action=Action.MESSAGE_TELL), True),
    "a planner meets billing directly, of which nothing is said": (
        replace(ask(), action=Action.PATH_DIRECT),
        False,
    ),
    "a message one byte too large": (ask(size=65536), False),
    "a planner with too little clearance": (
        ask(agent("agent://acme/finance/planner", role="planner", clearance=1)),
        False,
    ),
    "a planner without clearance": (ask(agent("agent://acme/p", role="planner")), False),
    "somebody without a role": (ask(agent("agent://acme/p", clearance=9)), False),
    "a planner of another trust domain": (
        ask(agent("agent://globex/p", role="planner", clearance=9)),
        False,
    ),
    "billing itself, which is not below billing": (ask(to=agent("agent://acme/billing")), False),
    "two levels below billing": (ask(to=agent("agent://acme/billing/a/b")), False),
    "billing of another trust domain": (ask(to=agent("agent://globex/billing/main")), False),
    "a week's forecast": (call(args={"days": 7}), True),
    "eight days' forecast": (call(args={"days": 8}), False),
    "a forecast without days": (call(args={}), False),
    "another tool": (call("delete_forecast", args={"days": 1}), False),
    "another service": (replace(call(args={"days": 1}), service="clock"), False),
}


@pytest.mark.parametrize(("request_", "allowed"), EXAMPLE_CASES.values(), ids=EXAMPLE_CASES.keys())
def test_the_example_of_the_design(request_: Request, allowed: bool) -> None:
    assert is_allowed(EXAMPLE, request_) is allowed


# A selector, somebody, and whether they match.
MATCHES = {
    "the same trust domain": ("trust_domain: acme", PLANNER, True),
    "one of several trust domains": ("trust_domain: [globex, acme]", PLANNER, True),
    "another trust domain": ("trust_domain: globex", PLANNER, False),
    "the identifier": (f"identifier: {PLANNER.identifier}", PLANNER, True),
    "another identifier": (f"identifier: {BILLING.identifier}", PLANNER, False),
    "the issuer": (f"issuer: {identifier('issuer')}", PLANNER, True),
    "the exact name": ("name: agent://acme/finance/planner", PLANNER, True),
    "one of several names": ("name: [agent://a/b, agent://acme/finance/planner]", PLANNER, True),
    "a longer name": ("name: agent://acme/finance/planner/x", PLANNER, False),
    "a star for the last segment": ('name: "agent://acme/finance/*"', PLANNER, True),
    "a star for the first segment": ('name: "agent://acme/*/planner"', PLANNER, True),
    "a star for too little": ('name: "agent://acme/*"', PLANNER, False),
    "a star for nothing": ('name: "agent://acme/finance/planner/*"', PLANNER, False),
    "two stars for one segment": ('name: "agent://acme/finance/**"', PLANNER, True),
    "two stars for two segments": ('name: "agent://acme/**"', PLANNER, True),
    "two stars for nothing": ('name: "agent://acme/finance/planner/**"', PLANNER, False),
    "both kinds of stars": ('name: "agent://acme/*/**"', PLANNER, True),
    "another beginning": ('name: "agent://acme/finances/**"', PLANNER, False),
    "a name that is a beginning of the segment": ('name: "agent://acme/fin/**"', PLANNER, False),
    "the kind": ("kind: agent", PLANNER, True),
    "another kind": ("kind: node", PLANNER, False),
    "a role of node": ("role_of_node: sidecar", node("agent://acme/n"), True),
    "a role of node that agents have not": ("role_of_node: sidecar", PLANNER, False),
    "an attribute": ("role: planner", PLANNER, True),
    "one of several values": ("role: [auditor, planner]", PLANNER, True),
    "another value": ("role: Planner", PLANNER, False),
    "a missing attribute": ("human: false", PLANNER, False),
    "a number": ("clearance: 2", PLANNER, True),
    "a boolean": ("human: true", agent("agent://acme/a", human=True), True),
    "a boolean that is a number": ("human: true", agent("agent://acme/a", human=1), False),
    "a number that is a boolean": ("clearance: 1", agent("agent://acme/a", clearance=True), False),
    "an item of a list": ("teams: red", agent("agent://acme/a", teams=("blue", "red")), True),
    "no item of a list": ("teams: red", agent("agent://acme/a", teams=("blue",)), False),
    "a list with one of several": ("teams: [a, b]", agent("agent://acme/a", teams=("b",)), True),
    "text where a list is declared": ("teams: red", agent("agent://acme/a", teams="red"), False),
    "all of several clauses": ("role: planner, clearance: 2", PLANNER, True),
    "one of several clauses": ("role: planner, clearance: 3", PLANNER, False),
    "nobody's name": ('name: "agent://acme/**"', unenrolled(), False),
    "no clause": ("", PLANNER, True),
}


@pytest.mark.parametrize(("selector", "party", "matches"), MATCHES.values(), ids=MATCHES.keys())
def test_from_and_to_match_alike(selector: str, party: Party, matches: bool) -> None:
    by_subject = policy_of(f"effect: allow, actions: [message.ask], from: {{{selector}}}")
    by_object = policy_of(f"effect: allow, actions: [message.ask], to: {{{selector}}}")

    assert is_allowed(by_subject, ask(subject=party)) is matches
    assert is_allowed(by_object, ask(to=party)) is matches


def test_a_tool_may_be_named_by_its_beginning() -> None:
    engine = policy_of("effect: allow, actions: [mcp.call], tools: ['get_*', list]")

    assert is_allowed(engine, call("get_forecast", {}))
    assert is_allowed(engine, call("list", {}))
    assert not is_allowed(engine, call("list_all", {}))
    assert not is_allowed(engine, call("forget_", {}))


def test_deny_overrides_allow_and_names_its_rule() -> None:
    engine = policy_of(
        "effect: deny, actions: [message.ask], to: {role: billing}",
        "effect: allow, actions: [message.ask]",
    )

    answer = denied(engine, ask())

    assert answer.code is Code.POLICY_DENIED
    assert answer.rule == "rule 1"
    assert answer.reason == (
        "message.ask from agent://acme/finance/planner to agent://acme/billing/main is denied "
        'by the rule "rule 1".'
    )


def test_a_denial_without_a_rule_says_which_came_nearest_and_what_failed() -> None:
    answer = denied(EXAMPLE, ask(to=agent("agent://acme/sales/main")))

    assert answer.code is Code.POLICY_NO_RULE
    assert answer.rule is None
    assert answer.policy_version == EXAMPLE.version
    assert answer.reason == (
        "message.ask from agent://acme/finance/planner to agent://acme/sales/main is denied: "
        'no rule allows it. The nearest rule is "planners ask billing", but its to.name does '
        "not match."
    )


NEAREST = {
    "the condition": (ask(size=70000), "its `when` does not hold"),
    "the tool": (call("x", {"days": 1}), "its tools do not list this one"),
    "the service": (replace(call(args={}), service="clock"), "its to.service does not match"),
}


@pytest.mark.parametrize(("request_", "words"), NEAREST.values(), ids=NEAREST.keys())
def test_a_denial_points_at(request_: Request, words: str) -> None:
    assert words in denied(EXAMPLE, request_).reason


# What denies a parent: the rule, the parent, the child.
SHEDDING = {
    "its name": (
        "from: {name: agent://acme/parent}",
        agent("agent://acme/parent"),
    ),
    "an attribute that the child does not have": (
        "from: {role: quarantined}",
        agent("agent://acme/parent", role="quarantined"),
    ),
    "a condition on an attribute": (
        'when: "subject.clearance < 3"',
        agent("agent://acme/parent", clearance=1),
    ),
    "the identifier": (
        f"from: {{identifier: {agent('agent://acme/parent').identifier}}}",
        agent("agent://acme/parent"),
    ),
}


@pytest.mark.parametrize(("clause", "parent"), SHEDDING.values(), ids=SHEDDING.keys())
def test_a_child_does_not_shed_what_denies_its_parent(clause: str, parent: Party) -> None:
    engine = policy_of(
        "effect: allow, actions: [message.ask]", f"effect: deny, actions: [message.ask], {clause}"
    )
    child = agent("agent://acme/child", (parent,), role="free", clearance=9)
    grandchild = agent("agent://acme/grandchild", (child, parent), role="free", clearance=9)

    assert is_allowed(engine, ask(agent("agent://acme/child", role="free", clearance=9)))
    assert denied(engine, ask(child)).rule == "rule 2"
    assert denied(engine, ask(grandchild)).rule == "rule 2"


def test_what_denies_messages_to_a_parent_denies_them_to_its_child() -> None:
    engine = policy_of(
        "effect: allow, actions: [message.ask]",
        "effect: deny, actions: [message.ask], to: {role: quarantined}",
    )
    parent = agent("agent://acme/parent", role="quarantined")

    assert not is_allowed(engine, ask(to=agent("agent://acme/child", (parent,), role="free")))


def test_an_allow_rule_looks_at_the_subject_itself_and_at_no_ancestor() -> None:
    engine = policy_of("effect: allow, actions: [message.ask], from: {role: planner}")

    assert not is_allowed(engine, ask(agent("agent://acme/child", (PLANNER,))))


def test_an_ancestor_need_not_have_what_a_deny_rule_asks_of_its_child() -> None:
    engine = policy_of(
        "effect: allow, actions: [message.ask]",
        'effect: deny, actions: [message.ask], when: "subject.clearance < 2"',
    )
    sidecar = node("agent://acme/node")

    assert is_allowed(engine, ask(agent("agent://acme/a", (sidecar,), clearance=2)))
    assert not is_allowed(engine, ask(agent("agent://acme/a", (sidecar,))))


def test_whose_issuer_may_not_pass_an_action_on_may_not_do_it() -> None:
    engine = policy_of("effect: allow, actions: [message.ask, message.tell, mcp.call]")
    limited = replace(PLANNER, allowed_actions=("message.ask",))
    grouped = replace(PLANNER, allowed_actions=("mcp.*",))
    nothing = replace(PLANNER, allowed_actions=())

    assert is_allowed(engine, ask(limited))
    assert is_allowed(engine, open_channel(BILLING, limited))
    assert not is_allowed(engine, call(args={}, subject=limited))
    assert is_allowed(engine, call(args={}, subject=grouped))
    assert not is_allowed(engine, ask(grouped))
    assert "may not pass this action on" in denied(engine, ask(nothing)).reason
    assert not is_allowed(engine, open_channel(BILLING, nothing))


# Requests that no rule can make good, although this policy allows anybody everything.
ANYTHING = policy_of(f"effect: allow, actions: [{', '.join(Action)}]")
REFUSED: dict[str, tuple[Request, str]] = {
    "a subject that is only named": (ask(unproved()), "who asks is not proved"),
    "a subject without an identifier": (
        ask(replace(PLANNER, identifier=None)),
        "who asks is not proved",
    ),
    "a call without a tool": (replace(call(args={}), tool=None), "no tool is named"),
    "a call without a service": (replace(call(args={}), service=None), "no service is named"),
    "a stream without a service": (
        replace(on_service(Action.STREAM_OPEN), service=""),
        "no service is named",
    ),
    "a registration without a prefix": (
        Request(Action.ROUTE_REGISTER, NODE, OWN_GATEWAY),
        "no prefix is named",
    ),
}


@pytest.mark.parametrize(("request_", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses_what_is_incomplete(request_: Request, words: str) -> None:
    assert words in denied(ANYTHING, request_).reason


def test_a_permit_ends_with_the_credential_and_soon_in_any_case() -> None:
    early = ANYTHING.decide(ask(), NOW, expires_unix_s=NOW + 5)
    late = ANYTHING.decide(ask(), NOW, expires_unix_s=NOW + 1e9)
    over = ANYTHING.decide(ask(), NOW, expires_unix_s=NOW)

    assert isinstance(early, Permit)
    assert early.expires_unix_s == NOW + 5
    assert isinstance(late, Permit)
    assert late.expires_unix_s == NOW + 300
    assert isinstance(over, Denial)
    assert "expired" in over.reason


def test_each_decision_has_an_id_of_its_own() -> None:
    ids = {
        engine.decide(ask(), NOW).decision_id
        for engine in (load(DESIGN_EXAMPLE), load(DESIGN_EXAMPLE), PolicyEngine.deny_all())
        for _ in range(10)
    }

    assert len(ids) == 30


def test_a_party_is_what_was_verified_with_one_list_of_ancestors() -> None:
    def verified(name: str, *above: VerifiedIdentity) -> VerifiedIdentity:
        return VerifiedIdentity(
            identifier=identifier(name),
            name=AgentUri.parse(name),
            kind="agent",
            role_of_node=None,
            trust_domain="acme",
            issuer=None,
            attributes=MappingProxyType({"role": name[-1]}),
            delegable=None,
            expires_unix_s=1,
            ancestors=above,
        )

    first = verified("agent://acme/a")
    second = verified("agent://acme/b", first)
    party = Party.from_verified(verified("agent://acme/c", second, first))

    assert [str(one.name) for one in party.ancestors] == ["agent://acme/b", "agent://acme/a"]
    assert party.attributes == {"role": "c"}
    assert party.verified
    # Its issuer's credential passes nothing on.
    assert party.allowed_actions == ()
