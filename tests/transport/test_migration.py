"""A dialler whose address changes under an open hop, and whoever would like to change it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from link import FrameKind
from tests.transport.forwarder import Address, Forwarder, forwarder, make_socket
from tests.transport.helpers import Owner, endpoint, make_identity
from tests.transport.pairs import QUIC_KINDS
from transport import Endpoint, Hop, HopPurpose
from transport.peer_address import PeerAddress

PIECE = bytes(10_000)
PIECES = 10

each_quic_kind = pytest.mark.parametrize("kind", QUIC_KINDS)


@dataclass
class Routed:
    """An open hop whose datagrams pass through a router."""

    near: Endpoint
    target: Endpoint
    router: Forwarder
    hop: Hop
    dialler: Owner
    acceptor: Owner
    said: int = field(default=0)

    async def exchange(self) -> None:
        """Send a hundred kilobytes each way, and wait for all of them."""
        self.said += PIECES
        for _ in range(PIECES):
            self.hop.send_frame(1, FrameKind.RECORD, PIECE)
            self.acceptor.hops[0].send_frame((1 << 31) + 1, FrameKind.RECORD, PIECE)
        for owner in (self.acceptor, self.dialler):
            await owner.wait(lambda owner: len(owner.frames) >= self.said)


@asynccontextmanager
async def routed(kind: str, host: str = "127.0.0.1") -> AsyncIterator[Routed]:
    here, _, there = kind.partition("→")
    owner, dialler = Owner(), Owner()
    settings = {"keepalive_s": 0.05, "datagram_bytes": 1_452}
    async with (
        endpoint(owner, host=host, engine=there or here, **settings) as target,
        endpoint(dialler, make_identity("d"), host=host, engine=here, **settings) as near,
        forwarder(target.address) as router,
    ):
        hop = near.dial(*router.address, purpose=HopPurpose.ADMIT, target=None)
        await dialler.wait_for("opened")
        await owner.wait_for("opened")
        yield Routed(near, target, router, hop, dialler, owner)
        assert (dialler.code, owner.code) == (None, None)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An original follows its copy at once here."""
    monkeypatch.setattr("transport.peer_address._QUIET_S", 0.03)


OLD, NEW, OTHER = ("192.0.2.1", 1), ("192.0.2.1", 2), ("192.0.2.9", 1)
QUIET_S, KEEPALIVE_S = 0.03, 1.5


def feed(*steps: tuple[float, Address, bool]) -> list[Address]:
    """Each step is a turn: when, from where, authentic or not. Return what the engine is told."""
    peer, told = PeerAddress(OLD, KEEPALIVE_S), []
    for now_s, source, is_authentic in steps:
        told.append(peer.judge(source, now_s))
        peer.note_turn(is_authentic=is_authentic)
    return told


def test_a_new_address_is_told_once_the_old_one_is_quiet_and_what_came_was_authentic() -> None:
    told = feed((1.0, OLD, True), (2.0, NEW, True), (2.02, NEW, True), (2.04, NEW, True))

    assert told == [OLD, OLD, OLD, NEW]


def test_a_copy_that_its_original_follows_is_never_told() -> None:
    copies = [
        (at_s, source, True)
        for n in range(100)
        for at_s, source in ((n * 0.5, NEW), (n * 0.5 + 0.01, OLD))
    ]

    assert set(feed(*copies)) == {OLD}


def test_noise_is_not_told_as_long_as_a_dialler_may_be_silent() -> None:
    noise = [(n * 0.01, NEW, False) for n in range(int(KEEPALIVE_S * 100))]

    assert set(feed(*noise)) == {OLD}
    assert feed((0.0, NEW, False), (2.1, NEW, False))[-1] == NEW


def test_noise_borrows_no_proof_from_what_the_old_address_brought_in_the_same_turn() -> None:
    peer = PeerAddress(OLD, KEEPALIVE_S)
    peer.judge(OLD, 0.0)
    peer.judge(NEW, 0.0)
    peer.note_turn(is_authentic=True)

    assert peer.judge(NEW, 1.0) == OLD


def test_each_address_waits_by_itself() -> None:
    told = feed((0.0, NEW, True), (0.02, OTHER, True), (0.04, OTHER, True), (0.06, OTHER, True))

    assert told == [OLD, OLD, OLD, OTHER]


