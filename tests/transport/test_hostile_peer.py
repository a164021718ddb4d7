"""A peer that has proved itself and then abuses QUIC: what it can make us hold and spend."""

import asyncio
import time
from collections.abc import Callable

import pytest

from identity import Code
from link import FrameKind
from tests.transport import hostile as say
from tests.transport.hostile import LANE, Hostile, hostile
from tests.transport.pairs import QUIC_KINDS, hop_pair
from tests.transport.test_endpoint import each_engine
from transport import limits
from transport.peer_ledger import PeerLedger

MANY_BYTES = 512 << 10
HARD_TO_DIGEST = {
    "one-byte frames with gaps between them": lambda n: say.stream_frame(LANE, 100 + 2 * n, b"x"),
    "pieces of TLS with gaps between them": lambda n: say.crypto_frame(10 + 2 * n, b"x"),
    "connection ids that replace each other": lambda n: say.new_id_frame(n + 8, n + 8),
    "connection ids of ours, given back": lambda n: say.retire_frame(n + 1),
    "challenges": say.challenge_frame,
    "one frame far ahead of all others": lambda n: say.stream_frame(
        LANE, limits.STREAM_WINDOW_BYTES - 9 - n % 2, b"x"
    ),
    "pings": lambda n: say.PING,
    "complaints that it is blocked": lambda n: say.blocked_frame(5),
    "windows that open a little more each time": lambda n: say.max_data_frame(1 << 40 | n),
}
# What each engine must not be left alone with. The others it bounds itself, or they cost it little.
CUT = {
    ("qh3", "connection ids that replace each other"),
    ("qh3", "challenges"),
    ("aioquic", "one-byte frames with gaps between them"),
    ("aioquic", "pieces of TLS with gaps between them"),
}
# Half a second of the ledger's, and as much again for what the engine does before it is strained.
SECONDS_MAX = 2.0
ANSWERS_MAX = 10_000


async def abuse(peer: Hostile, frame: Callable[[int], bytes], bytes_max: int) -> float:
    """Say frames until it is enough or the hop is cut. Return what digesting them cost."""
    carrier = peer.acceptor.hops[0]._carrier  # type: ignore[attr-defined]
    feed, spent = carrier._feed, [0.0]

    def watch(*arguments: object) -> None:
        begun_s = time.thread_time()
        feed(*arguments)
        spent[0] += time.thread_time() - begun_s

    carrier._feed = watch
    number = 0
    while peer.sent_bytes < bytes_max and not peer.is_cut:
        before = peer.sent_bytes
        while peer.sent_bytes == before:
            peer.say(frame(number))
            number += 1
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    return spent[0]


@pytest.mark.parametrize("what", HARD_TO_DIGEST)
@each_engine
async def test_no_flood_of_frames_takes_our_time_or_our_datagrams(engine: str, what: str) -> None:
    async with hostile(engine) as peer:
        sent_before = peer.target.udp_counters.sent_datagrams
        peer.fall_silent()
        seconds = await abuse(peer, HARD_TO_DIGEST[what], MANY_BYTES)

        assert seconds < SECONDS_MAX
        assert peer.target.udp_counters.sent_datagrams - sent_before < ANSWERS_MAX
        assert peer.target.counters.failed_connections == 0
        if (engine, what) in CUT:
            assert peer.acceptor.code is Code.HOP_LIMIT_EXCEEDED
            assert peer.target.counters.cut == 1


@pytest.mark.parametrize("what", HARD_TO_DIGEST)
@each_engine
async def test_a_peer_that_is_not_accepted_may_do_even_less(engine: str, what: str) -> None:
    async with hostile(engine, is_accepted=False) as peer:
        seconds = await abuse(peer, HARD_TO_DIGEST[what], MANY_BYTES)

        await peer.acceptor.wait_for("closed")
        taken_bytes = peer.acceptor.hops[0]._carrier._early_bytes  # type: ignore[attr-defined]
        assert taken_bytes <= limits.PRE_AUTH_BYTES_MAX + say.DATAGRAM_BYTES
        assert seconds < SECONDS_MAX / 2


