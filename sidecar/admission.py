"""How many channels a sidecar holds for whom, and whether there is room for one more. Pure."""

from collections import Counter, OrderedDict
from typing import Final

from identity import Code, Identifier
from link.buckets import TokenBucket
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
# Openings that a node's agents gave up, or failed, before they were proved: each has cost us a
# handshake. Beyond so many at once, and so many a second, it is not answered for a while.
ABANDONED_PER_NODE_BURST: Final = 128
ABANDONED_PER_NODE_PER_S: Final = 8.0
NODES_REMEMBERED_MAX: Final = 4_096
# What a peer does to a channel, not what a lost hop does.
_ABANDONED: Final = frozenset(code for code in Code if code.text.startswith("channel."))


class Admission:
    """Counts strangers' channels by node; those of our own agents cost no stranger a place."""

    def __init__(self) -> None:
        self.live = 0
        self.unverified = 0
        self._of_node: Counter[Identifier | None] = Counter()
        self._unverified_of_node: Counter[Identifier | None] = Counter()
        self._held_bytes_of_node: Counter[Identifier | None] = Counter()
        self._patience: OrderedDict[Identifier | None, TokenBucket] = OrderedDict()
        """With those nodes that abandoned openings."""
        self._abandoned: Counter[Identifier | None] = Counter()
        """What has not been charged to that yet."""

    def may_open(self) -> bool:
        return self.live < CHANNELS_MAX

    def may_answer(self, node: Identifier | None, now_s: float) -> bool:
        return (
            self._has_patience(node, now_s)
            and self.live < CHANNELS_MAX
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

    def ended(self, slot: ChannelSlot, code: Code) -> None:
        self.live -= 1
        self._note_held(slot, 0)
        if slot.initiator:
            return
        _count(self._of_node, slot.source_node, -1)
        if not slot.verified:
            self.unverified -= 1
            _count(self._unverified_of_node, slot.source_node, -1)
            if code in _ABANDONED:
                self._abandoned[slot.source_node] += 1

    def _has_patience(self, node: Identifier | None, now_s: float) -> bool:
        """Whether openings of this node are worth a handshake. Charges what it abandoned."""
        abandoned = self._abandoned.pop(node, 0)
        bucket = self._patience.get(node)
        if bucket is None:
            if not abandoned:
                return True
            if len(self._patience) >= NODES_REMEMBERED_MAX:
                self._patience.popitem(last=False)
            bucket = self._patience[node] = TokenBucket(
                ABANDONED_PER_NODE_PER_S, ABANDONED_PER_NODE_BURST
            )
        self._patience.move_to_end(node)
        for _ in range(abandoned):
            bucket.take(now_s)
        return bucket.has_one(now_s)

    def _note_held(self, slot: ChannelSlot, held_bytes: int) -> None:
        _count(self._held_bytes_of_node, slot.node, held_bytes - slot.held_bytes)
        slot.held_bytes = held_bytes


def _count(of_node: Counter[Identifier | None], node: Identifier | None, count: int) -> None:
    of_node[node] += count
    if not of_node[node]:
        del of_node[node]
