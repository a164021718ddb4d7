"""The only place that reads clocks. All else takes ``now_s`` or ``unix_s`` as an argument."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one that never goes back, and the one on the wall."""

    def now_s(self) -> float:
        """Seconds on the monotonic clock. Its zero means nothing."""
        ...

    def unix_s(self) -> float:
        """Seconds since 1970, as far as this machine knows. May jump, but not below the floor."""
        ...

    def raise_floor(self, unix_s: float) -> bool:
        """It is this late at least: somebody trusted has said so under a signature. True if that
        is news."""
        ...


@dataclass(slots=True)
class SystemClock:
    """The machine's own clocks; the same monotonic clock that asyncio's loops use."""

    floor_unix_s: float = 0.0

    def now_s(self) -> float:
        return time.monotonic()  # noqa: TID251

    def unix_s(self) -> float:
        return max(time.time(), self.floor_unix_s)  # noqa: TID251

    def raise_floor(self, unix_s: float) -> bool:
        if unix_s <= self.floor_unix_s:
            return False
        self.floor_unix_s = unix_s
        return True


@dataclass(slots=True)
class ManualClock:
    """A clock that moves when told: for tests and simulations."""

    now: float = 0.0
    unix: float = 1_800_000_000.0
    floor_unix_s: float = 0.0

    def now_s(self) -> float:
        return self.now

    def unix_s(self) -> float:
        return max(self.unix, self.floor_unix_s)

    def raise_floor(self, unix_s: float) -> bool:
        if unix_s <= self.floor_unix_s:
            return False
        self.floor_unix_s = unix_s
        return True

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("the monotonic clock never goes back")
        self.now += seconds
        self.unix += seconds


def utc_text(unix_s: float) -> str:
    """RFC 3339 in UTC with milliseconds: ``2026-11-22T09:30:00.123Z``."""
    moment = datetime.fromtimestamp(unix_s, UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
