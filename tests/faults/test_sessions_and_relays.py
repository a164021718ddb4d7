"""Faults of sessions and relays that others shipped; the sentence before each is what went wrong.

Each test goes the way of the fault at the most real level that costs little. The other seven of the
twelve stand in test_identities.
"""

from contextlib import closing
from types import SimpleNamespace
from typing import Any, Final

import pytest
from sidelink import wire

from channel import ChannelClosed, ChannelState, Part, RecordType
from channel.wire import RecordHeader, encode_header
from gateway.program import Gateway
from identity import AgentUri, Code
from link import FrameError, FrameKind, FrameParser, PrefixEpoch, encode_frame
from link.messages import (
    decode_link_open_untrusted,
    decode_prefix_epoch_untrusted,
    encode_prefix,
    encode_prefix_epoch,
)
from sidecar.envelope import Ask, Reply, Tell
from tests.channel.helpers import ChannelPair, carry, deliver, records_of
from tests.fuzz.loops import VirtualLoop
from tests.fuzz.sidecar_people import FuzzedSidecar
from tests.gateway.helpers import BOB, FakeHop, Switchboard, opening, prefix
from tests.sidecar.router_helpers import Lonely, Puppet
from tests.simulation.mesh import Session
from tests.simulation.people import node

FLAGS: Final = (0, *(1 << bit for bit in range(8)), 0xFF)


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


# 1. A flag that the sender set chose the unencrypted path.


@pytest.mark.parametrize("flags", FLAGS)
def test_no_flag_makes_a_record_be_read_that_is_not_sealed(flags: int) -> None:
    pair = ChannelPair.open()
    header = encode_header(RecordHeader(RecordType.DATA, 0, 0, 0))
    forged = header[:1] + bytes([flags]) + header[2:] + b"in the clear, and long enough"

    events = pair.bob.receive(Part.RECORD, forged, 1.0)

    assert [type(event) for event in events] == [ChannelClosed]
    assert pair.bob.state is ChannelState.CLOSED


@pytest.mark.parametrize("flags", FLAGS[1:])
def test_no_frame_has_a_flag(flags: int) -> None:
    frame = bytearray(encode_frame(1, FrameKind.RECORD, bytes(40)))
    frame[5] = flags

    with pytest.raises(FrameError) as caught:
        FrameParser().feed_untrusted(bytes(frame))
    assert caught.value.code is Code.HOP_BAD_FRAME


# 2. One bad frame reopened a session in plaintext.


def test_behind_a_bad_record_nothing_is_read_any_more_sealed_or_not() -> None:
    pair = ChannelPair.open()
    pair.alice.send(b"sealed", now_s=1.0)
    [good] = records_of(pair.alice)
    pair.bob.receive(Part.RECORD, bytes(64), 1.0)
    assert pair.bob.state is ChannelState.CLOSED

    heard = deliver(pair.bob, [(Part.RECORD, good), (Part.RECORD, b"plain" * 20)])

    assert heard == []
    assert pair.bob._session is None, "keys outlive their channel"


def test_a_link_whose_channel_has_ended_brings_nobody_anything(
    lonely: Lonely, alice: Session
) -> None:
    puppet = connected(lonely, alice)
    puppet.say(Tell(2, b"first", ""))
    lonely.receive((puppet.link, FrameKind.RECORD, bytes(64)))
    puppet.say(Tell(4, b"sealed", ""))
    lonely.receive((puppet.link, FrameKind.RECORD, b"plain" * 20))

    assert alice.bodies() == [b"first"]
    assert len(lonely.router.channels) == 0


# 3. The relay did not bind `from` to the connection.


def test_a_gateway_opens_no_link_for_a_source_that_is_not_its_nodes() -> None:
    board = Switchboard()

    board.open(board.alpha, 1, source=AgentUri.parse(BOB))

    assert board.alpha.closes() == [(1, Code.ROUTE_SOURCE_DENIED)]
    assert board.beta.of(FrameKind.LINK_OPEN) == []


def test_a_gateway_says_itself_who_opened_and_takes_nobodys_word_for_it() -> None:
    board = Switchboard()
    board.open(board.alpha, 1)
    board.receive(
        board.alpha, 2, FrameKind.LINK_OPEN, opening(source_node=board.beta.peer.identifier)
    )

    [passed_on] = board.beta.of(FrameKind.LINK_OPEN)
    told = decode_link_open_untrusted(passed_on.body)
    assert told.source_node == board.alpha.peer.identifier
    assert board.alpha.closed is Code.HOP_BAD_FRAME


