"""The admitted hops of a gateway: what each may still open, and how much waits for it.

Nothing pushes back on a lane: what a node may send, its receivers have granted. A hop that is slow
to take what its own agents asked for would fill this memory, so the relay watches how much waits.
Beyond one mark, grants of the slow side are withheld, and so its senders slow down; beyond its
budget, or when all hops together exceed theirs, the fullest hop is closed. Its channels go on
elsewhere, or over its next hop.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from identity import Code, Identifier, NamePrefix
from link import FrameKind, HopLimits, HopPort, LinkEnd, LinkIds
from link.buckets import TokenBucket
from link.limits import FRAME_HEADER_BYTES, LANES, LINKS_PER_HOP_MAX, PREFIXES_PER_NODE_MAX

# One to ask with, and some that a lost answer left behind. Strangers get no more of the authority.
LINKS_PER_ENROLMENT_MAX: Final = 4
# A node registers its prefixes once for each hop, and may take some back.
REGISTRATIONS_BURST: Final = 2 * PREFIXES_PER_NODE_MAX
REGISTRATIONS_PER_S: Final = 1.0
# Frames of one node that bring nothing: for links that there are not, mostly, as they are under way
# when a far end goes. So many at once and so many a second, over all hops that it opens.
STRAYS_BURST: Final = 16_384
STRAYS_PER_S: Final = 1_000.0
NODES_REMEMBERED_MAX: Final = 4_096
# Looked at once for so many bytes.
QUEUE_CHECK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """What an operator may choose."""

    hop_queue_bytes_max: int = 64 << 20
    """What may wait for one hop. At a quarter of it, its grants are withheld."""
    queue_bytes_max: int = 512 << 20
    """What may wait for all hops together."""
    openings_per_s: float = 500.0
    openings_burst: int = 4_096
    """Links that one hop may open: so many at once, and so many a second after that."""

    @property
    def congested_bytes(self) -> int:
        return self.hop_queue_bytes_max // 4

    @property
    def relieved_bytes(self) -> int:
        return self.hop_queue_bytes_max // 16


@dataclass(slots=True, eq=False)
class HopState:
    """One admitted hop, as the relay sees it."""

    hop: HopPort
    enrolling: bool
    limits: HopLimits
    ids: LinkIds
    prefixes: tuple[NamePrefix, ...]
    openings: TokenBucket
    registrations: TokenBucket
    strays: TokenBucket
    last_link: list[int] = field(default_factory=lambda: [0] * LANES)
    unchecked_bytes: int = 0
    """Forwarded to this hop since somebody looked whether it takes them."""
    queued_bytes: int = 0
    """What waited for it when somebody looked."""
    withheld: dict[LinkEnd, dict[int, bytes]] = field(default_factory=dict)
    """The last grant of each window that waits for relief: where it goes, and of which stream. By
    link, because links end one by one, and a hop has many."""

    @property
    def links_max(self) -> int:
        return LINKS_PER_ENROLMENT_MAX if self.enrolling else LINKS_PER_HOP_MAX


class HopTable:
    """All admitted hops. ``refuse`` counts why one was closed."""

    def __init__(self, limits: RelayLimits, refuse: Callable[[Code], None]) -> None:
        self._limits = limits
        self._refuse = refuse
        self._hops: dict[int, HopState] = {}
        self._authorities: dict[Identifier, int] = {}
        self._strays: OrderedDict[Identifier, TokenBucket] = OrderedDict()
        self._queued_bytes = 0
        self.withheld_grants = 0

    def __len__(self) -> int:
        return len(self._hops)

    def __iter__(self) -> Iterator[HopState]:
        return iter(self._hops.values())

    def __getitem__(self, hop_id: int) -> HopState:
        return self._hops[hop_id]

    def find(self, hop_id: int) -> HopState | None:
        return self._hops.get(hop_id)

    @property
    def queued_bytes(self) -> int:
        """What waited for all hops when each was last looked at."""
        return self._queued_bytes

    def add(self, hop: HopPort, *, enrolling: bool, limits: HopLimits) -> None:
        peer = hop.peer.identity
        self._hops[hop.id] = HopState(
            hop=hop,
            enrolling=enrolling,
            limits=limits,
            ids=LinkIds(is_dialler=hop.is_dialler),
            prefixes=prefixes_of(hop),
            openings=TokenBucket(self._limits.openings_per_s, self._limits.openings_burst),
            registrations=TokenBucket(REGISTRATIONS_PER_S, REGISTRATIONS_BURST),
            strays=self._strays_of(peer.identifier),
        )
        if peer.kind == "authority":
            self._authorities[peer.identifier] = hop.id

    def remove(self, hop: HopPort) -> bool:
        """Forget a hop. False when it was not there."""
        state = self._hops.pop(hop.id, None)
        if state is None:
            return False
        self._queued_bytes -= state.queued_bytes
        for other in self._hops.values():
            for to in [to for to in other.withheld if to.hop == hop.id]:
                del other.withheld[to]
        if self._authorities.get(hop.peer.identifier) == hop.id:
            del self._authorities[hop.peer.identifier]
        return True

    def authority(self, identifier: Identifier) -> HopState | None:
        hop_id = self._authorities.get(identifier)
        return None if hop_id is None else self._hops[hop_id]

    def say(self, state: HopState, link: int, kind: int, body: bytes) -> None:
        """Send a frame, and look now and then whether the peer takes what it is sent."""
        state.hop.send_frame(link, kind, body)
        state.unchecked_bytes += FRAME_HEADER_BYTES + len(body)
        if state.unchecked_bytes >= QUEUE_CHECK_BYTES:
            self.look(state)

    def look(self, state: HopState) -> None:
        """See how much waits for a hop, and do something about it."""
        state.unchecked_bytes = 0
        waiting = state.hop.queued_bytes
        self._queued_bytes += waiting - state.queued_bytes
        state.queued_bytes = waiting
        if waiting > self._limits.hop_queue_bytes_max:
            self._close(state)
        elif self._queued_bytes > self._limits.queue_bytes_max:
            self._close(max(self._hops.values(), key=lambda one: one.queued_bytes))
        elif state.withheld and waiting <= self._limits.relieved_bytes:
            self._release(state)

    def is_congested(self, state: HopState) -> bool:
        """Whether more waits for a hop than it should be offered."""
        return state.hop.queued_bytes > self._limits.congested_bytes

    def grant(self, state: HopState, to: LinkEnd, stream: int, body: bytes) -> None:
        """Pass on a grant that came from this hop; or keep it, while the hop takes too little."""
        if state.withheld or self.is_congested(state):
            self.withheld_grants += 1
            state.withheld.setdefault(to, {})[stream] = body
            self.look(state)
            return
        self._pass(to, body)

    def forget_link(self, state: HopState, to: LinkEnd) -> None:
        """A link has ended: grants for it are of no use."""
        state.withheld.pop(to, None)

    def tick(self) -> None:
        """Look at all hops for which something waited. Called about once a second."""
        for state in list(self._hops.values()):
            if state.queued_bytes or state.withheld or state.unchecked_bytes:
                self.look(state)

    def _strays_of(self, node: Identifier) -> TokenBucket:
        """It outlives the hop: whoever used it up does not get another by dialling again."""
        bucket = self._strays.get(node)
        if bucket is None:
            if len(self._strays) >= NODES_REMEMBERED_MAX:
                self._strays.popitem(last=False)
            bucket = self._strays[node] = TokenBucket(STRAYS_PER_S, STRAYS_BURST)
        self._strays.move_to_end(node)
        return bucket

    def _release(self, state: HopState) -> None:
        withheld, state.withheld = state.withheld, {}
        for to, of_stream in withheld.items():
            for body in of_stream.values():
                self._pass(to, body)

    def _pass(self, to: LinkEnd, body: bytes) -> None:
        far = self._hops.get(to.hop)
        if far is not None:
            self.say(far, to.link, FrameKind.CREDIT, body)

    def _close(self, state: HopState) -> None:
        self._refuse(Code.HOP_LIMIT_EXCEEDED)
        state.hop.close(Code.HOP_LIMIT_EXCEEDED)


def prefixes_of(hop: HopPort) -> tuple[NamePrefix, ...]:
    """What the peer's credential lets it speak for."""
    delegable = hop.peer.identity.delegable
    return () if delegable is None else delegable.name_prefixes
