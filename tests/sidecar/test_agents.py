"""Agents: minted within what the node may delegate, renewed at half-life, asleep as rows."""

from types import SimpleNamespace
from typing import Any

import pytest

from identity import Code, Purpose, SidelinkError
from sidecar.agents import LOOKED_AT_MAX
from sidecar.figures import agent_page
from sidecar.issuing import AGENT_CREDENTIAL_SECONDS
from sidecar.mailbox import Sender, Waiting
from tests.simulation.people import DAY_S, START_UNIX_S, node, verifier_of

NOW = START_UNIX_S


def verified(agent: Any, unix_s: float) -> Any:
    return verifier_of(node("beta").own.identifier).verify(
        agent.proof,
        purpose=Purpose.CHANNEL,
        noise_key=agent.noise_key.public.raw,
        unix_s=unix_s,
    )


def refusal(call: Any) -> Code:
    with pytest.raises(SidelinkError) as caught:
        call()
    return caught.value.code


def test_an_agent_is_who_every_peer_verifies_it_to_be() -> None:
    agent = node("alpha").new_registry().open("alpha/alice", {"role": "planner"}, NOW)
    seen = verified(agent, NOW).identity

    for field in ("identifier", "name", "kind", "trust_domain", "issuer", "attributes"):
        assert getattr(agent.identity, field) == getattr(seen, field), field
    assert agent.identity.allowed_actions == seen.allowed_actions


def test_the_same_name_is_the_same_agent_also_after_a_restart() -> None:
    keystore = node("alpha").new_keystore()
    first = node("alpha").new_registry(keystore).open("alpha/alice", {}, NOW)
    registry = node("alpha").new_registry(keystore)
    again = registry.open("alpha/alice", {}, NOW + 60)

    assert again.identity == first.identity
    assert registry.open("alpha/alice", {}, NOW + 60) is again
    assert registry.find(first.uri, NOW + 60) is again


REFUSED_NAMES: dict[str, tuple[str, dict[str, Any], Code]] = {
    "an empty name": ("", {}, Code.LOCAL_BAD_REQUEST),
    "the node's own row": (".node", {}, Code.LOCAL_BAD_REQUEST),
    "a name in upper case": ("alpha/Alice", {}, Code.LOCAL_BAD_REQUEST),
    "a name outside the prefix": ("beta/alice", {}, Code.LOCAL_NAME_OUTSIDE_PREFIX),
    "a name that begins like the prefix": ("alphabet/x", {}, Code.LOCAL_NAME_OUTSIDE_PREFIX),
    "an attribute that is not delegated": (
        "alpha/alice",
        {"clearance": 3},
        Code.LOCAL_ATTRIBUTE_DENIED,
    ),
    "a reserved attribute": ("alpha/alice", {"kind": "node"}, Code.LOCAL_ATTRIBUTE_DENIED),
}


@pytest.mark.parametrize(("path", "attributes", "code"), REFUSED_NAMES.values(), ids=REFUSED_NAMES)
def test_an_agent_is_refused_for(path: str, attributes: dict[str, Any], code: Code) -> None:
    registry = node("alpha").new_registry()

    assert refusal(lambda: registry.open(path, attributes, NOW)) is code
    assert registry.awake == 0


def test_a_credential_is_renewed_at_half_its_life_in_place() -> None:
    registry = node("alpha").new_registry()
    agent = registry.open("alpha/alice", {"role": "x"}, NOW)
    agent.mailbox.add(Waiting(Sender("a", "b", {}, 1), [b"kept"], ""))
    first = agent.proof
    assert registry.find(agent.uri, NOW + AGENT_CREDENTIAL_SECONDS / 2 - 1) is agent
    assert agent.proof == first
    assert registry.find(agent.uri, NOW + AGENT_CREDENTIAL_SECONDS / 2) is agent

    assert agent.proof != first
    assert len(agent.mailbox) == 1
    assert agent.expires_unix_s == NOW + 1.5 * AGENT_CREDENTIAL_SECONDS
    assert verified(agent, NOW + DAY_S).identity.attributes == {"role": "x"}


def test_no_credential_outlives_its_nodes() -> None:
    short = node("short", lifetime_s=3_600)
    registry = short.new_registry()
    agent = registry.open("short/alice", {}, NOW)
    assert agent.expires_unix_s == NOW + 3_600
    renewed = registry.find(agent.uri, NOW + 3_599)

    assert renewed is agent
    assert agent.expires_unix_s == NOW + 3_600
    assert registry.find(agent.uri, NOW + 3_600) is None
    assert refusal(lambda: registry.open("short/bob", {}, NOW + 3_600)) is (
        Code.LOCAL_ATTRIBUTE_DENIED
    )


