"""Messages between agents: who they are from, in which order they come, and how each one ends."""

from sidelink import wire

from channel.limits import HANDSHAKE_S_MAX
from policy import Action, PolicyEngine
from tests.simulation.mesh import Session, new_mesh
from tests.simulation.people import DAY_S

NOBODY = "agent://acme/beta/nobody"


def policy(*rules: str) -> PolicyEngine:
    listed = "".join(f"  - {{name: rule {at}, {rule}}}\n" for at, rule in enumerate(rules, 1))
    return PolicyEngine.load(
        "apiVersion: sidelink/v1\nkind: Policy\nmetadata: {name: test}\n"
        f"attributes: {{role: text}}\nrules:\n{listed}",
        file="policy.yaml",
    )


TELL_ONLY = policy("effect: allow, actions: [message.tell]")
ALL_BUT_ASKS_OF_BOB = policy(
    "effect: allow, actions: [message.tell, message.ask]",
    "effect: deny, actions: [message.ask], to: {name: 'agent://acme/beta/bob'}",
)


def echo(session: Session) -> None:
    def handle(frame: wire.Deliver) -> None:
        if frame.kind == wire.ASK:
            session.answer(frame.delivery, b"re:" + frame.body)

    session.handler = handle
    session.listen()


def test_a_tell_arrives_with_who_its_sender_was_proved_to_be() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice", role="planner"), beta.new_session("bob")
    bob.listen()
    request = alice.tell(bob.uri, b"hello")
    network.run_for(1)

    [delivered] = bob.of(wire.Deliver)
    assert delivered.body == b"hello"
    assert delivered.sender == alice.uri
    assert delivered.sender_identifier == str(alice.agent.identity.identifier)
    assert delivered.attributes == {"role": "planner"}
    assert alice.frames == [wire.Receipt(request)]


def test_an_ask_is_answered_by_who_the_other_end_was_proved_to_be() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    echo(bob)
    request = alice.ask(bob.uri, b"what")
    network.run_for(1)

    [reply] = alice.of(wire.Reply)
    assert (reply.request, reply.body, reply.sender) == (request, b"re:what", bob.uri)
    assert reply.sender_identifier == str(bob.agent.identity.identifier)


def test_messages_keep_their_order_across_the_opening_of_a_channel() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    bob.listen()
    bodies = [b"%04d" % number + bytes(number * 211 % 70_000) for number in range(60)]
    for at, body in enumerate(bodies):
        alice.tell(bob.uri, body)
        if at % 7 == 0:
            network.run_for(0.02)
    network.run_for(5)

    assert bob.bodies() == bodies
    assert len(alice.of(wire.Receipt)) == len(bodies)


def test_two_that_open_at_the_same_instant_hear_each_other_once_and_in_order() -> None:
    for seed in range(5):
        network, _, (alpha, beta) = new_mesh("alpha", "beta", seed=seed)
        alice, bob = alpha.new_session("alice"), beta.new_session("bob")
        for session in (alice, bob):
            echo(session)
        for number in range(10):
            alice.tell(bob.uri, b"%d" % number)
            bob.tell(alice.uri, b"%d" % number)
            alice.ask(bob.uri, b"ask")
            network.run_for(0.01)
        network.run_for(2)

        told = [b"%d" % number for number in range(10)]
        assert [body for body in bob.bodies() if body != b"ask"] == told
        assert alice.bodies() == told
        assert len(alice.of(wire.Reply)) == 10


def test_what_the_sender_may_not_say_never_leaves() -> None:
    network, gateway, (alpha, beta) = new_mesh("alpha", "beta")
    outcast, bob = alpha.new_session("out", role="outcast"), beta.new_session("bob")
    bob.listen()
    request = outcast.tell(bob.uri, b"hello")
    network.run_for(1)

    [failed] = outcast.of(wire.Failed)
    assert (failed.request, failed.code, failed.rule) == (
        request,
        "policy.denied",
        "no word from outcasts",
    )
    assert gateway.observed == []


