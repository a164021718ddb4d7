"""Strangers in great numbers: what they cost, who goes first, and that hops go on."""

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from identity import Code
from link import Frame, FrameKind
from tests.transport import flood
from tests.transport.helpers import Owner, endpoint, make_identity
from tests.transport.test_endpoint import each_engine, fetch_token, settle
from tests.transport.test_retry import initial
from transport import Endpoint, Hop, HopPurpose, TransportSettings, limits
from transport.connection import HopConnection
from transport.counters import EndpointCounters
from transport.half_open import HalfOpen
from transport.lobby import Lobby, Waiting
from transport.token_bucket import TokenBucket

HERE = ("192.0.2.1", 1)
FLOOD_STEPS = 400
ROOT = Path(__file__).resolve().parents[2]


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(10.0, 3, 0.0)
    at_once = [bucket.take(0.0) for _ in range(4)]
    in_a_second = [bucket.take(0.1 * step) for step in range(1, 11)]
    after_long = [bucket.take(100.0) for _ in range(4)]

    assert at_once == [True, True, True, False]
    assert sum(in_a_second) >= 9
    assert after_long == [True, True, True, False]


def a_connection() -> HopConnection:
    """A key, and no more: what waits is not touched until it is taken."""
    return HopConnection.__new__(HopConnection)


def take_all(lobby: Lobby) -> list[Waiting]:
    taken = []
    while lobby:
        taken.append(lobby.take())
    return taken


