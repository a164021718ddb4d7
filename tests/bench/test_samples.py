"""Figures of several rounds: medians, nearest ranks, and ratios within a round."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report import Row
from bench.samples import Samples, percentile

CASE, METRIC = "1 KiB", "one-way rate"


def samples_of(**rounds: list[float]) -> Samples:
    samples = Samples()
    for system, values in rounds.items():
        for round_, value in enumerate(values):
            samples.add(round_, system, CASE, METRIC, value, "messages/s")
    return samples


RANKS = {
    "the median of four is the second": ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0),
    "the median of five is the third": ([1.0, 2.0, 3.0, 4.0, 5.0], 0.5, 3.0),
    "p99 of a hundred is the last but one": ([float(n) for n in range(1, 101)], 0.99, 99.0),
    "p99 of ten is the last": ([float(n) for n in range(1, 11)], 0.99, 10.0),
    "all of one is that one": ([7.0], 0.999, 7.0),
}


@pytest.mark.parametrize("title", RANKS)
def test_a_percentile_is_the_nearest_rank(title: str) -> None:
    ordered, share, expected = RANKS[title]

    assert percentile(ordered, share) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.001, 1.0))
def test_enough_values_do_not_exceed_a_percentile(values: list[float], share: float) -> None:
    ordered = sorted(values)

    found = percentile(ordered, share)

    assert found in ordered
    assert sum(value <= found for value in ordered) >= share * len(ordered) - 1e-6


def test_a_row_is_the_median_of_its_rounds() -> None:
    samples = samples_of(nats=[10.0, 50.0, 20.0])

    assert samples.rows() == (Row("nats", CASE, METRIC, 20.0, "messages/s"),)


def test_a_ratio_is_taken_within_each_round_so_that_a_slow_round_changes_nothing() -> None:
    # The machine is ten times slower in the second round, and nobody's fault it is.
    samples = samples_of(ours=[200.0, 20.0, 201.0], nats=[100.0, 10.0, 99.0])

    ratio = samples.ratio("ours", "nats", CASE, METRIC)

    assert ratio == 2.0


def test_what_was_not_measured_in_every_round_can_be_dropped() -> None:
    samples = samples_of(nats=[10.0, 50.0, 20.0], slim=[1.0, 2.0])

    samples.drop_incomplete(3)

    assert [row.system for row in samples.rows()] == ["nats"]


def test_a_ratio_leaves_out_rounds_that_lack_one_side() -> None:
    samples = samples_of(ours=[4.0, 300.0], nats=[2.0])

    assert samples.ratio("ours", "nats", CASE, METRIC) == 2.0
    assert samples.ratio("ours", "zmq", CASE, METRIC) is None
