"""A permit that is used again answers as a fresh decision would, whatever was reloaded."""

from dataclasses import replace
from random import Random

import pytest

from policy import Action, Permit, PolicyEngine, PolicySource, Request
from sidecar.decisions import SidecarDecisions
from tests.policy.helpers import NOW
from tests.policy.naive import some_policy, some_request

STEPS = 2_000
STEPS_PROVED = 100_000


def interleave(seed: int, steps: int) -> int:
    """Messages, passing time and reloads in any order. Gives back how often a permit was reused."""
    chance = Random(seed)
    texts = [some_policy(chance, chance.choice([2, 6])) for _ in range(6)]
    limits = None
    engine = PolicyEngine.load(texts[0], file="p")
    decisions = SidecarDecisions(
        lambda request, expires_unix_s=None: engine.decide(request, now),
        lambda request, what, expires_unix_s=None: engine.decide(request, now),
        lambda request: engine.could_allow(request, now),
        lambda: engine.version,
    )
    requests = [
        replace(some_request(chance), action=action)
        for action in (Action.MESSAGE_ASK, Action.MESSAGE_TELL)
        for _ in range(20)
    ]
    cache: dict[int, Permit] = {}
    now, reused = NOW, 0
    for _ in range(steps):
        if chance.random() < 0.02:
            limits = engine.limits
            files = [PolicySource("p", chance.choice(texts))]
            engine = PolicyEngine.load_bundle(files, limits=limits)
        now += chance.choice([0, 0, 1, 60])
        at = chance.randrange(len(requests))
        size = chance.choice([0, 3, 4, 5, 6, 9])
        request: Request = replace(requests[at], message_bytes=size)
        fresh = engine.decide(request, now)
        if decisions.still_holds(cache.get(at), size, now):
            reused += 1
            assert isinstance(fresh, Permit), f"seed {seed}: {request}"
        elif isinstance(fresh, Permit):
            cache[at] = fresh
    return reused


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_a_fresh_decision(seed: int) -> None:
    assert interleave(seed, STEPS) > STEPS // 100


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_agrees_with_a_fresh_decision_a_hundred_thousand_times() -> None:
    assert sum(interleave(seed, STEPS_PROVED // 50) for seed in range(100, 150)) > 0
