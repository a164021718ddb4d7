"""Puts channels away on which nothing is said: their keys are erased, and the next message opens
another. Pure.

A channel is put away by agreement: one side offers (REST), the other closes it or, if something is
under way that the first cannot know of, goes on (WAKE). So nothing is lost to it. A program that is
about to stop says so first (LEAVING), and then neither side begins anything new on the channel.
"""

from typing import Final

from channel import Signal
from identity import Code
from sidecar.channels import ChannelTable
from sidecar.slot import ChannelSlot
from sidecar.timers import Timer, Timers

IDLE_SECONDS: Final = 300.0
# Between two looks at all channels: half of the idle time, where that is within these.
SWEEP_SECONDS: Final = 5.0
SWEEP_SECONDS_MIN: Final = 1.0
# Channels that part are looked at more often: less so in time, and if peers make very many part.
PARTING_SECONDS_MIN: Final = 0.05
PARTING_SECONDS_MAX: Final = 1.0
PARTING_BACK_OFF: Final = 1.1
PARTING_SECONDS_EACH: Final = 0.0002
# An offer that is not answered: the peer is gone, and we are in nobody's way.
OFFER_SECONDS_MAX: Final = 30.0
# A channel that another one has replaced is put away as soon as it is quiet.
LEAVING_SECONDS: Final = 1.0
# The responder leaves the first word to the initiator, who may have forgotten.
RESPONDER_FACTOR: Final = 1.5


class Rest:
    """Looks at all channels now and then."""

    def __init__(
        self,
        channels: ChannelTable,
        timers: Timers,
        *,
        idle_s: float = IDLE_SECONDS,
        channels_max: int,
    ) -> None:
        """``channels_max``: beyond it, those that were used longest ago are put away first."""
        self._channels = channels
        self._timers = timers
        self._idle_s = idle_s
        self._sweep_s = min(max(idle_s / 2, SWEEP_SECONDS_MIN), SWEEP_SECONDS)
        self._channels_max = channels_max
        self._parting: dict[ChannelSlot, bool] = {}
        """Each with whether its peer has yet to be told."""
        self._sweep_timer: Timer | None = None
        self._part_timer: Timer | None = None
        self._part_wait_s = PARTING_SECONDS_MIN
        self.rested = 0

    def opened(self, slot: ChannelSlot, now_s: float) -> None:
        """From here on the channel is watched."""
        if self._sweep_timer is None:
            self._sweep_timer = self._timers.at(now_s + self._sweep_s, self._sweep)
        if self._channels.draining:
            self._part(slot, now_s, tell=True)

    def ended(self, slot: ChannelSlot) -> None:
        self._parting.pop(slot, None)
        if not len(self._channels):
            self._timers.cancel(self._sweep_timer)
            self._timers.cancel(self._part_timer)
            self._sweep_timer = self._part_timer = None

    def drain(self, now_s: float) -> None:
        """This sidecar stops soon: nothing new begins on any channel."""
        for slot in self._channels.slots():
            if slot.opened:
                self._part(slot, now_s, tell=True)
        self._look_at_parting(now_s)

    def _sweep(self, now_s: float) -> None:
        self._sweep_timer = self._timers.at(now_s + self._sweep_s, self._sweep)
        excess = len(self._channels) - self._channels_max
        quiet: list[ChannelSlot] = []
        for slot in self._channels.slots():
            if slot.resting_since_s is not None:
                if now_s - slot.resting_since_s > OFFER_SECONDS_MAX:
                    self._channels.end(slot, Code.CHANNEL_IDLE)
            elif self._may_rest(slot, now_s):
                if now_s - slot.used_s >= self._patience_s(slot):
                    self._offer(slot, now_s)
                    excess -= 1
                elif excess > 0:
                    quiet.append(slot)
        if excess > 0:
            quiet.sort(key=lambda slot: slot.used_s)
            for slot in quiet[:excess]:
                self._offer(slot, now_s)

    def signal_received(self, slot: ChannelSlot, signal: Signal, now_s: float) -> None:
        if signal is Signal.WAKE:
            slot.resting_since_s = None
        elif signal is Signal.LEAVING:
            self._part(slot, now_s, tell=False)
        elif slot.resting_since_s is not None or self._may_rest(slot, now_s):
            self.rested += 1
            self._channels.end(slot, Code.CHANNEL_IDLE)
        else:
            slot.links.channel.signal(Signal.WAKE)

    def _part(self, slot: ChannelSlot, now_s: float, *, tell: bool) -> None:
        """One end of this channel stops soon: put it away once nothing is under way on it."""
        slot.parting = True
        slot.links.channel.hurry_acknowledgements()
        self._parting[slot] = tell
        self._part_wait_s = PARTING_SECONDS_MIN
        if self._part_timer is None:
            self._plan_parting(now_s)

    def _plan_parting(self, now_s: float) -> None:
        wait_s = self._part_wait_s + PARTING_SECONDS_EACH * len(self._parting)
        self._part_wait_s = min(self._part_wait_s * PARTING_BACK_OFF, PARTING_SECONDS_MAX)
        self._part_timer = self._timers.at(now_s + wait_s, self._look_at_parting)

    def _look_at_parting(self, now_s: float) -> None:
        self._timers.cancel(self._part_timer)
        self._part_timer = None
        for slot, tell in list(self._parting.items()):
            if tell and slot.parked_until_s is None:
                self._parting[slot] = False
                slot.links.channel.signal(Signal.LEAVING)
                slot.links.pump()
            if slot.resting_since_s is None and slot.is_quiet(now_s):
                if slot.parked_until_s is None:
                    self._offer(slot, now_s)
                else:
                    # There is no link to say so on. The peer learns it when it looks for us.
                    self._channels.end(slot, Code.CHANNEL_RESTARTING)
        if self._parting and self._part_timer is None:
            self._plan_parting(now_s)

    def _may_rest(self, slot: ChannelSlot, now_s: float) -> bool:
        return slot.opened and slot.parked_until_s is None and slot.is_quiet(now_s)

    def _patience_s(self, slot: ChannelSlot) -> float:
        idle_s = LEAVING_SECONDS if slot.leaving else self._idle_s
        return idle_s if slot.initiator else idle_s * RESPONDER_FACTOR

    def _offer(self, slot: ChannelSlot, now_s: float) -> None:
        slot.resting_since_s = now_s
        slot.links.channel.signal(Signal.REST)
        slot.links.pump()
