"""Keeps running what a program does beside its work: a fault of ours ends one turn, and no more.

Without it, a task that met an exception nobody foresaw was gone without a word, and the program
looked well: until its credential ran out, for example.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from node.metrics import Metrics

PAUSE_SECONDS: Final = 1.0
PAUSE_SECONDS_MAX: Final = 60.0
"""Doubled from the one to the other while it goes on failing, so that no log is filled."""
TASKS: Final = (
    "authority",
    "children",
    "direct_hops",
    "gateway",
    "gateway_hop",
    "judge",
    "mandatory_policy",
    "policy",
    "renewal",
    "rotation",
    "write_down",
)

_log = structlog.get_logger("node.keeper")


class Keeper:
    """One for a program."""

    def __init__(self, metrics: Metrics) -> None:
        self._faults = metrics.counter(
            "task_faults", "Faults of ours that ended a turn of a background task.", task=TASKS
        )

    async def keep(self, task: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run it until it ends by itself or is cancelled; after an exception, once more.

        ``task`` is one of ``TASKS``. Whatever ``run`` has to remember, its owner keeps.
        """
        assert task in TASKS
        pause_s = PAUSE_SECONDS
        clock = asyncio.get_running_loop().time
        while True:
            begun_s = clock()
            try:
                await run()
            except Exception:
                _log.exception("task_failed", task=task)
                self._faults.increment(task=task)
            else:
                return
            if clock() - begun_s >= PAUSE_SECONDS_MAX:
                pause_s = PAUSE_SECONDS
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_SECONDS_MAX)
