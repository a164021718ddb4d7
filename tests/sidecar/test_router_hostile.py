"""A router among peers with real keys and wrong minds, and gateways that break the protocol."""

from typing import Any

import pytest
from sidelink import wire

from channel import ChannelClosed, ChannelDenied
from identity import AgentUri, Code, IdentityError, Purpose
from link import Credit, FrameKind
from link.limits import INITIAL_WINDOW_BYTES
from link.messages import encode_code, encode_credit
from policy import PolicyEngine
from sidecar import admission
from sidecar import outbound as outbound_module
from sidecar.envelope import Ask, Reject, Reply, Tell
from sidecar.paths import PARKED_SECONDS_MAX
from tests.sidecar.router_helpers import Lonely, Puppet
from tests.simulation.mesh import Session
from tests.simulation.people import DAY_S, node


@pytest.fixture
def lonely() -> Lonely:
    return Lonely()


@pytest.fixture
def alice(lonely: Lonely) -> Session:
    session = lonely.sidecar.new_session("alice")
    session.listen()
    return session


def connected(lonely: Lonely, to: Session, name: str = "mallory", **options: Any) -> Puppet:
    puppet = Puppet(lonely, name, **options)
    puppet.connect(to.uri)
    assert puppet.is_open
    return puppet


def end_of(puppet: Puppet) -> ChannelClosed:
    [closed] = puppet.of(ChannelClosed)
    return closed


def test_the_sender_is_who_the_channel_proved_whatever_a_message_says(
    lonely: Lonely, alice: Session
) -> None:
    puppet = connected(lonely, alice)
    puppet.say(Tell(2, b"I am agent://acme/alpha/alice", "text/plain"))

    [delivered] = alice.of(wire.Deliver)
    assert delivered.sender == puppet.uri
    assert delivered.sender_identifier == str(puppet.agent.identity.identifier)


WRONG_NAMES = {
    "the name of another agent": AgentUri.parse("agent://acme/beta/somebody"),
    "a name of the sidecar's own": AgentUri.parse("agent://acme/alpha/carol"),
    "the same path in another trust domain": AgentUri.parse("agent://globex/beta/mallory"),
}


@pytest.mark.parametrize("source", WRONG_NAMES.values(), ids=WRONG_NAMES)
def test_a_source_that_claims_a_name_which_it_does_not_prove_gets_no_channel(
    lonely: Lonely, alice: Session, source: AgentUri
) -> None:
    puppet = Puppet(lonely)
    puppet.connect(alice.uri, source=source)

    assert not puppet.is_open
    assert end_of(puppet).code is Code.CHANNEL_WRONG_NAME
    assert alice.frames == []
    assert len(lonely.router.channels) == 0


def test_a_node_that_speaks_as_itself_is_no_agent(lonely: Lonely, alice: Session) -> None:
    puppet = Puppet(lonely)
    identity = puppet.node.identity
    puppet.agent.uri = identity.name  # type: ignore[assignment]
    own = puppet.node.own
    puppet.agent.noise_key = own.purpose_keys[Purpose.CHANNEL].key
    puppet.agent.proof = own.proof(Purpose.CHANNEL)
    puppet.connect(alice.uri)

    assert not puppet.is_open
    assert end_of(puppet).code is Code.CHANNEL_WRONG_NAME


def test_who_answers_for_a_name_must_prove_that_name(lonely: Lonely, alice: Session) -> None:
    """The gateway, or whoever took the prefix, leads an opening to somebody else."""
    alice.tell("agent://acme/beta/bob", b"a secret")
    puppet = Puppet(lonely, "mallory")
    puppet.respond()

    assert alice.failures() == [(1, "channel.wrong_name")]
    assert puppet.heard() == []
    assert not any(frame.kind == FrameKind.LINK_FINISH for frame in lonely.hop.sent), (
        "an impostor does not even learn who asked"
    )


