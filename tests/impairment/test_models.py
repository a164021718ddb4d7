"""The models keep what they promise: so much is lost, in runs so long; so much passes a second."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.impairment.models import Losses, TokenBucket

# Loss, mean burst, and how many datagrams it takes to see both within a tenth.
ASKED = {
    "each by itself, one in a hundred": (0.01, 0.0, 120_000),
    "each by itself, every third": (0.3, 0.0, 20_000),
    "short runs": (0.05, 2.0, 60_000),
    "long runs": (0.02, 8.0, 400_000),
    "mostly lost": (0.8, 10.0, 60_000),
}


def runs_of(fates: list[bool]) -> list[int]:
    return [len(list(run)) for lost, run in itertools.groupby(fates) if lost]


@pytest.mark.parametrize("case", ASKED)
def test_losses_come_as_often_and_in_runs_as_long_as_was_asked(case: str) -> None:
    loss, burst, count = ASKED[case]
    losses = Losses(loss, burst, random.Random(7))

    fates = [losses.next_is_lost() for _ in range(count)]

    runs = runs_of(fates)
    assert sum(fates) / count == pytest.approx(loss, rel=0.1)
    assert sum(runs) / len(runs) == pytest.approx(burst or 1 / (1 - loss), rel=0.1)


@pytest.mark.parametrize(("loss", "fate"), [(0.0, False), (1.0, True)])
def test_nothing_and_everything_are_exact(loss: float, fate: bool) -> None:
    losses = Losses(loss, 0.0, random.Random(7))

    assert {losses.next_is_lost() for _ in range(1_000)} == {fate}


ARRIVALS = st.lists(
    st.tuples(st.floats(0, 0.05), st.integers(0, 3_000)),  # a pause, then a datagram of so many
    max_size=60,
)
RATES = st.tuples(st.integers(1_000, 1_000_000), st.integers(1, 5_000), st.integers(1, 20_000))


@given(ARRIVALS, RATES)
def test_a_path_never_carries_more_than_its_bucket_and_its_rate(
    arrivals: list[tuple[float, int]], limits: tuple[int, int, int]
) -> None:
    rate_bytes_s, bucket_bytes, queue_bytes = limits
    bucket = TokenBucket(rate_bytes_s, bucket_bytes, queue_bytes)
    now_s, passed = 0.0, []
    for pause_s, size in arrivals:
        now_s += pause_s
        at_s = bucket.departure_s(size, now_s)
        if at_s is not None:
            passed.append((at_s, size))

    for first, last in itertools.combinations_with_replacement(range(len(passed)), 2):
        took_s = passed[last][0] - passed[first][0]
        allowed = rate_bytes_s * took_s + max(bucket_bytes, passed[last][1])
        assert sum(size for _, size in passed[first : last + 1]) <= allowed + 1e-6 * rate_bytes_s


@given(ARRIVALS, RATES)
def test_a_path_never_keeps_more_waiting_than_its_queue_and_drops_only_when_that_is_full(
    arrivals: list[tuple[float, int]], limits: tuple[int, int, int]
) -> None:
    bucket = TokenBucket(*limits)
    now_s, leaving, last_s = 0.0, list[tuple[float, int]](), 0.0
    for pause_s, size in arrivals:
        now_s += pause_s
        waiting = sum(waits for at_s, waits in leaving if at_s > now_s)
        at_s = bucket.departure_s(size, now_s)
        if at_s is None:
            assert waiting + size > limits[2]
        else:
            assert at_s >= max(now_s, last_s), "it overtakes nobody"
            leaving.append((at_s, size))
            last_s = at_s
        assert bucket.waiting_bytes == sum(waits for at_s, waits in leaving if at_s > now_s)
        assert bucket.waiting_bytes <= limits[2]


def test_a_pause_fills_the_bucket_and_a_datagram_beyond_it_passes_at_the_rate() -> None:
    bucket = TokenBucket(1_000, 500, 10_000)

    departures = [bucket.departure_s(500, 10.0) for _ in range(3)]

    assert departures == pytest.approx([10.0, 10.5, 11.0])
