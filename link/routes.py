"""The directory: which node serves which prefix. Longest registered prefix wins.

Every registration has an epoch, counted up for the prefix; a later one displaces the one before.
"""

from dataclasses import dataclass

from identity import AgentUri, Code, Identifier, NamePrefix
from link.errors import LinkError
from link.limits import PREFIXES_MAX, PREFIXES_PER_NODE_MAX


@dataclass(frozen=True, slots=True)
class Route:
    prefix: NamePrefix
    hop: int
    node: Identifier
    epoch: int


class Directory:
    """Prefixes of one gateway, in memory. A node registers anew after every reconnection."""

    __slots__ = ("_epochs", "_of_hop", "_routes")

    def __init__(self) -> None:
        self._routes: dict[tuple[str, tuple[str, ...]], Route] = {}
        self._epochs: dict[tuple[str, tuple[str, ...]], int] = {}
        self._of_hop: dict[int, set[tuple[str, tuple[str, ...]]]] = {}

    def __len__(self) -> int:
        return len(self._routes)

    def routes(self) -> list[Route]:
        return [self._routes[key] for key in sorted(self._routes)]

    def routes_of(self, hop: int) -> list[Route]:
        """What a hop holds."""
        return [self._routes[key] for key in sorted(self._of_hop.get(hop, ()))]

    def register(
        self, prefix: NamePrefix, hop: int, node: Identifier
    ) -> tuple[Route, Route | None]:
        """Enter a prefix. Return its route and the one that it displaced on another hop.

        Raises LinkError (route.link_limit) when the node or the directory holds too many.
        """
        key = (prefix.trust_domain, prefix.path)
        mine = self._of_hop.setdefault(hop, set())
        before = self._routes.get(key)
        if key not in mine and len(mine) >= PREFIXES_PER_NODE_MAX:
            raise LinkError(f"{PREFIXES_PER_NODE_MAX} prefixes for a node", Code.ROUTE_LINK_LIMIT)
        if key not in self._epochs and len(self._epochs) >= PREFIXES_MAX:
            raise LinkError(f"{PREFIXES_MAX} prefixes in all", Code.ROUTE_LINK_LIMIT)
        epoch = self._epochs[key] = self._epochs.get(key, 0) + 1
        route = self._routes[key] = Route(prefix, hop, node, epoch)
        mine.add(key)
        if before is None or before.hop == hop:
            return route, None
        self._of_hop[before.hop].discard(key)
        return route, before

    def unregister(self, prefix: NamePrefix, hop: int) -> None:
        """Withdraw a prefix, if this hop still holds it."""
        key = (prefix.trust_domain, prefix.path)
        route = self._routes.get(key)
        if route is not None and route.hop == hop:
            del self._routes[key]
            self._of_hop[hop].discard(key)

    def holds(self, route: Route) -> bool:
        """Whether this registration counts still: not withdrawn, not displaced by a later one."""
        return self._routes.get((route.prefix.trust_domain, route.prefix.path)) is route

    def forget_hop(self, hop: int) -> None:
        for key in self._of_hop.pop(hop, set()):
            del self._routes[key]

    def find(self, name: AgentUri) -> Route | None:
        """The route for a name: at most nine look-ups, one for each length of prefix."""
        for length in range(len(name.path), -1, -1):
            route = self._routes.get((name.trust_domain, name.path[:length]))
            if route is not None:
                return route
        return None

    def serves(self, hop: int, name: AgentUri) -> bool:
        """Whether ``name`` lies under a prefix that this hop holds."""
        return any(
            (name.trust_domain, name.path[:length]) in self._of_hop.get(hop, ())
            for length in range(len(name.path) + 1)
        )
