"""What arrives on channels: decided, delivered or rejected. Pure."""

from typing import Final

from sidelink import wire

from identity import Code
from node.clocks import Clock
from policy import Action, Denial, Party, Permit
from sidecar.conversation import Conversation, Failure
from sidecar.decisions import SidecarDecisions
from sidecar.delivery import Deliveries
from sidecar.envelope import (
    REASON_BYTES_MAX,
    RULE_BYTES_MAX,
    Ask,
    Reject,
    Reply,
    Tell,
    TellRun,
    decode_batch_untrusted,
)
from sidecar.local_port import LocalSession
from sidecar.mailbox import Waiting
from sidecar.outbound import Outbound
from sidecar.slot import ChannelSlot

# What a peer may say of a message. That our own socket or settings are at fault, it may not: the
# remedy that we add would send our reader the wrong way.
_SAID_BY_PEERS: Final = ("message.", "policy.", "stream.", "channel.")

# Who is denied again and again is then denied unread for so long.
DENIED_SECONDS: Final = 1.0


class RemoteAnswers:
    """The way back of one ask that came over a channel: on that channel, and on no other."""

    __slots__ = ("_conversation", "_number", "_outbound", "_slot")

    def __init__(
        self, outbound: Outbound, conversation: Conversation, slot: ChannelSlot, number: int
    ) -> None:
        self._outbound = outbound
        self._conversation = conversation
        self._slot = slot
        self._number = number

    def reply(self, body: bytes, content_type: str) -> None:
        self._answer(Reply(self._number, body, content_type))

    def reject(self, reason: str, *, expired: bool = False) -> None:
        code = Code.MESSAGE_EXPIRED if expired else Code.MESSAGE_REJECTED
        self._answer(Reject(self._number, code, "", reason[:REASON_BYTES_MAX]))

    def _answer(self, envelope: Reply | Reject) -> None:
        self._slot.asks_in -= 1
        self._outbound.answer(self._conversation, self._slot, envelope)


