"""Handshakes as the benchmark counts them: whole ones, and round trips in virtual time."""

import pytest

from bench.handshakes.channels import handshakes_per_cpu_s, make_pairs
from bench.handshakes.round_trips import measure_trips


def test_an_ask_without_a_channel_leaves_in_the_second_flight_and_takes_two_round_trips() -> None:
    cold, _ = measure_trips()

    assert cold.flight == 2
    assert cold.to_reply == pytest.approx(2.0, abs=0.01)


def test_an_ask_on_an_open_channel_leaves_at_once_and_takes_one_round_trip() -> None:
    _, warm = measure_trips()

    assert warm.flight == 1
    assert warm.to_reply == pytest.approx(1.0, abs=0.01)


def test_every_pair_of_agents_opens_a_channel() -> None:
    pairs = make_pairs(3)

    assert len(pairs.initiators) == 3
    assert handshakes_per_cpu_s(pairs) > 0
