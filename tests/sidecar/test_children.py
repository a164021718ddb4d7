"""Children of agents: signed by their parents, bounded by them, gone with them, swept away."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from identity import (
    Code,
    Keystore,
    MasterKey,
    Purpose,
    SidelinkError,
    VerifiedIdentity,
    decode_credential_untrusted,
)
from sidecar.agents import AgentRegistry, LocalAgent
from sidecar.children import SWEPT_AT_ONCE, Children
from sidecar.issuing import AGENT_CREDENTIAL_SECONDS, credential_of
from tests.simulation.people import DAY_S, START_UNIX_S, MemoryKeystore, node, verifier_of

NOW = START_UNIX_S
HOUR_S = 3600


class Family:
    """A registry with children, on a keystore that outlives it."""

    def __init__(self, keystore: Any, *, children_max: int = 1000, awake_max: int = 1024) -> None:
        self.keystore = keystore
        self.children_max = children_max
        self.awake_max = awake_max
        self.restart()

    def restart(self) -> None:
        self.agents: AgentRegistry = node("alpha").new_registry(
            self.keystore, awake_max=self.awake_max
        )
        self.children = Children(self.agents, children_max=self.children_max)

    def spawn(
        self,
        segment: str = "child",
        *,
        parent: str = "alpha/planner",
        ttl_s: int = 0,
        unix_s: float = NOW,
        **attributes: Any,
    ) -> LocalAgent:
        return self.children.spawn(parent, segment, attributes, ttl_s, unix_s)

    def line(self, depth: int) -> LocalAgent:
        """An agent, its child, its child's child and so on."""
        path = "alpha/planner"
        agent = self.agents.open(path, {}, NOW)
        for _ in range(depth):
            agent = self.spawn(parent=path)
            path += "/child"
        return agent