def test_what_no_rule_allows_is_denied_on_the_senders_side() -> None:
    network, gateway, (alpha, beta) = new_mesh("alpha", "beta", policy=TELL_ONLY)
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    alice.ask(bob.uri)
    network.run_for(1)

    assert alice.failures() == [(1, "policy.no_rule")]
    assert gateway.observed == []


def test_what_the_receiver_denies_is_refused_there_with_its_rule_for_a_colleague() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    beta.decisions.policy = ALL_BUT_ASKS_OF_BOB
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    echo(bob)
    alice.ask(bob.uri, b"may I")
    alice.tell(bob.uri, b"fine")
    network.run_for(1)

    [failed] = alice.of(wire.Failed)
    assert (failed.code, failed.rule) == ("policy.denied", "rule 2")
    assert bob.bodies() == [b"fine"]


def test_a_receiver_without_rules_takes_no_channel_at_all() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    beta.decisions.policy = PolicyEngine.deny_all()
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    bob.listen()
    alice.tell(bob.uri)
    network.run_for(1)

    assert alice.failures() == [(1, "policy.not_ready")]
    assert bob.frames == []
    assert len(beta.router.channels) == 0


def test_a_policy_that_changes_counts_from_the_next_message_on() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    echo(bob)
    alice.ask(bob.uri, b"before")
    network.run_for(1)
    beta.decisions.policy = ALL_BUT_ASKS_OF_BOB
    alice.ask(bob.uri, b"after")
    network.run_for(1)

    assert bob.bodies() == [b"before"]
    assert alice.failures() == [(2, "policy.denied")]


def test_an_ask_that_nobody_answers_times_out_and_its_late_answer_is_dropped() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    bob.listen()
    alice.ask(bob.uri, timeout_s=2)
    network.run_for(3)
    assert alice.failures() == [(1, "message.timeout")]
    bob.answer(bob.of(wire.Deliver)[0].delivery, b"late")
    network.run_for(1)

    assert len(alice.frames) == 1


def test_an_ask_that_waited_out_its_time_in_the_mailbox_is_never_handed_over() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    alice.ask(bob.uri, timeout_s=2)
    network.run_for(3)
    bob.listen()
    network.run_for(1)

    assert bob.frames == []
    assert alice.failures() == [(1, "message.timeout")]


def test_an_ask_that_is_refused_says_why() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    bob.listen()
    alice.ask(bob.uri)
    network.run_for(1)
    assert bob.refuse(bob.of(wire.Deliver)[0].delivery, "not today")
    assert not bob.refuse(bob.of(wire.Deliver)[0].delivery, "again")
    network.run_for(1)

    [failed] = alice.of(wire.Failed)
    assert (failed.code, failed.message) == ("message.rejected", "not today")


def test_an_agent_that_stops_listening_leaves_no_asker_waiting() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    bob.listen()
    alice.ask(bob.uri, timeout_s=600)
    network.run_for(1)
    bob.leave()
    network.run_for(1)

    assert alice.failures() == [(1, "message.rejected")]


def test_a_session_that_left_gets_no_answers_and_leaves_no_timers() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    bob.listen()
    network.run_for(1)
    alice.ask(bob.uri, timeout_s=600)
    network.run_for(1)
    alice.leave()
    bob.answer(bob.of(wire.Deliver)[0].delivery, b"too late")
    network.run_for(1)

    assert alice.frames == []
    [conversation] = alpha.router.outbound.conversations.all()
    assert conversation.asks == {}


def test_an_answered_ask_leaves_no_timer_behind() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    echo(bob)
    alice.ask(bob.uri)
    network.run_for(1)
    timers = len(alpha.router.timers)
    for _ in range(100):
        alice.ask(bob.uri, timeout_s=7 * DAY_S)
    network.run_for(2)

    assert len(alice.of(wire.Reply)) == 101
    assert len(alpha.router.timers) == timers
    assert len(alpha.router.timers._heap) < 80


