"""What the steady path remembers, permits and issuers, is never older than what it stands for."""

import random

import pytest
from sidelink import wire

from node.clocks import utc_text
from policy import Action, Permit, PolicyEngine, Request
from tests.sidecar.test_router import policy
from tests.simulation.mesh import Session, Sidecar, new_mesh

ALLOW = "effect: allow, actions: [channel.open, message.tell, message.ask]"
POLICIES = (
    policy(ALLOW),
    policy(ALLOW, "effect: deny, actions: [message.tell], when: 'message.size > 100'"),
    policy(ALLOW, "effect: deny, actions: [message.ask]"),
    policy("effect: allow, actions: [channel.open]"),
    policy(ALLOW, "effect: deny, actions: [message.tell], to: {name: 'agent://acme/beta/bob'}"),
)
ACTIONS = {wire.TELL: Action.MESSAGE_TELL, wire.ASK: Action.MESSAGE_ASK}


class Stage:
    """Alice sends to Bob over one channel, while the policies of both sidecars change."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.network, _, (self.alpha, self.beta) = new_mesh("alpha", "beta", seed=seed)
        self.alice, self.bob = self.alpha.new_session("alice"), self.beta.new_session("bob")
        self.bob.handler = self.check_delivered
        self.bob.listen()
        self.delivered = 0
        self.expected = 0
        self.alice.tell(self.bob.uri)
        self.network.run_for(1)

    def check_delivered(self, frame: wire.Deliver) -> None:
        self.delivered += 1
        action, size = ACTIONS[frame.kind], len(frame.body)
        for sidecar in (self.alpha, self.beta):
            assert allows(sidecar, self.alice, self.bob, action, size), (action, size)

    def change(self) -> None:
        """While nothing is under way, so that both policies are those that decide."""
        self.network.run_for(1)
        sidecar = self.random.choice((self.alpha, self.beta))
        sidecar.decisions.policy = self.random.choice(POLICIES)
        sidecar.do(sidecar.router.policy_changed)

    def send(self) -> None:
        kind, size = self.random.choice((wire.TELL, wire.ASK)), self.random.choice((5, 500))
        count = self.random.randint(1, 4)
        if all(
            allows(one, self.alice, self.bob, ACTIONS[kind], size)
            for one in (self.alpha, self.beta)
        ):
            self.expected += count
        if kind == wire.TELL and self.random.random() < 0.5:
            agent = self.alice.agent
            run = wire.TellRun(agent.handle, self.bob.uri, "", [bytes(size)] * count)
            self.alpha.do(lambda: self.alpha.router.send_run(agent, self.alice, run))
        else:
            for _ in range(count):
                self.alice.send(kind, self.bob.uri, bytes(size))


def allows(sidecar: Sidecar, alice: Session, bob: Session, action: Action, size: int) -> bool:
    """What this sidecar's policy says now, asked afresh."""
    request = Request(action, alice.agent.party, bob.agent.party, message_bytes=size)
    engine: PolicyEngine = sidecar.decisions.policy
    return isinstance(engine.decide(request, sidecar.clock.unix_s()), Permit)


@pytest.mark.parametrize("seed", range(12))
def test_each_message_is_decided_under_the_policy_of_its_moment(seed: int) -> None:
    stage = Stage(seed)
    for _ in range(60):
        stage.change() if stage.random.random() < 0.3 else stage.send()
    stage.network.run_for(2)

    assert stage.delivered == stage.expected + 1
    assert stage.alpha.router.channels_opened == 1


def test_a_steady_message_asks_policy_nothing() -> None:
    stage = Stage(0)
    for size in (5, 500):
        stage.alice.tell(stage.bob.uri, bytes(size))
    stage.network.run_for(1)
    asked = [len(sidecar.decisions.asked) for sidecar in (stage.alpha, stage.beta)]
    for size in range(200):
        stage.alice.tell(stage.bob.uri, bytes(size))
    stage.network.run_for(1)

    assert [len(sidecar.decisions.asked) for sidecar in (stage.alpha, stage.beta)] == asked
    assert stage.delivered == 203


def test_a_rule_about_the_time_is_asked_each_time() -> None:
    stage = Stage(0)
    late = utc_text(stage.alpha.clock.unix_s() + 5)
    stage.alpha.decisions.policy = policy(
        ALLOW, f"effect: deny, actions: [message.tell], when: \"now > timestamp('{late}')\""
    )
    stage.alice.tell(stage.bob.uri)
    stage.network.run_for(10)
    request = stage.alice.tell(stage.bob.uri)
    stage.network.run_for(1)

    assert stage.alice.failures() == [(request, "policy.denied")]
    assert stage.alpha.router.channels_opened == 1
