"""Delegation: a chain that goes beyond what was passed on is refused, in each of its fields."""

from typing import Any

import pytest

from identity import (
    Code,
    NamePrefix,
    check_delegation,
)
from tests.identity.helpers import (
    DAY_S,
    NARROW,
    NOW,
    PLANNER,
    WIDE,
    World,
    refused,
)

PLAIN = {"role": ("planner", "auditor"), "clearance": (1, 2), "team": None}


def may(**changes: Any) -> Any:
    fields = {name: getattr(NARROW, name) for name in NARROW.__slots__}
    return type(NARROW)(**fields | changes)


# What the node says of the planner, under WIDE; each entry goes too far in one thing.
BEYOND = {
    "a name outside the prefix": {"name": "agent://acme/sales/planner"},
    "a name that only begins like the prefix": {"name": "agent://acme/finance2"},
    "a name above the prefix": {"name": "agent://acme/fin"},
    "an attribute that is not delegable": {"attributes": {"admin": True}},
    "a value that is not delegable": {"attributes": {"role": "root"}},
    "a number that is not delegable": {"attributes": {"clearance": 3}},
    "true in place of one": {"attributes": {"clearance": True}},
    "a text in place of a number": {"attributes": {"clearance": "1"}},
    "a list with one value too many": {"attributes": {"role": ("planner", "root")}},
    "a lifetime that is too long": {
        "not_before_unix_s": NOW - 8 * DAY_S,
        "expires_unix_s": NOW + 10,
    },
    "an expiry after its issuer's": {"expires_unix_s": NOW + DAY_S + 1},
    "a node": {"kind": "node"},
    "a gateway": {"kind": "node", "role_of_node": "gateway"},
    "a depth that stays": {"delegable": may(depth=3)},
    "a depth that grows": {"delegable": may(depth=4)},
    "a longer delegable lifetime": {"delegable": may(lifetime_s_max=7 * DAY_S + 1)},
    "a wider delegable prefix": {"delegable": may(name_prefixes=(NamePrefix("acme"),))},
    "one more delegable prefix": {
        "delegable": may(
            name_prefixes=(*NARROW.name_prefixes, NamePrefix.parse("agent://acme/sales"))
        )
    },
    "one more delegable action": {"delegable": may(actions=("message.ask", "tcp.connect"))},
    "one more delegable attribute": {"delegable": may(attributes={"admin": (True,)})},
    "one more delegable value": {"delegable": may(attributes={"role": ("planner", "root")})},
    "any value where some are delegable": {"delegable": may(attributes={"role": None})},
    "a delegable true in place of one": {"delegable": may(attributes={"clearance": (True,)})},
}


@pytest.mark.parametrize("says", BEYOND.values(), ids=BEYOND.keys())
def test_a_chain_that_goes_beyond_what_was_delegated_is_refused(says: dict[str, Any]) -> None:
    world = World()
    proof = world.planner.proof(world.planner_link(**says), world.node_link())

    assert refused(lambda: world.verify(proof, world.planner)) is Code.CHANNEL_DELEGATION_EXCEEDED


WITHIN = {
    "nothing more than a name": {},
    "the prefix itself": {"name": "agent://acme/finance"},
    "one of the values": {"attributes": {"role": "auditor", "clearance": 2}},
    "a list of the values": {"attributes": {"role": ("planner", "auditor")}},
    "an empty list": {"attributes": {"role": ()}},
    "any value where any is delegable": {"attributes": {"team": ("x", "y")}},
    "the longest lifetime": {
        "not_before_unix_s": NOW - 6 * DAY_S,
        "expires_unix_s": NOW + DAY_S,
    },
    "the same but one level less": {"delegable": may(depth=2, attributes=PLAIN)},
}


@pytest.mark.parametrize("says", WITHIN.values(), ids=WITHIN.keys())
def test_a_chain_within_what_was_delegated_is_believed(says: dict[str, Any]) -> None:
    world = World()
    proof = world.planner.proof(world.planner_link(**says), world.node_link())

    assert world.verify(proof, world.planner).identity.kind == "agent"


def test_who_may_not_delegate_issues_nothing() -> None:
    world = World()
    for delegable in (None, may(depth=0, name_prefixes=(NamePrefix("acme"),))):
        proof = world.planner.proof(world.planner_link(), world.node_link(delegable=delegable))

        code = refused(lambda proof=proof: world.verify(proof, world.planner))  # type: ignore[misc]
        assert code is Code.CHANNEL_DELEGATION_EXCEEDED


def test_a_grandchild_is_held_by_its_parent_not_only_by_the_node() -> None:
    world = World()
    chain = (
        world.helper_link(attributes={"clearance": 1}),  # The node may; the planner may not.
        world.planner_link(delegable=NARROW),
        world.node_link(),
    )

    code = refused(lambda: world.verify(world.helper.proof(*chain), world.helper))

    assert code is Code.CHANNEL_DELEGATION_EXCEEDED


def test_an_issuer_can_ask_beforehand() -> None:
    world = World()
    node = world.authority.issue(
        world.node, "agent://acme/finance", kind="node", delegable=WIDE
    ).credential

    check_delegation(node, world.node.issue(world.planner, PLANNER).credential)
    beyond = world.node.issue(world.planner, "agent://acme/sales").credential
    assert refused(lambda: check_delegation(node, beyond)) is Code.CHANNEL_DELEGATION_EXCEEDED
