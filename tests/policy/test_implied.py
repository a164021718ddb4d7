"""What implies what, and what is decided while the far end is only a name."""

from dataclasses import replace

import pytest

from policy import Action
from tests.policy.helpers import (
    BILLING,
    DESIGN_EXAMPLE,
    NOW,
    PLANNER,
    ask,
    call,
    denied,
    is_allowed,
    load,
    on_service,
    open_channel,
    permitted,
    policy_of,
    unproved,
)

EXAMPLE = load(DESIGN_EXAMPLE)
MESSAGES = (Action.MESSAGE_TELL, Action.MESSAGE_ASK)
SERVICES = (
    Action.STREAM_OPEN,
    Action.MCP_LIST,
    Action.MCP_CALL,
    Action.MCP_READ,
    Action.MCP_PROMPT,
)


@pytest.mark.parametrize("action", MESSAGES + SERVICES)
def test_whoever_may_do_anything_may_open_the_channel(action: Action) -> None:
    engine = policy_of(f"effect: allow, actions: [{action}], to: {{name: {BILLING.name}}}")

    permit = permitted(engine, open_channel(unproved()))

    assert permit.action is Action.CHANNEL_OPEN
    assert permit.rule == "rule 1"
    assert not is_allowed(engine, open_channel(unproved(PLANNER)))


@pytest.mark.parametrize("action", [one for one in SERVICES if one is not Action.STREAM_OPEN])
def test_whoever_may_use_a_service_may_open_a_stream_to_it(action: Action) -> None:
    engine = policy_of(f"effect: allow, actions: [{action}], to: {{service: weather}}")

    assert is_allowed(engine, on_service(Action.STREAM_OPEN))
    assert not is_allowed(engine, on_service(Action.STREAM_OPEN, "clock"))


@pytest.mark.parametrize("action", [Action.MCP_CALL, Action.MCP_READ, Action.MCP_PROMPT])
def test_whoever_may_use_a_server_may_discover_it_and_list(action: Action) -> None:
    engine = policy_of(f"effect: allow, actions: [{action}], to: {{service: weather}}")

    for method in ("server/discover", "initialize", "ping", "tools/list", None):
        asked = replace(on_service(Action.MCP_LIST), mcp_method=method, tool=None, args=None)
        assert is_allowed(engine, asked)
    assert not is_allowed(engine, on_service(Action.MCP_LIST, "clock"))


def test_what_implies_is_not_implied() -> None:
    opening = policy_of("effect: allow, actions: [channel.open]")
    streaming = policy_of("effect: allow, actions: [stream.open]")

    assert not is_allowed(opening, ask())
    assert not is_allowed(opening, on_service(Action.STREAM_OPEN))
    assert not is_allowed(streaming, on_service(Action.MCP_CALL))
    assert not is_allowed(streaming, on_service(Action.MCP_LIST))


def test_size_and_arguments_are_not_known_when_the_channel_opens() -> None:
    assert is_allowed(EXAMPLE, open_channel(unproved()))
    assert is_allowed(EXAMPLE, open_channel(BILLING))


OPENING: dict[str, tuple[tuple[str, ...], bool]] = {
    "an attribute of the far end that is yet to be proved": (
        ("effect: allow, actions: [message.ask], to: {role: billing}",),
        True,
    ),
    "an attribute of the far end in an explicit rule": (
        ("effect: allow, actions: [channel.open], to: {role: billing}",),
        True,
    ),
    "a condition on the far end": (
        ('effect: allow, actions: [message.ask], when: "object.clearance > 3"',),
        True,
    ),
    "a trust domain that is another": (
        ("effect: allow, actions: [message.ask], to: {trust_domain: globex, role: x}",),
        False,
    ),
    "an attribute that the asking side lacks": (
        ("effect: allow, actions: [message.ask], from: {role: x}",),
        False,
    ),
    "a condition that the asking side fails": (
        (
            "effect: allow, actions: [message.ask], "
            'when: "message.size < 9 && subject.clearance > 5"',
        ),
        False,
    ),
    "a condition that the asking side fails by a missing attribute": (
        ('effect: allow, actions: [message.ask], when: "message.size < 9 && subject.human"',),
        False,
    ),
    "a deny rule on the channel": (
        (
            "effect: allow, actions: [message.ask]",
            "effect: deny, actions: [channel.open], to: {trust_domain: acme}",
        ),
        False,
    ),
    "a deny rule on the channel by what is not known yet": (
        (
            "effect: allow, actions: [message.ask]",
            "effect: deny, actions: [channel.open], to: {role: billing}",
        ),
        True,
    ),
    "a deny rule on the channel by a condition on what is not known yet": (
        (
            "effect: allow, actions: [message.ask]",
            "effect: deny, actions: [channel.open], when: object.role == 'billing'",
        ),
        True,
    ),
    "a deny rule on all that is allowed": (
        ("effect: allow, actions: [message.ask]", "effect: deny, actions: [message.ask]"),
        False,
    ),
    "a deny rule on large messages": (
        (
            "effect: allow, actions: [message.ask]",
            'effect: deny, actions: [message.ask], when: "message.size > 9"',
        ),
        True,
    ),
    "a deny rule on one of two things that are allowed": (
        (
            "effect: allow, actions: [message.ask, message.tell]",
            "effect: deny, actions: [message.ask]",
        ),
        True,
    ),
}


@pytest.mark.parametrize(("rules", "allowed"), OPENING.values(), ids=OPENING.keys())
def test_before_the_far_end_is_proved_a_channel_is_decided_by_name(
    rules: tuple[str, ...], allowed: bool
) -> None:
    assert is_allowed(policy_of(*rules), open_channel(unproved())) is allowed


def test_once_the_far_end_is_proved_all_rules_run_again() -> None:
    allow = policy_of("effect: allow, actions: [message.ask], to: {role: auditor}")
    deny = policy_of(
        "effect: allow, actions: [message.ask]",
        "effect: deny, actions: [channel.open], to: {role: billing}",
    )

    assert is_allowed(allow, open_channel(unproved()))
    assert not is_allowed(allow, open_channel(BILLING))
    assert is_allowed(deny, open_channel(unproved()))
    assert denied(deny, open_channel(BILLING)).rule == "rule 2"


def test_what_is_not_known_yet_grants_nothing_but_a_channel() -> None:
    by_role = policy_of("effect: allow, actions: [message.ask, mcp.call], to: {role: billing}")
    by_condition = policy_of(
        "effect: allow, actions: [message.ask, mcp.call], when: object.role == 'billing'"
    )
    stream = replace(on_service(Action.STREAM_OPEN), object=unproved())

    for engine in (by_role, by_condition):
        assert not is_allowed(engine, ask(to=unproved()))
        assert not is_allowed(engine, stream)
        assert is_allowed(engine, open_channel(unproved()))


def test_what_could_be_allowed_ignores_what_the_request_leaves_open() -> None:
    assert EXAMPLE.could_allow(call(args=None), NOW)
    assert not EXAMPLE.could_allow(call("other", args=None), NOW)
    assert not EXAMPLE.could_allow(call(args={"days": 8}), NOW)
    assert EXAMPLE.could_allow(ask(size=None), NOW)
    assert not EXAMPLE.could_allow(ask(BILLING, size=None), NOW)