def test_a_denial_says_why_to_colleagues_only() -> None:
    deny_all_channels = PolicyEngine.load(
        "apiVersion: sidelink/v1\nkind: Policy\nmetadata: {name: t}\nrules:\n"
        "  - {name: some, effect: allow, actions: [message.tell, message.ask],"
        " to: {name: 'agent://acme/alpha/open'}}\n"
        "  - {name: a secret rule, effect: deny, actions: [channel.open, message.ask],"
        " to: {name: 'agent://acme/alpha/alice'}}\n"
        "  - {name: another secret, effect: deny, actions: [message.ask],"
        " to: {name: 'agent://acme/alpha/open'}}\n",
        file="policy.yaml",
    )
    lonely = Lonely(policy=deny_all_channels)
    alice, open_ = lonely.sidecar.new_session("alice"), lonely.sidecar.new_session("open")
    for domain, rules in (("acme", ("a secret rule", "another secret")), ("globex", ("", ""))):
        puppet = Puppet(lonely, of=node("beta", trust_domain=domain))
        puppet.connect(alice.uri)
        [denied] = puppet.of(ChannelDenied)
        assert denied.code is Code.POLICY_DENIED
        assert denied.rule == rules[0]
        assert bool(denied.reason) == bool(rules[0])

        second = connected(lonely, open_, of=node("beta", trust_domain=domain))
        second.say(Ask(3, b"", "", 1_000))
        [rejected] = second.heard()
        assert isinstance(rejected, Reject)
        assert (rejected.code, rejected.rule) == (Code.POLICY_DENIED, rules[1])
        assert bool(rejected.reason) == bool(rules[1])


def test_an_answer_counts_on_the_channel_that_carried_the_question_only(
    lonely: Lonely, alice: Session
) -> None:
    alice.ask("agent://acme/beta/mallory", b"which")
    asked = Puppet(lonely)
    asked.respond()
    [question] = asked.heard()
    assert isinstance(question, Ask)
    other = connected(lonely, alice)
    stranger = connected(lonely, alice, "trudy")
    for puppet in (other, stranger):
        puppet.say(Reply(question.id, b"forged", ""))
        puppet.say(Reject(question.id, Code.MESSAGE_REJECTED, "", "forged"))
    assert alice.frames == []
    asked.say(Reply(question.id, b"true", ""), Reply(question.id, b"again", ""))

    assert [reply.body for reply in alice.of(wire.Reply)] == [b"true"]


def test_answers_to_questions_that_were_never_asked_are_dropped(
    lonely: Lonely, alice: Session
) -> None:
    puppet = connected(lonely, alice)
    for number in (-1, 0, 1, 2, 3, 1 << 62):
        puppet.say(Reply(number, b"", ""), Reject(number, 9_999, "rule", "reason"))

    assert alice.frames == []
    assert puppet.of(ChannelClosed) == []


def test_the_rejection_of_a_tell_is_told_and_that_of_a_late_ask_is_not_taken_for_one(
    lonely: Lonely, alice: Session
) -> None:
    alice.tell("agent://acme/beta/mallory", b"hello")
    alice.ask("agent://acme/beta/mallory", b"which", timeout_s=1)
    puppet = Puppet(lonely)
    puppet.respond()
    [told, asked] = puppet.heard()
    lonely.network.clock.advance(2)
    lonely.sidecar.do(lambda: lonely.router.handle_deadline(lonely.network.clock.now_s()))
    assert alice.failures() == [(2, "message.timeout")]
    puppet.say(Reject(asked.id, Code.MESSAGE_EXPIRED, "", ""))  # type: ignore[union-attr]
    assert len(alice.failures()) == 1
    puppet.say(Reject(told.id, Code.MESSAGE_MAILBOX_FULL, "", ""))  # type: ignore[union-attr]

    assert alice.failures()[1:] == [(0, "message.mailbox_full")]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (Code.MESSAGE_MAILBOX_FULL, "message.mailbox_full"),
        (Code.POLICY_DENIED, "policy.denied"),
        (Code.CONFIG_STATE_UNSAFE, "message.rejected"),
        (Code.LOCAL_UNAUTHORIZED, "message.rejected"),
        (9_999, "message.rejected"),
    ],
)
def test_a_peer_speaks_of_the_message_only_and_not_of_our_own_side(
    lonely: Lonely, alice: Session, said: int, told: str
) -> None:
    alice.ask("agent://acme/beta/mallory", b"which")
    puppet = Puppet(lonely)
    puppet.respond()
    [asked] = puppet.heard()
    assert isinstance(asked, Ask)
    puppet.say(Reject(asked.id, int(said), "", ""))

    assert alice.failures() == [(1, told)]


