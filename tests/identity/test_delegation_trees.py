"""No sequence of delegations yields a right that the root did not grant, whatever issuers sign.

The oracle looks at the root's grant and at what was accepted, and at nothing in between.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity import (
    AgentUri,
    AttributeValue,
    ChainLink,
    Delegable,
    IdentityError,
    NamePrefix,
    Purpose,
    VerifiedIdentity,
)
from tests.identity.helpers import DAY_S, NOW, WIDE, Person, World

HOUR_S: Final = 3600
PEOPLE: Final = 6
GRANT_ENDS_UNIX_S: Final = NOW + DAY_S

SEGMENTS: Final = ("finance", "planner", "helper", "hr", "x")
NAMES: Final = (
    "agent://acme/finance",
    "agent://acme/finance/planner",
    "agent://acme/finance/planner/helper",
    "agent://acme/finance2/planner",
    "agent://acme/hr/planner",
    "agent://other/finance/planner",
)
PREFIXES: Final = (*NAMES[:-1], "agent://acme")
VALUES: Final[tuple[AttributeValue, ...]] = ("planner", "auditor", "admin", 1, True, 2, 3)
ATTRIBUTE_NAMES: Final = ("role", "clearance", "team", "secret")
ACTIONS: Final = ("message.ask", "message.tell", "mcp.call")

WORLD: Final = World()
PERSONS: Final = [Person() for _ in range(PEOPLE)]

one_value = st.sampled_from(VALUES)
a_list = st.lists(st.sampled_from(("planner", "auditor", "admin")), max_size=3).map(tuple)
attributes = st.dictionaries(st.sampled_from(ATTRIBUTE_NAMES), one_value | a_list, max_size=2)
allowed_values = st.none() | st.lists(one_value, max_size=3, unique_by=repr).map(tuple)
delegables = st.builds(
    Delegable,
    name_prefixes=st.lists(
        st.sampled_from(PREFIXES).map(NamePrefix.parse), min_size=1, max_size=2, unique=True
    ).map(tuple),
    attributes=st.dictionaries(st.sampled_from(ATTRIBUTE_NAMES), allowed_values, max_size=3),
    actions=st.lists(st.sampled_from(ACTIONS), max_size=3, unique=True).map(tuple),
    depth=st.integers(0, 4),
    lifetime_s_max=st.sampled_from((HOUR_S, DAY_S, 7 * DAY_S, 30 * DAY_S)),
)
lifetimes = st.sampled_from((60, HOUR_S, DAY_S // 2, DAY_S, 2 * DAY_S, 30 * DAY_S))


@dataclass(frozen=True)
class Wish:
    """What an issuer signs. None of a field: as much as an honest one could."""

    issuer: int
    """Where in the tree so far; -1 is the last."""
    segment: str | None
    name: str | None
    attributes: Mapping[str, AttributeValue]
    delegable: Delegable | None
    passes_on: bool
    is_node: bool
    lifetime_s: int


wishes = st.builds(
    Wish,
    issuer=st.just(-1) | st.integers(0, PEOPLE),
    segment=st.sampled_from(SEGMENTS),
    name=st.none() | st.none() | st.sampled_from(NAMES),
    attributes=st.just({}) | st.just({"role": "planner"}) | attributes,
    delegable=st.none() | st.none() | st.none() | delegables,
    passes_on=st.booleans() | st.just(True),
    is_node=st.sampled_from((False, False, False, False, True)),
    lifetime_s=st.sampled_from((60, HOUR_S)) | lifetimes,
)


@dataclass(frozen=True)
class Vertex:
    """Somebody with a credential: the chain that he shows, and what he says he may pass on."""

    person: Person
    name: str
    may: Delegable | None
    chain: tuple[ChainLink, ...]


def root(grant: Delegable) -> Vertex:
    node = WORLD.node
    link = WORLD.authority.link(
        node,
        "agent://acme/finance",
        kind="node",
        delegable=grant,
        expires_unix_s=GRANT_ENDS_UNIX_S,
    )
    return Vertex(node, "agent://acme/finance", grant, (link,))


def below(above: Vertex, person: Person, wish: Wish) -> Vertex | None:
    """What this issuer signs for this person, however much it is. None for what cannot be said."""
    name = wish.name or f"{above.name}/{wish.segment}"
    may = wish.delegable
    if may is None and wish.passes_on and above.may is not None and above.may.depth > 1:
        may = Delegable(
            name_prefixes=above.may.name_prefixes,
            attributes=above.may.attributes,
            actions=above.may.actions,
            depth=above.may.depth - 1,
            lifetime_s_max=above.may.lifetime_s_max,
        )
    try:
        link = above.person.link(
            person,
            name,
            kind="node" if wish.is_node else "agent",
            trust_domain=AgentUri.parse(name).trust_domain,
            attributes=wish.attributes,
            delegable=may,
            not_before_unix_s=NOW,
            expires_unix_s=NOW + wish.lifetime_s,
        )
    except IdentityError:
        return None
    return Vertex(person, name, may, (link, *above.chain))


def grow(grant: Delegable, planted: list[Wish]) -> list[Vertex]:
    """A tree: each has its credential from the root or from somebody before it."""
    tree = [root(grant)]
    for person, wish in zip(PERSONS, planted, strict=False):
        vertex = below(tree[wish.issuer % len(tree)], person, wish)
        if vertex is not None:
            tree.append(vertex)
    return tree


def accepted(vertex: Vertex) -> VerifiedIdentity | None:
    try:
        proof = vertex.person.proof(*vertex.chain)
        return (
            WORLD.new_verifier()
            .verify(
                proof,
                purpose=Purpose.CHANNEL,
                noise_key=vertex.person.noise.public.raw,
                unix_s=NOW,
            )
            .identity
        )
    except (IdentityError, ValueError):
        return None


def beyond(grant: Delegable, seen: VerifiedIdentity) -> list[str]:
    """In which ways somebody has more than the root granted."""
    assert seen.name is not None
    path = seen.name.path
    checks = {
        "kind": seen.kind == "agent",
        "trust domain": seen.name.trust_domain == seen.trust_domain == "acme",
        "name": any(path[: len(p.path)] == p.path for p in grant.name_prefixes if _own(p)),
        "attributes": all(_granted(grant, key, v) for key, v in seen.attributes.items()),
        "actions": set(seen.allowed_actions or ()) <= set(grant.actions),
        "depth": len(seen.ancestors) <= grant.depth,
        "lifetime": seen.expires_unix_s - NOW <= grant.lifetime_s_max,
        "end": seen.expires_unix_s <= GRANT_ENDS_UNIX_S,
    }
    may = seen.delegable
    if may is not None:
        checks |= {
            "depth passed on": len(seen.ancestors) + may.depth <= grant.depth,
            "lifetime passed on": may.lifetime_s_max <= grant.lifetime_s_max,
            "actions passed on": set(may.actions) <= set(grant.actions),
            "names passed on": all(
                any(inner.path[: len(p.path)] == p.path for p in grant.name_prefixes if _own(p))
                and _own(inner)
                for inner in may.name_prefixes
            ),
            "attributes passed on": all(
                key in grant.attributes
                and (
                    grant.attributes[key] is None
                    or (values is not None and all(_granted(grant, key, v) for v in values))
                )
                for key, values in may.attributes.items()
            ),
        }
    return [what for what, holds in checks.items() if not holds]


def _own(prefix: NamePrefix) -> bool:
    return prefix.trust_domain == "acme"


def _granted(grant: Delegable, name: str, value: AttributeValue) -> bool:
    if name not in grant.attributes:
        return False
    allowed = grant.attributes[name]
    if allowed is None:
        return True
    said = [(type(one), one) for one in allowed]
    if (type(value), value) in said:
        return True
    return isinstance(value, tuple) and all((type(item), item) in said for item in value)


@given(st.just(WIDE) | delegables, st.lists(wishes, min_size=1, max_size=PEOPLE))
@settings(max_examples=40, deadline=None)
def test_nobody_in_a_tree_of_greedy_issuers_has_more_than_the_root_granted(
    grant: Delegable, planted: list[Wish]
) -> None:
    for vertex in grow(grant, planted)[1:]:
        seen = accepted(vertex)
        if seen is not None:
            assert beyond(grant, seen) == []


@pytest.mark.prove
@given(st.just(WIDE) | delegables, st.lists(wishes, min_size=1, max_size=PEOPLE))
@settings(max_examples=3_000, deadline=None)
def test_nobody_in_many_trees_has_more_than_the_root_granted(
    grant: Delegable, planted: list[Wish]
) -> None:
    for vertex in grow(grant, planted)[1:]:
        seen = accepted(vertex)
        if seen is not None:
            assert beyond(grant, seen) == []


@given(st.integers(1, 3), st.lists(st.sampled_from(SEGMENTS), min_size=3, max_size=3))
@settings(max_examples=10, deadline=None)
def test_honest_issuers_are_believed_down_to_the_depth_that_was_granted(
    depth: int, segments: list[str]
) -> None:
    honest = [
        Wish(number, segment, None, {"role": "planner"}, None, True, False, HOUR_S)
        for number, segment in enumerate(segments)
    ]
    grant = Delegable(WIDE.name_prefixes, WIDE.attributes, WIDE.actions, depth, WIDE.lifetime_s_max)

    believed = [accepted(vertex) is not None for vertex in grow(grant, honest)[1:]]

    assert believed == [number < depth for number in range(3)]


GREED: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "a name beside the grant's": ({"name": "agent://acme/hr/planner"}, "name"),
    "a value that was not granted": ({"attributes": {"role": "admin"}}, "attributes"),
    "an attribute that was not granted": ({"attributes": {"secret": "x"}}, "attributes"),
    "a life that is too long": ({"expires_unix_s": NOW + 2 * DAY_S}, "end"),
    "more depth": (
        {"delegable": Delegable(WIDE.name_prefixes, {}, (), 3, HOUR_S)},
        "depth passed on",
    ),
    "more actions": (
        {"delegable": Delegable(WIDE.name_prefixes, {}, ("mcp.call",), 1, HOUR_S)},
        "actions passed on",
    ),
}


@pytest.mark.parametrize(("changes", "what"), GREED.values(), ids=GREED.keys())
def test_the_oracle_sees(changes: dict[str, Any], what: str) -> None:
    """It would tell of each, if a verifier accepted it."""
    given_name = changes.get("name", "agent://acme/finance/planner")
    seen = VerifiedIdentity(
        identifier=PERSONS[0].history.identifier,
        name=AgentUri.parse(given_name),
        kind="agent",
        role_of_node=None,
        trust_domain="acme",
        issuer=WORLD.node.history.identifier,
        attributes=changes.get("attributes", {}),
        delegable=changes.get("delegable"),
        expires_unix_s=changes.get("expires_unix_s", NOW + HOUR_S),
        ancestors=(_node_seen(),),
    )

    assert beyond(WIDE, seen) == [what]


def _node_seen() -> VerifiedIdentity:
    return VerifiedIdentity(
        identifier=WORLD.node.history.identifier,
        name=AgentUri.parse("agent://acme/finance"),
        kind="node",
        role_of_node="sidecar",
        trust_domain="acme",
        issuer=WORLD.authority.history.identifier,
        attributes={},
        delegable=WIDE,
        expires_unix_s=GRANT_ENDS_UNIX_S,
    )
