"""Whether what a gateway lets pass still may, when another policy is in force. Pure.

What was allowed once, a registration or a link, goes on without a question. So it is asked about
again, little by little, for a gateway has tens of thousands of links; or when a link has something
to carry.
"""

from collections import deque
from typing import Protocol

from gateway.relay import GatewayRelay, LinkPermit
from gateway.streams import StreamRelay
from identity import AgentUri, Code, Identifier, NamePrefix
from link import HopPort, Route
from policy import Denial, Permit


class StandingDecisions(Protocol):
    """What is asked of policy about what is live. A no is written down as an end of it."""

    def register_again(self, hop: HopPort, prefix: NamePrefix) -> Permit | Denial: ...
    def relay_again(
        self, source: HopPort, target: HopPort, to: AgentUri | Identifier
    ) -> Permit | Denial: ...


class Standing:
    """Looks at all registrations and links of one gateway, one at a time."""

    def __init__(
        self, relay: GatewayRelay, streams: StreamRelay, decisions: StandingDecisions
    ) -> None:
        self._relay = relay
        self._streams = streams
        self._decisions = decisions
        self._routes: deque[Route] = deque()
        relay.use_standing(self._ask_link)

    def policy_changed(self) -> None:
        """Another policy is in force: call ``ask_next`` until it says that nothing is left."""
        self._routes = deque(self._relay.directory.routes())
        self._relay.unasked = dict.fromkeys(self._relay.live_links())

    def ask_next(self) -> bool:
        """Ask about the next of what an older policy has allowed. False when nothing is left."""
        if self._routes:
            self._ask_registration(self._routes.popleft())
        elif self._relay.unasked:
            self._ask_link(self._relay.unasked.popitem()[0])
        else:
            return False
        return True

    def _ask_registration(self, route: Route) -> None:
        """A node that may not have its prefix any more loses its hop, as one does that asks."""
        state = self._relay.hops.find(route.hop)
        if state is None or not self._relay.directory.holds(route):
            return
        if isinstance(self._decisions.register_again(state.hop, route.prefix), Denial):
            self._relay.directory.unregister(route.prefix, route.hop)
            self._relay.counters.refuse(Code.ROUTE_PREFIX_DENIED)
            state.hop.close(Code.ROUTE_PREFIX_DENIED)

    def _ask_link(self, link: LinkPermit) -> None:
        ends = self._relay.ends_of(link)
        if ends is None:
            return
        source, target = (self._relay.hops[end.hop].hop for end in ends)
        answer = self._decisions.relay_again(source, target, link.to)
        if isinstance(answer, Permit):
            link.permit = answer
            return
        self._relay.cut_link(link, Code.ROUTE_DENIED)
        self._streams.link_cut(ends[0], Code.ROUTE_DENIED)