@each_quic_kind
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_hop_survives_new_addresses_of_its_dialler(kind: str, host: str) -> None:
    async with routed(kind, host) as made:
        for moves in range(1, 4):
            await made.exchange()
            made.router.rebind()
            await made.exchange()
            assert made.target.counters.migrations == moves
            assert peer_address(made) == made.router.far_address


def peer_address(made: Routed) -> Address:
    return made.acceptor.hops[0]._carrier._engine.peer_address  # type: ignore[attr-defined, no-any-return]


@each_quic_kind
async def test_nothing_goes_to_the_old_address_once_the_new_one_has_proved_itself(
    kind: str,
) -> None:
    async with routed(kind) as made:
        await made.exchange()
        made.router.rebind()
        await made.exchange()
        at_old = made.router.at_old_ports
        await made.exchange()

        assert made.router.at_old_ports == at_old


@each_quic_kind
async def test_a_quiet_dialler_that_moved_is_found_by_its_next_sign_of_life(kind: str) -> None:
    async with routed(kind) as made:
        made.router.rebind()
        await made.dialler.wait_until(lambda: made.target.counters.migrations == 1)
        made.acceptor.hops[0].send_frame((1 << 31) + 1, FrameKind.RECORD, b"found")

        await made.dialler.wait(lambda owner: owner.frames)

        assert made.dialler.frames[0].body == b"found"


class Thief:
    """Sees a dialler's datagrams and sends copies of them, faster, from an address of its own."""

    def __init__(self, target: Address) -> None:
        self._target = target
        self.socket = make_socket(target[0])
        self.sent_bytes = 0

    @property
    def address(self) -> Address:
        host, port = self.socket.getsockname()[:2]
        return host, port

    def steal(self, data: bytes) -> None:
        self.socket.sendto(data, self._target)
        self.sent_bytes += len(data)

    def take_bytes(self) -> int:
        """How much has come for it since the last look."""
        taken = 0
        while True:
            try:
                taken += len(self.socket.recv(65_536))
            except BlockingIOError:
                return taken


@each_quic_kind
async def test_who_replays_datagrams_from_elsewhere_gets_nothing_and_breaks_nothing(
    kind: str,
) -> None:
    async with routed(kind) as made:
        thief = Thief(made.target.address)
        with thief.socket:
            await made.exchange()
            made.router.watch_up = thief.steal
            made.hop.send_frame(1, FrameKind.RECORD, b"stolen")
            made.said += 1
            await made.acceptor.wait(lambda owner: len(owner.frames) == made.said)
            made.router.watch_up = None
            made.acceptor.hops[0].send_frame((1 << 31) + 1, FrameKind.RECORD, b"answer")
            for _ in range(5):
                await made.exchange()

            assert thief.sent_bytes > 0
            assert thief.take_bytes() == 0
            assert peer_address(made) == made.router.far_address
            assert made.target.counters.migrations == 0


@each_quic_kind
async def test_a_dialler_follows_nobody(kind: str) -> None:
    """Only a dialler may move (RFC 9000, section 9), whatever its engine would do."""
    async with routed(kind) as made:
        await made.exchange()
        thief = Thief(made.near.address)
        with thief.socket:
            watched: list[bytes] = []
            send = made.target.udp.send
            made.target.udp.send = lambda datagrams, _: watched.extend(d for d, _ in datagrams)  # type: ignore[method-assign, func-returns-value]
            made.acceptor.hops[0].send_frame((1 << 31) + 1, FrameKind.RECORD, b"hello")
            await made.dialler.wait_until(lambda: watched)
            for data in watched:
                thief.steal(data)
            await made.dialler.wait_until(lambda: made.near.counters.dropped_source > 0)
            made.target.udp.send = send  # type: ignore[method-assign]
            await made.exchange()

            assert thief.take_bytes() == 0


@each_quic_kind
async def test_noise_with_a_known_connection_id_moves_nothing(kind: str) -> None:
    async with routed(kind) as made:
        copied: list[bytes] = []
        made.router.watch_up = copied.append
        await made.exchange()
        short = [data for data in copied if not data[0] & 0x80]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:
            for data in short[:10]:
                elsewhere.sendto(data[:9] + bytes(100), made.target.address)
            await made.exchange()
            await asyncio.sleep(0)

        assert made.target.counters.migrations == 0
        assert peer_address(made) == made.router.far_address
