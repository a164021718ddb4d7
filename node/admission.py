"""Asks policy on behalf of a program, and leaves a line and a count for every answer.

Handshakes prove who somebody is; this decides whether they may come in. Whoever holds a Permit got
it here or from the engine itself, and nothing is forwarded without one.
"""

from collections.abc import Callable

from identity import AgentUri, Code, NamePrefix, VerifiedPeer
from node.audit import AuditLog, entry_of
from node.clocks import Clock
from node.metrics import Metrics
from policy import Action, Denial, Party, Permit, PolicyEngine, Request
from transport import Hop


class Admission:
    """One for each program. ``engine`` and ``own`` are asked anew each time, since both change."""

    def __init__(
        self,
        *,
        engine: Callable[[], PolicyEngine],
        own: Callable[[], Party],
        clock: Clock,
        audit: AuditLog,
        metrics: Metrics,
    ) -> None:
        self._engine = engine
        self._own = own
        self._clock = clock
        self._audit = audit
        self._decisions = metrics.counter(
            "decisions",
            "Policy decisions by action and effect.",
            action=[str(action) for action in Action],
            effect=("allow", "deny"),
        )

    def decide(self, request: Request, *, expires_unix_s: float | None = None) -> Permit | Denial:
        """Any request. The permit ends with ``expires_unix_s``: the subject's credential, say."""
        decision = self._engine().decide(
            request, self._clock.unix_s(), expires_unix_s=expires_unix_s
        )
        self._audit.record(entry_of(request, decision))
        effect = "allow" if isinstance(decision, Permit) else "deny"
        self._decisions.increment(action=str(request.action), effect=effect)
        return decision

    def could_allow(self, request: Request) -> bool:
        """Whether ``decide`` may say yes. For our own wishes: nobody asked, so no line is left."""
        return self._engine().could_allow(request, self._clock.unix_s())

    def decide_hop(self, peer: VerifiedPeer, purpose: str) -> Permit | Denial:
        """May this node have a hop? ``purpose`` is "admit" or "enrol", as its handshake said."""
        action = Action.NODE_ENROL if purpose == "enrol" else Action.HOP_ADMIT
        return self._decide_for(
            peer, Request(action, Party.from_verified(peer.identity), self._own())
        )

    def answer_hop(self, hop: Hop, *, role: str | None = None) -> None:
        """Let a verified peer in, or turn it away. With ``role``, only a node that has it."""
        if role is not None and hop.peer.identity.role_of_node != role:
            hop.refuse(Code.HOP_WRONG_ROLE)
            return
        answer = self.decide_hop(hop.peer, hop.purpose)
        if isinstance(answer, Denial):
            hop.refuse(Code.HOP_DENIED)
        else:
            hop.accept(answer)

    def decide_register(self, peer: VerifiedPeer, prefix: NamePrefix) -> Permit | Denial:
        """May this node receive what is sent to names below ``prefix``?"""
        subject = Party.from_verified(peer.identity)
        request = Request(Action.ROUTE_REGISTER, subject, self._own(), prefix=prefix)
        return self._decide_for(peer, request)

    def decide_relay(
        self, source: VerifiedPeer, target: AgentUri | VerifiedPeer
    ) -> Permit | Denial:
        """May this node open a link through us?

        ``target`` is the name asked for, which is not proved here; or, for a link that ends at a
        neighbour such as the authority, that neighbour.
        """
        far_end = (
            Party.from_verified(target.identity)
            if isinstance(target, VerifiedPeer)
            else Party.unproved(target)
        )
        subject = Party.from_verified(source.identity)
        return self._decide_for(source, Request(Action.LINK_RELAY, subject, far_end))

    def _decide_for(self, peer: VerifiedPeer, request: Request) -> Permit | Denial:
        return self.decide(request, expires_unix_s=peer.identity.expires_unix_s)
