"""Bulk on one lane or byte stream does not stand in the way of what is small, on each engine."""

import pytest

from identity import Code
from link import FrameKind
from tests.transport.helpers import Owner
from tests.transport.pairs import QUIC_KINDS, Pair, hop_pair
from transport import limits

BULK = bytes(60_000)
PIECES = 100
AHEAD_BYTES_MAX = 2 << 20

each_quic_kind = pytest.mark.parametrize("kind", QUIC_KINDS)


def say_bulk(pair: Pair, where: str) -> None:
    """Queue six megabytes in one turn of the loop: on lane 1, lane 2, or a byte stream."""
    if where == "a byte stream":
        stream = pair.hop.open_stream()
        for _ in range(PIECES):
            pair.hop.send_stream(stream, BULK)
    else:
        link = 5 if where == "another link of the lane" else 2
        for _ in range(PIECES):
            pair.hop.send_frame(link, FrameKind.RECORD, BULK)


def bulk_bytes(owner: Owner) -> int:
    frames = sum(len(frame.body) for frame in owner.frames)
    return frames + sum(len(data) for data in owner.received.values())


@each_quic_kind
@pytest.mark.parametrize("where", ["another link of the lane", "another lane", "a byte stream"])
async def test_a_small_frame_passes_bulk_on(kind: str, where: str) -> None:
    async with hop_pair(kind) as pair:
        await pair.wait_opened()
        say_bulk(pair, where)
        pair.hop.send_frame(1, FrameKind.RECORD, b"small")

        await pair.acceptor.wait(lambda owner: any(f.body == b"small" for f in owner.frames))
        ahead = bulk_bytes(pair.acceptor)
        await pair.acceptor.wait(lambda owner: bulk_bytes(owner) >= PIECES * len(BULK))

    assert ahead < AHEAD_BYTES_MAX


@each_quic_kind
async def test_what_waits_waits_in_the_hop_and_not_in_the_engine(kind: str) -> None:
    async with hop_pair(kind) as pair:
        await pair.wait_opened()
        engine = pair.hop._carrier._engine  # type: ignore[attr-defined]
        say_bulk(pair, "another lane")
        waiting: list[int] = []

        def look(owner: Owner) -> bool:
            waiting.append(engine.flow().queued_bytes)
            return bulk_bytes(owner) >= PIECES * len(BULK)

        await pair.acceptor.wait(look)

    assert max(waiting) < AHEAD_BYTES_MAX < PIECES * len(BULK) // 2


@each_quic_kind
async def test_an_owner_sees_all_that_waits_of_a_byte_stream(kind: str) -> None:
    async with hop_pair(kind) as pair:
        await pair.wait_opened()
        stream = pair.hop.open_stream()
        for _ in range(PIECES):
            pair.hop.send_stream(stream, BULK)
        queued = [pair.hop.stream_queued_bytes(stream)]

        def look(owner: Owner) -> bool:
            queued.append(pair.hop.stream_queued_bytes(stream))
            return bulk_bytes(owner) >= PIECES * len(BULK)

        await pair.acceptor.wait(look)

    assert queued[0] == PIECES * len(BULK)
    assert queued == sorted(queued, reverse=True)


@each_quic_kind
async def test_a_byte_stream_that_is_reset_forgets_what_waits_of_it(kind: str) -> None:
    async with hop_pair(kind) as pair:
        await pair.wait_opened()
        stream = pair.hop.open_stream()
        for _ in range(PIECES):
            pair.hop.send_stream(stream, BULK)
        pair.hop.reset_stream(stream, Code.STREAM_RESET)
        pair.hop.send_frame(1, FrameKind.RECORD, b"after")

        await pair.acceptor.wait(lambda owner: owner.frames)

        assert bulk_bytes(pair.acceptor) < limits.LAST_WORDS_BYTES_MAX
        assert pair.hop.stream_queued_bytes(stream) == 0
