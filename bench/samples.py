"""Figures of several rounds: medians, percentiles, and ratios that are taken within a round."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.report import Row

Key = tuple[str, str, str]
"""System, case and metric, as in a row."""


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of all values do not exceed (nearest rank)."""
    assert ordered, "a percentile of nothing"
    assert 0 < share <= 1
    rank = -int(-share * len(ordered) // 1)  # Rounded up.
    return ordered[max(rank, 1) - 1]


@dataclass(slots=True)
class Samples:
    """Values by round. A round in which something was not measured has no value for it."""

    _values: dict[Key, dict[int, float]] = field(default_factory=dict)
    _units: dict[Key, str] = field(default_factory=dict)

    def add(
        self, round_: int, system: str, case: str, metric: str, value: float, unit: str
    ) -> None:
        key = (system, case, metric)
        rounds = self._values.setdefault(key, {})
        assert round_ not in rounds, f"{key} was measured twice in round {round_}"
        rounds[round_] = value
        self._units[key] = unit

    def drop_incomplete(self, rounds: int) -> None:
        """Forget what was not measured in every round: a median of some would be the luckier ones'.

        A percentile, say, for which there were enough samples only while the machine was quiet.
        """
        for key in [key for key, found in self._values.items() if len(found) < rounds]:
            del self._values[key], self._units[key]

    def rows(self) -> tuple[Row, ...]:
        """The median of each, in the order in which they were first measured."""
        return tuple(
            Row(*key, statistics.median(rounds.values()), self._units[key])
            for key, rounds in self._values.items()
        )

    def ratio(self, system: str, to: str, case: str, metric: str) -> float | None:
        """How many times ``to`` one system is: the median over the rounds that measured both.

        A machine that slows down between rounds changes both sides of each ratio alike.
        """
        ours = self._values.get((system, case, metric), {})
        theirs = self._values.get((to, case, metric), {})
        ratios = [
            ours[round_] / theirs[round_]
            for round_ in ours.keys() & theirs.keys()
            if theirs[round_]
        ]
        return statistics.median(ratios) if ratios else None
