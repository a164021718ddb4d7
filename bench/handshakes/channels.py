"""Channels, both sides in one process, from the cores alone: no socket, no frame, no event loop."""

import itertools
import os
import time
from dataclasses import dataclass
from typing import Final

from bench.errors import BenchError
from channel import Channel, ChannelOpened, ChannelState, Prologue, VerifyPeer
from identity import ProofVerifier, Purpose, TrustAnchor
from policy import Action, Denial, Party, Request
from sidecar.agents import LocalAgent
from tests.simulation.people import START_UNIX_S, authority, engine, node

NONCE_BYTES: Final = 16
RESPONDER: Final = "beta"
INITIATOR: Final = "alpha"


@dataclass(frozen=True, slots=True)
class Pairs:
    """Agents that are to meet: each initiator once, all of them the one responder."""

    initiators: tuple[tuple[LocalAgent, VerifyPeer], ...]
    responder: tuple[LocalAgent, VerifyPeer]


def make_pairs(count: int) -> Pairs:
    """Minted before the clock runs. Each agent has a verifier of its own, as in a sidecar."""
    callers = node(INITIATOR).new_registry()
    called = node(RESPONDER).new_registry().open(f"{RESPONDER}/main", {}, START_UNIX_S)
    return Pairs(
        tuple(
            (agent, _verifier(agent))
            for agent in (
                callers.open(f"{INITIATOR}/{index}", {"role": "caller"}, START_UNIX_S)
                for index in range(count)
            )
        ),
        (called, _verifier(called)),
    )


def handshakes_per_cpu_s(pairs: Pairs) -> float:
    """Open a channel for each pair, to the responder's ACCEPT at its initiator."""
    begun_s = time.process_time()
    for initiator, verify in pairs.initiators:
        _open_channel(initiator, verify, *pairs.responder)
    return len(pairs.initiators) / (time.process_time() - begun_s)


def _open_channel(
    initiator: LocalAgent, verify: VerifyPeer, responder: LocalAgent, verify_back: VerifyPeer
) -> None:
    prologue = Prologue("channel", str(responder.uri), os.urandom(NONCE_BYTES))
    near = Channel.connect(
        prologue=prologue,
        key=initiator.noise_key,
        proof=initiator.proof,
        verify=verify,
        now_s=0.0,
    )
    far = Channel.respond(
        prologue=prologue,
        key=responder.noise_key,
        proof=responder.proof,
        verify=verify_back,
        now_s=0.0,
    )
    for giver, taker in itertools.islice(itertools.cycle(((near, far), (far, near))), 3):
        for part, body in giver.take_output():
            taker.receive(part, body, 0.0)
    request = Request(Action.CHANNEL_OPEN, Party.from_verified(far.peer.identity), responder.party)
    permit = engine().decide(request, START_UNIX_S)
    if isinstance(permit, Denial):
        raise BenchError(f"agents of the test authority were denied: {permit.reason}")
    far.accept(permit)
    events = [event for part, body in far.take_output() for event in near.receive(part, body, 0.0)]
    if events != [ChannelOpened()] or near.state is not ChannelState.OPEN:
        raise BenchError(f"a channel did not open: {events}")


def _verifier(agent: LocalAgent) -> VerifyPeer:
    anchor = TrustAnchor(authority().identifier, "acme")
    verifier = ProofVerifier([anchor], own=agent.identity.identifier)
    return lambda proof, noise_key: verifier.verify(
        proof, purpose=Purpose.CHANNEL, noise_key=noise_key, unix_s=START_UNIX_S
    )
