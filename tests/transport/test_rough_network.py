"""Hops over a network that loses, doubles and shuffles datagrams, and over renewed packet keys."""

import random
from collections.abc import Sequence

import pytest

from link import FrameKind
from tests.transport.helpers import Owner, endpoint, make_identity
from tests.transport.pairs import QUIC_KINDS, hop_pair
from transport import Endpoint, HopPurpose, limits
from transport.path import Address

BODIES = [bytes([number]) * 20_000 for number in range(20)]


def make_rough(target: Endpoint, seed: int) -> None:
    """Spoil what this endpoint sends. The seed says how; a failure names it."""
    chance = random.Random(seed)
    send = target.udp.send

    def send_roughly(datagrams: Sequence[tuple[bytes, Address]]) -> None:
        kept = [item for item in datagrams if chance.random() > 0.05]
        kept += [item for item in kept if chance.random() < 0.05]
        if chance.random() < 0.1:
            chance.shuffle(kept)
        send(kept)

    target.udp.send = send_roughly  # type: ignore[method-assign]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", QUIC_KINDS)
async def test_frames_arrive_whole_and_in_order_through(kind: str, seed: int) -> None:
    here, _, there = kind.partition("→")
    owner, dialler = Owner(), Owner()
    async with (
        endpoint(owner, engine=there or here) as target,
        endpoint(dialler, make_identity("d"), engine=here) as near,
    ):
        make_rough(near, seed)
        make_rough(target, seed + 1000)
        hop = near.dial(*target.address, purpose=HopPurpose.ADMIT, target=None)
        await dialler.wait_for("opened")
        for body in BODIES:
            hop.send_frame(1, FrameKind.RECORD, body)
        await owner.wait(lambda owner: len(owner.frames) == len(BODIES))
        assert [frame.body for frame in owner.frames] == BODIES


@pytest.mark.parametrize("kind", QUIC_KINDS)
async def test_packet_keys_are_renewed_without_a_gap(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "KEY_UPDATE_PACKETS", 200)
    async with hop_pair(kind) as pair:
        await pair.wait_opened()
        for number in range(60):
            pair.hop.send_frame(number + 1, FrameKind.RECORD, bytes(15_000))
            await pair.acceptor.wait(lambda owner, n=number: len(owner.frames) > n)  # type: ignore[misc]
            pair.far.send_frame((1 << 31) + number, FrameKind.RECORD, bytes(15_000))
            await pair.dialler.wait(lambda owner, n=number: len(owner.frames) > n)  # type: ignore[misc]
        assert (pair.dialler.code, pair.acceptor.code) == (None, None)
