"""The relay: who may open, register and forward what; each refusal with its code."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.hops import LINKS_PER_ENROLMENT_MAX
from identity import AgentUri, Code
from link import Credit, Frame, FrameKind
from link.limits import (
    ACCEPTOR_LINK_BIT,
    NOISE_1_BYTES_MAX,
)
from link.messages import (
    decode_link_open_untrusted,
    decode_prefix_epoch_untrusted,
    decode_restarting_untrusted,
    encode_code,
    encode_credit,
    encode_prefix,
)
from policy import Action, Denial
from tests.gateway.helpers import ALICE, BOB, FakeHop, Switchboard, opening, prefix
from tests.simulation.people import authority_node, node, stranger

AUTHORITY = authority_node().own.identifier
STRANGER = stranger().own.identifier
RECORD = bytes(1_000)


@pytest.fixture
def board() -> Switchboard:
    return Switchboard()


def test_a_link_is_opened_where_its_target_is_registered_and_its_source_is_attested(
    board: Switchboard,
) -> None:
    board.open(board.alpha)

    [frame] = board.beta.of(FrameKind.LINK_OPEN)
    attested = decode_link_open_untrusted(frame.body)
    assert frame.link == ACCEPTOR_LINK_BIT | 1
    assert attested.source_node == board.alpha.peer.identifier
    assert (str(attested.source), str(attested.target)) == (ALICE, BOB)
    assert attested.noise_1 == b"noise"


def test_frames_pass_both_ways_under_the_numbers_of_each_hop(board: Switchboard) -> None:
    there = board.join(link=5)
    board.receive(board.alpha, 5, FrameKind.RECORD, RECORD)
    board.receive(board.beta, there, FrameKind.RECORD, RECORD + b"back")

    assert board.beta.of(FrameKind.RECORD) == [Frame(there, FrameKind.RECORD, RECORD)]
    assert board.alpha.of(FrameKind.RECORD) == [Frame(5, FrameKind.RECORD, RECORD + b"back")]
    assert len(board.observed) == board.relay.counters.frames == 5


def test_the_longest_registered_prefix_takes_the_link(board: Switchboard) -> None:
    elsewhere = AgentUri.parse("agent://acme/betamax/bob")
    board.open(board.alpha, target=elsewhere)

    assert board.alpha.closes() == [(1, Code.ROUTE_UNKNOWN)]


# Openings that are refused: the link closes with a code, the hop lives on.
REFUSED: dict[str, tuple[str, dict[str, Any], Code]] = {
    "a target that nobody serves": (
        "alpha",
        {"target": AgentUri.parse("agent://acme/gamma/x")},
        Code.ROUTE_UNKNOWN,
    ),
    "a target of another trust domain": (
        "alpha",
        {"target": AgentUri.parse("agent://globex/beta/bob")},
        Code.ROUTE_UNKNOWN,
    ),
    "a source below another node's prefix": (
        "alpha",
        {"source": AgentUri.parse("agent://acme/beta/bob")},
        Code.ROUTE_SOURCE_DENIED,
    ),
    "a source that only begins like the prefix": (
        "alpha",
        {"source": AgentUri.parse("agent://acme/alphabet/x")},
        Code.ROUTE_SOURCE_DENIED,
    ),
    "a source of the same path in another trust domain": (
        "alpha",
        {"source": AgentUri.parse("agent://globex/alpha/alice")},
        Code.ROUTE_SOURCE_DENIED,
    ),
    "the identifier of another node as source": (
        "alpha",
        {"source": STRANGER, "target": AUTHORITY},
        Code.ROUTE_SOURCE_DENIED,
    ),
    "an authority that is not here": (
        "alpha",
        {"source": node("alpha").own.identifier, "target": AUTHORITY},
        Code.ENROL_AUTHORITY_UNREACHABLE,
    ),
    "a stranger who asks for an agent": (
        "stranger",
        {"source": STRANGER},
        Code.HOP_ENROLMENT_ONLY,
    ),
    "a stranger who speaks as an agent": ("stranger", {}, Code.ROUTE_SOURCE_DENIED),
    "a stranger who asks for another node": (
        "stranger",
        {"source": STRANGER, "target": node("beta").own.identifier},
        Code.ENROL_AUTHORITY_UNREACHABLE,
    ),
}


@pytest.mark.parametrize(("who", "changes", "code"), REFUSED.values(), ids=REFUSED)
def test_a_link_is_refused_for(
    board: Switchboard, who: str, changes: dict[str, Any], code: Code
) -> None:
    hop = board.alpha if who == "alpha" else board.hop(who)
    board.open(hop, **changes)

    assert hop.closes() == [(1, code)]
    assert hop.closed is None
    assert board.beta.sent == []
    assert board.relay.counters.refused == {code: 1}
    assert board.relay.links == 0


# What costs the hop: the node broke the protocol.
VIOLATIONS: dict[str, tuple[list[tuple[int, int, bytes]], Code]] = {
    "a source that the node attests itself": (
        [(1, FrameKind.LINK_OPEN, opening(source_node=AUTHORITY))],
        Code.HOP_BAD_FRAME,
    ),
    "a link of the gateway's parity": (
        [(ACCEPTOR_LINK_BIT | 1, FrameKind.LINK_OPEN, opening())],
        Code.HOP_BAD_FRAME,
    ),
    "link zero": ([(0, FrameKind.LINK_OPEN, opening())], Code.HOP_BAD_FRAME),
    "a link that is used again": (
        [
            (1, FrameKind.LINK_OPEN, opening()),
            (1, FrameKind.LINK_CLOSE, encode_code(Code.CHANNEL_CLOSED)),
            (1, FrameKind.LINK_OPEN, opening()),
        ],
        Code.HOP_BAD_FRAME,
    ),
    "a link that was passed over": (
        [(5, FrameKind.LINK_OPEN, opening()), (1, FrameKind.LINK_OPEN, opening())],
        Code.HOP_BAD_FRAME,
    ),
    "a malformed opening": ([(1, FrameKind.LINK_OPEN, b"\x80")], Code.HOP_BAD_FRAME),
    "a close without its code": (
        [(1, FrameKind.LINK_OPEN, opening()), (1, FrameKind.LINK_CLOSE, b"")],
        Code.HOP_BAD_FRAME,
    ),
    "a malformed grant": ([(1, FrameKind.CREDIT, bytes(15))], Code.HOP_BAD_FRAME),
    "a registration outside the credential": (
        [(0, FrameKind.REGISTER, encode_prefix(prefix("beta")))],
        Code.ROUTE_PREFIX_DENIED,
    ),
    "a registration of more than the credential's prefix": (
        [(0, FrameKind.REGISTER, encode_prefix(type(prefix("x"))("acme", ())))],
        Code.ROUTE_PREFIX_DENIED,
    ),
    "a malformed registration": ([(0, FrameKind.REGISTER, b"\xff")], Code.HOP_BAD_FRAME),
    "a malformed withdrawal": ([(0, FrameKind.UNREGISTER, b"")], Code.HOP_BAD_FRAME),
    "a frame that only a gateway sends": (
        [(0, FrameKind.REGISTERED, b"")],
        Code.HOP_BAD_FRAME,
    ),
    "a handshake frame of a hop": ([(0, FrameKind.HOP_HELLO, b"")], Code.HOP_BAD_FRAME),
}


@pytest.mark.parametrize(("frames", "code"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_hop_is_closed_for(
    board: Switchboard, frames: list[tuple[int, int, bytes]], code: Code
) -> None:
    board.relay.frames_received(board.alpha, [Frame(*frame) for frame in frames], 0.0)

    assert board.alpha.closed is code
    assert board.beta.closed is None
    assert board.relay.counters.refused[code] == 1


def test_nothing_behind_a_violation_is_read(board: Switchboard) -> None:
    board.relay.frames_received(
        board.alpha,
        [Frame(0, FrameKind.REGISTERED, b""), Frame(1, FrameKind.LINK_OPEN, opening())],
        0.0,
    )

    assert board.beta.sent == []


def test_link_numbers_rise_on_each_lane_for_itself(board: Switchboard) -> None:
    for link in (6, 5, 8, 7, 9):
        board.open(board.alpha, link)

    assert board.alpha.closed is None
    assert board.relay.links == 5


def test_a_stranger_reaches_the_authority_and_nobody_learns_what_they_say(
    board: Switchboard,
) -> None:
    authority, newcomer = board.hop("authority"), board.hop("stranger")
    board.open(newcomer, source=STRANGER, target=AUTHORITY)

    [frame] = authority.of(FrameKind.LINK_OPEN)
    assert decode_link_open_untrusted(frame.body).source_node == STRANGER
    assert newcomer.closes() == []


def test_a_stranger_has_few_links_at_once(board: Switchboard) -> None:
    board.hop("authority")
    newcomer = board.hop("stranger")
    for link in range(1, LINKS_PER_ENROLMENT_MAX + 2):
        board.open(newcomer, link, source=STRANGER, target=AUTHORITY)

    assert newcomer.closes() == [(LINKS_PER_ENROLMENT_MAX + 1, Code.ROUTE_LINK_LIMIT)]


def test_a_stranger_cannot_register(board: Switchboard) -> None:
    newcomer = board.hop("stranger")
    board.receive(newcomer, 0, FrameKind.REGISTER, encode_prefix(prefix("alpha")))

    assert newcomer.closed is Code.ROUTE_PREFIX_DENIED
    assert [route.hop for route in board.relay.directory.routes()] == [1, 2]


def test_links_beyond_what_the_far_hop_takes_are_refused() -> None:
    board = Switchboard(links_max=2)
    for link in (1, 2, 3):
        board.open(board.alpha, link)

    assert board.alpha.closes() == [(3, Code.ROUTE_LINK_LIMIT)]


def test_a_far_hop_without_numbers_left_refuses_the_link_and_costs_nobody_a_hop(
    board: Switchboard,
) -> None:
    board.relay.hops[board.beta.id].ids._next = 1 << 32
    board.open(board.alpha)

    assert board.alpha.closes() == [(1, Code.ROUTE_LINK_LIMIT)]
    assert board.alpha.closed is None


def test_the_largest_opening_is_relayed(board: Switchboard) -> None:
    board.open(board.alpha, noise_1=bytes(NOISE_1_BYTES_MAX))

    assert board.alpha.closed is None
    assert len(board.beta.of(FrameKind.LINK_OPEN)) == 1


@pytest.mark.parametrize("action", [Action.LINK_RELAY, Action.ROUTE_REGISTER])
def test_without_a_permit_nothing_is_relayed_or_registered(
    board: Switchboard, action: Action
) -> None:
    board.decisions.denied.add(action)
    board.observed.clear()
    board.receive(board.alpha, 0, FrameKind.REGISTER, encode_prefix(prefix("alpha")))
    board.open(board.alpha)

    if action is Action.LINK_RELAY:
        assert board.alpha.closes() == [(1, Code.ROUTE_DENIED)]
    else:
        assert board.alpha.closed is Code.ROUTE_PREFIX_DENIED
    assert board.observed == [] or action is not Action.LINK_RELAY


@settings(max_examples=40)
@given(st.data())
def test_monkeys_on_every_hop_get_nothing_forwarded_that_was_not_permitted(
    data: st.DataObject,
) -> None:
    """Frames at random under decisions at random: what the relay observes is joined by a Permit,
    and the decisions that denied are never followed by a frame."""
    board = Switchboard()
    hops = [board.alpha, board.beta, board.hop("gamma"), board.hop("stranger")]
    board.observed.clear()
    allow = {"is": False}
    decide = board.decisions._decide

    def sometimes(*args: Any) -> Any:
        if allow["is"]:
            return decide(*args)
        return Denial(Code.POLICY_DENIED, None, "", "", "")

    board.decisions._decide = sometimes  # type: ignore[method-assign]
    kinds = st.sampled_from([int(kind) for kind in FrameKind])
    bodies = st.sampled_from(
        (
            b"",
            RECORD,
            opening(),
            encode_code(Code.CHANNEL_CLOSED),
            encode_credit(Credit(0, 1 << 40)),
        )
    )
    for _ in range(data.draw(st.integers(1, 30))):
        allow["is"] = data.draw(st.booleans())
        opened = board.relay.counters.links_opened
        permits = len(board.decisions.permits)
        hop = data.draw(st.sampled_from(hops))
        if hop.closed is None:
            board.receive(hop, data.draw(st.integers(0, 9)), data.draw(kinds), data.draw(bodies))
        if board.relay.counters.links_opened > opened:
            assert allow["is"]
            assert len(board.decisions.permits) > permits
    if board.relay.counters.links_opened == 0:
        assert board.observed == []


def test_a_permit_for_something_else_forwards_nothing(board: Switchboard) -> None:
    """The way through takes a Permit for this very action, not any Permit."""
    other = board.decisions.may_register(board.alpha, prefix("alpha"))
    board.decisions.may_relay = lambda *_: other  # type: ignore[method-assign]

    with pytest.raises(PermissionError):
        board.open(board.alpha)
    assert board.beta.sent == []


def test_frames_of_a_link_that_is_gone_are_dropped_without_blame(board: Switchboard) -> None:
    there = board.join()
    board.receive(board.beta, there, FrameKind.LINK_CLOSE, encode_code(Code.CHANNEL_CLOSED))
    observed = len(board.observed)
    for kind, body in (
        (FrameKind.RECORD, RECORD),
        (FrameKind.LINK_FINISH, b"3"),
        (FrameKind.LINK_CLOSE, encode_code(Code.CHANNEL_CLOSED)),
        (FrameKind.CREDIT, encode_credit(Credit(0, 1 << 30))),
    ):
        board.receive(board.alpha, 1, kind, body)

    assert board.alpha.closes() == [(1, Code.CHANNEL_CLOSED)]
    assert board.alpha.closed is None
    assert len(board.observed) == observed


def test_the_far_ends_of_a_lost_hop_are_told_that_it_is_unreachable(board: Switchboard) -> None:
    gamma = board.hop("gamma")
    board.receive(gamma, 0, FrameKind.REGISTER, encode_prefix(prefix("gamma")))
    board.open(board.alpha, 1)
    board.open(board.alpha, 2, target=AgentUri.parse("agent://acme/gamma/x"))
    board.open(board.alpha, 3)
    board.lose(board.beta)

    assert board.alpha.closes() == [
        (1, Code.ROUTE_UNREACHABLE),
        (3, Code.ROUTE_UNREACHABLE),
    ]
    assert gamma.closes() == []
    board.open(board.alpha, 4)
    assert board.alpha.closes()[-1] == (4, Code.ROUTE_UNKNOWN)


def test_a_link_between_two_agents_of_one_hop_goes_when_the_hop_goes(board: Switchboard) -> None:
    board.open(board.alpha, target=AgentUri.parse(ALICE))
    assert board.relay.links == 1
    board.lose(board.alpha)
    board.lose(board.beta)

    assert board.is_empty()


def test_a_later_registration_displaces_the_former_and_links_stay(board: Switchboard) -> None:
    there = board.join()
    second = board.hop("beta")
    board.receive(second, 0, FrameKind.REGISTER, encode_prefix(prefix("beta")))

    [told] = second.of(FrameKind.REGISTERED)
    [displaced] = board.beta.of(FrameKind.DISPLACED)
    assert told.body == displaced.body
    assert decode_prefix_epoch_untrusted(told.body).epoch == 2
    board.receive(board.alpha, 1, FrameKind.RECORD, RECORD)
    assert board.beta.of(FrameKind.RECORD)[-1].link == there
    board.open(board.alpha, 2)
    assert len(second.of(FrameKind.LINK_OPEN)) == 1
    board.receive(board.beta, 0, FrameKind.UNREGISTER, encode_prefix(prefix("beta")))
    board.lose(board.beta)
    board.open(board.alpha, 3)
    assert len(second.of(FrameKind.LINK_OPEN)) == 2


def test_an_authority_that_came_back_is_found_when_its_old_hop_goes(board: Switchboard) -> None:
    old = board.hop("authority")
    new = board.hop("authority")
    board.lose(old)
    board.open(board.alpha, source=board.alpha.peer.identifier, target=AUTHORITY)

    assert len(new.of(FrameKind.LINK_OPEN)) == 1


def test_an_authority_has_no_names_to_speak_as(board: Switchboard) -> None:
    authority = board.hop("authority")
    board.open(authority)

    assert authority.closes() == [(1, Code.ROUTE_SOURCE_DENIED)]


def test_a_restart_is_announced_on_every_hop(board: Switchboard) -> None:
    board.relay.drain(500)

    for hop in (board.alpha, board.beta):
        assert decode_restarting_untrusted(hop.of(FrameKind.RESTARTING)[0].body) == 500


def test_frames_of_a_hop_that_is_not_admitted_are_ignored(board: Switchboard) -> None:
    board.lose(board.alpha)
    board.open(board.alpha)

    assert board.beta.sent == []


def test_a_relay_whose_hops_are_gone_holds_nothing() -> None:
    board = Switchboard()
    authority, newcomer = board.hop("authority"), board.hop("stranger")
    board.open(newcomer, source=STRANGER, target=AUTHORITY)
    for link in range(1, 9):
        board.open(board.alpha, link)
    hops: list[FakeHop] = [board.beta, newcomer, board.alpha, authority]
    for hop in hops:
        board.lose(hop)
        board.lose(hop)

    assert board.is_empty()