def test_agents_of_one_sidecar_pass_both_decisions() -> None:
    network, gateway, (alpha,) = new_mesh("alpha")
    alice, carol = alpha.new_session("alice"), alpha.new_session("carol", role="quiet")
    echo(carol)
    alpha.decisions.asked.clear()
    alice.tell(carol.uri, b"hello")
    network.run_for(1)
    assert alpha.decisions.permits(Action.MESSAGE_TELL) == [(alice.uri, carol.uri)] * 2
    assert carol.of(wire.Deliver)[0].sender == alice.uri

    alice.ask(carol.uri)
    assert alice.failures() == [(2, "policy.denied")]
    assert gateway.observed == []


def test_agents_of_one_sidecar_ask_and_answer_without_a_gateway() -> None:
    network, gateway, (alpha,) = new_mesh("alpha")
    gateway.crash()
    alice, carol = alpha.new_session("alice"), alpha.new_session("carol")
    echo(carol)
    alice.ask(carol.uri, b"here")
    network.run_for(1)

    assert [reply.body for reply in alice.of(wire.Reply)] == [b"re:here"]


def test_agents_of_one_sidecar_still_talk_the_day_after() -> None:
    network, _, (alpha,) = new_mesh("alpha")
    alice, carol = alpha.new_session("alice"), alpha.new_session("carol")
    carol.listen()
    network.clock.advance(3 * DAY_S)
    alice.tell(carol.uri, b"still here")

    assert carol.bodies() == [b"still here"]


def test_a_channel_ends_with_the_credentials_that_it_rests_on() -> None:
    network, gateway, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    bob.listen()
    alice.tell(bob.uri, b"today")
    network.run_for(1)
    assert len(alpha.router.channels) == len(beta.router.channels) == 1
    network.clock.advance(DAY_S)
    for sidecar in (alpha, beta):
        sidecar.look()
    network.run_for(400)

    assert len(alpha.router.channels) == len(beta.router.channels) == 0
    assert gateway.relay.links == 0


def test_a_message_behind_an_expired_channel_opens_a_new_one() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    bob.listen()
    alice.tell(bob.uri, b"today")
    network.run_for(1)
    network.clock.advance(DAY_S)
    alice.tell(bob.uri, b"tomorrow")
    network.run_for(2)

    assert bob.bodies() == [b"today", b"tomorrow"]
    assert alice.failures() == []


def test_only_one_session_listens_as_an_agent() -> None:
    _, _, (alpha,) = new_mesh("alpha")
    first, second = alpha.new_session("alice"), alpha.new_session("alice")

    assert first.listen()
    assert not second.listen()
    first.leave()
    assert second.listen()


def test_a_handshake_that_the_peer_does_not_finish_ends_in_time() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice"), beta.new_session("bob")
    beta.frames_received = lambda hop, frames: None  # type: ignore[method-assign]
    alice.tell(bob.uri)
    network.run_for(HANDSHAKE_S_MAX + 1)

    assert alice.failures() == [(1, "channel.timeout")]
    assert len(alpha.router.channels) == 0


def test_an_agent_that_is_minted_with_other_attributes_is_seen_with_them_at_once() -> None:
    network, _, (alpha, beta) = new_mesh("alpha", "beta")
    alice, bob = alpha.new_session("alice", role="planner"), beta.new_session("bob")
    bob.listen()
    alice.tell(bob.uri, b"as a planner")
    network.run_for(1)

    again = alpha.new_session("alice", role="clerk")
    network.run_for(1)
    again.tell(bob.uri, b"as a clerk")
    network.run_for(1)

    seen = [(told.body, told.attributes["role"]) for told in bob.of(wire.Deliver)]
    assert seen == [(b"as a planner", "planner"), (b"as a clerk", "clerk")]
