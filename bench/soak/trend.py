"""Whether a figure stays where it is: both ends of a run, and a line through all of it. Pure."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# The beginning of a run fills caches and pools, and finds the size that heaps need.
WARM_UP_SHARE: Final = 1 / 3
WARM_UP_S_MAX: Final = 300.0
# Of what comes behind the warm-up, the first and the last third are compared.
END_SHARE: Final = 1 / 3
SAMPLES_MIN: Final = 9
"""Behind the warm-up: three of each third."""
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
    first_most: float
    """All that was seen at once in the first third."""
    per_hour: float
    """The slope of the line with the least squares."""
    seconds: float
    """How long it was measured."""

    @property
    def change(self) -> float:
        """Of the last third against the first, as a share of that. A zero stays or is infinite."""
        return _share(self.last - self.first, self.first)

    @property
    def drift(self) -> float:
        """By how much the line rises from its begin to its end, as a share of the first third."""
        return _share(self.per_hour * self.seconds / HOUR_S, self.first)

    @property
    def unrest(self) -> float:
        """The larger of both, up or down: 0.05 is five per cent."""
        return max(abs(self.change), abs(self.drift))

    @property
    def gained(self) -> float:
        """Of what is counted: by how much its usual number is at last above all that it was first.

        What comes and goes, and what was away for a while, moves a median by one or two.
        """
        return max(0.0, self.last - self.first_most)


def warm_up_s(duration_s: float) -> float:
    """How much of a run is not looked at."""
    return min(duration_s * WARM_UP_SHARE, WARM_UP_S_MAX)


def trend_of(points: Sequence[Point], duration_s: float) -> Trend | None:
    """What a figure did behind the warm-up of a run; None if too little of it was seen."""
    begin_s = warm_up_s(duration_s)
    kept = [(at_s, value) for at_s, value in points if begin_s <= at_s <= duration_s]
    third_s = (duration_s - begin_s) * END_SHARE
    first = [value for at_s, value in kept if at_s < begin_s + third_s]
    last = [value for at_s, value in kept if at_s >= duration_s - third_s]
    if len(kept) < SAMPLES_MIN or not first or not last:
        return None
    line = statistics.linear_regression(*zip(*kept, strict=True))
    return Trend(
        first=statistics.median(first),
        last=statistics.median(last),
        first_most=max(first),
        per_hour=line.slope * HOUR_S,
        seconds=kept[-1][0] - kept[0][0],
    )


def _share(part: float, whole: float) -> float:
    if whole:
        return part / whole
    return 0.0 if part == 0 else float("inf")
