"""Whether gateways have brought what they say they hold of this authority's own documents.

After a restored backup ours may be older ones. What is signed then takes the place of newer ones,
so it waits; but not for ever for a gateway that claims to hold what it does not bring.
"""

from collections.abc import Callable
from typing import Final

from node.clocks import Clock

BRING_SECONDS_MAX: Final = 5.0


class Hearing:
    """Of one kind of document. ``told`` is the highest number that a gateway claims to hold, None
    while none has said; ``held`` is ours."""

    def __init__(
        self, clock: Clock, *, told: Callable[[], int | None], held: Callable[[], int]
    ) -> None:
        self._clock = clock
        self._told = told
        self._held = held
        self._behind_s: float | None = None
        """Since when somebody claims to hold a newer one."""

    def is_over(self) -> bool:
        """Called about once a second, at least while it is not."""
        told = self._told()
        if told is None:
            return False  # Who hangs up and comes again begins no new wait.
        if told <= self._held():
            self._behind_s = None
            return True
        now_s = self._clock.now_s()
        if self._behind_s is None:
            self._behind_s = now_s
        return now_s - self._behind_s >= BRING_SECONDS_MAX