@pytest.fixture(params=["memory", "disk"])
def keystore(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "memory":
        yield node("alpha").new_keystore()
        return
    keystore = Keystore.open(tmp_path / "state.db", MasterKey(bytes(32)))
    keystore.save(node("alpha").own)
    yield keystore
    keystore.close()


@pytest.fixture
def family(keystore: Any) -> Family:
    family = Family(keystore)
    family.agents.open("alpha/planner", {"role": "planner"}, NOW)
    return family


def verified(agent: LocalAgent, unix_s: float = NOW) -> VerifiedIdentity:
    peer = verifier_of(node("beta").own.identifier).verify(
        agent.proof,
        purpose=Purpose.CHANNEL,
        noise_key=agent.noise_key.public.raw,
        unix_s=unix_s,
    )
    return peer.identity


def refusal(call: Callable[[], object]) -> SidelinkError:
    with pytest.raises(SidelinkError) as caught:
        call()
    return caught.value


# Who a child is.


def test_a_child_is_below_its_parent_in_name_and_in_chain(family: Family) -> None:
    child = family.spawn(role="planner")
    seen = verified(child)

    assert str(seen.name) == "agent://acme/alpha/planner/child"
    assert [str(one.name) for one in seen.ancestors] == [
        "agent://acme/alpha/planner",
        "agent://acme/alpha",
    ]
    assert seen.attributes == {"role": "planner"}
    for field in ("identifier", "name", "issuer", "attributes", "expires_unix_s"):
        assert getattr(child.identity, field) == getattr(seen, field), field


def test_attributes_that_are_not_given_are_none(family: Family) -> None:
    assert verified(family.spawn()).attributes == {}


def test_chains_go_as_deep_as_the_ticket_says_and_no_deeper(keystore: Any) -> None:
    family = Family(keystore)
    deepest = family.line(2)

    assert len(verified(deepest).ancestors) == 3
    denied = refusal(lambda: family.spawn(parent="alpha/planner/child/child"))
    assert denied.code is Code.LOCAL_DELEGATION_DENIED
    assert "depth" in denied.detail


def test_an_agent_may_not_delegate_before_it_has_a_child(family: Family) -> None:
    agent = family.agents.open("alpha/planner", {"role": "planner"}, NOW)
    assert agent.identity.delegable is None
    identifier = agent.identity.identifier

    family.spawn()

    assert agent.identity.identifier == identifier
    may = verified(agent).delegable
    assert may is not None
    assert [str(prefix) for prefix in may.name_prefixes] == ["agent://acme/alpha/planner"]
    assert may.attributes == {"role": ("planner",)}
    assert may.depth == 2


def test_a_child_without_children_may_not_delegate(family: Family) -> None:
    assert verified(family.spawn()).delegable is None


BEYOND: dict[str, tuple[dict[str, Any], Code, str]] = {
    "another value of an attribute": ({"role": "admin"}, Code.LOCAL_DELEGATION_DENIED, "role"),
    "an attribute that its parent has not": (
        {"clearance": 3},
        Code.LOCAL_DELEGATION_DENIED,
        "clearance",
    ),
    "a list with its parent's value": (
        {"role": ("planner", "x")},
        Code.LOCAL_DELEGATION_DENIED,
        "",
    ),
    "a longer life than may be given": (
        {"ttl_s": 8 * DAY_S},
        Code.LOCAL_DELEGATION_DENIED,
        "ttl",
    ),
    "a name of two segments": ({"segment": "a/b"}, Code.LOCAL_BAD_REQUEST, "segment"),
    "a name that leads up": ({"segment": ".."}, Code.LOCAL_BAD_REQUEST, "segment"),
    "no name": ({"segment": ""}, Code.LOCAL_BAD_REQUEST, "segment"),
    "a parent that there is not": ({"parent": "alpha/nobody"}, Code.LOCAL_AGENT_UNKNOWN, "nobody"),
    "the node as parent": ({"parent": ".node"}, Code.LOCAL_BAD_REQUEST, ""),
    "a parent of another sidecar": ({"parent": "beta/x"}, Code.LOCAL_AGENT_UNKNOWN, ""),
}


@pytest.mark.parametrize(("wishes", "code", "word"), BEYOND.values(), ids=BEYOND.keys())
def test_no_child_is_spawned_with(
    wishes: dict[str, Any], code: Code, word: str, family: Family
) -> None:
    wishes = {"segment": "child", **wishes}
    denied = refusal(lambda: family.spawn(**wishes))

    assert denied.code is code
    assert word in denied.detail
    assert family.agents.load("alpha/planner/child") is None


def test_an_agent_that_its_node_named_is_not_taken_for_a_child(family: Family) -> None:
    before = family.agents.open("alpha/planner/child", {"role": "admin"}, NOW)

    denied = refusal(family.spawn)

    assert denied.code is Code.LOCAL_DELEGATION_DENIED
    assert "name" in denied.detail
    assert verified(before).attributes == {"role": "admin"}


def test_a_child_that_is_opened_by_name_stays_a_child(family: Family) -> None:
    child = family.spawn()

    denied = refusal(lambda: family.agents.open("alpha/planner/child", {"role": "admin"}, NOW))
    again = family.agents.open("alpha/planner/child", {"role": "planner"}, NOW)

    assert denied.code is Code.LOCAL_DELEGATION_DENIED
    assert again is child
    assert len(verified(again).ancestors) == 2
    assert family.children.is_child("alpha/planner/child")
    assert not family.children.is_child("alpha/planner")
    assert not family.children.is_child("alpha/nobody")


# How long it lives.


def test_a_child_ends_with_its_time_to_live(family: Family) -> None:
    child = family.spawn(ttl_s=HOUR_S)

    assert verified(child).expires_unix_s == NOW + HOUR_S
    assert family.agents.find(child.uri, NOW + HOUR_S - 1) is child
    assert family.agents.find(child.uri, NOW + HOUR_S) is None
    ended = refusal(lambda: family.agents.open("alpha/planner/child", {}, NOW + HOUR_S))
    assert ended.code is Code.LOCAL_AGENT_EXPIRED


def test_a_life_beyond_its_parents_credential_is_lived_in_several(family: Family) -> None:
    child = family.spawn(ttl_s=3 * DAY_S)
    assert verified(child).expires_unix_s == NOW + AGENT_CREDENTIAL_SECONDS

    later = NOW + 3 * DAY_S - 60
    found = family.agents.find(child.uri, later)

    assert found is child
    assert verified(child, later).expires_unix_s == NOW + 3 * DAY_S
    assert family.agents.find(child.uri, NOW + 3 * DAY_S) is None


def test_a_child_without_an_end_lives_as_long_as_its_parent(family: Family) -> None:
    child = family.spawn()

    for days in (1, 5, 20):
        unix_s = NOW + days * DAY_S
        found = family.agents.find(child.uri, unix_s)
        assert found is child
        assert verified(child, unix_s).identifier == child.identity.identifier


def test_a_child_cannot_outlive_a_parent_that_ends(family: Family) -> None:
    family.spawn(ttl_s=HOUR_S)
    below = "alpha/planner/child"

    beyond = refusal(lambda: family.spawn("a", parent=below, ttl_s=HOUR_S, unix_s=NOW + 60))
    within = family.spawn("b", parent=below)

    assert beyond.code is Code.LOCAL_DELEGATION_DENIED
    assert "ttl" in beyond.detail
    assert within.identity.expires_unix_s == NOW + HOUR_S
    assert family.agents.find(within.uri, NOW + HOUR_S) is None


def test_to_spawn_again_is_a_new_life_of_the_same_child(family: Family) -> None:
    first = family.spawn(ttl_s=HOUR_S, role="planner")
    identifier = first.identity.identifier

    again = family.spawn(ttl_s=2 * HOUR_S, unix_s=NOW + HOUR_S)

    assert again.identity.identifier == identifier
    assert again.attributes == {}
    assert verified(again, NOW + HOUR_S).expires_unix_s == NOW + 3 * HOUR_S


def test_a_child_is_the_same_after_a_restart_and_as_it_was(family: Family) -> None:
    child = family.spawn(ttl_s=HOUR_S, role="planner")
    family.restart()

    found = family.agents.find(child.uri, NOW + 60)

    assert found is not None
    assert found.identity == child.identity
    assert verified(found, NOW + 60).attributes == {"role": "planner"}


# What becomes of a child when something above it changes.


def test_a_child_shows_its_parents_newest_credential(family: Family) -> None:
    child, half_day = family.spawn(), NOW + 13 * HOUR_S
    before = child.proof

    found = family.agents.find(child.uri, half_day)

    assert found is child
    assert child.proof != before
    assert verified(child, half_day).expires_unix_s == half_day + AGENT_CREDENTIAL_SECONDS


def test_a_child_follows_the_rotation_of_its_parent(family: Family) -> None:
    child = family.spawn()
    family.agents.rotate("alpha/planner", NOW + 10, overlap_s=60)
    family.agents.complete_rotation("alpha/planner", NOW + 20)

    found = family.agents.find(child.uri, NOW + 30)

    assert found is child
    # The old key's overlap is over: what it signed would not verify any more.
    assert verified(child, NOW + 100).identifier == child.identity.identifier


def test_a_parent_that_lost_an_attribute_takes_it_from_its_children(family: Family) -> None:
    child = family.spawn(role="planner")
    plain = family.spawn("plain")

    family.agents.open("alpha/planner", {}, NOW + 10)

    assert refusal(
        lambda: family.agents.open("alpha/planner/child", {"role": "planner"}, NOW + 20)
    ).code is (Code.LOCAL_DELEGATION_DENIED)
    assert family.agents.find(plain.uri, NOW + 20) is plain
    assert family.agents.find(child.uri, NOW + AGENT_CREDENTIAL_SECONDS) is None


def test_parents_are_reissued_before_their_children(keystore: Any) -> None:
    family = Family(keystore)
    family.line(2)
    agents = family.agents.awake_agents()
    unix_s = NOW + 13 * HOUR_S

    changed = family.agents.reissue(reversed(agents), unix_s)

    assert [len(agent.uri.path) for agent in changed] == [2, 3, 4]
    for agent in changed:
        assert verified(agent, unix_s).expires_unix_s == unix_s + AGENT_CREDENTIAL_SECONDS
    assert family.agents.reissue(agents, unix_s) == []


def test_a_child_is_woken_with_all_that_vouch_for_it(keystore: Any) -> None:
    family = Family(keystore)
    deepest = family.line(2)
    family.restart()

    found = family.agents.find(deepest.uri, NOW)

    assert found is not None
    assert verified(found).identifier == deepest.identity.identifier
    assert family.agents.awake == 3


def test_a_child_of_parents_that_sleep_is_served(keystore: Any) -> None:
    family = Family(keystore, awake_max=1)
    deepest = family.line(2)

    found = family.agents.find(deepest.uri, NOW)

    assert found is not None
    assert verified(found).identifier == deepest.identity.identifier


def test_a_child_whose_parent_is_gone_is_not_woken(family: Family) -> None:
    child = family.spawn()
    family.keystore.remove_many(["alpha/planner"])
    if isinstance(family.keystore, MemoryKeystore):
        del family.keystore.rows["alpha/planner/child"]
    family.restart()

    assert family.agents.find(child.uri, NOW) is None


# How many there are.


def test_children_of_an_agent_are_capped_and_others_are_not_counted(keystore: Any) -> None:
    family = Family(keystore, children_max=2)
    for parent in ("alpha/planner", "alpha/other"):
        family.agents.open(parent, {}, NOW)
        for segment in ("a", "b"):
            family.spawn(segment, parent=parent)

    denied = refusal(lambda: family.spawn("c"))

    assert denied.code is Code.LOCAL_LIMIT
    family.spawn("a", ttl_s=60)  # One that is there is not one more.
    family.agents.open("alpha/more", {}, NOW)


def test_children_whose_time_is_over_make_room(keystore: Any) -> None:
    family = Family(keystore, children_max=2)
    family.agents.open("alpha/planner", {}, NOW)
    family.spawn("a", ttl_s=60)
    family.spawn("b")

    family.spawn("c", unix_s=NOW + 60)

    assert family.agents.load("alpha/planner/a") is None


# Sweeping.


def test_a_sweep_removes_those_whose_time_is_over_and_all_below_them(family: Family) -> None:
    family.spawn(ttl_s=60)
    family.spawn("below", parent="alpha/planner/child")
    family.spawn("later", ttl_s=HOUR_S)
    family.spawn("ever")

    for _ in range(3):
        family.children.sweep(NOW + 60)

    names = [name for name in family.keystore.names() if name != ".node"]
    assert names == ["alpha/planner", "alpha/planner/ever", "alpha/planner/later"]
    assert family.children.swept == 2
    assert family.agents.awake == 3


def test_a_sweep_looks_at_a_few_and_comes_to_all(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.children.SWEPT_AT_ONCE", 4)
    count = 11
    for number in range(count):
        family.spawn(f"c{number:02}", ttl_s=60)
    looked: list[str] = []
    load = family.keystore.load

    def look(path: str, issuer: Any) -> Any:
        looked.append(path)
        return load(path, issuer)

    monkeypatch.setattr(family.keystore, "load", look)

    family.children.sweep(NOW + 60)
    first = len(looked)
    for _ in range(6):
        family.children.sweep(NOW + 60)

    assert first == 4
    assert family.children.swept == count


def test_a_sweep_does_not_look_at_what_the_node_named(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(SWEPT_AT_ONCE):
        family.agents.open(f"alpha/a{number}", {}, NOW)
    child = family.spawn(ttl_s=60)

    family.children.sweep(NOW + 60)

    assert family.agents.load("/".join(child.uri.path)) is None


def test_an_agent_that_never_spawns_carries_nothing_for_it(family: Family) -> None:
    plain = family.agents.load("alpha/planner")
    assert plain is not None
    before = len(plain.chain[0].credential)
    family.spawn()
    parent = family.agents.load("alpha/planner")
    assert parent is not None

    assert decode_credential_untrusted(plain.chain[0].credential).credential.delegable is None
    assert len(parent.chain[0].credential) > before + 100
    held = credential_of(parent)
    assert held is not None
    assert held.delegable is not None
