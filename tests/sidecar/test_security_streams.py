"""What a verified peer may do with byte streams costs that peer: no hop, and no other peer."""

import os
from types import SimpleNamespace
from typing import Any, Final

import pytest

from channel import Role, StreamOpen, StreamSecret, StreamSession, encode_stream_open
from identity import Code
from link import LinkEnd, StreamPreamble
from link.limits import ACCEPTOR_LINK_BIT, INITIAL_WINDOW_BYTES
from link.messages import encode_stream_preamble
from node.clocks import ManualClock
from policy import Denial
from sidecar.mesh_stream import StreamError
from sidecar.sealed_stream import SealedStream
from sidecar.streams import EARLY_STREAMS_PER_LINK_MAX, STREAMS_PER_CHANNEL_MAX, Streams

LINK: Final = ACCEPTOR_LINK_BIT | 1
OTHER_LINK: Final = ACCEPTOR_LINK_BIT | 2
UNVERIFIED_LINK: Final = ACCEPTOR_LINK_BIT | 3
FIRST_STREAM: Final = 1
"""Of those that the gateway opens on a hop that this sidecar dialled."""


class Hop:
    """Remembers what was done to it."""

    id = 1
    is_dialler = True

    def __init__(self) -> None:
        self.closed: Code | None = None
        self.resets: dict[int, int] = {}
        self.sent = b""
        self.granted: list[bytes] = []

    def close(self, code: Code) -> None:
        self.closed = code

    def reset_stream(self, stream: int, code: int) -> None:
        self.resets.setdefault(stream, code)

    def send_stream(self, stream: int, data: bytes, end: bool = False) -> None:
        self.sent += data

    def send_frame(self, link: int, kind: int, body: bytes) -> None:
        self.granted.append(body)


class Slot(SimpleNamespace):
    """As much of a channel as streams look at."""

    __hash__ = object.__hash__


class Stage:
    """Streams with two channels on one hop. Every stream is denied: that is decided later."""

    def __init__(self) -> None:
        self.hop = Hop()
        self.ended: list[int] = []
        self.slots: dict[int, Any] = {link: self._slot(link) for link in (LINK, OTHER_LINK)}
        self.slots[UNVERIFIED_LINK] = self._slot(UNVERIFIED_LINK)
        self.slots[UNVERIFIED_LINK].verified = False
        channels = SimpleNamespace(
            end=lambda slot, code: self.ended.append(slot.links.link),
            find=lambda hop, link: self.slots.get(link),
            may_pass=lambda slot: True,
        )
        router: Any = SimpleNamespace(channels=channels)
        denial = Denial(Code.POLICY_DENIED, "no", "no", "1", "1")
        decisions: Any = SimpleNamespace(may_stream=lambda *_, **__: denial)
        self.streams = Streams(router, decisions, ManualClock())

    def announce(self, link: int, number: int) -> None:
        opening = StreamOpen(number, "service", os.urandom(32))
        self.streams.stream_announced(self.slots[link], encode_stream_open(opening))

    def receive(self, stream: int, data: bytes, ended: bool = False) -> None:
        self.streams.stream_received(self.hop, stream, data, ended)  # type: ignore[arg-type]

    def begin(self, stream: int, link: int, number: int) -> None:
        self.receive(stream, encode_stream_preamble(StreamPreamble(link, number)))

    def _slot(self, link: int) -> Any:
        return Slot(
            links=SimpleNamespace(
                hop=self.hop,
                link=link,
                end=LinkEnd(self.hop.id, link),
                channel=SimpleNamespace(handshake_hash=bytes(32)),
            ),
            peer=SimpleNamespace(identity=_identity()),
            agent=SimpleNamespace(handle=1, party=None),
            initiator=False,
            verified=True,
            dead=False,
            streams=0,
            expires_unix_s=2e9,
        )


def _identity() -> Any:
    fields = "identifier name kind role_of_node trust_domain issuer attributes allowed_actions"
    return SimpleNamespace(**dict.fromkeys(fields.split()), ancestors=(), further={})


@pytest.fixture
async def stage() -> Stage:
    return Stage()


async def test_two_streams_that_claim_one_number_cost_the_second_of_them(stage: Stage) -> None:
    stage.begin(FIRST_STREAM, LINK, 1)
    stage.begin(FIRST_STREAM + 4, LINK, 1)

    stage.announce(LINK, 1)

    assert FIRST_STREAM + 4 in stage.hop.resets
    assert stage.hop.closed is None


async def test_a_stream_that_does_not_begin_with_a_preamble_costs_itself(stage: Stage) -> None:
    stage.receive(FIRST_STREAM, b"not a preamble at all")

    assert stage.hop.resets == {FIRST_STREAM: Code.STREAM_BAD_HEAD}
    assert stage.hop.closed is None


async def test_bytes_behind_a_sealed_end_cost_the_stream_and_open_no_other(stage: Stage) -> None:
    done: Any = SimpleNamespace(
        hop=stage.hop,
        end=LinkEnd(1, LINK),
        slot=stage.slots[LINK],
        number=1,
        quic_stream=FIRST_STREAM,
        is_over=False,
    )
    stage.streams._keep(done)
    stage.streams.forget(done)
    stage.announce(OTHER_LINK, 1)

    # It claims to be the stream that another channel has announced.
    stage.begin(FIRST_STREAM, OTHER_LINK, 1)

    assert FIRST_STREAM in stage.hop.resets
    stage.begin(FIRST_STREAM + 4, OTHER_LINK, 1)
    assert stage.hop.resets[FIRST_STREAM + 4] == Code.POLICY_DENIED