def test_other_attributes_are_another_credential_of_the_same_agent() -> None:
    registry = node("alpha").new_registry()
    agent = registry.open("alpha/alice", {"role": "x"}, NOW)
    identifier = agent.identity.identifier
    again = registry.open("alpha/alice", {"role": "y"}, NOW)

    assert again is agent
    assert agent.identity.identifier == identifier
    assert agent.party.attributes == {"role": "y"}


def test_a_clock_that_was_put_right_leaves_no_credential_of_the_future() -> None:
    keystore = node("alpha").new_keystore()
    for unix_s in (NOW, NOW + DAY_S):
        node("alpha").new_registry(keystore).open("alpha/alice", {}, unix_s)
    agent = node("alpha").new_registry(keystore).open("alpha/alice", {}, NOW)

    assert verified(agent, NOW)


def test_the_longest_idle_agents_sleep_and_wake_as_they_were() -> None:
    registry = node("alpha").new_registry(awake_max=2)
    first = registry.open("alpha/a0", {"role": "x"}, NOW)
    for number in (1, 2, 3):
        registry.open(f"alpha/a{number}", {}, NOW)
    assert registry.awake == 2
    woken = registry.find(first.uri, NOW)

    assert woken is not None
    assert woken is not first
    assert woken.handle != first.handle
    assert woken.identity == first.identity


def test_an_agent_that_somebody_holds_or_writes_to_does_not_sleep() -> None:
    registry = node("alpha").new_registry(awake_max=1)
    held = registry.open("alpha/held", {}, NOW)
    held.users += 1
    read = registry.open("alpha/read", {}, NOW)
    read.mailbox.add(Waiting(Sender("a", "b", {}, 1), [b""], ""))
    for number in range(4):
        registry.open(f"alpha/a{number}", {}, NOW)

    assert registry.find(held.uri, NOW) is held
    assert registry.find(read.uri, NOW) is read


def test_however_many_are_held_those_that_nobody_holds_are_soon_asleep() -> None:
    registry = node("alpha").new_registry(awake_max=2)
    for number in range(20):
        registry.open(f"alpha/held{number}", {}, NOW).users += 1
    for number in range(30):
        registry.open(f"alpha/a{number}", {}, NOW)
    held = sum(agent.users for agent in registry.awake_agents())

    assert held == 20
    assert registry.awake - held < LOOKED_AT_MAX


def test_a_crowd_that_is_let_go_sleeps() -> None:
    registry = node("alpha").new_registry(awake_max=2)
    crowd = [registry.open(f"alpha/a{number}", {}, NOW) for number in range(2 * LOOKED_AT_MAX)]
    for agent in crowd:
        agent.users += 1
    for agent in crowd:
        agent.users -= 1
    registry.put_to_sleep(let_go=len(crowd))

    assert registry.awake == 2


def test_names_of_all_agents_but_not_of_the_node_come_in_pages() -> None:
    registry = node("alpha").new_registry(awake_max=1)
    for name in ("b", "a", "c"):
        registry.open(f"alpha/{name}", {}, NOW)
    pages = []
    while page := registry.names(pages[-1][-1] if pages else "", 2):
        pages.append(page)

    assert pages == [["agent://acme/alpha/a", "agent://acme/alpha/b"], ["agent://acme/alpha/c"]]
    assert registry.names(limit=1) == ["agent://acme/alpha/a"]


def test_a_page_of_agents_says_who_is_awake_and_where_the_next_one_begins() -> None:
    registry = node("alpha").new_registry(awake_max=1)
    for name in ("b", "a"):
        registry.open(f"alpha/{name}", {}, NOW)
    router = SimpleNamespace(deliveries=SimpleNamespace(listens=lambda _: True))
    sidecar: Any = SimpleNamespace(agents=registry, router=router)

    first = agent_page(sidecar, {"limit": 1})
    second = agent_page(sidecar, {"limit": 1, "after": first["next"]})
    last = agent_page(sidecar, {"after": second["next"]})

    assert [(page["agents"][0]["uri"], page["agents"][0]["awake"]) for page in (first, second)] == [
        ("agent://acme/alpha/a", True),
        ("agent://acme/alpha/b", False),
    ]
    assert last == {"agents": [], "next": None}


@pytest.mark.parametrize(
    "request_", [{"limit": 0}, {"limit": 1_001}, {"limit": True}, {"limit": "1"}, {"after": 1}]
)
def test_a_request_for_no_page_is_refused(request_: dict[str, Any]) -> None:
    sidecar: Any = SimpleNamespace()

    assert refusal(lambda: agent_page(sidecar, request_)) is Code.LOCAL_BAD_REQUEST
