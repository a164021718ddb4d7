"""Which link of which hop continues as which link of which other hop. Pure bookkeeping.

Hops are known by a number that the owner gives them. Both directions of a relayed link are one
``Relayed`` value, found from either end.
"""

from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from identity import Code
from link.credits import RelayWindow
from link.errors import LinkError
from link.frames import FrameKind
from link.limits import ACCEPTOR_LINK_BIT, LINK_ID_MAX

P = TypeVar("P")


class LinkIds:
    """Hands out the ids of the links that we open on one hop. An id is never used again."""

    __slots__ = ("_next",)

    def __init__(self, *, is_dialler: bool) -> None:
        self._next = 1 if is_dialler else ACCEPTOR_LINK_BIT | 1

    def take(self) -> int:
        """Raises LinkError when this hop has used all its ids: close it and dial again."""
        if self._next > LINK_ID_MAX or self._next == ACCEPTOR_LINK_BIT:
            raise LinkError("all link ids of this hop are used", Code.ROUTE_LINK_LIMIT)
        taken = self._next
        self._next += 1
        return taken


def is_peers_link(link: int, *, is_dialler: bool) -> bool:
    """Whether ``link`` is one that the peer, not we, may open on this hop."""
    return link != 0 and bool(link & ACCEPTOR_LINK_BIT) == is_dialler and link != ACCEPTOR_LINK_BIT


class LinkEnd(NamedTuple):
    """One link on one hop. A tuple: it is made and looked up for every frame."""

    hop: int
    link: int


@dataclass(slots=True)
class Direction(Generic[P]):
    """One way through a relay: where it leads, by whose leave, and how much may still pass."""

    to: LinkEnd
    permit: P
    handshake_kind: FrameKind | None
    """The one handshake frame that may still pass this way. Windows do not count those."""
    window: RelayWindow = field(default_factory=RelayWindow)
    streams: dict[int, RelayWindow] = field(default_factory=dict)


class RelayTable(Generic[P]):
    """The relayed links of one gateway. ``P`` is what each was joined under, its permit."""

    __slots__ = ("_directions", "_of_hop")

    def __init__(self) -> None:
        self._directions: dict[LinkEnd, Direction[P]] = {}
        self._of_hop: dict[int, set[int]] = {}

    def __len__(self) -> int:
        return len(self._directions) // 2

    def links_of(self, hop: int) -> int:
        return len(self._of_hop.get(hop, ()))

    def join(self, near: LinkEnd, far: LinkEnd, permit: P) -> None:
        """Join two ends under a permit, both ways. The near end is the one that opened."""
        assert near not in self._directions
        assert far not in self._directions
        self._directions[near] = Direction(far, permit, FrameKind.LINK_FINISH)
        self._directions[far] = Direction(near, permit, FrameKind.LINK_ACCEPT)
        self._of_hop.setdefault(near.hop, set()).add(near.link)
        self._of_hop.setdefault(far.hop, set()).add(far.link)

    def find(self, end: LinkEnd) -> Direction[P] | None:
        """The direction that begins at ``end``, if it is relayed."""
        return self._directions.get(end)

    def permits(self) -> list[P]:
        """What every link was joined under, once for each."""
        return list({id(one.permit): one.permit for one in self._directions.values()}.values())

    def part(self, end: LinkEnd) -> LinkEnd | None:
        """Forget a link from either end. Return the other end, or None if it was not there."""
        direction = self._directions.pop(end, None)
        if direction is None:
            return None
        other = direction.to
        del self._directions[other]
        for gone in (end, other):
            links = self._of_hop[gone.hop]
            links.discard(gone.link)
            if not links:
                del self._of_hop[gone.hop]
        return other

    def part_hop(self, hop: int) -> list[LinkEnd]:
        """Forget every link of a hop. Return the other ends, for a last word to each."""
        ends = [LinkEnd(hop, link) for link in sorted(self._of_hop.get(hop, ()))]
        others = [self.part(end) for end in ends]
        return [other for other in others if other is not None]
