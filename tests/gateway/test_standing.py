"""Another policy comes into force at a gateway: registrations and links that it denies end."""

from dataclasses import dataclass, field

import pytest

from gateway.standing import Standing
from identity import AgentUri, Code, Identifier, NamePrefix
from link import FrameKind, HopPort, StreamPreamble
from link.limits import RECORD_BODY_BYTES_MIN
from link.messages import encode_prefix, encode_stream_preamble
from policy import Action, Denial, Permit
from tests.gateway.helpers import BOB, FakeHop, Switchboard, prefix

DENIED = Denial(Code.POLICY_DENIED, "a rule", "for the test", "1", "2")


@dataclass
class Again:
    """Fits StandingDecisions: yes to all but what is named."""

    board: Switchboard
    denied: set[Action] = field(default_factory=set)
    denied_to: object = None
    asked: list[object] = field(default_factory=list)

    def register_again(self, hop: HopPort, prefix: NamePrefix) -> Permit | Denial:
        self.asked.append(str(prefix))
        if Action.ROUTE_REGISTER in self.denied and hop is self.denied_to:
            return DENIED
        return self.board.decisions.may_register(hop, prefix)

    def relay_again(
        self, source: HopPort, target: HopPort, to: AgentUri | Identifier
    ) -> Permit | Denial:
        self.asked.append(str(to))
        if Action.LINK_RELAY in self.denied:
            return DENIED
        return self.board.decisions.may_relay(source, target, to)


@pytest.fixture
def board() -> Switchboard:
    return Switchboard()


def change(board: Switchboard, *denied: Action, to: FakeHop | None = None) -> Again:
    again = Again(board, set(denied), to)
    standing = Standing(board.relay, board.streams, again)
    standing.policy_changed()
    while standing.ask_next():
        pass
    return again


def test_each_registration_and_each_link_is_asked_about_once(board: Switchboard) -> None:
    board.join()
    again = change(board)

    assert sorted(map(str, again.asked)) == ["agent://acme/alpha", "agent://acme/beta", BOB]


def test_what_policy_allows_goes_on_under_the_permit_of_now(board: Switchboard) -> None:
    there = board.join()
    [link] = board.relay.live_links()
    before = link.permit
    change(board)
    board.receive(board.alpha, 1, FrameKind.RECORD, bytes(RECORD_BODY_BYTES_MIN))

    assert link.permit is not before
    assert board.beta.of(FrameKind.RECORD)[0].link == there
    assert board.alpha.closed is board.beta.closed is None


def test_a_link_that_policy_denies_is_closed_at_both_ends(board: Switchboard) -> None:
    there = board.join()
    change(board, Action.LINK_RELAY)
    board.receive(board.alpha, 1, FrameKind.RECORD, bytes(RECORD_BODY_BYTES_MIN))

    assert board.alpha.closes() == [(1, Code.ROUTE_DENIED)]
    assert board.beta.closes() == [(there, Code.ROUTE_DENIED)]
    assert board.beta.of(FrameKind.RECORD) == []
    assert board.relay.links == 0
    assert board.alpha.closed is board.beta.closed is None


def test_streams_of_a_link_that_policy_denies_end_though_they_are_silent(
    board: Switchboard,
) -> None:
    board.join()
    board.join(2)
    for link, stream in ((1, 20), (2, 24)):
        board.streams.received(
            board.alpha, stream, encode_stream_preamble(StreamPreamble(link, 3)), False
        )
    before = len(board.streams)
    change(board, Action.LINK_RELAY)

    assert before == 2
    assert board.alpha.reset == {20: int(Code.ROUTE_DENIED), 24: int(Code.ROUTE_DENIED)}
    assert set(board.beta.reset.values()) == {int(Code.ROUTE_DENIED)}
    assert len(board.streams) == 0


def test_nothing_is_relayed_on_a_denied_link_that_was_not_reached(board: Switchboard) -> None:
    there = board.join()
    again = Again(board, {Action.LINK_RELAY})
    Standing(board.relay, board.streams, again).policy_changed()
    board.receive(board.beta, there, FrameKind.RECORD, bytes(RECORD_BODY_BYTES_MIN))

    assert board.alpha.of(FrameKind.RECORD) == []
    assert board.alpha.closes() == [(1, Code.ROUTE_DENIED)]
    assert board.beta.closes() == [(there, Code.ROUTE_DENIED)]
    assert board.alpha.closed is board.beta.closed is None


def test_no_byte_of_a_stream_is_relayed_on_a_denied_link_that_was_not_reached(
    board: Switchboard,
) -> None:
    board.join()
    preamble = encode_stream_preamble(StreamPreamble(1, 3))
    board.streams.received(board.alpha, 20, preamble, False)
    before = {stream: bytes(data) for stream, data in board.beta.streams.items()}
    Standing(board.relay, board.streams, Again(board, {Action.LINK_RELAY})).policy_changed()
    board.streams.received(board.alpha, 20, b"more", False)
    board.streams.received(board.alpha, 24, preamble, False)

    assert {stream: bytes(data) for stream, data in board.beta.streams.items()} == before
    assert board.alpha.reset == {20: int(Code.ROUTE_DENIED), 24: int(Code.ROUTE_LINK_CLOSED)}
    assert len(board.streams) == 0


def test_a_link_that_is_asked_about_in_between_is_asked_about_once(board: Switchboard) -> None:
    board.join()
    again = Again(board)
    standing = Standing(board.relay, board.streams, again)
    standing.policy_changed()
    for _ in range(3):
        board.receive(board.alpha, 1, FrameKind.RECORD, bytes(RECORD_BODY_BYTES_MIN))
    while standing.ask_next():
        pass

    assert again.asked.count(BOB) == 1
    assert len(board.beta.of(FrameKind.RECORD)) == 3


def test_a_node_that_may_not_have_its_prefix_any_more_loses_its_hop(board: Switchboard) -> None:
    change(board, Action.ROUTE_REGISTER, to=board.alpha)

    assert board.alpha.closed is Code.ROUTE_PREFIX_DENIED
    assert board.beta.closed is None
    assert [str(route.prefix) for route in board.relay.directory.routes()] == ["agent://acme/beta"]


def test_a_registration_that_another_has_displaced_meanwhile_is_not_asked_about(
    board: Switchboard,
) -> None:
    again = Again(board, {Action.ROUTE_REGISTER}, board.alpha)
    standing = Standing(board.relay, board.streams, again)
    standing.policy_changed()
    second = board.hop("alpha")
    board.receive(second, 0, FrameKind.REGISTER, encode_prefix(prefix("alpha")))
    while standing.ask_next():
        pass

    assert board.alpha.closed is second.closed is None
    assert again.asked == ["agent://acme/beta"]


def test_what_has_ended_meanwhile_is_not_asked_about(board: Switchboard) -> None:
    board.join()
    again = Again(board, {Action.LINK_RELAY})
    standing = Standing(board.relay, board.streams, again)
    standing.policy_changed()
    board.lose(board.alpha)
    board.lose(board.beta)
    while standing.ask_next():
        pass

    assert again.asked == []
    assert board.is_empty()
