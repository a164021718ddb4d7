"""How messages find a way: names that are not there, hops that are lost, gateways that end."""

import pytest
from sidelink import wire

from link import FrameKind
from link.messages import encode_restarting
from sidecar.conversations import HOP_WAIT_SECONDS
from sidecar.hops import SETTLING_SECONDS
from tests.sidecar.test_router import NOBODY
from tests.simulation.mesh import Gateway, Sidecar, new_mesh
from tests.simulation.network import SimulatedNetwork
from tests.simulation.people import node

UNREACHABLE = {
    "a name under a prefix that nobody serves": ("agent://acme/gamma/x", "route.unknown"),
    "an agent that its sidecar does not have": (NOBODY, "route.unknown"),
    "an agent that our own sidecar does not have": (
        "agent://acme/alpha/nobody",
        "message.agent_unknown",
    ),
    "what is no name": ("bob", "local.bad_request"),
    "another trust domain": ("agent://globex/beta/bob", "route.denied"),
}


@pytest.mark.parametrize(("to", "code"), UNREACHABLE.values(), ids=UNREACHABLE)
@pytest.mark.parametrize("kind", [wire.TELL, wire.ASK])
def test_a_message_fails_at_once_that_is_for(to: str, code: str, kind: int) -> None:
    network, gateway, (alpha, _beta) = new_mesh("alpha", "beta")
    if code == "route.denied":
        # So that the gateway has a route, and its policy is what stands in between.
        who = node("beta", trust_domain="globex")
        hop = network.connect(_Silent(), gateway, (gateway.node.peer, who.peer))
        gateway.relay.directory.register(who.prefixes[0], hop.far.id, who.own.identifier)
    alice = alpha.new_session("alice")
    network.run_for(SETTLING_SECONDS)
    alice.send(kind, to, b"hello")
    network.run_for(1)

    assert alice.failures() == [(1, code)]


def test_a_name_that_is_not_known_yet_is_asked_for_again_at_a_gateway_just_joined() -> None:
    network, gateway, (alpha,) = new_mesh("alpha")
    alice = alpha.new_session("alice")
    alice.tell("agent://acme/beta/bob", b"early")
    network.run_for(2)
    beta = Sidecar(network, "beta", [gateway])
    bob = beta.new_session("bob")
    bob.listen()
    network.run_for(5)

    assert bob.bodies() == [b"early"]
    assert alice.failures() == []


def test_a_name_whose_sidecar_said_that_it_restarts_is_waited_for() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    network.run_for(SETTLING_SECONDS)
    beta.hops[0].send_frame(0, FrameKind.RESTARTING, encode_restarting(2_000))
    network.run_for(1)
    beta.crash()
    network.run_for(6)
    alice.tell(bob.uri, b"while it is away")
    network.run_for(1)
    beta.start()
    bob = beta.new_session("bob")
    bob.listen()
    network.run_for(5)

    assert bob.bodies() == [b"while it is away"]
    assert alice.failures() == []


class _Silent:
    def hop_opened(self, hop: object) -> None:
        pass

    def frames_received(self, hop: object, frames: object) -> None:
        raise AssertionError("nothing may arrive here")


def test_whether_an_ask_was_read_is_unknown_when_the_hop_is_lost_behind_it() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    bob.listen()
    alice.ask(bob.uri, timeout_s=60)
    network.run_for(1)
    beta.crash()
    network.run_for(10)
    beta.start()
    network.run_for(10)

    assert alice.failures() == [(1, "message.outcome_unknown")]


def test_an_ask_outlives_the_loss_of_its_hop() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    bob.listen()
    alice.ask(bob.uri, b"what", timeout_s=60)
    network.run_for(1)
    beta.hops[0].cut()
    network.run_for(10)
    [asked] = bob.of(wire.Deliver)
    assert bob.answer(asked.delivery, b"this")
    network.run_for(1)

    assert [reply.body for reply in alice.of(wire.Reply)] == [b"this"]
    assert alice.failures() == []


def test_whether_a_message_was_read_is_unknown_when_the_yes_to_its_opening_is_lost() -> None:
    """The first messages go right behind the opening: they may be read before its yes is here."""
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    bob.listen()
    alice.tell(bob.uri, b"one")
    alice.ask(bob.uri, b"two", timeout_s=60)
    while not bob.frames:
        network.run_for(0.001)
    assert alice.frames == []
    alpha.hops[0].cut()
    network.run_for(10)

    assert bob.bodies() == [b"one", b"two"]
    assert [code for _, code in alice.failures()] == ["message.outcome_unknown"] * 2


def test_messages_wait_a_while_for_a_hop_and_then_fail() -> None:
    network, gateway, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    bob.listen()
    gateway.crash()
    network.run_for(6)
    alice.tell(bob.uri, b"lost")
    network.run_for(HOP_WAIT_SECONDS - 0.1)
    assert alice.frames == []
    network.run_for(0.2)
    assert alice.failures() == [(1, "message.unreachable")]

    alice.tell(bob.uri, b"kept")
    network.run_for(HOP_WAIT_SECONDS - 4)
    gateway.start()
    network.run_for(4)
    assert bob.bodies() == [b"kept"]


def test_each_wait_for_a_hop_has_its_whole_time() -> None:
    network, gateway, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    gateway.crash()
    network.run_for(6)
    alice.tell(bob.uri, b"first")
    network.run_for(HOP_WAIT_SECONDS - 2)
    gateway.start()
    network.run_for(1)
    gateway.crash()
    network.run_for(6)
    alice.tell(bob.uri, b"second")
    network.run_for(HOP_WAIT_SECONDS - 1)

    assert 2 not in [request for request, _ in alice.failures()]


def test_a_channel_is_opened_on_another_gateway_when_the_first_is_gone() -> None:
    network = SimulatedNetwork(0)
    gateways = [Gateway(network, "gw"), Gateway(network, "gw2")]
    alpha, beta = (Sidecar(network, name, gateways) for name in ("alpha", "beta"))
    network.run_for(1)
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    bob.listen()
    alice.tell(bob.uri, b"one")
    network.run_for(1)
    first = next(gateway for gateway in gateways if gateway.relay.links)
    first.crash()
    network.run_for(6)
    alice.tell(bob.uri, b"two")
    network.run_for(1)

    assert bob.bodies() == [b"one", b"two"]
