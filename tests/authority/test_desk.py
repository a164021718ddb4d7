"""The desk: one question, one answer; garbage, crowds and idlers cost it nothing for long."""

from typing import Any

import pytest

from authority import desk as desk_module
from authority.desk import CHANNEL_SECONDS_MAX, CHANNELS_PER_NODE_MAX
from channel import ChannelClosed, ChannelDenied, ChannelOpened, DataReceived
from identity import AgentUri, Code, Identifier
from link import FrameKind
from link.messages import encode_code
from node.enrolment_wire import (
    EnrolGrant,
    EnrolRefusal,
    EnrolRequest,
    RenewRequest,
    TokenRequest,
    decode_answer_untrusted,
    encode_refusal,
    encode_request,
)
from tests.authority.helpers import DeskUnderTest, Visitor
from tests.simulation.people import node

FIRST = (1 << 31) | 1


def question(visitor: Visitor, code: bytes) -> bytes:
    return encode_request(EnrolRequest(code, visitor.own.history.encode()))


def answers(visitor: Visitor) -> list[Any]:
    return [decode_answer_untrusted(event.data) for event in visitor.of(DataReceived)]


def inside(at: DeskUnderTest, link: int = FIRST, who: Any = None) -> Visitor:
    visitor = Visitor(at, link, who)
    visitor.knock()
    visitor.exchange()
    assert visitor.of(ChannelOpened)
    return visitor


def test_a_stranger_with_a_ticket_is_enrolled(at: DeskUnderTest) -> None:
    visitor = inside(at)
    visitor.say(question(visitor, at.office.ticket().code))

    [grant] = answers(visitor)
    assert isinstance(grant, EnrolGrant)
    visitor.links.channel.close()
    visitor.exchange()
    assert at.desk.visits == 0


def test_a_question_may_come_right_behind_the_handshake(at: DeskUnderTest) -> None:
    visitor = Visitor(at)
    visitor.knock()
    sent = False
    while not sent:
        visitor.links.pump()
        [accept] = [f for f in at.hop.sent if f.kind == FrameKind.LINK_ACCEPT]
        visitor._read = len(at.hop.sent)
        visitor.links.receive(accept.kind, accept.body, at.clock.now_s())
        sent = True
    visitor.say(question(visitor, at.office.ticket().code))

    assert isinstance(answers(visitor)[0], EnrolGrant)


REFUSED_QUESTIONS: dict[str, tuple[bytes | None, Code]] = {
    "a code that was never given out": (None, Code.ENROL_TICKET_UNKNOWN),
    "nothing": (b"", Code.ENROL_BAD_REQUEST),
    "garbage": (b"\xff\x00garbage", Code.ENROL_BAD_REQUEST),
    "an array": (b"\x80", Code.ENROL_BAD_REQUEST),
    "a map of something else": (b"\xa1\x01\x02", Code.ENROL_BAD_REQUEST),
    "depth without end": (b"\x81" * 5_000, Code.ENROL_BAD_REQUEST),
}


@pytest.mark.parametrize(("data", "code"), REFUSED_QUESTIONS.values(), ids=REFUSED_QUESTIONS)
def test_an_answer_in_words_is_given_to(at: DeskUnderTest, data: bytes | None, code: Code) -> None:
    visitor = inside(at)
    visitor.say(question(visitor, bytes(16)) if data is None else data)

    assert answers(visitor) == [EnrolRefusal(code)]


def test_a_node_that_shows_its_credential_gets_another(at: DeskUnderTest) -> None:
    member = node("alpha")
    at.office.enrol(at.office.ticket(name="alpha").code, member.own)
    visitor = inside(at, who=member)
    visitor.say(encode_request(RenewRequest(member.own.history.encode())))

    assert isinstance(answers(visitor)[0], EnrolGrant)


