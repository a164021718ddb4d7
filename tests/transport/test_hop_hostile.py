"""What a hostile or broken peer may try on a hop, each as one row."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity import Code
from link import FrameKind, encode_frame
from link.messages import HopHello, decode_hop_hello_untrusted, encode_code, encode_hop_hello
from tests.transport.helpers import Owner, make_identity, permit_for
from tests.transport.puppet import BINDING, LANE_1, ListCarrier, Puppet
from transport import limits
from transport.contract import HopPurpose
from transport.engine import Connected, StreamData, StreamReset, Terminated

BAD = Code.HOP_BAD_FRAME
RECORD = FrameKind.RECORD


def flip(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def open_then(act: Callable[[Puppet], None]) -> Callable[[Puppet], None]:
    def both(puppet: Puppet) -> None:
        puppet.open()
        act(puppet)

    return both


def finish_then(act: Callable[[Puppet], None]) -> Callable[[Puppet], None]:
    """The peer is proved and this side undecided."""

    def both(puppet: Puppet) -> None:
        puppet.owner.decide = lambda hop: None
        puppet.say_hello()
        puppet.say_finish()
        act(puppet)

    return both


def say_hello_of(**changed: object) -> Callable[[Puppet], None]:
    """A HOP_HELLO of which single fields are other than a good one's."""

    def say(puppet: Puppet) -> None:
        good = decode_hop_hello_untrusted(puppet.hello())
        fields = {name: getattr(good, name) for name in HopHello.__dataclass_fields__}
        puppet.connect()
        puppet.say_frame(FrameKind.HOP_HELLO, encode_hop_hello(HopHello(**fields | changed)))

    return say


def replay_finish(puppet: Puppet) -> None:
    puppet.owner.decide = lambda hop: None
    puppet.say_hello()
    finish = puppet.finish()
    puppet.say_frame(FrameKind.HOP_FINISH, finish)
    puppet.say_frame(FrameKind.HOP_FINISH, finish)


def say_twice_hello(puppet: Puppet) -> None:
    puppet.say_hello()
    puppet.say_frame(FrameKind.HOP_HELLO, puppet.hello())


def say_changed_finish(puppet: Puppet) -> None:
    puppet.say_hello()
    puppet.say_frame(FrameKind.HOP_FINISH, flip(puppet.finish(), -1))


def say_hello_frame(body: bytes) -> Callable[[Puppet], None]:
    def say(puppet: Puppet) -> None:
        puppet.connect()
        puppet.say_frame(FrameKind.HOP_HELLO, body)

    return say