def test_the_sender_that_a_receiver_sees_is_the_one_that_was_proved(
    lonely: Lonely, alice: Session
) -> None:
    puppet = Puppet(lonely)
    puppet.connect(alice.uri, source=AgentUri.parse("agent://acme/beta/boss"))
    [closed] = puppet.of(ChannelClosed)
    assert closed.code is Code.CHANNEL_WRONG_NAME
    connected(lonely, alice).say(Tell(2, b"hello", ""))

    [delivered] = alice.of(wire.Deliver)
    assert delivered.sender == puppet.uri


# 4. Any peer could acknowledge, and so delete, another's stored message.


def test_only_the_agent_that_got_a_message_settles_it(lonely: Lonely, alice: Session) -> None:
    carol = lonely.sidecar.new_session("carol")
    carol.listen()
    puppet = connected(lonely, alice)
    puppet.say(Ask(1, b"which", "", 30_000))
    [delivered] = alice.of(wire.Deliver)

    settled = carol.answer(delivered.delivery, b"forged"), carol.refuse(delivered.delivery, "no")
    puppet.exchange()
    assert settled == (False, False)
    assert puppet.heard() == []
    alice.answer(delivered.delivery, b"true")
    puppet.exchange()

    assert [reply.body for reply in puppet.heard() if isinstance(reply, Reply)] == [b"true"]


def test_what_one_channel_acknowledges_stays_unacknowledged_on_another() -> None:
    mine, others = ChannelPair.open(), ChannelPair.open()
    for pair in (mine, others):
        pair.alice.send(b"keep this", now_s=1.0)
    carry(others.alice, others.bob)
    others.bob.handle_deadline(10.0)
    [(part, acknowledgement)] = others.bob.take_output()
    [_under_way] = mine.alice.take_output()
    mine.alice.receive(part, acknowledgement, 10.0)

    assert mine.alice.awaits_acknowledgement
    assert not others.alice.receive(part, acknowledgement, 10.0)
    assert not others.alice.awaits_acknowledgement


# 5. A displaced connection closed with a normal code.


def test_a_node_whose_prefix_is_taken_is_told_so_and_by_whom_it_is_overtaken() -> None:
    board = Switchboard()

    board.receive(board.beta, 0, FrameKind.REGISTER, encode_prefix(prefix("beta")))
    twin = board.hop("beta")
    board.receive(twin, 0, FrameKind.REGISTER, encode_prefix(prefix("beta")))

    [told] = board.beta.of(FrameKind.DISPLACED)
    [registered] = twin.of(FrameKind.REGISTERED)
    assert told.body == registered.body
    assert decode_prefix_epoch_untrusted(told.body).epoch > 1
    assert board.beta.closed is None


def test_a_displaced_sidecar_names_it_and_does_not_register_again_by_itself() -> None:
    sidecar = FuzzedSidecar()
    [own] = sidecar.sidecar.node.prefixes
    sent_before = len(sidecar.hop.sent)
    with closing(VirtualLoop()) as loop:
        sidecar.use_loop(loop)
        sidecar.receive((0, FrameKind.DISPLACED, encode_prefix_epoch(PrefixEpoch(own, 7))))
        sidecar.pass_time(600.0)

    assert sidecar.uplink.displaced == [str(own)]
    kinds = [frame.kind for frame in sidecar.hop.sent[sent_before:]]
    assert FrameKind.REGISTER not in kinds


def test_a_hop_that_a_later_one_replaces_does_not_end_as_if_all_were_well() -> None:
    gateway: Any = SimpleNamespace(_members={})
    older, newer = (FakeHop(number, node("alpha").peer) for number in (1, 2))
    for hop, epoch in ((older, 4), (newer, 5)):
        hop.peer_epoch = epoch  # type: ignore[attr-defined]
        assert Gateway._takes_the_place_of_another(gateway, hop)  # type: ignore[arg-type]

    assert older.closed is Code.HOP_SUPERSEDED
    assert newer.closed is None
    assert not Gateway._takes_the_place_of_another(gateway, older)  # type: ignore[arg-type]
