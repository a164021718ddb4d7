"""Puts channels away on which nothing is said: their keys are erased, and the next message opens
another. Pure.

A channel is put away by agreement: one side offers (REST), the other closes it or, if something is
under way that the first cannot know of, goes on (WAKE). So nothing is lost to it.
"""

from typing import Final

from identity import Code
from sidecar.channels import ChannelTable
from sidecar.slot import ChannelSlot

IDLE_SECONDS: Final = 300.0
SWEEP_SECONDS: Final = 5.0
# An offer that is not answered: the peer is gone, and we are in nobody's way.
OFFER_SECONDS_MAX: Final = 30.0
# While this sidecar stops, every channel is put away as soon as nothing is under way on it.
DRAIN_SWEEP_SECONDS: Final = 0.05
# A channel that another one has replaced is put away as soon as it is quiet.
LEAVING_SECONDS: Final = 1.0
# The responder leaves the first word to the initiator, who may have forgotten.
RESPONDER_FACTOR: Final = 1.5


class Rest:
    """Looks at all channels now and then."""

    def __init__(
        self, channels: ChannelTable, *, idle_s: float = IDLE_SECONDS, channels_max: int
    ) -> None:
        """``channels_max``: beyond it, those that were used longest ago are put away first."""
        self._channels = channels
        self._idle_s = idle_s
        self._channels_max = channels_max
        self.rested = 0
        self._draining = False

    @property
    def sweep_s(self) -> float:
        """How long until the next look."""
        return DRAIN_SWEEP_SECONDS if self._draining else SWEEP_SECONDS

    def drain(self) -> None:
        """From now on be patient with no channel."""
        self._draining = True

    def sweep(self, now_s: float) -> None:
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
            elif self._draining and slot.parked_until_s is not None and slot.is_quiet(now_s):
                # It has no link to say so on. Its peer learns it when it looks for the channel.
                self._channels.end(slot, Code.CHANNEL_RESTARTING)
        if excess > 0:
            quiet.sort(key=lambda slot: slot.used_s)
            for slot in quiet[:excess]:
                self._offer(slot, now_s)

    def rest_received(self, slot: ChannelSlot, now_s: float) -> None:
        """The peer would put the channel away."""
        if slot.resting_since_s is not None or self._may_rest(slot, now_s):
            self.rested += 1
            self._channels.end(slot, Code.CHANNEL_IDLE)
        else:
            slot.links.channel.wake()

    def wake_received(self, slot: ChannelSlot) -> None:
        slot.resting_since_s = None

    def _may_rest(self, slot: ChannelSlot, now_s: float) -> bool:
        return slot.opened and slot.parked_until_s is None and slot.is_quiet(now_s)

    def _patience_s(self, slot: ChannelSlot) -> float:
        if self._draining:
            return 0.0
        idle_s = LEAVING_SECONDS if slot.leaving else self._idle_s
        return idle_s if slot.initiator else idle_s * RESPONDER_FACTOR

    def _offer(self, slot: ChannelSlot, now_s: float) -> None:
        slot.resting_since_s = now_s
        slot.links.channel.rest()
        slot.links.pump()
