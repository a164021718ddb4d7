"""Pressure: mailboxes that fill, readers that are slow, senders that are paused and go on."""

import pytest
from sidelink import wire

from policy import PolicyEngine
from sidecar import conversations as conversations_module
from sidecar import outbound as outbound_module
from sidecar.conversation import WAITING_BYTES_HIGH
from sidecar.conversations import HOP_WAIT_SECONDS
from sidecar.hops import SETTLING_SECONDS
from sidecar.pauses import STALL_SECONDS
from tests.sidecar.router_helpers import Lonely, Puppet
from tests.simulation.mesh import Session, new_mesh
from tests.simulation.people import engine

SECRET = PolicyEngine.load(
    "apiVersion: sidelink/v1\nkind: Policy\nmetadata: {name: t}\nattributes: {role: text}\n"
    "rules:\n  - {name: r, effect: allow, actions: [message.tell], to: {role: secret}}\n",
    file="policy.yaml",
)


def fill(session: Session, to: str, size: int = 100_000) -> int:
    """Send until the session is read no further. Returns how many went."""
    for number in range(1, 1_000):
        session.tell(to, bytes(size), receipt=False)
        if session.is_paused:
            return number
    pytest.fail("nothing ever paused the sender")


def test_a_mailbox_that_nobody_reads_fills_and_says_so() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta", messages_max=3)
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    for number in range(4):
        alice.tell(bob.uri, b"%d" % number)
    alice.ask(bob.uri)
    network.run_for(1)
    assert alice.failures() == [(0, "message.mailbox_full"), (5, "message.mailbox_full")]
    bob.listen()

    assert bob.bodies() == [b"0", b"1", b"2"]


def test_a_full_mailbox_of_a_neighbour_says_so_too() -> None:
    _, _, (alpha,) = new_mesh("alpha", messages_max=2)
    alice, carol = alpha.new_session("alice"), alpha.new_session("carol")
    for _ in range(3):
        alice.tell(carol.uri)
    alice.ask(carol.uri)

    assert alice.failures() == [(3, "message.mailbox_full"), (4, "message.mailbox_full")]


def test_a_sender_to_a_slow_reader_is_paused_and_goes_on_and_nothing_is_lost() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    bob.listen()
    bob.writable = False
    sent = 0
    for number in range(60):
        if alice.is_paused:
            break
        alice.tell(bob.uri, b"%04d" % number + bytes(100_000), receipt=False)
        sent += 1
        network.run_for(0.5)
    assert alice.is_paused
    assert bob.frames == []
    assert 15 < sent < 40, "the window, then what may wait at the sender"
    bob.writable = True
    beta.do(lambda: beta.router.session_writable(bob))
    network.run_for(2)

    assert not alice.is_paused
    assert [body[:4] for body in bob.bodies()] == [b"%04d" % number for number in range(sent)]