def test_a_stranger_cannot_renew_what_it_has_not(at: DeskUnderTest) -> None:
    visitor = inside(at)
    visitor.say(encode_request(RenewRequest(visitor.own.history.encode())))

    assert answers(visitor) == [EnrolRefusal(Code.ENROL_NOT_A_MEMBER)]


def token_question(visitor: Visitor) -> bytes:
    return encode_request(TokenRequest("e30.e30.e30", visitor.own.history.encode()))


def test_an_answer_may_come_later(at: DeskUnderTest) -> None:
    visitor = inside(at)
    visitor.say(token_question(visitor))
    [reply] = at.waiting
    assert answers(visitor) == []
    reply(encode_refusal(EnrolRefusal(Code.ENROL_TOKEN_INVALID)))
    visitor.exchange()

    assert answers(visitor) == [EnrolRefusal(Code.ENROL_TOKEN_INVALID)]


def test_nobody_asks_again_while_an_answer_is_awaited(at: DeskUnderTest) -> None:
    visitor = inside(at)
    visitor.say(token_question(visitor))
    visitor.say(token_question(visitor))

    assert len(at.waiting) == 1
    assert visitor.of(ChannelClosed) == [ChannelClosed(Code.CHANNEL_LIMIT_EXCEEDED, sealed=True)]


LEAVINGS: dict[str, Any] = {
    "leaves": lambda at, visitor: visitor.links.channel.close(),
    "stays too long": lambda at, visitor: at.clock.advance(CHANNEL_SECONDS_MAX),
    "loses its hop": lambda at, visitor: at.desk.hop_closed(at.hop),
}


@pytest.mark.parametrize("leave", LEAVINGS.values(), ids=LEAVINGS)
def test_an_answer_for_a_visitor_does_no_harm_that(at: DeskUnderTest, leave: Any) -> None:
    visitor = inside(at)
    visitor.say(token_question(visitor))
    leave(at, visitor)
    visitor.exchange()
    at.desk.tidy()
    sent = len(at.hop.sent)
    at.waiting[0](encode_refusal(EnrolRefusal(Code.ENROL_TOKEN_INVALID)))

    assert at.desk.visits == 0
    assert len(at.hop.sent) == sent


def test_a_channel_gets_one_answer_and_no_second(at: DeskUnderTest) -> None:
    visitor = inside(at)
    visitor.say(b"first")
    visitor.say(b"second")

    assert len(answers(visitor)) == 1
    assert visitor.of(ChannelClosed) == [ChannelClosed(Code.CHANNEL_LIMIT_EXCEEDED, sealed=True)]
    assert at.desk.visits == 0


def test_who_is_denied_is_told_under_the_seal_and_gone_at_once(at: DeskUnderTest) -> None:
    at.denies = True
    visitor = Visitor(at)
    visitor.knock()
    visitor.exchange()

    [denied] = visitor.of(ChannelDenied)
    assert (denied.code, denied.rule) == (Code.POLICY_DENIED, "nobody today")
    assert at.desk.visits == 0


def test_garbage_in_place_of_a_handshake_holds_no_place(at: DeskUnderTest) -> None:
    visitor = Visitor(at)
    visitor.knock(noise_1=b"garbage")

    assert at.desk.visits == 0
    assert at.hop.closes() == [(FIRST, Code.CHANNEL_HANDSHAKE_FAILED)]
    assert at.hop.closed is None


def test_garbage_in_place_of_a_record_ends_the_visit(at: DeskUnderTest) -> None:
    visitor = inside(at)
    at.receive(FIRST, FrameKind.RECORD, bytes(100))

    assert at.desk.visits == 0
    visitor.exchange()
    assert visitor.of(ChannelClosed)


REFUSED_OPENINGS: dict[str, tuple[dict[str, Any], Code]] = {
    "another authority": ({"target": node("alpha").own.identifier}, Code.ROUTE_UNKNOWN),
    "an agent": ({"target": AgentUri.parse("agent://acme/alpha/x")}, Code.ROUTE_UNKNOWN),
    "a version to come": ({"versions": (9,)}, Code.CHANNEL_VERSION_UNSUPPORTED),
}