def test_strangers_wait_in_bounds_and_the_rest_is_counted() -> None:
    counters = EndpointCounters()
    lobby = Lobby(counters, 0.0)
    for _ in range(limits.STRANGERS_WAITING_MAX + 5):
        lobby.hold_stranger(b"x", HERE, None, 0.0)
    half_open = a_connection()
    for _ in range(7):
        lobby.hold_handshake(
            half_open, bytes(limits.HANDSHAKE_WAITING_BYTES_MAX // 4), 0, HERE, None
        )
    waiting = len(take_all(lobby))

    assert waiting == limits.STRANGERS_WAITING_MAX + 4
    assert counters.dropped_flood == 5 + 3


def test_handshakes_are_served_by_turns() -> None:
    lobby = Lobby(EndpointCounters(), 0.0)
    busy, other = a_connection(), a_connection()
    for _ in range(3):
        lobby.hold_handshake(busy, b"much", 0, HERE, None)
    lobby.hold_handshake(other, b"little", 0, HERE, None)

    assert [waiting.data for waiting in take_all(lobby)] == [b"much", b"little", b"much", b"much"]


def test_what_waits_for_a_connection_goes_with_it() -> None:
    lobby = Lobby(EndpointCounters(), 0.0)
    gone = a_connection()
    lobby.hold_handshake(gone, b"late", 0, HERE, None)
    lobby.forget(gone)
    lobby.forget(gone)

    assert not lobby


def test_strangers_have_a_rate_however_fast_they_are_answered() -> None:
    counters = EndpointCounters()
    lobby = Lobby(counters, 0.0)
    for step in range(100_000):
        lobby.hold_stranger(b"x", HERE, None, step / 100_000)
        if lobby:
            lobby.take()

    answered = 100_000 - counters.dropped_flood
    assert answered <= limits.STRANGERS_PER_S + limits.STRANGERS_BURST


def test_handshakes_go_before_strangers() -> None:
    lobby = Lobby(EndpointCounters(), 0.0)
    lobby.hold_stranger(b"first", HERE, None, 0.0)
    lobby.hold_handshake(a_connection(), b"second", 0, HERE, None)

    assert [waiting.data for waiting in take_all(lobby)] == [b"second", b"first"]


def half_open(**settings: object) -> HalfOpen[str]:
    return HalfOpen(TransportSettings(**settings), 0.0)  # type: ignore[arg-type]


def test_handshakes_begin_at_a_rate_for_each_source_and_in_all() -> None:
    table = half_open(
        handshakes_per_s=10.0,
        handshakes_burst=6,
        handshakes_per_source_per_s=1.0,
        handshakes_per_source_burst=4,
    )
    of_one = sum(table.may_begin("a", 0.0) for _ in range(9))
    of_others = sum(table.may_begin(f"b{n}", 0.0) for n in range(9))
    later = table.may_begin("a", 1.1), table.may_begin("a", 1.1)

    assert (of_one, of_others) == (4, 2)
    assert later == (True, False)


def test_what_is_remembered_of_sources_is_bounded() -> None:
    table = half_open()
    for number in range(10_000):
        table.may_begin(f"source {number}", 0.0)

    assert len(table._buckets) == 4_096


def test_who_stands_still_the_longest_has_to_go_first_and_only_when_it_stood_long() -> None:
    table = half_open(half_open_max=3)
    for number, name in enumerate(("one", "two", "three")):
        table.add(name, "source", number * 0.1)
    table.note_progress("one", 0.5)

    assert not table.has_room("another")
    assert table.find_idle("another", 0.9) is None
    assert table.find_idle("another", 1.15) == "two"


def test_a_source_that_is_full_makes_room_among_its_own() -> None:
    table = half_open(half_open_per_source_max=1)
    table.add("oldest", "a", 0.0)
    table.add("own", "b", 0.1)

    assert table.has_room("c")
    assert not table.has_room("b")
    assert table.find_idle("b", 2.0) == "own"


def test_what_is_removed_leaves_room() -> None:
    table = half_open(half_open_per_source_max=1)
    table.add("only", "a", 0.0)
    table.remove("only")
    table.remove("only")
    table.note_progress("only", 1.0)

    assert (len(table), table.has_room("a"), table._count_of) == (0, True, {})


async def open_token(sock: socket.socket, target: Endpoint) -> bytes:
    retry_id, token = await fetch_token(sock, target)
    return initial(destination_id=retry_id, token=token)


@each_engine
async def test_who_stands_still_in_a_handshake_makes_room_for_who_comes(
    engine: str, stranger: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_IDLE_S", 0.05)
    owner = Owner()
    async with endpoint(owner, engine=engine, half_open_per_source_max=2) as target:
        for _ in range(3):
            stranger.sendto(await open_token(stranger, target), target.address)
        await settle(target, stranger)
        at_once = target.counters.dropped_half_open, target.counters.shed
        await asyncio.sleep(0.06)
        stranger.sendto(await open_token(stranger, target), target.address)
        await owner.wait_for("closed")

        assert at_once == (1, 0)
        assert target.counters.shed == 1
        assert target.half_open_count == 2
        assert owner.code is Code.HOP_LIMIT_EXCEEDED


async def test_handshakes_beyond_the_rate_of_their_source_are_dropped_and_counted(
    stranger: socket.socket,
) -> None:
    settings = {"handshakes_per_source_burst": 2, "handshakes_per_source_per_s": 0.1}
    async with endpoint(Owner(), **settings) as target:
        for _ in range(5):
            stranger.sendto(await open_token(stranger, target), target.address)
        await settle(target, stranger)

        assert (target.half_open_count, target.counters.dropped_rate) == (2, 3)


async def test_an_open_hop_is_served_before_strangers_that_came_first() -> None:
    answered: list[int] = []

    class Watching(Owner):
        def frames_received(self, hop: Hop, frames: list[Frame]) -> None:
            answered.append(target.counters.retries_sent)
            super().frames_received(hop, frames)

    owner, dialler = Watching(), Owner()
    small = {"datagram_bytes": 1_452}  # No pacing: what is said leaves at once.
    async with (
        endpoint(owner, **small) as target,
        endpoint(dialler, make_identity("d"), **small) as near,
    ):
        hop = near.dial(*target.address, purpose=HopPurpose.ADMIT, target=None)
        await dialler.wait_for("opened")
        await owner.wait_for("opened")
        before = target.counters.retries_sent
        with flood.Ports(target.address, 8) as ports:
            for sock in ports.sockets:
                ports.send(sock, flood.initial(b"original"))
        hop.send_frame(1, FrameKind.RECORD, b"honest")
        near._flush()  # All of it is there when the target reads, and it reads all of it.
        target.udp._read_s = float("inf")
        await owner.wait_until(lambda: target.counters.retries_sent == before + 8)

        assert answered == [before]


# (seconds since an open hop spoke, whether more comes than is read) -> whether the share holds.
SHARES = {
    "an open hop has just spoken": (0.01, False, True),
    "no open hop spoke of late": (0.2, False, False),
    "what an open hop said may wait in the socket": (0.2, True, True),
    "no open hop spoke for so long that there is none": (6.0, True, False),
}


@pytest.mark.parametrize("name", SHARES)
async def test_strangers_wait_for_their_share_only_while_there_are_open_hops(name: str) -> None:
    silent_s, is_behind, must_wait = SHARES[name]
    async with endpoint(Owner()) as target:
        now_s = target.now_s()
        target.udp.is_behind = is_behind
        target._served_s = now_s - silent_s
        target._attend_from_s = now_s + 1.0
        waits = target._must_wait(now_s)
        waits_later = target._must_wait(now_s + 1.1)

    assert waits == must_wait
    assert not waits_later


async def test_who_waits_for_the_share_is_answered_when_it_comes(stranger: socket.socket) -> None:
    async with endpoint(Owner()) as target:
        begun_s = target._served_s = target.now_s()
        target._attend_from_s = begun_s + 0.03
        await fetch_token(stranger, target)
        answered_s = target.now_s()

    assert answered_s - begun_s >= 0.03


@each_engine
@pytest.mark.parametrize("kind", flood.KINDS)
async def test_a_hop_goes_on_and_nothing_grows_under(kind: str, engine: str) -> None:
    owner, dialler = Owner(), Owner()
    async with (
        endpoint(owner, engine=engine, half_open_per_source_max=8) as target,
        endpoint(dialler, make_identity("d"), engine=engine) as near,
    ):
        hop = near.dial(*target.address, purpose=HopPurpose.ADMIT, target=None)
        await dialler.wait_for("opened")
        await owner.wait_for("opened")
        ports = flood.Ports(target.address, 16)
        flooding = flood.KINDS[kind](ports)
        for number in range(FLOOD_STEPS):
            next(flooding)
            if number % 40 == 0:
                hop.send_frame(1, FrameKind.RECORD, b"%d" % number)
            if number % 4 == 0:
                await asyncio.sleep(0)
        await owner.wait(lambda owner: len(owner.frames) == FLOOD_STEPS // 40)

        assert hop.is_open
        assert target.half_open_count <= 8
        assert target.connection_count <= 8 + 1
        assert target.counters.failed_connections == 0
        assert len(target._by_id) < 200
        ports.close()


@pytest.mark.parametrize("kind", flood.KINDS)
async def test_the_flooder_runs_as_a_process_and_ends_by_itself(kind: str) -> None:
    async with endpoint(Owner()) as target:
        command = [
            *(sys.executable, "-m", "tests.transport.flood", "--kind", kind, "--seconds", "0.1"),
            *("--target", f"127.0.0.1:{target.address[1]}", "--ports", "4", "--sources", "2"),
        ]
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )

    said = json.loads(done.stdout)
    assert said["kind"] == kind
    assert said["datagrams"] > 0
