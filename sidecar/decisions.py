"""What the sidecar asks of policy, each answer audited once. Cached permits ask nothing again."""

from collections.abc import Callable
from typing import Protocol

from identity import VerifiedIdentity
from policy import Action, Denial, Party, Permit, Request
from sidecar.agents import LocalAgent


class Decide(Protocol):
    """Policy and the audit log behind one call: ``node.admission`` in the program."""

    def __call__(
        self, request: Request, *, expires_unix_s: float | None = None
    ) -> Permit | Denial: ...


class AskAgain(Protocol):
    """The same about what is live; a no is written down as an end of it, a yes is not."""

    def __call__(
        self, request: Request, what: str, *, expires_unix_s: float | None = None
    ) -> Permit | Denial: ...


class SidecarDecisions:
    """The questions of a sidecar, in its own words."""

    def __init__(
        self,
        decide: Decide,
        ask_again: AskAgain,
        could_allow: Callable[[Request], bool],
        policy_version: Callable[[], str],
    ) -> None:
        self._decide = decide
        self._ask_again = ask_again
        self._could_allow = could_allow
        self._policy_version = policy_version
        self.reused = 0
        """How often a permit of before was enough."""

    @property
    def version(self) -> str:
        """Of the policy in force."""
        return self._policy_version()

    def still_holds(self, permit: Permit | None, size_bytes: int, unix_s: float) -> bool:
        """Whether a cached permit answers for one more message, or run of messages. This is the
        steady path."""
        holds = (
            permit is not None
            and permit.cacheable
            and permit.policy_version == self._policy_version()
            and unix_s < permit.expires_unix_s
            and permit.covers(size_bytes)
        )
        self.reused += holds
        return holds

    def may_open_by_name(
        self, agent: LocalAgent, remote: Party, action: Action, size_bytes: int
    ) -> Permit | Denial:
        """Before a channel exists only the name is known: refuse what is certain to be refused.

        What might be allowed once the peer has proved its attributes needs a channel first, and is
        decided for good on what was proved.
        """
        request = Request(action, agent.party, remote, message_bytes=size_bytes)
        if not self._could_allow(request):
            return self._decide(request)
        return self._decide(Request(Action.CHANNEL_OPEN, agent.party, remote))

    def may_accept(
        self, peer: VerifiedIdentity, agent: LocalAgent, *, again: bool = False
    ) -> Permit | Denial:
        """Whether a verified peer may have a channel to one of our agents, or keep it."""
        subject = Party.from_verified(peer)
        request = Request(Action.CHANNEL_OPEN, subject, agent.party, again=again)
        return self._decide(request, expires_unix_s=peer.expires_unix_s)

    def channel_again(
        self, peer: VerifiedIdentity, agent: LocalAgent, *, ours: bool
    ) -> Permit | Denial:
        """Whether a channel may stay open: ``ours`` if our agent is the one who opened it."""
        parties = Party.from_verified(peer), agent.party
        subject, target = reversed(parties) if ours else parties
        expires_unix_s = agent.expires_unix_s if ours else peer.expires_unix_s
        request = Request(Action.CHANNEL_OPEN, subject, target)
        return self._ask_again(request, "channel", expires_unix_s=expires_unix_s)

    def may_message(
        self,
        action: Action,
        subject: Party,
        target: Party,
        size_bytes: int,
        *,
        expires_unix_s: float,
        again: bool = False,
    ) -> Permit | Denial:
        """One message between two that are both proved. ``again`` for the second of two sides."""
        request = Request(action, subject, target, message_bytes=size_bytes, again=again)
        return self._decide(request, expires_unix_s=expires_unix_s)

    def may_stream(
        self,
        subject: Party,
        target: Party,
        service: str,
        *,
        expires_unix_s: float,
        again: bool = False,
    ) -> Permit | Denial:
        request = Request(Action.STREAM_OPEN, subject, target, service=service, again=again)
        return self._decide(request, expires_unix_s=expires_unix_s)

    def stream_again(
        self, subject: Party, target: Party, service: str, *, expires_unix_s: float
    ) -> Permit | Denial:
        """Whether a stream may stay open."""
        request = Request(Action.STREAM_OPEN, subject, target, service=service)
        return self._ask_again(request, "stream", expires_unix_s=expires_unix_s)
