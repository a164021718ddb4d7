"""The hops of a sidecar that carry links: which are open, what each may be used for, and the
numbers of the links on them. Pure."""

from typing import Final

from identity import Code, Identifier
from link import FrameError, HopPort, LinkIds, is_peers_link
from link.buckets import TokenBucket
from link.limits import LANES
from sidecar.admission import CHANNELS_PER_NODE_MAX

# Long enough for all sidecars to come back to a gateway that was restarted.
SETTLING_SECONDS: Final = 10.0
# Links that another sidecar opens on a direct hop: all that its agents may have, at once, and so
# many a second after that. A gateway keeps its nodes to less.
OPENINGS_BURST: Final = CHANNELS_PER_NODE_MAX
OPENINGS_PER_S: Final = 500.0


class _Entry:
    __slots__ = ("direct", "hop", "ids", "is_leaving", "last_link", "opened_s", "openings")

    def __init__(self, hop: HopPort, direct: bool, now_s: float) -> None:
        self.hop = hop
        self.direct = direct
        self.opened_s = now_s
        self.is_leaving = False
        self.ids = LinkIds(is_dialler=hop.is_dialler)
        self.last_link = [0] * LANES
        self.openings = TokenBucket(OPENINGS_PER_S, OPENINGS_BURST)


class HopBook:
    """Open hops, in the order of their opening. Gateways carry links to anybody; a direct hop to
    another sidecar carries those to its agents only."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, hop: HopPort) -> bool:
        return hop.id in self._entries

    def add(self, hop: HopPort, now_s: float, *, direct: bool = False) -> None:
        self._entries[hop.id] = _Entry(hop, direct, now_s)

    def remove(self, hop: HopPort) -> bool:
        """Forget a hop. False when it was not there."""
        return self._entries.pop(hop.id, None) is not None

    def set_leaving(self, hop: HopPort) -> bool:
        """The neighbour has said that it will stop: used only where there is no other. False when
        it had said so before."""
        entry = self._entries.get(hop.id)
        if entry is None or entry.is_leaving:
            return False
        entry.is_leaving = True
        return True

    def is_direct(self, hop: HopPort) -> bool:
        entry = self._entries.get(hop.id)
        return entry is not None and entry.direct

    def is_leaving(self, hop: HopPort) -> bool:
        entry = self._entries.get(hop.id)
        return entry is None or entry.is_leaving

    def is_settling(self, now_s: float) -> bool:
        """Whether a gateway was joined a moment ago: what it does not know may yet come there."""
        joined_s = [entry.opened_s for entry in self._entries.values() if not entry.direct]
        return any(now_s - opened_s < SETTLING_SECONDS for opened_s in joined_s)

    def gateways(self) -> list[HopPort]:
        """Those to open links to anybody on: the longest open first, those that stop last."""
        entries = [entry for entry in self._entries.values() if not entry.direct]
        return [entry.hop for entry in sorted(entries, key=lambda entry: entry.is_leaving)]

    def direct_to(self, node: Identifier | None) -> HopPort | None:
        """The hop to another sidecar itself, if one is open."""
        for entry in self._entries.values():
            if entry.direct and not entry.is_leaving and entry.hop.peer.identifier == node:
                return entry.hop
        return None

    def ways_to(self, node: Identifier | None) -> list[HopPort]:
        """All hops that may lead to a node, the best first."""
        direct = self.direct_to(node)
        return self.gateways() if direct is None else [direct, *self.gateways()]

    def take_link(self, hop: HopPort) -> int:
        """The number of a new link of ours. Raises LinkError when a hop has used all of them."""
        return self._entries[hop.id].ids.take()

    def check_opened_untrusted(self, hop: HopPort, link: int, now_s: float) -> None:
        """A peer opens a link: its number is the peer's to use and rises, and there are not too
        many, for each is answered. Raises FrameError."""
        entry = self._entries[hop.id]
        if entry.direct and not entry.openings.take(now_s):
            raise FrameError("links without end", Code.HOP_LIMIT_EXCEEDED)
        last = entry.last_link
        lane = link % LANES
        if not is_peers_link(link, is_dialler=hop.is_dialler) or link <= last[lane]:
            raise FrameError(f"link {link} is not the peer's to open")
        last[lane] = link