@each_engine
async def test_a_peer_that_acknowledges_nothing_is_cut(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It speaks on, so it is not dead; but an engine keeps what is not acknowledged."""
    monkeypatch.setattr("transport.peer_ledger._PING_INTERVAL_S", 0.1)
    async with hostile(engine) as peer:
        peer.fall_silent()
        while not peer.is_cut:
            peer.say(say.PING)
            peer.send()
            await asyncio.sleep(0.01)

        assert peer.acceptor.code is Code.HOP_LIMIT_EXCEEDED


@pytest.mark.parametrize("kind", QUIC_KINDS)
async def test_an_honest_peer_is_not_cut_however_much_it_says(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transport.peer_ledger._PING_INTERVAL_S", 0.5)
    monkeypatch.setattr("transport.peer_ledger._DATAGRAMS_MAX", 64)
    async with hop_pair(kind, datagram_bytes=1_452) as pair:
        await pair.wait_opened()
        for number in range(50):
            pair.hop.send_frame(number % 8 + 1, FrameKind.RECORD, bytes(20_000))
            pair.far.send_frame((1 << 31) + 1, FrameKind.RECORD, b"small")
        for owner in (pair.acceptor, pair.dialler):
            await owner.wait(lambda owner: len(owner.frames) == 50)

        assert (pair.dialler.code, pair.acceptor.code) == (None, None)


@pytest.mark.parametrize("kind", QUIC_KINDS)
async def test_more_than_the_windows_passes_and_a_window_never_grows(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who has said much may make us hold as much again."""
    monkeypatch.setattr(limits, "CONNECTION_WINDOW_BYTES", 256 << 10)
    monkeypatch.setattr(limits, "STREAM_WINDOW_BYTES", 256 << 10)
    async with hop_pair(kind) as pair:
        await pair.wait_opened()
        for number in range(60):
            pair.hop.send_frame(number % 3 + 1, FrameKind.RECORD, bytes(60_000))
        await pair.acceptor.wait(lambda owner: len(owner.frames) == 60)
        connection = pair.far._carrier._engine._connection  # type: ignore[attr-defined]

        if kind.endswith("aioquic"):
            limit = connection._local_max_data
            assert limit.value - limit.used <= 256 << 10
            for stream in connection._streams.values():
                ahead = stream.max_stream_data_local - stream.receiver.starting_offset()
                assert ahead <= 256 << 10


def test_time_is_earned_by_datagrams_and_saved_up_in_bounds() -> None:
    ledger = PeerLedger(0.0)
    ledger.received(1, 0.005)  # From here on it is watched.
    for _ in range(100):
        ledger.received(1, 0.0001)
    honest = ledger.find_fault(1.0), ledger.is_strained
    for _ in range(100):
        ledger.received(1, 0.005)
    strained = ledger.find_fault(1.0), ledger.is_strained
    for _ in range(100):
        ledger.received(1, 0.005)
    overdrawn = ledger.find_fault(1.0)

    assert honest == (None, False)
    assert strained == (None, True)
    assert overdrawn is not None


def test_one_slow_turn_only_makes_us_look_closer_for_a_while() -> None:
    """It may be the system that put us aside, and not the peer."""
    ledger = PeerLedger(0.0)
    before = ledger.is_watching
    ledger.received(1, 9.0)
    after = ledger.is_watching
    for _ in range(256):
        ledger.received(1, 0.0)

    assert (before, after, ledger.is_watching) == (False, True, False)
    assert (ledger.find_fault(1.0), ledger.is_strained) == (None, False)


def test_answers_are_explained_by_what_came_and_what_was_said() -> None:
    ledger = PeerLedger(0.0)
    for _ in range(1_000):
        ledger.received(10, 0.0)
        ledger.handed_down(8_000_000)
        ledger.sent(7_000, 0.0)
    explained = ledger.find_fault(0.0)
    unexplained = 0
    while ledger.find_fault(0.0) is None:
        ledger.received(1, 0.0)
        ledger.sent(160, 0.0)
        unexplained += 160

    assert explained is None
    assert unexplained < 25_000


def test_of_two_pings_one_must_be_answered_before_the_next_is_due() -> None:
    ledger = PeerLedger(0.0)
    due = ledger.is_ping_due(9.9), ledger.is_ping_due(10.0)
    ledger.pinged(7, 10.0)
    ledger.answered(6)
    one_astray = ledger.find_fault(20.0)
    ledger.pinged(8, 20.0)
    waiting, missed = ledger.find_fault(29.9), ledger.find_fault(30.0)
    ledger.answered(7)

    assert due == (False, True)
    assert (one_astray, waiting) == (None, None)
    assert missed is not None
    assert ledger.find_fault(30.0) is None, "a late answer is one"