def overtake_accept_too_much(puppet: Puppet) -> None:
    puppet.say_hello()
    puppet.say_finish()
    data = encode_frame(1, RECORD, bytes(60_000))
    for _ in range(limits.HELD_BYTES_MAX // len(data) + 1):
        puppet.say(LANE_1, data)


# What the peer does to the acceptor → why the hop ends.
AGAINST_THE_ACCEPTOR: dict[str, tuple[Callable[[Puppet], None], Code]] = {
    "speaks another ALPN": (
        lambda p: p.connect("h3"),
        Code.HOP_VERSION_UNSUPPORTED,
    ),
    "speaks no ALPN": (lambda p: p.connect(None), Code.HOP_VERSION_UNSUPPORTED),
    "sends bytes that are no frame": (
        lambda p: (p.connect(), p.say(0, b"GET / HTTP/1.1\r\n\r\n"))[0],
        BAD,
    ),
    "sends a HELLO that is no CBOR": (say_hello_frame(b"\xff" * 40), BAD),
    "sends an empty HELLO": (say_hello_frame(b""), BAD),
    "sends a HELLO of nested arrays": (say_hello_frame(b"\x81" * 5000), BAD),
    "sends the largest HELLO there is": (say_hello_frame(bytes(65_535)), BAD),
    "offers only later versions": (
        say_hello_of(versions=(2, 3)),
        Code.HOP_VERSION_UNSUPPORTED,
    ),
    "wants something unheard of": (say_hello_of(purpose="own"), BAD),
    "asks for another node": (
        say_hello_of(target=str(make_identity("x").identifier)),
        Code.HOP_WRONG_IDENTIFIER,
    ),
    "sends message 1 cut short": (say_hello_of(noise_1=bytes(100)), Code.HOP_HANDSHAKE_FAILED),
    "sends a HELLO twice": (say_twice_hello, BAD),
    "sends FINISH first": (
        lambda p: (p.connect(), p.say_frame(FrameKind.HOP_FINISH, bytes(64)))[0],
        BAD,
    ),
    "sends REPLY to the acceptor": (
        lambda p: (p.connect(), p.say_frame(FrameKind.HOP_REPLY, bytes(64)))[0],
        BAD,
    ),
    "sends ACCEPT before it is proved": (lambda p: (p.say_hello(), p.say_accept())[0], BAD),
    "replays FINISH": (replay_finish, BAD),
    "changes a bit of FINISH": (say_changed_finish, Code.HOP_HANDSHAKE_FAILED),
    "saw another certificate than ours": (
        lambda p: p.say_hello(binding=(b"x" * 32, BINDING[1])),
        Code.HOP_BINDING_MISMATCH,
    ),
    "relays the handshake of another connection": (
        lambda p: p.say_hello(binding=(BINDING[0], b"x" * 32)),
        Code.HOP_BINDING_MISMATCH,
    ),
    "changes the purpose on the way": (
        say_hello_of(purpose=HopPurpose.ENROL.value),
        Code.HOP_BINDING_MISMATCH,
    ),
    "changes the nonce on the way": (say_hello_of(nonce=bytes(16)), Code.HOP_BINDING_MISMATCH),
    "takes the target away on the way": (say_hello_of(target=""), Code.HOP_BINDING_MISMATCH),
    "adds an offered version on the way": (
        say_hello_of(versions=(1, 2)),
        Code.HOP_BINDING_MISMATCH,
    ),
    "registers before it is accepted": (
        finish_then(lambda p: p.say_frame(FrameKind.REGISTER, b"x")),
        BAD,
    ),
    "sends a record before it is accepted": (
        finish_then(lambda p: p.say_frame(RECORD, b"x", link=1, stream=LANE_1)),
        BAD,
    ),
    "sends a byte stream before it is accepted": (
        finish_then(lambda p: p.say(20, b"early")),
        BAD,
    ),
    "accepts twice": (finish_then(lambda p: (p.say_accept(), p.say_accept())[0]), BAD),
    "accepts with limits that are no map": (
        finish_then(lambda p: p.say_frame(FrameKind.HOP_ACCEPT, b"\x82\x01\x02")),
        BAD,
    ),
    "lets much overtake its ACCEPT": (overtake_accept_too_much, Code.HOP_LIMIT_EXCEEDED),
    "shakes hands again on an open hop": (open_then(lambda p: p.say_accept()), BAD),
    "sends a record on the control stream": (
        open_then(lambda p: p.say_frame(RECORD, b"x", link=1)),
        BAD,
    ),
    "sends credit on a lane": (
        open_then(lambda p: p.say_frame(FrameKind.CREDIT, bytes(16), link=1, stream=LANE_1)),
        BAD,
    ),
    "puts a link on another's lane": (
        open_then(lambda p: p.say_frame(RECORD, b"x", link=2, stream=LANE_1)),
        BAD,
    ),
    "uses link 0 on a lane": (
        open_then(lambda p: p.say_frame(RECORD, b"x", link=0, stream=4)),
        BAD,
    ),
    "opens a lane under another's number": (
        open_then(lambda p: p.say_frame(FrameKind.LANE_OPEN, link=5, stream=LANE_1)),
        BAD,
    ),
    "sets a flag": (open_then(lambda p: p.say(0, b"\0\0\0\0\x20\x01\0\0")), BAD),
    "uses a kind that is not defined": (open_then(lambda p: p.say(0, b"\0\0\0\0\x99\0\0\0")), BAD),
    "ends the control stream": (open_then(lambda p: p.say(0, b"", ended=True)), BAD),
    "ends a lane": (open_then(lambda p: p.say(LANE_1, b"", ended=True)), BAD),
    "resets a lane": (
        open_then(lambda p: p.hop.receive([StreamReset(LANE_1, 1)])),
        BAD,
    ),
    "opens a one-way stream": (open_then(lambda p: p.say(2, b"x")), BAD),
    "says a code that is no code": (
        open_then(lambda p: p.say_frame(FrameKind.HOP_CLOSE, b"x")),
        BAD,
    ),
    "opens too many byte streams": (
        open_then(lambda p: p.say(20 + 4 * 5000, b"x")),
        Code.HOP_LIMIT_EXCEEDED,
    ),
    "resets a stream beyond all numbers": (
        open_then(lambda p: p.hop.receive([StreamReset(1 << 60, 1)])),
        Code.HOP_LIMIT_EXCEEDED,
    ),
}


@pytest.mark.parametrize(
    ("act", "code"), AGAINST_THE_ACCEPTOR.values(), ids=AGAINST_THE_ACCEPTOR.keys()
)
def test_the_acceptor_ends_the_hop_when_the_peer(act: Callable[[Puppet], None], code: Code) -> None:
    puppet = Puppet()
    act(puppet)
    assert puppet.owner.code is code
    assert puppet.owner.frames == []
    assert puppet.owner.received == {}


def reply_then(change: Callable[[bytes], bytes]) -> Callable[[Puppet], None]:
    def act(puppet: Puppet) -> None:
        puppet.connect()
        puppet.say_frame(FrameKind.HOP_REPLY, change(puppet.reply_to_hello()))

    return act


def no_certificate(puppet: Puppet) -> None:
    puppet.carrier.certificate = None
    puppet.connect()


def no_secrets(puppet: Puppet) -> None:
    puppet.carrier.binding = None
    puppet.connect()


AGAINST_THE_DIALLER: dict[str, tuple[Callable[[Puppet], None], Code]] = {
    "shows no certificate": (no_certificate, Code.HOP_CERTIFICATE_MISSING),
    "leaves no traffic secrets to bind to": (no_secrets, Code.HOP_BINDING_MISMATCH),
    "changes a bit of message 2": (
        reply_then(lambda body: flip(body, -1)),
        Code.HOP_HANDSHAKE_FAILED,
    ),
    "chooses a version that was not offered": (
        reply_then(lambda body: body.replace(b"\x82\x01", b"\x82\x02", 1)),
        Code.HOP_VERSION_UNSUPPORTED,
    ),
    "sends a REPLY that is no CBOR": (reply_then(lambda body: b"\xff" + body), BAD),
    "sends a HELLO back": (
        lambda p: (p.connect(), p.say_frame(FrameKind.HOP_HELLO, bytes(64)))[0],
        BAD,
    ),
    "accepts before anything": (lambda p: (p.connect(), p.say_accept())[0], BAD),
    "speaks on a byte stream first": (lambda p: (p.connect(), p.say(1, b"hi"))[0], BAD),
}


@pytest.mark.parametrize(
    ("act", "code"), AGAINST_THE_DIALLER.values(), ids=AGAINST_THE_DIALLER.keys()
)
def test_the_dialler_ends_the_hop_when_the_peer(act: Callable[[Puppet], None], code: Code) -> None:
    puppet = Puppet(is_dialler=True)
    act(puppet)
    assert puppet.owner.code is code
    assert puppet.owner.values("verified") == []


def test_an_honest_peer_is_let_in_on_either_side() -> None:
    """Without this, the tables above could pass because nothing ever works."""
    acceptor = Puppet()
    acceptor.open()
    dialler = Puppet(is_dialler=True)
    dialler.connect()
    dialler.say_frame(FrameKind.HOP_REPLY, dialler.reply_to_hello())
    dialler.say_accept()
    assert dialler.hop.is_open
    assert (dialler.owner.code, acceptor.owner.code) == (None, None)


def test_the_code_is_told_to_the_peer_and_the_detail_is_not() -> None:
    puppet = Puppet()
    puppet.open()
    puppet.answers()
    puppet.say(0, b"\0\0\0\0\x99\0\0\0")
    (close,) = puppet.answers()
    assert (close.kind, close.body) == (FrameKind.HOP_CLOSE, encode_code(BAD))


@pytest.mark.parametrize("steps", range(4))
def test_a_peer_that_never_goes_on_is_timed_out(steps: int) -> None:
    puppet = Puppet(owner=Owner(decide=lambda hop: hop.accept(permit_for(hop))))
    expected = Code.HOP_UNREACHABLE if steps == 0 else Code.HOP_TIMEOUT
    if steps == 1:
        puppet.connect()
    elif steps > 1:
        puppet.say_hello()
    if steps == 3:
        puppet.say_finish()
    puppet.wait_s(limits.HANDSHAKE_TIMEOUT_S - 0.1)
    assert puppet.owner.code is None
    puppet.wait_s(0.2)
    assert puppet.owner.code is expected


def test_a_peer_that_says_a_byte_a_second_has_no_longer_than_any_other() -> None:
    puppet = Puppet()
    puppet.connect()
    hello = encode_frame(0, FrameKind.HOP_HELLO, puppet.hello())
    said = 0
    while puppet.owner.code is None and said < 60:
        puppet.say(0, hello[said : said + 1])
        said += 1
        puppet.wait_s(1.0)

    assert puppet.owner.code is Code.HOP_TIMEOUT
    assert said == limits.HANDSHAKE_TIMEOUT_S


def test_what_overtakes_the_peers_accept_is_kept_and_handed_over_in_order() -> None:
    puppet = Puppet()
    puppet.say_hello()
    puppet.say_finish()
    puppet.say_frame(FrameKind.LANE_OPEN, link=1, stream=LANE_1)
    puppet.say_frame(RECORD, b"first", link=1, stream=LANE_1)
    puppet.say(20, b"stream")
    puppet.hop.receive([StreamReset(24, 7)])
    assert puppet.owner.frames == []
    puppet.say_accept()
    puppet.say_frame(RECORD, b"second", link=1, stream=LANE_1)
    assert [frame.body for frame in puppet.owner.frames] == [b"first", b"second"]
    assert puppet.owner.received == {20: b"stream"}
    assert puppet.owner.values("reset") == [(24, 7)]


def test_an_owner_that_accepts_late_hears_that_the_hop_is_open_before_what_comes_on_it() -> None:
    puppet = Puppet(owner=Owner(decide=lambda hop: None))
    puppet.say_hello()
    puppet.say_finish()
    puppet.say_accept()
    puppet.hop.accept(permit_for(puppet.hop))
    # The peer's bytes are read before the turn that the acceptance asked for.
    puppet.say(20, b"a first word")
    puppet.say_frame(RECORD, b"a record", link=1, stream=LANE_1)

    assert [what for what, _ in puppet.owner.log] == ["verified", "opened", "stream", "frames"]


def test_the_acceptor_writes_on_a_lane_only_once_it_has_seen_it() -> None:
    puppet = Puppet()
    puppet.open()
    puppet.hop.send_frame((1 << 31) + 1, RECORD, b"held")
    puppet.hop.write_out()
    assert LANE_1 not in puppet.carrier.sent
    puppet.say_frame(FrameKind.LANE_OPEN, link=1, stream=LANE_1)
    puppet.hop.write_out()
    assert bytes(puppet.carrier.sent[LANE_1]) == encode_frame((1 << 31) + 1, RECORD, b"held")


def test_bytes_of_a_stream_that_was_reset_here_go_nowhere() -> None:
    puppet = Puppet()
    puppet.open()
    puppet.say(20, b"a")
    puppet.hop.reset_stream(20, Code.STREAM_RESET)
    puppet.say(20, b"b", ended=True)
    puppet.hop.receive([StreamReset(20, 1)])
    assert puppet.owner.received == {20: b"a"}
    assert puppet.owner.values("reset") == []


TERMINATIONS = {
    "the peer closes with a code": (Terminated(110, True, ""), Code.HOP_RESTARTING),
    "the peer closes without one": (Terminated(0, True, ""), Code.HOP_CLOSED),
    "the peer closes with a code that nobody knows": (
        Terminated(60_000, True, ""),
        Code.PEER_ERROR_UNKNOWN,
    ),
    "the peer closes with a number beyond any code": (
        Terminated(1 << 61, True, ""),
        Code.PEER_ERROR_UNKNOWN,
    ),
    "QUIC loses the peer": (Terminated(1, False, "Idle timeout"), Code.HOP_PEER_LOST),
}


@pytest.mark.parametrize(("event", "code"), TERMINATIONS.values(), ids=TERMINATIONS.keys())
def test_a_connection_that_ends_is_told_with_its_code_when(event: Terminated, code: Code) -> None:
    puppet = Puppet()
    puppet.open()
    puppet.hop.receive([event, event])
    assert puppet.owner.code is code


events = st.one_of(
    st.builds(
        StreamData,
        st.sampled_from([0, 4, 8, 12, 16, 20, 24, 1, 2, 3, 1 << 40]),
        st.one_of(
            st.binary(max_size=40),
            st.builds(
                encode_frame,
                st.integers(0, 9),
                st.sampled_from([int(kind) for kind in FrameKind]),
                st.binary(max_size=40),
            ),
        ),
        st.booleans(),
    ),
    st.builds(StreamReset, st.integers(0, 40), st.integers(0, 1 << 62)),
    st.builds(Terminated, st.integers(0, 1 << 62), st.booleans(), st.just("")),
    st.builds(Connected, st.sampled_from([limits.ALPN, None])),
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["new", "replied", "open"]), st.lists(events, max_size=12))
def test_no_sequence_of_events_raises_or_closes_twice(state: str, sequence: list[object]) -> None:
    puppet = Puppet()
    if state == "replied":
        puppet.say_hello()
    elif state == "open":
        puppet.open()
    for event in sequence:
        # An engine tells of the handshake's end once.
        if isinstance(event, Connected) and state != "new":
            continue
        if isinstance(event, Connected):
            state = "connected"
        puppet.hop.receive([event])  # type: ignore[list-item]
        puppet.hop.write_out()
    assert len(puppet.owner.values("closed")) <= 1


def test_an_enrolling_hop_asks_for_the_enrolment_permit() -> None:
    puppet = Puppet(owner=Owner(decide=lambda hop: None))
    puppet.say_hello(purpose=HopPurpose.ENROL)
    puppet.say_finish()
    assert puppet.hop.purpose is HopPurpose.ENROL
    assert permit_for(puppet.hop).action == "node.enrol"
    assert isinstance(puppet.carrier, ListCarrier)