@pytest.mark.parametrize(("changes", "code"), REFUSED_OPENINGS.values(), ids=REFUSED_OPENINGS)
def test_a_link_is_refused_that_asks_for(
    at: DeskUnderTest, changes: dict[str, Any], code: Code
) -> None:
    Visitor(at).knock(**changes)

    assert at.hop.closes() == [(FIRST, code)]
    assert at.desk.visits == 0


def test_a_visitor_for_another_target_is_found_out_by_the_handshake(at: DeskUnderTest) -> None:
    """The target is in both prologues: who changes it on the way ends the channel."""
    visitor = Visitor(at)
    visitor.knock(nonce=bytes(16))
    visitor.exchange()

    assert visitor.of(ChannelClosed)
    assert not visitor.of(ChannelOpened)


VIOLATIONS: dict[str, tuple[int, int, bytes]] = {
    "a link of our own parity": (1, FrameKind.LINK_OPEN, b""),
    "link zero": (0, FrameKind.LINK_OPEN, b""),
    "a malformed opening": (FIRST, FrameKind.LINK_OPEN, b"\x80"),
}


@pytest.mark.parametrize("frame", VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_gateway_loses_its_hop_for(at: DeskUnderTest, frame: tuple[int, int, bytes]) -> None:
    at.receive(*frame)

    assert at.hop.closed is Code.HOP_BAD_FRAME


def test_a_link_that_was_used_costs_the_gateway_its_hop(at: DeskUnderTest) -> None:
    Visitor(at).knock()
    Visitor(at).knock()

    assert at.hop.closed is Code.HOP_BAD_FRAME


def test_a_crowd_is_turned_away_until_somebody_leaves(
    at: DeskUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "CHANNELS_MAX", 2)
    for number in range(3):
        Visitor(at, FIRST + number).knock(source_node=Identifier(bytes([number]) * 32))
    assert at.hop.closes() == [(FIRST + 2, Code.ROUTE_LINK_LIMIT)]
    at.receive(FIRST, FrameKind.LINK_CLOSE, encode_code(Code.CHANNEL_CLOSED))
    Visitor(at, FIRST + 3).knock()

    assert at.desk.visits == 2
    assert len(at.hop.closes()) == 1


def test_no_node_takes_all_the_places(at: DeskUnderTest) -> None:
    """Members may open thousands of links, and one of them could keep all others away."""
    for number in range(CHANNELS_PER_NODE_MAX + 1):
        Visitor(at, FIRST + number).knock()
    Visitor(at, FIRST + 100).knock(source_node=Identifier(bytes(32)))
    Visitor(at, FIRST + 101).knock(source_node=None)

    assert at.hop.closes() == [(FIRST + CHANNELS_PER_NODE_MAX, Code.ROUTE_LINK_LIMIT)]
    assert at.desk.visits == CHANNELS_PER_NODE_MAX + 2


def test_who_stays_too_long_is_shown_out(at: DeskUnderTest) -> None:
    visitor = inside(at)
    Visitor(at, FIRST + 1).knock()
    at.clock.advance(CHANNEL_SECONDS_MAX - 0.1)
    at.desk.tidy()
    assert at.desk.visits == 2
    at.clock.advance(0.2)
    at.desk.tidy()

    assert at.desk.visits == 0
    assert (FIRST + 1, Code.CHANNEL_TIMEOUT) in at.hop.closes()
    visitor.exchange()
    assert visitor.of(ChannelClosed) == [ChannelClosed(Code.CHANNEL_TIMEOUT, sealed=True)]


def test_visits_go_with_their_hop(at: DeskUnderTest) -> None:
    inside(at)
    at.desk.hop_closed(at.hop)
    at.receive(FIRST + 1, FrameKind.LINK_OPEN, b"\x80")

    assert at.desk.visits == 0
    assert at.hop.closed is None
