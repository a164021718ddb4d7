"""What a member with keys of its own may do to a sidecar once it has a channel there."""

import os
from typing import Any, Final

import pytest
from sidelink import wire

from channel import ChannelClosed, RecordType
from channel.wire import FLAG_MORE
from identity import AgentUri, Code
from link import FrameKind, LinkOpen
from link.limits import INITIAL_WINDOW_BYTES, LINK_WINDOW_BYTES
from link.messages import decode_credit_untrusted, encode_link_open
from sidecar import admission
from sidecar.envelope import Ask, Reject, Reply, Tell
from sidecar.inbound import DENIED_SECONDS
from sidecar.paths import HOP_QUEUE_BYTES_MAX
from sidecar.slot import DENIALS_BURST, MOVES_BURST
from tests.sidecar.router_helpers import FakeHop, Lonely, Puppet
from tests.simulation.mesh import Session
from tests.simulation.people import node

ALICE = "agent://acme/alpha/alice"


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


def end_of(puppet: Puppet) -> Code:
    [code] = [closed.code for closed in puppet.of(ChannelClosed)]
    assert isinstance(code, Code)
    return code


def test_a_yes_that_comes_when_the_peer_has_expired_fails_its_own_messages_only(
    lonely: Lonely, alice: Session
) -> None:
    """A node chooses how long its agents' credentials live, and when it answers."""
    alice.tell("agent://acme/brief/mallory", b"hello")
    puppet = Puppet(lonely, of=node("brief", lifetime_s=5))
    decide = puppet._permit

    def decide_late(peer: Any) -> Any:
        lonely.network.clock.advance(6)
        return decide(peer)

    puppet._permit = decide_late  # type: ignore[method-assign]
    puppet.respond()

    assert alice.failures() == [(1, "message.outcome_unknown")]
    assert end_of(puppet) is Code.CHANNEL_CREDENTIAL_EXPIRED
    assert len(lonely.router.channels) == 0


def test_a_close_without_a_code_costs_the_hop_and_its_channels_go_on(
    lonely: Lonely, alice: Session
) -> None:
    puppet = connected(lonely, alice)

    lonely.receive((puppet.link, FrameKind.LINK_CLOSE, b""))

    assert lonely.hop.closed is Code.HOP_BAD_FRAME
    lonely.lose_hop()
    assert lonely.router.channels.paths.parked == 1


def test_who_is_denied_without_end_does_not_fill_the_audit_log(lonely: Lonely) -> None:
    """It is bounded, so that what is written pushes out what was there."""
    quiet = lonely.sidecar.new_session("quiet", role="quiet")
    quiet.listen()
    puppet = connected(lonely, quiet)
    asked = lonely.sidecar.decisions.asked
    asked.clear()
    puppet.say(*[Ask(2 * number + 1, b"", "", 1_000) for number in range(5_000)])
    assert len(puppet.heard()) == 5_000
    assert {rejected.code for rejected in puppet.heard()} == {Code.POLICY_DENIED}  # type: ignore[union-attr]

    assert len(asked) == DENIALS_BURST + 1
    lonely.network.run_for(DENIED_SECONDS)
    puppet.say(Tell(10_002, b"allowed", ""))
    assert quiet.bodies() == [b"allowed"]