async def test_the_end_of_a_stream_that_ended_under_its_seal_is_no_fault(stage: Stage) -> None:
    done: Any = SimpleNamespace(
        hop=stage.hop,
        end=LinkEnd(1, LINK),
        slot=stage.slots[LINK],
        number=1,
        quic_stream=FIRST_STREAM,
        is_over=False,
    )
    stage.streams._keep(done)
    stage.streams.forget(done)

    stage.receive(FIRST_STREAM, b"", ended=True)

    assert stage.hop.resets == {}


async def test_a_stream_of_a_channel_that_is_not_proved_is_not_kept(stage: Stage) -> None:
    stage.begin(FIRST_STREAM, UNVERIFIED_LINK, 1)
    stage.begin(FIRST_STREAM + 4, LINK + 100, 1)

    assert set(stage.hop.resets) == {FIRST_STREAM, FIRST_STREAM + 4}


async def test_one_channel_cannot_take_the_early_places_of_another(stage: Stage) -> None:
    for index in range(2 * EARLY_STREAMS_PER_LINK_MAX):
        stage.begin(FIRST_STREAM + 4 * index, LINK, 1 + 2 * index)
    last = FIRST_STREAM + 4 * 2 * EARLY_STREAMS_PER_LINK_MAX
    stage.begin(last, OTHER_LINK, 1)

    assert len(stage.hop.resets) == EARLY_STREAMS_PER_LINK_MAX
    stage.announce(OTHER_LINK, 1)
    assert stage.hop.resets[last] == Code.POLICY_DENIED


def sealed_stream(hop: Hop) -> tuple[SealedStream, StreamSession]:
    """The end that was opened, and the session of the peer that opens it."""
    secret = os.urandom(32)
    ours, theirs = (
        StreamSession(
            role,
            StreamSecret(secret),
            channel_hash=bytes(32),
            stream=1,
            service="service",
            opened_by_initiator=True,
        )
        for role in (Role.RESPONDER, Role.INITIATOR)
    )
    slot: Any = SimpleNamespace(links=SimpleNamespace(link=LINK))
    port: Any = hop
    end = LinkEnd(1, LINK)
    home: Any = SimpleNamespace(forget=lambda _: None, ask_policy=lambda _: None)
    stream = SealedStream(port, end, slot, 1, FIRST_STREAM, "service", ours, Role.RESPONDER, home)
    return stream, theirs


async def test_a_writer_learns_that_the_peer_went_after_it_had_said_all() -> None:
    hop = Hop()
    stream, peer = sealed_stream(hop)
    stream.received_untrusted(peer.write(b"all"), ended=False)
    peer.feed_untrusted(hop.sent)
    stream.received_untrusted(peer.finish(), ended=True)
    assert await stream.read(16) == b"all"
    assert await stream.read(16) == b""
    await stream.write(b"an answer begins")

    stream.quic_reset(Code.STREAM_RESET)

    with pytest.raises(StreamError):
        await stream.write(b"nobody hears this")


@pytest.mark.parametrize("cut", [1, 33_000, -1])
async def test_what_a_service_has_not_read_counts_however_it_was_cut(cut: int) -> None:
    """Of a piece that comes in two, most would otherwise count as read before it is whole."""
    hop = Hop()
    stream, peer = sealed_stream(hop)
    stream.received_untrusted(peer.write(b"begin"), ended=False)
    peer.feed_untrusted(hop.sent)
    hop.granted.clear()
    while Code.ROUTE_CREDIT_EXCEEDED not in hop.resets.values():
        sent = peer.write(bytes(60_000))
        for part in (sent[:cut], sent[cut:]):
            stream.received_untrusted(part, ended=False)
        assert len(stream._received) < 100, "without end"

    assert hop.granted == []
    assert len(stream._received) * 60_000 < 2 * INITIAL_WINDOW_BYTES


async def test_what_holds_no_data_is_not_waited_for() -> None:
    hop = Hop()
    stream, peer = sealed_stream(hop)
    stream.received_untrusted(peer.write(b""), ended=False)
    peer.feed_untrusted(hop.sent)
    for _ in range(40):
        stream.received_untrusted(peer.write(bytes(60_000)), ended=False)
        assert len(await stream.read(1 << 20)) == 60_000

    assert hop.resets == {}


class _NeverWalked(dict[Any, Any]):
    """A peer with many channels may announce thousands of streams, each in forty bytes."""

    def __iter__(self) -> Any:
        raise AssertionError("all that are announced were walked through for one more")

    keys = values = items = __iter__


async def test_an_announcement_is_counted_without_a_walk_through_all_others(stage: Stage) -> None:
    stage.announce(LINK, 1)
    stage.streams._expected = _NeverWalked(stage.streams._expected)
    for number in range(3, 2 * STREAMS_PER_CHANNEL_MAX, 2):
        stage.announce(LINK, number)
    assert stage.ended == []

    stage.announce(OTHER_LINK, 1)
    stage.announce(LINK, 2 * STREAMS_PER_CHANNEL_MAX + 1)

    assert stage.ended == [LINK]
