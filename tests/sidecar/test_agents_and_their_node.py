"""Agents whose node gets another credential or key, or who rotate their own."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from identity import (
    ChainLink,
    Code,
    IdentityError,
    Proof,
    ProofVerifier,
    Purpose,
    SidelinkError,
    SigningKey,
    TrustAnchor,
    decode_credential_untrusted,
    issue_credential,
)
from sidecar.agents import AgentRegistry, LocalAgent
from sidecar.issuing import AGENT_CREDENTIAL_SECONDS, NOISE_KEY_SECONDS
from tests.simulation.people import (
    DAY_S,
    START_UNIX_S,
    MemoryKeystore,
    Node,
    authority,
    node,
)

NOW = START_UNIX_S
OVERLAP_S = 3_600
ROLE = {"role": "planner"}


@dataclass
class Changing:
    """A node that changes while its registry runs."""

    node: Node
    keystore: MemoryKeystore

    def registry(self) -> AgentRegistry:
        """As after a start."""
        kept: Any = self.keystore
        return AgentRegistry(kept, lambda: self.node.own, lambda: self.node.identity)

    def renew(self, **changes: Any) -> None:
        """The authority issues another credential for its newest key, a day longer."""
        issuer, own = authority(), self.node.own
        held = decode_credential_untrusted(own.chain[0].credential).credential
        assert held.delegable is not None
        signed = issue_credential(
            issuer.signing_key,
            issuer.history,
            own.history,
            name=held.name,
            trust_domain=held.trust_domain,
            kind="node",
            role_of_node="sidecar",
            attributes={},
            delegable=replace(held.delegable, **changes),
            not_before_unix_s=int(NOW),
            expires_unix_s=held.expires_unix_s + DAY_S,
        )
        own = own.with_chain((ChainLink(signed.encoded, issuer.history.encode()),))
        identity = replace(
            self.node.identity,
            delegable=signed.credential.delegable,
            expires_unix_s=signed.credential.expires_unix_s,
        )
        self.node = Node(own, identity)

    def announce(self) -> None:
        own = self.node.own.with_next_key(SigningKey.generate(), unix_s=NOW, overlap_s=OVERLAP_S)
        self.node = replace(self.node, own=own)

    def complete(self) -> None:
        self.node = replace(self.node, own=self.node.own.using_next_key(unix_s=NOW))


@pytest.fixture
def changing() -> Changing:
    alpha = node("alpha")
    return Changing(alpha, alpha.new_keystore())


def seen(agent: LocalAgent, unix_s: float = NOW) -> Any:
    # Each time another peer, who has seen none of them before.
    anchor = TrustAnchor(authority().identifier, "acme")
    return ProofVerifier([anchor], own=node("beta").own.identifier).verify(
        agent.proof,
        purpose=Purpose.CHANNEL,
        noise_key=agent.noise_key.public.raw,
        unix_s=unix_s,
    )


def test_a_renewed_node_shows_its_agents_under_its_new_credential(changing: Changing) -> None:
    registry = changing.registry()
    agents = [registry.open(f"alpha/{name}", ROLE, NOW) for name in ("a", "b")]
    credentials = [changing.keystore.rows["alpha/a"].chain[0].credential]
    changing.renew()

    changed = registry.reissue(registry.awake_agents(), NOW)

    assert changed == agents
    assert seen(agents[0]).identity.ancestors[0].expires_unix_s == (
        changing.node.identity.expires_unix_s
    )
    # What the node said of the agent holds: nothing was signed anew.
    assert credentials == [changing.keystore.rows["alpha/a"].chain[0].credential]
    assert registry.reissue(registry.awake_agents(), NOW) == []


@pytest.mark.parametrize("how", ["reissue", "find", "open"])
def test_a_node_that_rotated_signs_for_its_agents_with_the_new_key(
    how: str, changing: Changing
) -> None:
    registry = changing.registry()
    agent = registry.open("alpha/a", ROLE, NOW)
    changing.announce()
    announced = registry.find(agent.uri, NOW)
    held_while_announced = _credential(agent)
    changing.complete()

    if how == "reissue":
        registry.reissue([agent], NOW)
    elif how == "find":
        registry.find(agent.uri, NOW)
    else:
        registry.open("alpha/a", ROLE, NOW)

    assert announced is agent
    assert held_while_announced.issuer_change_number == 0
    assert _credential(agent).issuer_change_number == 1
    assert seen(agent, NOW + 2 * OVERLAP_S).identity.attributes == ROLE


def _credential(agent: LocalAgent) -> Any:
    proof = Proof.decode_untrusted(agent.proof)
    return decode_credential_untrusted(proof.chain[0].credential).credential


def test_an_agent_that_slept_while_its_node_rotated_wakes_under_the_new_key(
    changing: Changing,
) -> None:
    uri = changing.registry().open("alpha/a", ROLE, NOW).uri
    changing.announce()
    changing.complete()

    woken = changing.registry().find(uri, NOW)

    assert woken is not None
    assert _credential(woken).issuer_change_number == 1
    assert seen(woken, NOW + 2 * OVERLAP_S)


def test_what_the_node_may_no_longer_say_of_an_agent_ends_with_its_credential(
    changing: Changing,
) -> None:
    registry = changing.registry()
    kept, dropped = (registry.open(f"alpha/{name}", ROLE, NOW) for name in ("a", "b"))
    before = dropped.proof
    registry.open("alpha/a", {}, NOW)
    changing.renew(attributes={})

    changed = registry.reissue([kept, dropped], NOW)

    assert changed == [kept]
    assert dropped.proof == before
    assert registry.find(dropped.uri, NOW) is dropped
    assert registry.find(dropped.uri, dropped.expires_unix_s) is None


def test_names_beyond_a_narrower_credential_are_no_longer_covered(changing: Changing) -> None:
    registry = changing.registry()
    agent = registry.open("alpha/a", ROLE, NOW)
    [prefix] = changing.node.prefixes
    changing.renew(name_prefixes=(replace(prefix, path=("alpha", "other")),))

    assert not registry.covers(agent.uri)
    assert registry.find(agent.uri, NOW) is None
    with pytest.raises(SidelinkError) as caught:
        registry.open("alpha/a", ROLE, NOW)
    assert caught.value.code is Code.LOCAL_NAME_OUTSIDE_PREFIX


def test_a_renewal_that_cannot_be_saved_changes_nobody(changing: Changing) -> None:
    registry = changing.registry()
    agent = registry.open("alpha/a", ROLE, NOW)
    before = agent.proof
    changing.announce()
    changing.complete()
    changing.keystore.save_many = _full  # type: ignore[method-assign]

    for change in (
        lambda: registry.reissue([agent], NOW),
        lambda: registry.rotate("alpha/a", NOW, OVERLAP_S),
    ):
        with pytest.raises(IdentityError):
            change()
        assert agent.proof == before


def _full(*_: Any) -> None:
    raise IdentityError(Code.CONFIG_KEYSTORE_DAMAGED, "the disk is full")


def test_noise_keys_are_renewed_by_their_own_age(changing: Changing) -> None:
    registry = changing.registry()
    agent = registry.open("alpha/a", ROLE, NOW)
    key = agent.noise_key.public
    unix_s = NOW
    while unix_s < NOW + NOISE_KEY_SECONDS - AGENT_CREDENTIAL_SECONDS / 2:
        assert registry.find(agent.uri, unix_s) is agent
        assert agent.noise_key.public == key
        unix_s += AGENT_CREDENTIAL_SECONDS / 2
    registry.find(agent.uri, NOW + NOISE_KEY_SECONDS)

    assert agent.noise_key.public != key
    assert seen(agent, NOW + NOISE_KEY_SECONDS)


def test_an_agent_announces_its_next_key_before_it_uses_it(changing: Changing) -> None:
    registry = changing.registry()
    agent = registry.open("alpha/a", ROLE, NOW)
    identifier = agent.identity.identifier

    assert registry.rotate("alpha/a", NOW, OVERLAP_S) is agent
    announced = changing.keystore.rows["alpha/a"]
    assert seen(agent).identifier == identifier
    assert registry.complete_rotation("alpha/a", NOW) is agent

    completed = changing.keystore.rows["alpha/a"]
    assert announced.next_key is not None
    assert announced.history.change_number == 1
    assert completed.next_key is None
    assert completed.signing_key.verify_key == announced.history.current_key
    assert _credential(agent).pin == completed.history.pin
    assert seen(agent, NOW + 2 * OVERLAP_S).identifier == identifier
    assert registry.complete_rotation("alpha/a", NOW) is agent
    assert changing.keystore.rows["alpha/a"] is completed


def test_a_rotation_that_a_crash_interrupted_is_completed_at_the_next_wake(
    changing: Changing,
) -> None:
    registry = changing.registry()
    uri = registry.open("alpha/a", ROLE, NOW).uri
    registry.rotate("alpha/a", NOW, OVERLAP_S)
    announced = changing.keystore.rows["alpha/a"]

    woken = changing.registry().find(uri, NOW + DAY_S)

    own = changing.keystore.rows["alpha/a"]
    assert woken is not None
    assert own.next_key is None
    assert own.history == announced.history
    assert seen(woken, NOW + DAY_S)


def test_an_agent_that_sleeps_is_rotated_in_its_row(changing: Changing) -> None:
    uri = changing.registry().open("alpha/a", ROLE, NOW).uri
    registry = changing.registry()

    assert registry.rotate("alpha/a", NOW, OVERLAP_S) is None
    assert registry.rotate("alpha/a", NOW, OVERLAP_S) is None
    assert registry.complete_rotation("alpha/a", NOW) is None

    assert registry.awake == 0
    woken = registry.find(uri, NOW)
    assert woken is not None
    assert changing.keystore.rows["alpha/a"].history.change_number == 1
    assert seen(woken)


@pytest.mark.parametrize(
    ("path", "overlap_s", "code"),
    [
        ("alpha/nobody", OVERLAP_S, Code.LOCAL_AGENT_UNKNOWN),
        (".node", OVERLAP_S, Code.LOCAL_BAD_REQUEST),
        ("alpha/a", 365 * DAY_S, Code.LOCAL_BAD_REQUEST),
    ],
    ids=["an unknown agent", "the node's own row", "an overlap beyond all bounds"],
)
def test_a_rotation_is_refused_for(
    path: str, overlap_s: int, code: Code, changing: Changing
) -> None:
    registry = changing.registry()
    registry.open("alpha/a", ROLE, NOW)

    with pytest.raises(SidelinkError) as caught:
        registry.rotate(path, NOW, overlap_s)

    assert caught.value.code is code


def test_the_agents_of_another_node_get_credentials_of_this_one(changing: Changing) -> None:
    uri = changing.registry().open("alpha/a", ROLE, NOW).uri
    other = node("alpha", lifetime_s=DAY_S)
    changing.node = other

    agent = changing.registry().find(uri, NOW)

    assert agent is not None
    assert agent.identity.issuer == other.own.identifier
    assert agent.expires_unix_s <= other.identity.expires_unix_s
    assert seen(agent).identity.issuer == other.own.identifier
