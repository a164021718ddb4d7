"""How large datagrams may be: what is planned, what is told, and paths that carry less."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from identity import Code
from link import FrameKind
from tests.transport.forwarder import Forwarder, forwarder
from tests.transport.helpers import Owner, endpoint, make_identity
from tests.transport.pairs import QUIC_KINDS, hop_pair
from transport import Endpoint, Hop, HopPurpose, TransportSettings, limits, path
from transport.path import PathPlan, Paths, StallWatch
from transport.udp import find_mtu_bytes

FAR = ("192.0.2.1", 7440)
FAR_V6 = ("2001:db8::1", 7440)
MAPPED = ("::ffff:192.0.2.1", 7440)
PIECE = bytes(50_000)
PIECES = 4
# Above the first PTO of qh3 (0.2 s), after which its first flight is no larger than 1,200 bytes.
STALL_S = 0.3


def plan(address: path.Address, mtu_bytes: int | None = None, **settings: object) -> PathPlan:
    made = TransportSettings(**settings)  # type: ignore[arg-type]
    return Paths(made, lambda host: mtu_bytes).plan(address, 0.0)


SIZES = {
    "nothing is known": (plan(FAR), limits.DATAGRAM_BYTES),
    "the first link is Ethernet": (plan(FAR, 1_500), limits.DATAGRAM_BYTES),
    "the first link is a tunnel": (plan(FAR, 1_420), 1_392),
    "the first link is a tunnel, over IPv6": (plan(FAR_V6, 1_420), 1_372),
    "the first link is a tunnel, and the socket is for both families": (
        plan(MAPPED, 1_420),
        1_392,
    ),
    "the first link is as narrow as IPv6 allows": (plan(FAR_V6, 1_280), 1_232),
    "the first link is too narrow for QUIC": (plan(FAR, 576), limits.DATAGRAM_BYTES_MIN),
    "the first link is wider than anybody's": (plan(FAR, 9_000), limits.DATAGRAM_BYTES),
    "it ends here": (plan(("127.0.0.1", 1), 65_536), limits.LOOPBACK_DATAGRAM_BYTES),
    "it ends here, over IPv6": (plan(("::1", 1), 65_536), limits.LOOPBACK_DATAGRAM_BYTES),
    "it ends here, and the socket is for both families": (
        plan(("::ffff:127.0.0.1", 1), 65_536),
        limits.LOOPBACK_DATAGRAM_BYTES,
    ),
    "the operator says so": (plan(FAR, 1_420, datagram_bytes=8_900), 8_900),
}


@pytest.mark.parametrize(("planned", "size"), SIZES.values(), ids=SIZES.keys())
def test_the_size_is_what_is_known_of_a_path_when(planned: PathPlan, size: int) -> None:
    assert planned.datagram_bytes == size


def test_only_a_guess_is_tried_out_and_shown_to_pass() -> None:
    guessed, told, here = plan(FAR), plan(FAR, datagram_bytes=1_452), plan(("127.0.0.1", 1))

    assert (guessed.is_guessed, told.is_guessed, here.is_guessed) == (True, False, False)
    assert guessed.shown_bytes >= guessed.datagram_bytes
    assert (told.shown_bytes, here.shown_bytes) == (0, 0)


def test_an_address_that_stalled_gets_small_datagrams_for_a_time_and_others_do_not() -> None:
    paths = Paths(TransportSettings(), lambda host: None)
    paths.note_stall(FAR, 0.0)

    during = paths.plan(FAR, limits.SMALL_PATH_S - 1)
    after = paths.plan(FAR, limits.SMALL_PATH_S + 1)
    other = paths.plan(("192.0.2.1", 7441), 0.0)

    assert (during.datagram_bytes, during.shown_bytes) == (limits.DATAGRAM_BYTES_MIN, 0)
    assert after.datagram_bytes == other.datagram_bytes == limits.DATAGRAM_BYTES


def test_what_is_remembered_of_paths_is_bounded() -> None:
    paths = Paths(TransportSettings(), lambda host: None)
    for port in range(1, 3_000):
        paths.note_stall(("192.0.2.1", port), 0.0)

    assert len(paths._small) == 1_024
    assert paths.plan(("192.0.2.1", 2_999), 0.0).datagram_bytes == limits.DATAGRAM_BYTES_MIN


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_the_system_says_what_the_first_link_carries(host: str) -> None:
    mtu_bytes = find_mtu_bytes(host)

    assert mtu_bytes is not None
    assert mtu_bytes >= limits.LOOPBACK_DATAGRAM_BYTES


def test_an_address_without_a_route_has_no_first_link() -> None:
    assert find_mtu_bytes("255.255.255.255") is None  # Not allowed without asking for it.


@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
async def test_no_datagram_is_sent_in_fragments(host: str) -> None:
    async with endpoint(Owner(), host=host) as made:
        sock = made.udp._socket
        assert sock.getsockopt(socket.IPPROTO_IP, 10) == 3  # IP_MTU_DISCOVER: probe.
        if host == "::":
            assert sock.getsockopt(socket.IPPROTO_IPV6, 23) == 3


@pytest.mark.parametrize("kind", QUIC_KINDS)
@pytest.mark.parametrize("smaller", ["the dialler", "the acceptor"])
async def test_neither_side_sends_more_than_the_other_does(kind: str, smaller: str) -> None:
    sizes = {"the dialler": (1_300, 4_000), "the acceptor": (4_000, 1_300)}[smaller]
    here, _, there = kind.partition("→")
    owner, dialler = Owner(), Owner()
    async with (
        endpoint(owner, engine=there or here, datagram_bytes=sizes[1]) as target,
        endpoint(dialler, make_identity("d"), engine=here, datagram_bytes=sizes[0]) as near,
    ):
        hop = near.dial(*target.address, purpose=HopPurpose.ADMIT, target=None)
        await dialler.wait_for("opened")
        await owner.wait_for("opened")
        longest = watch_sizes(near), watch_sizes(target)
        await exchange_bulk(hop, dialler, owner)

    assert 1_200 < longest[0][0] <= 1_300
    assert 1_200 < longest[1][0] <= 1_300


def watch_sizes(made: Endpoint) -> list[int]:
    """Return a list whose only number is the longest datagram that the endpoint sends."""
    longest, send = [0], made.udp.send

    def look(datagrams: object, local: object = None) -> None:
        for data, _ in datagrams:  # type: ignore[attr-defined]
            longest[0] = max(longest[0], len(data))
        send(datagrams, local)  # type: ignore[arg-type]

    made.udp.send = look  # type: ignore[method-assign, assignment]
    return longest


async def exchange_bulk(hop: Hop, dialler: Owner, owner: Owner) -> None:
    """Send some hundred kilobytes each way at once."""
    for _ in range(PIECES):
        hop.send_frame(1, FrameKind.RECORD, PIECE)
        owner.hops[-1].send_frame((1 << 31) + 1, FrameKind.RECORD, PIECE)
    for side in (dialler, owner):
        await side.wait(lambda side: len(side.frames) >= PIECES)


@asynccontextmanager
async def narrow_path(kind: str) -> AsyncIterator[tuple[Owner, Endpoint, Owner, Forwarder]]:
    here, _, there = kind.partition("→")
    owner, dialler = Owner(), Owner()
    async with (
        endpoint(owner, engine=there or here) as target,
        endpoint(dialler, make_identity("d"), engine=here, handshake_timeout_s=STALL_S) as near,
        forwarder(target.address) as router,
    ):
        yield owner, near, dialler, router


async def dial_until_open(near: Endpoint, dialler: Owner, router: Forwarder) -> Hop:
    """Dial as ``node.redial`` does: again, without knowing why it failed."""
    for _ in range(4):
        ended = len(dialler.values("closed"))
        hop = near.dial(*router.address, purpose=HopPurpose.ADMIT, target=None)
        await dialler.wait(
            lambda dialler, n=ended, hop=hop: len(dialler.values("closed")) > n or hop.is_open
        )
        if hop.is_open:
            return hop
    raise AssertionError(f"never opened: {dialler.values('closed')}")


NARROW = {
    "as WireGuard over IPv4 does, to the acceptor": (1_392, 65_536),
    "as WireGuard over IPv4 does, to the dialler": (65_536, 1_392),
    "as PPPoE over IPv6 does": (1_444, 1_444),
    "as IPv6 must at least": (1_232, 1_232),
}


@pytest.mark.parametrize(("up", "down"), NARROW.values(), ids=NARROW.keys())
@pytest.mark.parametrize("kind", QUIC_KINDS)
async def test_a_hop_opens_and_works_over_a_path_that_carries_less(
    kind: str, up: int, down: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path, "is_loopback", lambda host: False)
    async with narrow_path(kind) as (owner, near, dialler, router):
        router.up_bytes_max, router.down_bytes_max = up, down
        hop = await dial_until_open(near, dialler, router)
        lost = router.lost_up + router.lost_down
        await owner.wait(lambda owner: owner.hops and owner.hops[-1].is_open)
        await exchange_bulk(hop, dialler, owner)

        assert set(dialler.values("closed")) <= {Code.HOP_TIMEOUT, Code.HOP_UNREACHABLE}
        assert lost > 0
        # The search for larger datagrams loses a few at most, and never what was said.
        assert router.lost_up + router.lost_down - lost <= 4


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("kind", QUIC_KINDS)
async def test_a_path_that_becomes_narrower_under_an_open_hop_costs_the_hop_and_no_more(
    kind: str, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path, "is_loopback", lambda host: False)
    monkeypatch.setattr(limits, "STALL_S", 0.2)
    async with narrow_path(kind) as (owner, near, dialler, router):
        hop = await dial_until_open(near, dialler, router)
        await owner.wait(lambda owner: owner.hops and owner.hops[-1].is_open)
        if direction == "up":
            router.up_bytes_max = 1_300
        else:
            router.down_bytes_max = 1_300
        speaking = hop if direction == "up" else owner.hops[-1]
        # Much: the last of a little would fit into the small packets that still pass.
        for _ in range(10 * PIECES):
            speaking.send_frame(1, FrameKind.RECORD, PIECE)
        await dialler.wait_for("closed")
        again = await dial_until_open(near, dialler, router)
        await owner.wait(lambda owner: owner.hops[-1].is_open)
        await exchange_bulk(again, dialler, owner)

        assert dialler.values("closed") == [Code.HOP_TIMEOUT]


WATCHED = {
    "the window is wide": ([(20_000, True)] * 20, False),
    "nothing waits": ([(2_904, False)] * 20, False),
    "it opens from time to time": (
        [(2_904, True)] * 9 + [(20_000, True)] + [(2_904, True)] * 9,
        False,
    ),
    "it stays at its least and something waits": ([(2_904, True)] * 12, True),
}


@pytest.mark.parametrize(("seen", "stalled"), WATCHED.values(), ids=WATCHED.keys())
def test_whole_datagrams_are_believed_lost_when(
    seen: list[tuple[int, bool]], stalled: bool
) -> None:
    watch = StallWatch(1_452, 0.0)
    found = [
        watch.look(window_bytes, has_waiting=has_waiting, now_s=number * limits.STALL_S / 10)
        for number, (window_bytes, has_waiting) in enumerate(seen)
    ]

    assert any(found) is stalled


@pytest.mark.parametrize("kind", QUIC_KINDS)
async def test_a_wide_path_is_opened_at_the_first_attempt_with_large_datagrams(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path, "is_loopback", lambda host: False)
    async with narrow_path(kind) as (owner, near, dialler, router):
        longest = watch_sizes(near)
        hop = await dial_until_open(near, dialler, router)
        await owner.wait_for("opened")
        await exchange_bulk(hop, dialler, owner)

    assert dialler.values("closed") == [Code.HOP_CLOSED]
    assert limits.DATAGRAM_BYTES - 40 < longest[0] <= limits.DATAGRAM_BYTES


@pytest.mark.parametrize("kind", QUIC_KINDS)
async def test_on_a_known_path_the_handshake_shows_nothing(kind: str) -> None:
    async with hop_pair(kind, datagram_bytes=1_452) as pair:
        await pair.wait_opened()
        assert pair.hop._carrier.shown_bytes == 0  # type: ignore[attr-defined]
