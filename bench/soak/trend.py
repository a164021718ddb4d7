"""Whether a figure stays where it is: medians at both ends, a line between, and the spread. Pure."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.samples import percentile

# The first third of a run fills caches and pools, and finds the size that heaps need.
WARM_UP_SHARE: Final = 1 / 3
# Of what comes behind the warm-up, the first and the last third are compared.
END_SHARE: Final = 1 / 3
SAMPLES_MIN: Final = 9
"""Behind the warm-up: three of each third."""
SPREAD_SHARES: Final = (0.05, 0.95)
HOUR_S: Final = 3_600.0

Point = tuple[float, float]
"""Seconds from the begin of the run, and a value."""


@dataclass(frozen=True, slots=True)
class Trend:
    """Of one figure, behind the warm-up."""

    first: float
    """The median of the first third."""
    last: float
    """The median of the last third."""
    per_hour: float
    """The slope of the line with the least squares."""
    spread: float
    """From the 5th to the 95th percentile."""

    @property
    def change(self) -> float:
        """Of the last third against the first, as a share of that. A zero stays or is infinite."""
        if self.first:
            return self.last / self.first - 1
        return 0.0 if self.last == self.first else float("inf")


def trend_of(points: Sequence[Point], duration_s: float) -> Trend | None:
    """What a figure did behind the warm-up of a run; None if too little of it was seen."""
    begin_s = duration_s * WARM_UP_SHARE
    kept = [(at_s, value) for at_s, value in points if at_s >= begin_s]
    third_s = (duration_s - begin_s) * END_SHARE
    first = [value for at_s, value in kept if at_s < begin_s + third_s]
    last = [value for at_s, value in kept if at_s >= duration_s - third_s]
    if len(kept) < SAMPLES_MIN or not first or not last:
        return None
    ordered = sorted(value for _, value in kept)
    low, high = (percentile(ordered, share) for share in SPREAD_SHARES)
    line = statistics.linear_regression(*zip(*kept, strict=True))
    return Trend(
        first=statistics.median(first),
        last=statistics.median(last),
        per_hour=line.slope * HOUR_S,
        spread=high - low,
    )
