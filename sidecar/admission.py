"""How many channels a sidecar holds for whom, and whether there is room for one more. Pure."""

from collections import Counter
from typing import Final

from identity import Identifier
from sidecar.slot import ChannelSlot

CHANNELS_MAX: Final = 65_536
CHANNELS_UNVERIFIED_MAX: Final = 1_024
# Of those that one node's agents open: a gateway says truly whose they are, and one node alone
# must not take the places of all others.
CHANNELS_PER_NODE_MAX: Final = CHANNELS_MAX // 4
CHANNELS_UNVERIFIED_PER_NODE_MAX: Final = CHANNELS_UNVERIFIED_MAX // 4
# On all channels with one node's agents: parts of their messages, and answers that they do not
# take. Each channel has bounds of its own; a node has as many channels as it likes.
HELD_BYTES_PER_NODE_MAX: Final = 256 << 20


class Admission:
    """Counts strangers' channels by node; those of our own agents cost no stranger a place."""

    def __init__(self) -> None:
        self.live = 0
        self.unverified = 0
        self._of_node: Counter[Identifier | None] = Counter()
        self._unverified_of_node: Counter[Identifier | None] = Counter()
        self._held_bytes_of_node: Counter[Identifier | None] = Counter()

    def may_open(self) -> bool:
        return self.live < CHANNELS_MAX

    def may_answer(self, node: Identifier | None) -> bool:
        return (
            self.live < CHANNELS_MAX
            and self.unverified < CHANNELS_UNVERIFIED_MAX
            and self._of_node[node] < CHANNELS_PER_NODE_MAX
            and self._unverified_of_node[node] < CHANNELS_UNVERIFIED_PER_NODE_MAX
        )

    def began(self, slot: ChannelSlot) -> None:
        self.live += 1
        if not slot.initiator:
            self.unverified += 1
            _count(self._of_node, slot.source_node, 1)
            _count(self._unverified_of_node, slot.source_node, 1)

    def proved(self, slot: ChannelSlot) -> None:
        """Who its peer is, is known now."""
        slot.verified = True
        if not slot.initiator:
            self.unverified -= 1
            _count(self._unverified_of_node, slot.source_node, -1)

    def may_hold(self, slot: ChannelSlot) -> bool:
        """Look how much a peer makes us hold. False when that of its node is too much."""
        held_bytes = slot.links.channel.gathered_bytes + slot.links.waiting_bytes
        self._note_held(slot, held_bytes)
        return self._held_bytes_of_node[slot.node] <= HELD_BYTES_PER_NODE_MAX

    def ended(self, slot: ChannelSlot) -> None:
        self.live -= 1
        self._note_held(slot, 0)
        if slot.initiator:
            return
        _count(self._of_node, slot.source_node, -1)
        if not slot.verified:
            self.unverified -= 1
            _count(self._unverified_of_node, slot.source_node, -1)

    def _note_held(self, slot: ChannelSlot, held_bytes: int) -> None:
        _count(self._held_bytes_of_node, slot.node, held_bytes - slot.held_bytes)
        slot.held_bytes = held_bytes


def _count(of_node: Counter[Identifier | None], node: Identifier | None, count: int) -> None:
    of_node[node] += count
    if not of_node[node]:
        del of_node[node]