class Inbound:
    """Takes the data of verified channels apart, message by message."""

    def __init__(
        self,
        outbound: Outbound,
        deliveries: Deliveries,
        decisions: SidecarDecisions,
        clock: Clock,
    ) -> None:
        self._outbound = outbound
        self._deliveries = deliveries
        self._decisions = decisions
        self._clock = clock
        self.received = 0
        self.rejected: dict[Code, int] = {}

    def data_untrusted(
        self, conversation: Conversation, slot: ChannelSlot, data: bytes, owed_bytes: int
    ) -> None:
        """Take one batch. Raises EnvelopeError when it is none: the channel must end.

        ``owed_bytes`` are released with the last message that a mailbox keeps, or at once; but not
        before the process that was told answers has read them.
        """
        batch = decode_batch_untrusted(data)
        unix_s = self._clock.unix_s()
        last: Waiting | None = None
        told: LocalSession | None = None
        for envelope in batch:
            if isinstance(envelope, TellRun):
                last = self._run(conversation, slot, envelope, unix_s) or last
            elif isinstance(envelope, (Tell, Ask)):
                last = self._message(conversation, slot, envelope, unix_s) or last
            else:
                told = self._answer(conversation, slot, envelope) or told

        def release() -> None:
            self._deliveries.when_writable(told, lambda: slot.links.consume(owed_bytes))

        if last is None or not self._deliveries.listens(slot.agent):
            release()
        else:
            last.release = release

    def _run(
        self, conversation: Conversation, slot: ChannelSlot, run: TellRun, unix_s: float
    ) -> Waiting | None:
        """Take tells that came together. What cannot be said of all is said of each."""
        permit = slot.permits_in.get(Action.MESSAGE_TELL)
        bodies = run.bodies
        if permit is not None and self._decisions.still_holds(
            permit, max(map(len, bodies)), unix_s
        ):
            waiting = self._tells(permit, slot, bodies, run.content_type)
            if self._deliveries.offer(slot.agent, waiting) is None:
                self.received += len(bodies)
                return waiting
        last: Waiting | None = None
        for index, body in enumerate(bodies):
            tell = Tell(run.first_id + 2 * index, body, run.content_type)
            last = self._message(conversation, slot, tell, unix_s) or last
        return last

    def _message(
        self, conversation: Conversation, slot: ChannelSlot, envelope: Tell | Ask, unix_s: float
    ) -> Waiting | None:
        is_ask = isinstance(envelope, Ask)
        permit = self._permit(slot, is_ask, len(envelope.body), unix_s)
        if isinstance(permit, Denial):
            colleague = slot.peer.identity.trust_domain == slot.agent.uri.trust_domain
            rule, reason = permit.told(colleague=colleague)
            self._reject(conversation, slot, envelope.id, permit.code, rule, reason)
            return None
        waiting = self._waiting(permit, conversation, slot, envelope)
        code = self._deliveries.offer(slot.agent, waiting)
        if code is not None:
            self._reject(conversation, slot, envelope.id, code, "", "")
            return None
        if is_ask:
            slot.asks_in += 1
            slot.asked_until_s = max(slot.asked_until_s, waiting.deadline_s)
        self.received += 1
        return waiting

    def _permit(
        self, slot: ChannelSlot, is_ask: bool, size_bytes: int, unix_s: float
    ) -> Permit | Denial:
        action = Action.MESSAGE_ASK if is_ask else Action.MESSAGE_TELL
        cached = slot.permits_in.get(action)
        if cached is not None and self._decisions.still_holds(cached, size_bytes, unix_s):
            return cached
        now_s = self._clock.now_s()
        denied = slot.denied
        if (
            denied is not None
            and now_s < slot.denied_until_s
            and denied.policy_version == self._decisions.version
        ):
            return denied
        answer = self._decisions.may_message(
            action,
            Party.from_verified(slot.peer.identity),
            slot.agent.party,
            size_bytes,
            expires_unix_s=slot.expires_unix_s,
        )
        if isinstance(answer, Permit):
            slot.permits_in[action] = answer
        elif not slot.denials.take(now_s):
            slot.denied, slot.denied_until_s = answer, now_s + DENIED_SECONDS
        return answer

    def _waiting(
        self, permit: Permit, conversation: Conversation, slot: ChannelSlot, envelope: Tell | Ask
    ) -> Waiting:
        """What a mailbox keeps. Made only under a Permit for this very action."""
        if isinstance(envelope, Tell):
            return self._tells(permit, slot, [envelope.body], envelope.content_type)
        permit.require(Action.MESSAGE_ASK)
        assert slot.sender is not None
        deadline_s = self._clock.now_s() + envelope.remaining_ms / 1000
        answers = RemoteAnswers(self._outbound, conversation, slot, envelope.id)
        return Waiting(slot.sender, [envelope.body], envelope.content_type, deadline_s, answers)

    @staticmethod
    def _tells(
        permit: Permit, slot: ChannelSlot, bodies: list[bytes], content_type: str
    ) -> Waiting:
        permit.require(Action.MESSAGE_TELL)
        assert slot.sender is not None
        return Waiting(slot.sender, bodies, content_type)

    def _reject(
        self,
        conversation: Conversation,
        slot: ChannelSlot,
        number: int,
        code: Code,
        rule: str,
        reason: str,
    ) -> None:
        self.rejected[code] = self.rejected.get(code, 0) + 1
        envelope = Reject(number, code, rule[:RULE_BYTES_MAX], reason[:REASON_BYTES_MAX])
        self._outbound.answer(conversation, slot, envelope)

    def _answer(
        self, conversation: Conversation, slot: ChannelSlot, envelope: Reply | Reject
    ) -> LocalSession | None:
        """Hand an answer to whoever asked. Returns its session, if there is one."""
        ask = conversation.asks.get(envelope.in_reply_to)
        if isinstance(envelope, Reject):
            code = _rejection_untrusted(envelope.code)
            failure = Failure(code, envelope.reason, envelope.rule or None)
            if conversation.take_rejection(envelope.in_reply_to):
                self._outbound.tell_rejected(conversation, failure)
                return None if conversation.last_owner is None else conversation.last_owner.session
            if ask is None or ask.slot is not slot:
                return None
            self._outbound.take_ask(conversation, envelope.in_reply_to)
            self._outbound.fail(ask.owner, failure)
            return ask.owner.session
        if ask is None or ask.slot is not slot:
            return None  # Too late, or never asked on this channel.
        self._outbound.take_ask(conversation, envelope.in_reply_to)
        assert slot.sender is not None
        reply = wire.Reply(
            ask.owner.request,
            envelope.body,
            envelope.content_type,
            slot.sender.uri,
            slot.sender.identifier,
            slot.sender.attributes,
        )
        ask.owner.session.deliver([reply])
        return ask.owner.session


def _rejection_untrusted(number: int) -> Code:
    code = Code.from_number_untrusted(number)
    return code if code.text.startswith(_SAID_BY_PEERS) else Code.MESSAGE_REJECTED