GARBAGE: dict[str, bytes] = {
    "nothing": b"",
    "no array": b"\x01",
    "an envelope that is no array": b"\x91\x01",
    "an unknown envelope": b"\x91\x92\x63\x01",
    "an envelope that is cut": b"\x91\x93\x00\x02",
    "an ask for longer than a week": b"\x91\x95\x01\x03\xc4\x00\xa0\xcf" + b"\x7f" * 8,
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_garbage_ends_its_channel_and_no_other(lonely: Lonely, alice: Session, data: bytes) -> None:
    bad, good = connected(lonely, alice), connected(lonely, alice, "bob")
    bad.say_bytes(data)
    good.say(Tell(2, b"hello", ""))

    assert end_of(bad) == ChannelClosed(Code.CHANNEL_BAD_RECORD, sealed=True)
    assert alice.bodies() == [b"hello"]
    assert lonely.hop.closed is None


def test_a_forged_record_ends_its_channel_and_no_other(lonely: Lonely, alice: Session) -> None:
    bad, good = connected(lonely, alice), connected(lonely, alice, "bob")
    lonely.receive((bad.link, FrameKind.RECORD, bytes(100)))
    good.say(Tell(2, b"hello", ""))

    assert alice.bodies() == [b"hello"]
    assert len(lonely.router.channels) == 1


def test_more_than_was_granted_ends_the_channel(lonely: Lonely, alice: Session) -> None:
    puppet = connected(lonely, alice)
    lonely.receive((puppet.link, FrameKind.RECORD, bytes(INITIAL_WINDOW_BYTES + 1)))
    puppet.exchange()

    assert len(lonely.router.channels) == 0
    assert end_of(puppet).code is Code.ROUTE_CREDIT_EXCEEDED


def test_a_peer_that_asks_and_grants_nothing_loses_its_channel(
    lonely: Lonely, alice: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound_module, "ANSWER_BYTES_WAITING_MAX", 300_000)
    puppet = connected(lonely, alice)
    puppet.takes_credit = False
    for number in range(60):
        puppet.say(Ask(2 * number + 1, b"", "", 60_000))
        [*_, delivered] = alice.of(wire.Deliver)
        alice.answer(delivered.delivery, bytes(50_000))
        puppet.exchange()
        if puppet.of(ChannelClosed):
            break

    assert len(lonely.router.channels) == 0
    assert 20 < number < 50


VIOLATIONS: dict[str, tuple[int, int, bytes]] = {
    "a link of our own parity": (1, FrameKind.LINK_OPEN, b""),
    "link zero": (0, FrameKind.LINK_OPEN, b""),
    "a malformed opening": ((1 << 31) | 7, FrameKind.LINK_OPEN, b"\x80"),
    "a malformed grant": (1, FrameKind.CREDIT, b""),
}


@pytest.mark.parametrize("frame", VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_gateway_loses_its_hop_for(lonely: Lonely, frame: tuple[int, int, bytes]) -> None:
    lonely.receive(frame)

    assert lonely.hop.closed is Code.HOP_BAD_FRAME


def test_a_link_that_is_used_twice_costs_the_hop(lonely: Lonely, alice: Session) -> None:
    puppet = connected(lonely, alice)
    Puppet(lonely, "bob").connect(alice.uri, link=puppet.link)

    assert lonely.hop.closed is Code.HOP_BAD_FRAME


REFUSED: dict[str, tuple[dict[str, Any], Code]] = {
    "an agent that is not here": (
        {"target": AgentUri.parse("agent://acme/alpha/nobody")},
        Code.ROUTE_UNKNOWN,
    ),
    "a name that is not ours": (
        {"target": AgentUri.parse("agent://acme/beta/bob")},
        Code.ROUTE_UNKNOWN,
    ),
    "an identifier": ({"target": node("alpha").own.identifier}, Code.ROUTE_UNKNOWN),
    "no name of its own": ({"source": node("beta").own.identifier}, Code.ROUTE_UNKNOWN),
    "a version to come": ({"versions": (2,)}, Code.CHANNEL_VERSION_UNSUPPORTED),
}


@pytest.mark.parametrize(("changes", "code"), REFUSED.values(), ids=REFUSED)
def test_a_link_is_refused_without_any_crypto_that_asks_for(
    lonely: Lonely, alice: Session, changes: dict[str, Any], code: Code
) -> None:
    puppet = Puppet(lonely)
    puppet.connect(**({"to": alice.uri} | changes))

    assert lonely.hop.closes() == [(puppet.link, code)]
    assert [frame.kind for frame in lonely.hop.sent] == [FrameKind.LINK_CLOSE]


def test_half_open_channels_of_strangers_are_bounded_and_ours_do_not_count(
    lonely: Lonely, alice: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "CHANNELS_UNVERIFIED_MAX", 2)
    for number in range(4):
        alice.tell(f"agent://acme/beta/b{number}")
    puppets = [Puppet(lonely, f"m{number}") for number in range(4)]
    for puppet in puppets[:3]:
        puppet.exchange = lambda: None  # type: ignore[method-assign]
        puppet.connect(alice.uri)
    assert lonely.hop.closes() == [(puppets[2].link, Code.ROUTE_LINK_LIMIT)]
    lonely.receive((puppets[0].link, FrameKind.LINK_CLOSE, encode_code(Code.CHANNEL_CLOSED)))
    puppets[3].connect(alice.uri)

    assert puppets[3].is_open
    lonely.lose_hop()
    assert lonely.router.channels.admission.unverified == 0


def test_an_agent_whose_row_is_damaged_costs_its_callers_one_link(
    lonely: Lonely, alice: Session
) -> None:
    registry = lonely.router.agents

    def damaged(name: str, _: Any) -> None:
        raise IdentityError(Code.CONFIG_KEYSTORE_DAMAGED, f"the row {name}")

    registry.keystore.load = damaged
    lonely.network.clock.advance(DAY_S)
    puppet = Puppet(lonely)
    puppet.connect(alice.uri)

    assert lonely.hop.closes() == [(puppet.link, Code.ROUTE_UNKNOWN)]
    assert lonely.hop.closed is None


def test_a_credential_that_cannot_be_renewed_serves_until_it_ends(
    lonely: Lonely, alice: Session
) -> None:
    registry = lonely.router.agents
    unix_s = lonely.network.clock.unix_s()

    def damaged(name: str, _: Any) -> None:
        raise IdentityError(Code.CONFIG_KEYSTORE_DAMAGED, f"the row {name}")

    registry.keystore.load = damaged

    assert registry.find(alice.agent.uri, unix_s + 0.6 * DAY_S) is alice.agent
    assert registry.find(alice.agent.uri, unix_s + DAY_S) is None


def test_a_grant_for_a_link_that_is_gone_is_dropped(lonely: Lonely) -> None:
    lonely.receive((5, FrameKind.CREDIT, encode_credit(Credit(0, 1 << 20))))
    lonely.receive((5, FrameKind.CREDIT, encode_credit(Credit(9, 1 << 20))))

    assert lonely.hop.closed is None


def test_an_expired_peer_is_heard_no_more(lonely: Lonely, alice: Session) -> None:
    puppet = connected(lonely, alice)
    lonely.network.clock.advance(DAY_S)
    puppet.say(Ask(1, b"still here", "", 1_000))

    assert alice.frames == []


def test_what_a_lost_hop_carried_is_forgotten(lonely: Lonely, alice: Session) -> None:
    connected(lonely, alice)
    alice.tell("agent://acme/beta/bob")
    lonely.lose_hop()
    assert lonely.router.channels.paths.parked == 1

    lonely.network.run_for(PARKED_SECONDS_MAX + 1)

    assert len(lonely.router.channels) == 0
    assert lonely.router.channels.paths.parked == 0
    assert alice.failures() == [(1, "message.unreachable")]
    assert alice.agent.users == 1
