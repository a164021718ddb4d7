"""The probe of hops measures what it says."""

import asyncio

import pytest

from tests.impairment.hop_probe import (
    KeepRow,
    Opening,
    OpenRow,
    keep_many,
    open_many,
    read_options,
    run,
)
from tests.impairment.rungs import RUNGS

WAIT_S = 20.0


async def test_it_times_the_opening_of_hops() -> None:
    options = read_options(["open", "blackhole", "--hops", "2", "--pairs", "qh3:aioquic"])

    async with asyncio.timeout(WAIT_S):
        row = await open_many("blackhole", "qh3:aioquic", options)

    # Retry, TLS, the proof and the yes are four round trips.
    delay_s = RUNGS["blackhole"].impairment.delay_ms / 1000
    assert isinstance(row, OpenRow)
    assert (row.in_time, row.opened, row.failures) == (2, 2, {})
    assert 8 * delay_s <= row.p50_s <= row.max_s < WAIT_S
    assert "2/2 in time" in row.text()


async def test_it_times_frames_and_notes_what_was_lost() -> None:
    options = read_options(["keep", "--hops", "2", "--seconds", "0.1", "--frames-per-s", "50"])

    async with asyncio.timeout(WAIT_S):
        row = await keep_many("blackhole", "qh3:qh3", options)

    delay_s = RUNGS["blackhole"].impairment.delay_ms / 1000
    assert isinstance(row, KeepRow)
    assert (row.lost, row.ends) == (0, {})
    assert row.frames > 0
    assert row.p50_s >= 2 * delay_s
    assert "0/2 lost" in row.text()


async def test_it_walks_the_rungs_and_pairs_that_it_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = read_options(
        ["keep", "loss-0.1", "--pairs", "qh3:qh3", "--hops", "1", "--seconds", "0.01", "--json"]
    )

    async with asyncio.timeout(WAIT_S):
        rows = await run(options)

    assert [(row.rung, row.pair) for row in rows] == [("loss-0.1", "qh3:qh3")]
    assert capsys.readouterr().out == ""


def test_a_limit_holds_for_the_proof_and_again_for_the_yes() -> None:
    assert Opening(4.9, 9.8, None).is_within(5.0)
    assert not Opening(5.1, 5.2, None).is_within(5.0)
    assert not Opening(1.0, 6.1, None).is_within(5.0)
    assert not Opening(1.0, float("nan"), "hop.peer_lost: gone").is_within(5.0)


def test_an_unknown_rung_is_refused() -> None:
    with pytest.raises(SystemExit):
        read_options(["open", "heaven"])
