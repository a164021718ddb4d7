"""Hops of nodes that have no credential yet. Anybody can open one, so they are few and short.

They take none of the places that members have. When all are taken the oldest one makes room: who
enrols is done within a second, and who came to hold a place loses it.
"""

from typing import Final

from identity import Code
from link import HopPort

ENROLLING_HOPS_MAX: Final = 64
ENROLLING_SECONDS_MAX: Final = 30.0


class EnrollingHops:
    """Which they are, oldest first."""

    def __init__(self) -> None:
        self._until_s: dict[HopPort, float] = {}

    def __len__(self) -> int:
        return len(self._until_s)

    def add(self, hop: HopPort, now_s: float) -> None:
        if len(self._until_s) >= ENROLLING_HOPS_MAX:
            self._close(next(iter(self._until_s)), Code.HOP_LIMIT_EXCEEDED)
        self._until_s[hop] = now_s + ENROLLING_SECONDS_MAX

    def discard(self, hop: HopPort) -> None:
        """It has ended, or never was one."""
        self._until_s.pop(hop, None)

    def close_overdue(self, now_s: float) -> None:
        for hop in [hop for hop, until_s in self._until_s.items() if now_s >= until_s]:
            self._close(hop, Code.HOP_TIMEOUT)

    def _close(self, hop: HopPort, code: Code) -> None:
        del self._until_s[hop]
        hop.close(code)
