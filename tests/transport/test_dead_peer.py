"""A peer that lives, one that is gone without a word, and one that has started again."""

import asyncio

import pytest

from identity import Code
from link import FrameKind
from tests.transport.helpers import Owner, endpoint, make_identity
from tests.transport.pairs import QUIC_KINDS, hop_pair
from transport import HopPurpose, TransportSettings
from transport.connection import HopConnection

IDLE_S, KEEPALIVE_S = 0.6, 0.19
# A busy machine may be so late. Whoever counted from its own last word: later than twice IDLE_S.
NOISE_S = 0.4
TIMES = {"idle_timeout_s": IDLE_S, "keepalive_s": KEEPALIVE_S}

each_quic_kind = pytest.mark.parametrize("kind", QUIC_KINDS)


def carrier_of(hop: object) -> HopConnection:
    return hop._carrier  # type: ignore[attr-defined, no-any-return]


@each_quic_kind
async def test_a_quiet_hop_stays_open(kind: str) -> None:
    async with hop_pair(kind, **TIMES) as pair:
        await pair.wait_opened()
        await asyncio.sleep(IDLE_S * 1.3)
        assert (pair.dialler.code, pair.acceptor.code) == (None, None)


@each_quic_kind
@pytest.mark.parametrize("dead", ["acceptor", "dialler"])
async def test_who_vanishes_is_noticed_when_nothing_was_heard_for_the_idle_time(
    kind: str, dead: str
) -> None:
    """As a machine does that lost its power. The PINGs that go unanswered add nothing to it."""
    async with hop_pair(kind, **TIMES) as pair:
        await pair.wait_opened()
        hop, owner, gone = (
            (pair.hop, pair.dialler, pair.far)
            if dead == "acceptor"
            else (pair.far, pair.acceptor, pair.hop)
        )
        loop = asyncio.get_running_loop()
        carrier_of(gone)._home.udp.close()
        await owner.wait_for("closed")
        taken_s = loop.time() - carrier_of(hop)._liveness.heard_s

        assert owner.code is Code.HOP_PEER_LOST
        assert IDLE_S <= taken_s < IDLE_S + KEEPALIVE_S + NOISE_S


@each_quic_kind
async def test_who_vanishes_while_we_speak_is_noticed_as_soon(kind: str) -> None:
    async with hop_pair(kind, **TIMES) as pair:
        await pair.wait_opened()
        loop = asyncio.get_running_loop()
        carrier_of(pair.far)._home.udp.close()
        while (
            pair.dialler.code is None and loop.time() < carrier_of(pair.hop)._liveness.heard_s + 2
        ):
            pair.hop.send_frame(1, FrameKind.RECORD, b"hello?")
            await asyncio.sleep(0.01)
        taken_s = loop.time() - carrier_of(pair.hop)._liveness.heard_s

        assert pair.dialler.code is Code.HOP_PEER_LOST
        assert taken_s < IDLE_S + KEEPALIVE_S + NOISE_S


@each_quic_kind
async def test_a_peer_that_starts_again_on_its_address_is_let_in_at_once(kind: str) -> None:
    """It knows nothing of its old hop, which we still hold; that one is lost in its time."""
    here, _, there = kind.partition("→")
    owner, first, second = Owner(), Owner(), Owner()
    own = make_identity("d")
    async with (
        endpoint(owner, engine=there or here) as target,
        endpoint(first, own, engine=here) as near,
    ):
        near.dial(*target.address, purpose=HopPurpose.ADMIT, target=None)
        await first.wait_for("opened")
        await owner.wait_for("opened")
        port = near.address[1]
        near.udp.close()  # Nothing that it says on closing is heard.
        async with endpoint(second, own, port=port, engine=here) as again:
            again.dial(*target.address, purpose=HopPurpose.ADMIT, target=None)
            await second.wait_for("opened")
            await owner.wait_for("opened", 2)

            assert target.connection_count == 2
            assert owner.values("closed") == []


@each_quic_kind
async def test_a_listener_that_starts_again_on_its_address_is_missed_and_found(kind: str) -> None:
    here, _, there = kind.partition("→")
    before, after, dialler = Owner(), Owner(), Owner()
    async with endpoint(dialler, make_identity("d"), engine=here, **TIMES) as near:
        async with endpoint(before, engine=there or here, **TIMES) as target:
            near.dial(*target.address, purpose=HopPurpose.ADMIT, target=None)
            await dialler.wait_for("opened")
            port = target.address[1]
            target.udp.close()
        async with endpoint(after, port=port, engine=there or here, **TIMES) as target:
            await dialler.wait_for("closed")
            near.dial(*target.address, purpose=HopPurpose.ADMIT, target=None)
            await dialler.wait_for("opened", 2)

            assert dialler.values("closed") == [Code.HOP_PEER_LOST]
            # What we said to the old one means nothing to the new one, and costs it nothing.
            assert target.counters.dropped_unknown > 0


def test_by_default_a_dead_peer_is_noticed_in_five_seconds() -> None:
    assert TransportSettings().idle_timeout_s == 5.0
