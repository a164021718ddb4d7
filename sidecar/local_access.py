"""Whom the local API lets in, and as which agents: by the kernel's word, or by a token.

Every refusal is counted; what a process may not act as leaves an audit line too.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from link.buckets import TokenBucket
from node.audit_entry import AuditEntry
from node.clocks import Clock, SystemClock
from sidecar.attestation import EVERYBODY, NOBODY, Attestation, Scope
from sidecar.local_port import PeerCredentials
from sidecar.tokens import Token, TokenBook

AUDIT_LINES_AT_ONCE: Final = 256
AUDIT_LINES_PER_SECOND: Final = 1.0
"""What processes that are refused may write; beyond it they are counted only."""
ACTION: Final = "agent.open"


class Refusal(StrEnum):
    """Why a process may not: the label of a metric."""

    USER = "user"
    """No rule fits its user, and it brought no token."""
    TOKEN = "token"  # noqa: S105  # the word, not a token
    """Its token is unknown, revoked or over."""
    AGENT = "agent"
    """It is let in, but not as this agent."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What one process may do, and why."""

    who: str
    """As an audit line and a person are told it: a user, or the number of a token."""
    scope: Scope
    token: Token | None = None

    def allows(self, path: str) -> bool:
        """Whether it may act as this agent. Who may act as any hears from the router what is no
        name."""
        return self.scope is EVERYBODY or self.scope.covers(path)

    def may_mint(self, path: str) -> bool:
        """Whether the node may name this agent for it. A token's agents name those below them
        themselves: what denies them, and what they lack, must hold for those too."""
        return self.token is None or path in self.token.agents


class LocalAccess:
    """Decides for every process that connects."""

    def __init__(
        self,
        attestation: Attestation | None = None,
        tokens: TokenBook | None = None,
        *,
        clock: Clock | None = None,
        audit: Callable[[AuditEntry], None] | None = None,
    ) -> None:
        self._attestation = attestation or Attestation()
        self._tokens = tokens
        self._clock = clock or SystemClock()
        self._audit = audit
        self._lines = TokenBucket(AUDIT_LINES_PER_SECOND, AUDIT_LINES_AT_ONCE)
        self._denied = 0
        self.refused: Counter[Refusal] = Counter()

    @property
    def reads_executables(self) -> bool:
        """Whether a rule asks what file a process runs."""
        return self._attestation.reads_executables

    @property
    def takes_tokens(self) -> bool:
        """Whether there is any token that a process could bring."""
        return bool(self._tokens)

    def of_process(self, peer: PeerCredentials) -> Grant | None:
        """What the kernel's word is worth; None when it is worth nothing."""
        scope = self._attestation.scope_of(peer)
        return None if scope == NOBODY else Grant(f"user {peer.user_id}", scope)

    def of_token_untrusted(self, text: str) -> Grant | None:
        """What a token is worth. It takes the place of what the kernel says, and adds nothing."""
        unix_s = self._clock.unix_s()
        token = None if self._tokens is None else self._tokens.find_untrusted(text, unix_s)
        if self._tokens is None or token is None:
            return None
        self._tokens.used(token, unix_s)
        return Grant(f"token {token.id}", token.scope, token)

    def left_s(self, token: Token) -> float:
        """How long it holds; 0 when it is over, or revoked."""
        unix_s = self._clock.unix_s()
        if self._tokens is None or not self._tokens.holds(token.id, unix_s):
            return 0.0
        return token.expires_unix_s - unix_s

    def refuse(self, why: Refusal) -> None:
        """Count a process that was not let in."""
        self.refused[why] += 1

    def refuse_agent(self, grant: Grant, path: str) -> str:
        """Count and record that this process may not act as this agent. Returns what to tell it."""
        self.refused[Refusal.AGENT] += 1
        reason = f"{grant.who} may not act as {path}"
        if self._audit is not None and self._lines.take(self._clock.now_s()):
            self._denied += 1
            self._audit(
                AuditEntry(
                    decision_id=f"local-{self._denied:x}",
                    action=ACTION,
                    effect="deny",
                    rule=None,
                    policy_version="",
                    subject=grant.who,
                    subject_identifier=None,
                    object=path,
                    service=None,
                    reason=reason,
                )
            )
        return reason
