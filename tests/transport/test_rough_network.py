"""Hops over a network that loses, doubles and shuffles datagrams."""

import random
from collections.abc import Sequence

import pytest

from link import FrameKind
from tests.transport.helpers import Owner, endpoint, make_identity
from tests.transport.pairs import QUIC_KINDS
from transport import Endpoint, HopPurpose
from transport.path import Address

BODIES = [bytes([number]) * 20_000 for number in range(20)]


def make_rough(target: Endpoint, seed: int) -> None:
    """Spoil what this endpoint sends. The seed says how; a failure names it."""
    chance = random.Random(seed)
    send = target.udp.send

    def send_roughly(
        datagrams: Sequence[tuple[bytes, Address]], local: bytes | None = None
    ) -> None:
        kept = [item for item in datagrams if chance.random() > 0.05]
        kept += [item for item in kept if chance.random() < 0.05]
        if chance.random() < 0.1:
            chance.shuffle(kept)
        send(kept, local)

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