def test_what_waits_for_a_channel_counts_even_when_it_is_empty() -> None:
    _, gateway, (alpha, _beta) = new_mesh("alpha", "beta")
    gateway.crash()
    alice = alpha.new_session("alice")
    sends = [
        alice.new_send(wire.TELL, "agent://acme/beta/bob", b"", receipt=False)
        for _ in range(WAITING_BYTES_HIGH // 40)
    ]
    alice.send_all(sends)

    assert alice.is_paused


def test_who_was_paused_for_messages_that_were_all_refused_goes_on() -> None:
    """Whether the peer has the role that the rule asks for, only its proof can say."""
    network, gateway, (alpha, beta) = new_mesh("alpha", "beta", policy=SECRET)
    beta.decisions.policy = engine()
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    sent = fill(alice, bob.uri)
    network.run_for(2)

    assert [code for _, code in alice.failures()] == ["policy.no_rule"] * sent
    assert not alice.is_paused
    assert gateway.relay.links == 1


def test_who_was_paused_for_a_name_that_is_not_there_goes_on() -> None:
    network, _, (alpha, _beta) = new_mesh("alpha", "beta")
    alice = alpha.new_session("alice")
    network.run_for(SETTLING_SECONDS)
    fill(alice, "agent://acme/beta/nobody")
    network.run_for(2)

    assert not alice.is_paused


def test_one_full_conversation_is_enough_to_stay_paused() -> None:
    lonely = Lonely()
    alice = lonely.sidecar.new_session("alice")
    alice.send_all(
        [
            alice.new_send(wire.TELL, f"agent://acme/beta/{name}", bytes(100_000), receipt=False)
            for name in ("bob", "carol")
            for _ in range(15)
        ]
    )
    assert alice.is_paused
    carol = Puppet(lonely, "carol")
    carol.respond()
    assert len(carol.heard()) == 15
    assert alice.is_paused, "bob's are still waiting"
    lonely.lose_hop()
    assert alice.is_paused, "another hop may come"
    lonely.network.run_for(HOP_WAIT_SECONDS + 1)

    assert not alice.is_paused


class TestAReceiverThatTakesNothing:
    def test_holds_nobody_up_for_long(self) -> None:
        lonely, alice, bob = stalled()

        assert not alice.is_paused
        carol = Puppet(lonely, "carol")
        alice.tell(carol.uri, b"passes")
        carol.respond()
        assert [tell.body for tell in carol.heard()] == [b"passes"]
        assert lonely.router.outbound.stalls == 1
        assert bob.heard()

    def test_is_sent_nothing_more_and_its_senders_are_told(self) -> None:
        _, alice, bob = stalled()
        before = len(alice.frames)

        alice.tell(bob.uri, b"too much")

        assert [frame.code for frame in alice.frames[before:]] == ["message.queue_full"]

    def test_loses_nothing_of_what_was_accepted_and_is_served_again_once_it_takes(self) -> None:
        _, alice, bob = stalled()
        bob.catch_up()

        assert len(bob.heard()) == 30
        alice.tell(bob.uri, b"again")
        bob.exchange()
        assert [tell.body for tell in bob.heard()[30:]] == [b"again"]


def stalled() -> tuple[Lonely, Session, Puppet]:
    """Alice has filled the way to Bob, who reads and grants nothing, and has waited."""
    lonely = Lonely()
    alice = lonely.sidecar.new_session("alice")
    bob = Puppet(lonely, "bob")
    bob.takes_credit = False
    alice.tell(bob.uri, b"")
    bob.respond()
    sends = [alice.new_send(wire.TELL, bob.uri, bytes(60_000), receipt=False) for _ in range(29)]
    alice.send_all(sends)
    bob.exchange()
    assert alice.is_paused
    lonely.network.run_for(STALL_SECONDS + 1)
    return lonely, alice, bob


def test_a_paused_session_that_leaves_is_forgotten() -> None:
    lonely = Lonely()
    alice = lonely.sidecar.new_session("alice")
    fill(alice, "agent://acme/beta/bob")
    alice.leave()

    assert not lonely.router.outbound._pauses._because
    lonely.lose_hop()


def test_a_listener_that_leaves_gives_the_window_back() -> None:
    """What waits for a sleeping agent must not stop what its correspondents say to it."""
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    bob.listen()
    bob.writable = False
    for _ in range(30):
        alice.tell(bob.uri, bytes(60_000), receipt=False)
    network.run_for(1)
    assert alpha.router.outbound.conversations._all[alice.agent.handle, bob.uri].waiting_bytes > 0
    bob.leave()
    network.run_for(1)

    assert alpha.router.outbound.conversations._all[alice.agent.handle, bob.uri].waiting_bytes == 0


def test_asks_in_flight_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound_module, "ASKS_PER_CONVERSATION_MAX", 2)
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    bob.listen()
    for _ in range(3):
        alice.ask(bob.uri)
    network.run_for(1)

    assert alice.failures() == [(3, "message.queue_full")]


def test_conversations_that_are_over_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations_module, "CONVERSATIONS_MAX", 4)
    network, _, (alpha, _beta) = new_mesh("alpha", "beta")
    alice = alpha.new_session("alice")
    network.run_for(SETTLING_SECONDS)
    for number in range(20):
        alice.tell(f"agent://acme/beta/b{number}")
        network.run_for(1)
    assert {code for _, code in alice.failures()} == {"route.unknown"}
    for number in range(6):
        alice.tell(f"agent://acme/beta/c{number}")

    assert [code for _, code in alice.failures()][20:] == ["local.limit"] * 2


def test_conversations_that_left_nothing_open_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations_module, "CONVERSATIONS_OVER_MAX", 4)
    network, _, (alpha,) = new_mesh("alpha")
    alice, carol = alpha.new_session("alice"), alpha.new_session("carol")
    carol.listen()
    alice.ask(carol.uri)
    for number in range(20):
        alice.tell(f"agent://acme/alpha/nobody{number}")
    network.run_for(1)

    assert len(alpha.router.outbound.conversations) <= 4
    assert len(alpha.router.outbound.conversations._all[alice.agent.handle, carol.uri].asks) == 1


def test_an_agent_with_a_live_channel_is_not_put_to_sleep() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta", awake_max=2)
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    alice.tell(bob.uri, b"one")
    network.run_for(1)
    agent = bob.agent
    beta.router.session_gone(bob)
    agent.users -= 1
    agent.mailbox.take(1 << 20)
    beta.sessions.remove(bob)
    for number in range(5):
        beta.router.open_agent(f"beta/other{number}", {})
    alice.tell(bob.uri, b"two")
    network.run_for(1)
    again = beta.new_session("bob")
    again.listen()

    assert again.agent is agent
    assert again.bodies() == [b"two"]
