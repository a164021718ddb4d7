"""Packet keys are renewed, by count and by time, in all pairings, and nobody notices."""

from collections.abc import Callable, Sequence

import pytest

from link import FrameKind
from tests.transport.helpers import Owner, endpoint, make_identity
from tests.transport.pairs import QUIC_KINDS, Pair, hop_pair
from transport import Hop, HopPurpose, TransportSettings, limits
from transport.certificate import ThrowAwayCertificate
from transport.engine import EngineConnection
from transport.engines import make_engine
from transport.key_schedule import KeySchedule
from transport.path import Address, PathPlan

PIECE = 20_000
PIECES = 60

each_quic_kind = pytest.mark.parametrize("kind", QUIC_KINDS)


def engine_of(hop: Hop) -> EngineConnection:
    return hop._carrier._engine  # type: ignore[attr-defined, no-any-return]


def updates_of(hop: Hop) -> int:
    return hop._carrier._home.counters.key_updates  # type: ignore[attr-defined, no-any-return]


def bodies(seed: int) -> list[bytes]:
    return [bytes([(seed + number) % 256]) * PIECE for number in range(PIECES)]


def watch_phases(hop: Hop) -> set[int | None]:
    """Return a set that fills with the key phases in which this end sends."""
    engine, seen = engine_of(hop), set[int | None]()
    take = engine.take_datagrams

    def look(now_s: float) -> Sequence[tuple[bytes, Address]]:
        datagrams = take(now_s)
        seen.add(engine.key_phase)
        return datagrams

    engine.take_datagrams = look  # type: ignore[method-assign]
    return seen


async def exchange(pair: Pair) -> None:
    """Send a megabyte each way at once, and see that all of it arrives."""
    for near, far in zip(bodies(0), bodies(7), strict=True):
        pair.hop.send_frame(1, FrameKind.RECORD, near)
        pair.far.send_frame((1 << 31) + 1, FrameKind.RECORD, far)
    for owner in (pair.acceptor, pair.dialler):
        await owner.wait(lambda owner: len(owner.frames) == PIECES)
    assert [frame.body for frame in pair.acceptor.frames] == bodies(0)
    assert [frame.body for frame in pair.dialler.frames] == bodies(7)


@each_quic_kind
async def test_keys_are_renewed_by_count_under_load_on_both_sides(kind: str) -> None:
    async with hop_pair(kind, key_update_packets=200, datagram_bytes=1_452) as pair:
        await pair.wait_opened()
        phases = watch_phases(pair.hop), watch_phases(pair.far)
        await exchange(pair)

        assert phases == ({0, 1}, {0, 1})
        assert updates_of(pair.hop) + updates_of(pair.far) >= 2
        assert (pair.dialler.code, pair.acceptor.code) == (None, None)


@each_quic_kind
@pytest.mark.parametrize("begins", ["the dialler", "the acceptor"])
async def test_a_peer_that_never_begins_follows(kind: str, begins: str) -> None:
    here, _, there = kind.partition("→")
    tiny: dict[str, object] = {"key_update_packets": 200}
    near_settings, far_settings = (tiny, {}) if begins == "the dialler" else ({}, tiny)
    owner, dialler = Owner(), Owner()
    async with (
        endpoint(owner, engine=there or here, datagram_bytes=1_452, **far_settings) as target,
        endpoint(
            dialler, make_identity("d"), engine=here, datagram_bytes=1_452, **near_settings
        ) as near,
    ):
        hop = near.dial(*target.address, purpose=HopPurpose.ADMIT, target=None)
        pair = Pair(hop, dialler, owner)
        await pair.wait_opened()
        phases = watch_phases(pair.hop), watch_phases(pair.far)
        await exchange(pair)

        assert phases == ({0, 1}, {0, 1})
        counts = (near.counters.key_updates, target.counters.key_updates)
        assert (counts[0] > 0, counts[1] > 0) == (begins == "the dialler", begins != "the dialler")


@each_quic_kind
async def test_keys_are_renewed_by_time_on_a_quiet_hop(kind: str) -> None:
    async with hop_pair(kind, key_update_s=0.05, keepalive_s=0.02, idle_timeout_s=2.0) as pair:
        await pair.wait_opened()
        await pair.dialler.wait_until(lambda: updates_of(pair.hop) + updates_of(pair.far) >= 3)
        pair.hop.send_frame(1, FrameKind.RECORD, b"still here")

        await pair.acceptor.wait(lambda owner: owner.frames)

        assert pair.acceptor.frames[0].body == b"still here"


@each_quic_kind
async def test_no_update_begins_before_the_last_one_is_confirmed(kind: str) -> None:
    async with hop_pair(kind) as pair:
        await pair.wait_opened()
        engine = engine_of(pair.hop)
        await pair.dialler.wait_until(lambda: engine.renew_keys())
        again = [engine.renew_keys() for _ in range(3)]
        pair.hop.send_frame(1, FrameKind.RECORD, b"under the new keys")
        await pair.acceptor.wait(lambda owner: owner.frames)

        await pair.dialler.wait_until(lambda: engine.renew_keys())

        assert again == [False] * 3


@pytest.mark.parametrize("name", ["qh3", "aioquic"])
def test_no_update_begins_before_the_handshake_is_confirmed(name: str) -> None:
    settings = TransportSettings(engine=name)  # type: ignore[arg-type]
    engine = make_engine(ThrowAwayCertificate.generate(), settings)
    connection = engine.dial(PathPlan(1_200, is_loopback=False, is_guessed=False))
    before = connection.renew_keys()
    connection.connect(("127.0.0.1", 9), 0.0)

    assert (before, connection.renew_keys(), connection.key_phase) == (False, False, None)


DUE: dict[str, tuple[Callable[[KeySchedule], bool], bool]] = {
    "nothing was sent": (lambda keys: keys.is_due(0, 1.0), False),
    "one packet less than the limit": (lambda keys: keys.is_due(99, 1.0), False),
    "as many packets as the limit": (lambda keys: keys.is_due(100, 1.0), True),
    "packets add up": (lambda keys: keys.is_due(60, 1.0) or keys.is_due(60, 2.0), True),
    "time is up": (lambda keys: keys.is_due(0, 10.0), True),
    "they were renewed since": (
        lambda keys: (keys.is_due(100, 10.0), keys.renewed(10.0), keys.is_due(99, 19.9))[2],  # type: ignore[func-returns-value]
        False,
    ),
}


@pytest.mark.parametrize(("ask", "due"), DUE.values(), ids=DUE.keys())
def test_keys_are_due_when(ask: Callable[[KeySchedule], bool], due: bool) -> None:
    assert ask(KeySchedule(100, 10.0, 0.0)) is due


def test_the_defaults_stay_below_what_the_cipher_is_good_for() -> None:
    settings = TransportSettings()

    assert settings.key_update_packets == limits.KEY_UPDATE_PACKETS < 1 << 23
    assert settings.key_update_s == limits.KEY_UPDATE_S == 3_600
