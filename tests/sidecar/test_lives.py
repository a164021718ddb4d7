"""Children of live sidecars: their end is told and ends their channels, and denials reach them."""

from typing import Any

import pytest
from sidelink import wire

from identity import Code, SidelinkError
from sidecar.lives import LOOK_SECONDS_MAX
from tests.sidecar.test_standing import Revoking
from tests.simulation.mesh import Session, Sidecar, new_mesh
from tests.simulation.people import engine

NO_WORD_FROM_ALICE = """\
apiVersion: sidelink/v1
kind: Policy
metadata: {name: alice}
rules:
  - name: agents write to each other
    effect: allow
    actions: [message.tell, message.ask]
    from: {kind: agent}
    to: {kind: agent}
  - name: no word from alice
    effect: deny
    actions: [message.tell, message.ask]
    from: {name: agent://acme/alpha/alice}
    to: {kind: agent}
"""


class House:
    """alice of alpha with a child, and bob of beta."""

    def __init__(self, *, ttl_s: int = 0, **options: Any) -> None:
        self.network, _, (self.alpha, self.beta) = new_mesh("alpha", "beta", **options)
        self.network.run_for(1)
        self.alice = self.alpha.new_session("alice")
        self.child = spawned(self.alpha, "alpha/alice", ttl_s)
        self.bob = self.beta.new_session("bob")
        self.bob.listen()
        self.gone: list[tuple[str, Code]] = []
        self.alpha.router.standing.on_agent_gone.append(
            lambda agent, code: self.gone.append((str(agent.uri), code))
        )


def spawned(sidecar: Sidecar, parent: str, ttl_s: int) -> Session:
    agent = sidecar.do(lambda: sidecar.router.spawn_agent(parent, "child", {}, ttl_s))
    session = Session(sidecar, agent)
    agent.users += 1
    sidecar.sessions.append(session)
    return session


def test_a_child_writes_to_far_agents_under_its_own_name() -> None:
    house = House()

    house.child.tell(house.bob.uri, b"hello")
    house.network.run_for(1)

    (deliver,) = house.bob.of(wire.Deliver)
    assert deliver.sender == "agent://acme/alpha/alice/child"


def test_the_end_of_a_child_is_told_once_and_ends_its_channels() -> None:
    house = House(ttl_s=60)
    house.child.tell(house.bob.uri, b"hello")
    house.network.run_for(1)
    before = len(house.alpha.router.channels)

    house.network.run_for(60)

    assert house.gone == [("agent://acme/alpha/alice/child", Code.LOCAL_AGENT_EXPIRED)]
    assert before == 1
    assert len(house.alpha.router.channels) == 0


def test_a_child_that_is_spawned_again_in_time_goes_on() -> None:
    house = House(ttl_s=60)
    house.network.run_for(50)

    house.alpha.do(lambda: house.alpha.router.spawn_agent("alpha/alice", "child", {}, 60))
    house.network.run_for(50)
    gone_in_between = list(house.gone)
    house.network.run_for(20)

    assert gone_in_between == []
    assert [code for _, code in house.gone] == [Code.LOCAL_AGENT_EXPIRED]


def test_nobody_is_told_of_a_child_that_nobody_holds_and_nothing_is_kept_for_it() -> None:
    house = House(ttl_s=3600)

    house.child.leave()
    house.network.run_for(2 * LOOK_SECONDS_MAX)

    assert house.alpha.router._lives._watched == set()
    house.network.run_for(3600)
    assert house.gone == []


def test_a_child_is_denied_what_its_parent_is_denied() -> None:
    house = House(policy=engine(NO_WORD_FROM_ALICE))

    house.child.tell(house.bob.uri, b"hello")
    house.network.run_for(1)

    ((_, code),) = house.child.failures()
    assert code == "policy.denied"
    assert house.bob.of(wire.Deliver) == []


def test_a_child_of_a_parent_that_was_revoked_is_not_opened_again() -> None:
    house = House()
    judge = Revoking()
    house.alpha.judge = judge
    house.alpha.crash()
    house.alpha.start()
    judge.revoked.add(house.alice.agent.identity.identifier)

    for call in (
        lambda: house.alpha.router.open_agent("alpha/alice/child", {}),
        lambda: house.alpha.router.spawn_agent("alpha/alice", "child", {}, 0),
    ):
        with pytest.raises(SidelinkError) as caught:
            call()
        assert caught.value.code is Code.LOCAL_AGENT_REVOKED
