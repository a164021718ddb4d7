"""Asks policy on behalf of a program, and leaves a line and a count for every answer.

Handshakes prove who somebody is; this decides whether they may come in. Whoever holds a Permit got
it here or from the engine itself, and nothing is forwarded without one.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Final
from weakref import WeakKeyDictionary

import structlog
from msgspec.structs import replace

from identity import AgentUri, Code, IdentityError, NamePrefix, VerifiedIdentity, VerifiedPeer
from link.buckets import TokenBucket
from node.audit import AuditLog
from node.audit_entry import cut_entry, entry_of
from node.clocks import Clock
from node.metrics import Metrics
from node.policy_figures import PolicyFigures
from node.trust import Trust
from policy import Action, Denial, Engine, Party, Permit, Request
from transport import Hop
from transport.hop_handshake import HOP_CODES

CUT: Final = ("hop", "registration", "link", "channel", "stream", "call", "path", "agent")
CUT_CODES: Final = (
    Code.CHANNEL_REVOKED,
    Code.CHANNEL_CREDENTIAL_EXPIRED,
    Code.CHANNEL_WRONG_AUTHORITY,
    Code.POLICY_DENIED,
    Code.POLICY_NO_RULE,
    Code.POLICY_NOT_READY,
)
# Another policy may end tens of thousands of things at once. The audit log has a line for each; the
# program's own log takes a third of the time that a decision does, and tells no more.
CUTS_LOGGED_BURST: Final = 256
CUTS_LOGGED_PER_S: Final = 8.0

_log = structlog.get_logger("node.admission")


class Admission:
    """One for each program. ``engine`` and ``own`` are asked anew each time, since both change."""

    def __init__(
        self,
        *,
        engine: Callable[[], Engine],
        own: Callable[[], Party],
        clock: Clock,
        trust: Trust,
        audit: AuditLog,
        metrics: Metrics,
    ) -> None:
        self._engine = engine
        self._own = own
        self._clock = clock
        self._trust = trust
        self._audit = audit
        self._cuts = metrics.counter(
            "cuts",
            "What was live and was ended, by what and why.",
            what=CUT,
            code=[code.text for code in CUT_CODES],
        )
        self._cut_lines = TokenBucket(CUTS_LOGGED_PER_S, CUTS_LOGGED_BURST)
        self._cuts_unlogged = 0
        self._hop_versions: WeakKeyDictionary[Hop, str] = WeakKeyDictionary()
        """By which policy each hop may be here."""
        self._asked_again = metrics.counter(
            "policy_asked_again",
            "What was live when another policy came into force, and was asked about again.",
            what=CUT,
            effect=("allow", "deny"),
        )
        self._figures = PolicyFigures(metrics, engine)

    def decide(self, request: Request, *, expires_unix_s: float | None = None) -> Permit | Denial:
        """Any request. The permit ends with ``expires_unix_s``: the subject's credential, say."""
        unix_s = self._clock.unix_s()
        begun_s = time.perf_counter()
        decision = self._engine().decide(request, unix_s, expires_unix_s=expires_unix_s)
        self._figures.decided(request.action, decision, time.perf_counter() - begun_s)
        self._audit.record(entry_of(request, decision, expires_unix_s=expires_unix_s))
        return decision

    def could_allow(self, request: Request) -> bool:
        """Whether ``decide`` may say yes. For our own wishes: nobody asked, so no line is left."""
        return self._engine().could_allow(request, self._clock.unix_s())

    def ask_again(
        self, request: Request, what: str, *, expires_unix_s: float | None = None
    ) -> Permit | Denial:
        """Ask about something live, which an older policy allowed. ``what`` is one of ``CUT``.

        Who asks ends it on a Denial, and there is a line for that, and a count. A Permit changes
        nothing, so it leaves no line: there may be thousands at once. No limit is charged.
        """
        request = dataclasses.replace(request, again=True)
        answer = self._engine().decide(request, self._clock.unix_s(), expires_unix_s=expires_unix_s)
        if isinstance(answer, Permit):
            self._asked_again.increment(what=what, effect="allow")
            return answer
        self._asked_again.increment(what=what, effect="deny")
        self._cuts.increment(what=what, code=answer.code.text)
        entry = entry_of(request, answer, expires_unix_s=expires_unix_s)
        why = f"{answer.code.text}: {answer.reason}"
        self._audit.record(replace(entry, action=f"{what}.cut", effect="cut", reason=why))
        peer = str(request.subject.identifier)
        self._log_cut(what, peer, answer.code, answer.reason, rule=answer.rule)
        return answer

    def decide_hop(self, peer: VerifiedPeer, purpose: str) -> Permit | Denial:
        """May this node have a hop? ``purpose`` is "admit" or "enrol", as its handshake said."""
        return self._decide_for(peer, self._hop_request(peer, purpose))

    def answer_hop(self, hop: Hop, *, role: str | None = None) -> None:
        """Let a verified peer in, or turn it away. With ``role``, only a node that has it."""
        if role is not None and hop.peer.identity.role_of_node != role:
            hop.refuse(Code.HOP_WRONG_ROLE)
            return
        answer = self.decide_hop(hop.peer, hop.purpose)
        self._hop_versions[hop] = answer.policy_version
        if isinstance(answer, Denial):
            hop.refuse(Code.HOP_DENIED)
        else:
            hop.accept(answer)

    def decide_register(self, peer: VerifiedPeer, prefix: NamePrefix) -> Permit | Denial:
        """May this node receive what is sent to names below ``prefix``?"""
        return self._decide_for(peer, self._register_request(peer, prefix))

    def register_again(self, peer: VerifiedPeer, prefix: NamePrefix) -> Permit | Denial:
        """The same of a node that does: see ``ask_again``."""
        request = self._register_request(peer, prefix)
        return self.ask_again(request, "registration", expires_unix_s=peer.identity.expires_unix_s)

    def decide_relay(
        self, source: VerifiedPeer, target: AgentUri | VerifiedPeer
    ) -> Permit | Denial:
        """May this node open a link through us?

        ``target`` is the name asked for, which is not proved here; or, for a link that ends at a
        neighbour such as the authority, that neighbour.
        """
        return self._decide_for(source, _relay_request(source, target))

    def relay_again(self, source: VerifiedPeer, target: AgentUri | VerifiedPeer) -> Permit | Denial:
        """The same of a link that is relayed: see ``ask_again``."""
        request = _relay_request(source, target)
        return self.ask_again(request, "link", expires_unix_s=source.identity.expires_unix_s)

    def why_cut(self, identity: VerifiedIdentity) -> IdentityError | None:
        """Why somebody who was verified may be here no longer; None while they may."""
        try:
            self._trust.verifier.recheck(identity, self._clock.unix_s())
        except IdentityError as exc:
            return exc
        return None

    def cut(self, identity: VerifiedIdentity, what: str, why: IdentityError) -> None:
        """Leave a line and a count for something live that ends: ``what`` is one of ``CUT``."""
        self._cuts.increment(what=what, code=why.code.text)
        self._audit.record(cut_entry(identity, self._own(), what, why, self._policy_version()))
        self._log_cut(what, str(identity.identifier), why.code, why.detail)

    def _log_cut(self, what: str, peer: str, code: Code, why: str, **further: str | None) -> None:
        if not self._cut_lines.take(self._clock.now_s()):
            self._cuts_unlogged += 1
            return
        unlogged, self._cuts_unlogged = self._cuts_unlogged, 0
        _log.warning(
            "cut", what=what, peer=peer, code=code.text, why=why, unlogged=unlogged, **further
        )

    def close_hop_if_cut(self, hop: Hop) -> None:
        """Close a hop whose peer may be here no longer: it is nobody, or policy denies it now."""
        identity = hop.peer.identity
        why = self.why_cut(identity)
        if why is not None:
            self.cut(identity, "hop", why)
            hop.close(HOP_CODES.get(why.code, Code.HOP_DENIED))
        else:
            self.close_hop_if_denied(hop)

    def close_hop_if_denied(self, hop: Hop) -> None:
        """Ask about a hop once by each policy; also one that was opened while it was replaced."""
        version = self._policy_version()
        if self._hop_versions.get(hop) == version:
            return
        self._hop_versions[hop] = version
        peer = hop.peer
        request = self._hop_request(peer, hop.purpose)
        answer = self.ask_again(request, "hop", expires_unix_s=peer.identity.expires_unix_s)
        if isinstance(answer, Denial):
            hop.close(Code.HOP_DENIED)

    def _hop_request(self, peer: VerifiedPeer, purpose: str) -> Request:
        action = Action.NODE_ENROL if purpose == "enrol" else Action.HOP_ADMIT
        return Request(action, Party.from_verified(peer.identity), self._own())

    def _register_request(self, peer: VerifiedPeer, prefix: NamePrefix) -> Request:
        subject = Party.from_verified(peer.identity)
        return Request(Action.ROUTE_REGISTER, subject, self._own(), prefix=prefix)

    def _policy_version(self) -> str:
        return self._engine().version

    def _decide_for(self, peer: VerifiedPeer, request: Request) -> Permit | Denial:
        return self.decide(request, expires_unix_s=peer.identity.expires_unix_s)


def _relay_request(source: VerifiedPeer, target: AgentUri | VerifiedPeer) -> Request:
    far_end = (
        Party.from_verified(target.identity)
        if isinstance(target, VerifiedPeer)
        else Party.unproved(target)
    )
    return Request(Action.LINK_RELAY, Party.from_verified(source.identity), far_end)