class TestWhatTheAgentsOfOneNodeMakeUsHold:
    """Each channel has its bounds; of channels there may be thousands."""

    @pytest.fixture(autouse=True)
    def little(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(admission, "HELD_BYTES_PER_NODE_MAX", 200_000)

    def test_of_messages_that_are_not_whole_is_bounded(
        self, lonely: Lonely, alice: Session
    ) -> None:
        other = connected(lonely, alice, "bob", of=node("gamma"))
        puppets = [connected(lonely, alice, f"m{number}") for number in range(5)]
        for puppet in puppets:
            begin_message(puppet)
        begin_message(other)

        assert [is_closed(puppet) for puppet in puppets] == [False] * 3 + [True] * 2
        assert not is_closed(other)

    def test_of_answers_that_they_do_not_take_is_bounded(
        self, lonely: Lonely, alice: Session
    ) -> None:
        puppets = [connected(lonely, alice, f"m{number}") for number in range(5)]
        for puppet in puppets:
            puppet.takes_credit = False
            puppet.say(*[Ask(2 * number + 1, b"", "", 60_000) for number in range(20)])
        asked = iter(alice.of(wire.Deliver))
        for puppet in puppets:
            for _ in range(20):
                alice.answer(next(asked).delivery, bytes(60_000))
            puppet.exchange()

        # A window of 1 MiB goes out on each; what is left of 1,200,000 bytes stays here.
        assert [is_closed(puppet) for puppet in puppets] == [False, True, True, True, True]

    def test_counts_no_more_when_it_is_over(self, lonely: Lonely, alice: Session) -> None:
        for number in range(5):
            puppet = connected(lonely, alice, f"m{number}")
            begin_message(puppet)
            lonely.receive((puppet.link, FrameKind.RECORD, sealed(puppet, b"", more=False)))
            assert not is_closed(puppet)
        for number in range(5):
            puppet = connected(lonely, alice, f"n{number}")
            begin_message(puppet)
            puppet.links.channel.close()
            puppet.exchange()
        begin_message(connected(lonely, alice, "last"))

        assert alice.failures() == []


def is_closed(puppet: Puppet) -> bool:
    return bool(puppet.of(ChannelClosed))


def begin_message(puppet: Puppet) -> None:
    puppet.lonely.receive((puppet.link, FrameKind.RECORD, sealed(puppet, bytes(65_000), more=True)))
    puppet.exchange()


def sealed(puppet: Puppet, data: bytes, *, more: bool) -> bytes:
    """A record that is the next of this peer's, and a fragment."""
    outgoing = puppet.links.channel._directions()[0]
    [record] = outgoing.writer.seal(RecordType.DATA, data, 1.0, FLAG_MORE if more else 0)
    outgoing.sent.add(record, RecordType.DATA)
    return record


def moved(puppet: Puppet) -> int:
    """Let a channel go on over another link. Returns how many bytes of records come again there."""
    lonely, nonce = puppet.lonely, os.urandom(16)
    move = puppet.links.channel.ask_to_move(nonce)
    link = lonely.next_link()
    opening = LinkOpen(AgentUri.parse(ALICE), puppet.agent.uri, nonce, None, b"", move=move)
    lonely.receive((link, FrameKind.LINK_OPEN, encode_link_open(opening)))
    return sum(
        len(frame.body)
        for frame in lonely.hop.sent
        if frame.link == link and frame.kind == FrameKind.RECORD
    )


def test_a_peer_may_reject_each_tell_once(lonely: Lonely, alice: Session) -> None:
    """What it says goes on to an agent's process, which would have to be cut off at last."""
    for _ in range(3):
        alice.tell("agent://acme/beta/mallory", b"hello")
    puppet = Puppet(lonely)
    puppet.respond()
    told = puppet.heard()[0]

    puppet.say(*[Reject(told.id, Code.POLICY_DENIED, "", "no")] * 1_000)  # type: ignore[union-attr]

    assert alice.failures() == 3 * [(0, "policy.denied")]


class TestAnAgentThatReadsNoAnswers:
    """Else what it is sent would fill its connection, which is then cut for all its agents."""

    ASKS: Final = 40
    ANSWER_BYTES: Final = 60_000

    @pytest.fixture
    def puppet(self, lonely: Lonely, alice: Session) -> Puppet:
        for _ in range(self.ASKS):
            alice.ask("agent://acme/beta/mallory", b"how much")
        puppet = Puppet(lonely)
        puppet.respond()
        alice.writable = False
        for asked in puppet.heard():
            puppet.say(Reply(asked.id, bytes(self.ANSWER_BYTES), ""))  # type: ignore[union-attr]
        take_credit(puppet)
        return puppet

    def answers(self, alice: Session) -> int:
        return len(alice.of(wire.Reply))

    def test_is_sent_a_window_at_most(self, puppet: Puppet, alice: Session) -> None:
        assert self.answers(alice) * self.ANSWER_BYTES <= LINK_WINDOW_BYTES

    def test_is_sent_the_rest_when_it_reads_again(self, puppet: Puppet, alice: Session) -> None:
        alice.writable = True
        puppet.lonely.router.session_writable(alice)
        take_credit(puppet)

        assert self.answers(alice) == self.ASKS

    def test_holds_nothing_back_when_it_is_gone(self, puppet: Puppet, alice: Session) -> None:
        alice.is_gone = True
        puppet.lonely.router.session_gone(alice)
        take_credit(puppet)

        assert not puppet.links.waiting_bytes


def take_credit(puppet: Puppet) -> None:
    """Send what waits, for as long as credit comes."""
    taken = 0
    while taken < len(puppet.lonely.hop.sent):
        frames, taken = puppet.lonely.hop.sent[taken:], len(puppet.lonely.hop.sent)
        for frame in frames:
            if frame.kind == FrameKind.CREDIT:
                puppet.links.credit(decode_credit_untrusted(frame.body))
        puppet.exchange()


class TestAPeerThatMovesInALoop:
    def test_makes_us_repeat_little(self, lonely: Lonely, alice: Session) -> None:
        puppet = told_much(lonely, alice)

        repeated_bytes = [moved(puppet) for _ in range(100)]

        assert 200_000 < repeated_bytes[0] <= INITIAL_WINDOW_BYTES
        assert [count for count in repeated_bytes if count] == repeated_bytes[:MOVES_BURST]
        lonely.network.run_for(2.0)
        assert moved(puppet) == repeated_bytes[0]
        assert puppet.of(ChannelClosed) == []

    def test_to_a_hop_of_which_it_takes_nothing_stays_where_it_is(
        self, lonely: Lonely, alice: Session
    ) -> None:
        puppet = told_much(lonely, alice)
        lonely.hop.queued_bytes = HOP_QUEUE_BYTES_MAX + 1

        assert moved(puppet) == 0

        assert lonely.hop.closes()[-1][1] is Code.ROUTE_LINK_LIMIT
        lonely.hop.queued_bytes = 0
        assert moved(puppet) > 0


def told_much(lonely: Lonely, alice: Session) -> Puppet:
    """A peer that has a window of records which it does not acknowledge."""
    puppet = connected(lonely, alice)
    puppet.exchange = lambda: None  # type: ignore[method-assign]
    alice.send_all([alice.new_send(wire.TELL, puppet.uri, bytes(50_000)) for _ in range(5)])
    return puppet


class _NeverWalked(dict[Any, Any]):
    def __iter__(self) -> Any:
        raise AssertionError("all channels were walked through for one frame")

    keys = values = items = __iter__


def test_a_neighbour_that_says_again_that_it_restarts_costs_no_walk(
    lonely: Lonely, alice: Session
) -> None:
    connected(lonely, alice)
    lonely.router.hop_leaving(lonely.hop)
    paths = lonely.router.channels.paths
    paths._sessions = _NeverWalked(paths._sessions)

    for _ in range(3):
        lonely.router.hop_leaving(lonely.hop)

    assert len(lonely.router.channels) == 1


def test_who_opens_direct_hops_again_and_again_puts_off_nobodys_move(
    lonely: Lonely, alice: Session
) -> None:
    connected(lonely, alice)
    lonely.lose_hop()
    lonely.hop = FakeHop(node("gw", role="gateway").peer, id=2)
    lonely.sidecar.do(lambda: lonely.router.hop_opened(lonely.hop))
    for number in range(6):
        other: Any = FakeHop(node("gamma").peer, id=10 + number, is_dialler=False)
        lonely.router.hop_opened(other, direct=True)
        lonely.network.run_for(0.5)

    [(_, opening)] = lonely.opened_links()
    assert opening.move is not None
