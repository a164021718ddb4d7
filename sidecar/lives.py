"""Ends agents whose time to live is over, while somebody holds them. Pure.

What nobody holds is not woken any more, and its row is swept away later.
"""

from typing import Final

from identity import Code
from node.clocks import Clock
from sidecar.agents import LocalAgent
from sidecar.standing import Standing
from sidecar.timers import Timers

LOOK_SECONDS_MIN: Final = 0.05
LOOK_SECONDS_MAX: Final = 300.0
"""The wall clock may jump, and an agent may have been let go."""


class Lives:
    """One for a sidecar."""

    def __init__(self, standing: Standing, timers: Timers, clock: Clock) -> None:
        self._standing = standing
        self._timers = timers
        self._clock = clock
        self._watched: set[LocalAgent] = set()

    def watch(self, agent: LocalAgent) -> None:
        """Somebody holds it from now on."""
        if agent.ends_unix_s is not None and agent not in self._watched:
            self._watched.add(agent)
            self._arm(agent, agent.ends_unix_s)

    def _arm(self, agent: LocalAgent, ends_unix_s: int) -> None:
        left_s = ends_unix_s - self._clock.unix_s()
        wait_s = min(max(left_s, LOOK_SECONDS_MIN), LOOK_SECONDS_MAX)
        self._timers.at(self._clock.now_s() + wait_s, lambda _: self._look(agent))

    def _look(self, agent: LocalAgent) -> None:
        ends_unix_s = agent.ends_unix_s
        if ends_unix_s is None or not agent.users:
            # It was spawned again for ever, or nobody is there to tell.
            self._watched.discard(agent)
        elif self._clock.unix_s() < ends_unix_s:
            self._arm(agent, ends_unix_s)
        else:
            self._watched.discard(agent)
            self._standing.end_agent(
                agent, Code.CHANNEL_CREDENTIAL_EXPIRED, Code.LOCAL_AGENT_EXPIRED
            )
