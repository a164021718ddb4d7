"""A long random walk over whole channels: sizes, rekeying and the moment of the permit vary."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channel import ChannelEvent, ChannelStateError, DataReceived, RekeyLimits
from channel.limits import MESSAGE_BYTES_MAX, RECORD_PLAINTEXT_BYTES_MAX
from identity import Code
from tests.channel.helpers import ALICE, ChannelPair, FakePermit, carry

SIZES = [0, 1, RECORD_PLAINTEXT_BYTES_MAX, RECORD_PLAINTEXT_BYTES_MAX + 1, MESSAGE_BYTES_MAX]


def _data_of(events: list[ChannelEvent]) -> list[bytes]:
    return [event.data for event in events if isinstance(event, DataReceived)]


@pytest.mark.prove
@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([2, 3, 5, 1 << 20]))
def test_whatever_was_taken_arrives_once_in_order_and_after_the_permit(
    seed: int, records_max: int
) -> None:
    random = Random(seed)
    pair = ChannelPair.verified(limits=RekeyLimits(records_max=records_max))
    sent: dict[str, list[bytes]] = {"alice": [], "bob": []}
    seen: dict[str, list[ChannelEvent]] = {"alice": [], "bob": []}
    turns = random.randrange(1, 8)
    permit_turn = random.randrange(turns + 1)
    for turn in range(turns + 1):
        if turn == permit_turn:
            assert seen["bob"] == []
            seen["bob"] += pair.bob.accept(FakePermit(ALICE.identifier))
            seen["alice"] += carry(pair.bob, pair.alice)
        message = random.randbytes(random.choice([*SIZES, random.randrange(200_000)]))
        try:
            pair.alice.send(message, now_s=1.0)
            sent["alice"].append(message)
        except ChannelStateError as error:
            assert error.code is Code.MESSAGE_QUEUE_FULL  # noqa: PT017 — legal before ACCEPT.
            assert turn < permit_turn
        if turn >= permit_turn:
            pair.bob.send(message[:100], now_s=1.0)
            sent["bob"].append(message[:100])
        seen["bob"] += carry(pair.alice, pair.bob)
        seen["alice"] += carry(pair.bob, pair.alice)

    assert _data_of(seen["bob"]) == sent["alice"]
    assert _data_of(seen["alice"]) == sent["bob"]
