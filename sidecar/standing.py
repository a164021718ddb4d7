"""Whether those who talk still may: proofs that were renewed, credentials that were revoked. Pure.

A live channel outlives renewals and rotations: each side shows its newer proof on it (RENEW), and
the other decides again. It does not outlive a revocation of anybody in either chain.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import structlog

from identity import Code, IdentityError, SidelinkError, VerifiedIdentity
from node.clocks import Clock
from policy import Denial, Permit
from sidecar.agents import AgentRegistry, LocalAgent
from sidecar.channels import ChannelTable
from sidecar.decisions import SidecarDecisions
from sidecar.slot import ChannelSlot
from sidecar.timers import Timers

# A renewed node has thousands of channels to show it on. Each costs the peer two signature checks
# and us a record, so that they go little by little.
SHOWN_AT_ONCE: Final = 16
SHOW_SECONDS: Final = 0.05
# Each costs a signature and a row: some 0.3 ms.
REISSUED_AT_ONCE: Final = 16
REISSUE_SECONDS: Final = 0.02
# Channels that are asked about again when another policy is in force: 40 us for a yes, and some
# 0.8 ms for a no with all that it ends. Nobody waits for longer than three milliseconds.
ASKED_AT_ONCE: Final = 64
ASKED_SECONDS_MAX: Final = 0.003
ASK_SECONDS: Final = 0.001


_log = structlog.get_logger("sidecar.standing")


class Judge(Protocol):
    """Who knows whether somebody may still be here: ``node.admission`` in the program."""

    def why_cut(self, identity: VerifiedIdentity) -> IdentityError | None: ...
    def cut(self, identity: VerifiedIdentity, what: str, why: IdentityError) -> None: ...


class Standing:
    """Looks at all channels when what is trusted, or what our agents can show, has changed."""

    def __init__(
        self,
        channels: ChannelTable,
        agents: AgentRegistry,
        decisions: SidecarDecisions,
        timers: Timers,
        judge: Judge,
        clock: Clock,
    ) -> None:
        self._channels = channels
        self._agents = agents
        self._decisions = decisions
        self._timers = timers
        self._judge = judge
        self._clock = clock
        self.on_agent_gone: list[Callable[[LocalAgent, Code], None]] = []
        """Told of an agent of ours that is nobody any more, and why: processes act as it."""
        self._to_show: dict[ChannelSlot, None] = {}
        self._to_reissue: deque[LocalAgent] = deque()
        self._is_showing = False
        self._is_asking = False
        self.shown = 0
        """Proofs that were shown on channels."""

    def judge_all(self) -> None:
        """Somebody may have been revoked, or an authority is trusted no longer."""
        for agent in self._agents.awake_agents():
            why = self._why_gone(agent)
            if why is not None:
                self._judge.cut(agent.identity, "agent", why)
                self.end_agent(agent, why.code, Code.LOCAL_AGENT_REVOKED)
        for slot in self._channels.slots():
            if slot.verified and not slot.dead:
                self._may_stay(slot)

    def look_at(self, slot: ChannelSlot) -> bool:
        """Called for each open channel now and then. False if that has ended it."""
        agent = slot.agent
        if self._clock.unix_s() >= agent.renew_unix_s and self.refresh([agent]):
            self.show_all()
        return not slot.dead and self._may_stay(slot)

    def _may_stay(self, slot: ChannelSlot) -> bool:
        why = self._judge.why_cut(slot.peer.identity)
        if why is not None:
            self._judge.cut(slot.peer.identity, "channel", why)
            self._channels.end(slot, why.code)
        return why is None

    def check_own(self, agent: LocalAgent) -> None:
        """Raise SidelinkError (local.agent_revoked) for an agent of ours that may be none."""
        why = self._why_gone(agent)
        if why is not None:
            self._agents.forget(agent)
            raise SidelinkError(Code.LOCAL_AGENT_REVOKED, why.detail)

    def _why_gone(self, agent: LocalAgent) -> IdentityError | None:
        why = self._judge.why_cut(agent.identity)
        if why is not None and why.code is Code.CHANNEL_CREDENTIAL_EXPIRED:
            # We renew it when it is called. Nobody may have called it for a day, or this machine
            # has slept.
            return None
        return why

    def peer_renewed(self, slot: ChannelSlot, now_s: float) -> bool:
        """The peer has shown a newer proof. False if that has ended the channel."""
        if not slot.renewals.take(now_s):
            self._channels.end(slot, Code.CHANNEL_LIMIT_EXCEEDED)
            return False
        slot.permits_in.clear()
        slot.permits_out.clear()
        slot.denied = None
        if not slot.initiator:
            answer = self._decisions.may_accept(slot.peer.identity, slot.agent, again=True)
            if isinstance(answer, Denial):
                self._channels.end_denied(slot, answer)
                return False
        return True

    def policy_changed(self) -> None:
        """Another policy is in force: whoever has a channel may be allowed none any more.

        From here on nothing goes over a channel that was not asked about: who has something to say
        is asked about at once, the silent ones little by little. Messages need no look at all: what
        was cached for them holds by the version of its policy.
        """
        self._channels.unasked = {slot: None for slot in self._channels.slots() if slot.verified}
        if not self._is_asking:
            self._ask_some(self._clock.now_s())

    def _ask_some(self, _: float) -> None:
        unasked = self._channels.unasked
        until_s = self._clock.now_s() + ASKED_SECONDS_MAX
        try:
            for _ in range(min(len(unasked), ASKED_AT_ONCE)):
                # From the end: to look for its first costs as much as was taken out before it.
                self._ask(unasked.popitem()[0])
                if self._clock.now_s() >= until_s:
                    break
        finally:
            # Also when one of them meets a fault of ours: the others have an end to come to.
            self._is_asking = bool(unasked)
            if unasked:
                self._timers.at(self._clock.now_s() + ASK_SECONDS, self._ask_some)

    def ask_again(self, slot: ChannelSlot) -> None:
        """Ask about an unasked channel now, and end it if it is denied."""
        del self._channels.unasked[slot]
        self._ask(slot)

    def _ask(self, slot: ChannelSlot) -> None:
        answer = self._decisions.channel_again(slot.peer.identity, slot.agent, ours=slot.initiator)
        if isinstance(answer, Permit):
            return
        if slot.opened:
            self._channels.end_denied(slot, answer)
        else:
            self._channels.end(slot, answer.code)  # The peer has not said yes.

    def node_changed(self) -> None:
        """The node's key or credential is another: its agents show chains that end in it.

        Those that sleep are brought up to date when they wake, those that open a channel before
        their turn has come when they do.
        """
        # Parents first: a child's chain goes through its parent's.
        awake = sorted(self._agents.awake_agents(), key=lambda agent: len(agent.uri.path))
        was_busy = bool(self._to_reissue)
        self._to_reissue = deque(awake)
        if not was_busy:
            self._reissue_some(self._clock.now_s())

    def _reissue_some(self, now_s: float) -> None:
        waiting = self._to_reissue
        batch = [waiting.popleft() for _ in range(min(len(waiting), REISSUED_AT_ONCE))]
        if self.refresh(batch):
            self.show_all()
        if waiting:
            self._timers.at(now_s + REISSUE_SECONDS, self._reissue_some)

    def refresh(self, agents: Iterable[LocalAgent]) -> bool:
        """See to it that they can show what is true now. Whether any of them has changed."""
        try:
            return bool(self._agents.reissue(agents, self._clock.unix_s()))
        except SidelinkError as exc:
            # A disk that takes nothing. What they have serves until it ends.
            _log.error("agents_not_renewed", code=exc.code.text, why=exc.detail)
            return False

    def show_all(self) -> None:
        """What our agents can show has changed: show it on each channel that says otherwise."""
        for slot in self._channels.slots():
            if slot.shown is not slot.agent.full_proof:
                self._to_show[slot] = None
        if self._to_show and not self._is_showing:
            self._show_some(self._clock.now_s())

    def _show_some(self, now_s: float) -> None:
        for slot in list(self._to_show)[:SHOWN_AT_ONCE]:
            del self._to_show[slot]
            if slot.opened and not slot.dead:
                self._try_to_show(slot)
        self._is_showing = bool(self._to_show)
        if self._to_show:
            self._timers.at(now_s + SHOW_SECONDS, self._show_some)

    def _try_to_show(self, slot: ChannelSlot) -> None:
        try:
            self.show(slot)
        except SidelinkError as exc:
            # One damaged row costs no other agent anything.
            _log.error(
                "proof_not_shown", agent=str(slot.agent.uri), code=exc.code.text, why=exc.detail
            )

    def show(self, slot: ChannelSlot) -> None:
        """Show the peer of an open channel who our agent is now."""
        agent = slot.agent
        proof = self._agents.proof_for(agent, slot.own_key, self._clock.unix_s())
        slot.links.channel.renew(proof)
        slot.links.pump()
        slot.shown = agent.full_proof
        slot.own_expires_unix_s = agent.expires_unix_s
        slot.permits_in.clear()
        slot.permits_out.clear()
        self.shown += 1

    def end_agent(self, agent: LocalAgent, code: Code, told: Code) -> None:
        """It is nobody any more: end its channels with ``code``, and tell processes ``told``."""
        self._agents.forget(agent)
        for slot in [slot for slot in self._channels.slots() if slot.agent is agent]:
            self._channels.end(slot, code)
        for listener in self.on_agent_gone:
            listener(agent, told)
