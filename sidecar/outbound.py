"""From agents to channels: decide, queue, batch, seal; and tell each sender how it went. Pure."""

from typing import Final

from sidelink import wire

from identity import AgentUri, Code, IdentityError
from node.clocks import Clock
from policy import Action, Denial, Party, Permit
from sidecar.agents import AgentRegistry, LocalAgent
from sidecar.batches import BATCH_BYTES_MAX, ENVELOPE_BYTES, pieces_of, runs_of, size_of
from sidecar.channels import ChannelTable
from sidecar.conversation import (
    ANSWER_BYTES_WAITING_MAX,
    ASKS_PER_CONVERSATION_MAX,
    ChannelWanted,
    Conversation,
    Failure,
    Owner,
    PendingAsk,
    Queued,
)
from sidecar.conversations import Conversations
from sidecar.decisions import SidecarDecisions
from sidecar.delivery import Deliveries
from sidecar.envelope import Ask, Envelope, Tell, TellRun, encode_batch
from sidecar.local_messages import LocalMessages, confirm
from sidecar.local_port import LocalSession, failure
from sidecar.pauses import Pauses
from sidecar.slot import ChannelSlot
from sidecar.timers import Timers

# A channel that ended so was in order until then: what had not been sent goes by another one.
_OPENED_AGAIN_AFTER: Final = frozenset(
    {
        Code.CHANNEL_IDLE,
        Code.CHANNEL_RESTARTING,
        Code.CHANNEL_SESSION_UNKNOWN,
        Code.CHANNEL_CREDENTIAL_EXPIRED,
    }
)


class Outbound:
    """The conversations of a sidecar, as far as they speak."""

    def __init__(
        self,
        agents: AgentRegistry,
        decisions: SidecarDecisions,
        deliveries: Deliveries,
        timers: Timers,
        clock: Clock,
    ) -> None:
        self._agents = agents
        self._decisions = decisions
        self._timers = timers
        self._clock = clock
        self.conversations = Conversations(agents, timers, clock, self._give_up)
        self._dirty: dict[Conversation, None] = {}
        self._pauses = Pauses(timers, clock)
        self._local = LocalMessages(self, agents, decisions, deliveries)
        self.sent = 0
        self.failed: dict[Code, int] = {}

    @property
    def stalls(self) -> int:
        return self._pauses.stalls

    def use_channels(self, channels: ChannelTable) -> None:
        """Where to open channels. Given once, before anything is sent."""
        self.conversations.use_channels(channels)

    def send_batch(self, agent: LocalAgent, session: LocalSession, sends: list[wire.Send]) -> None:
        """Messages of one agent, in order. Each is sent, queued or refused before this ends."""
        unix_s = self._clock.unix_s()
        for send in sends:
            owner = Owner(session, send.request, agent.handle)
            conversation = self._find(agent, send.to)
            if conversation is None:
                conversation = self._begin(agent, owner, send.to)
                if conversation is None:
                    continue
            slot = conversation.slot
            if slot is not None and _is_ready(slot, unix_s):
                self._decide(conversation, slot, owner, send, unix_s)
            elif self._agents.covers(conversation.remote):
                self._local.send(conversation, owner, send, unix_s)
            elif conversation.stalled:
                self.fail(owner, Failure(Code.MESSAGE_QUEUE_FULL, "the receiver takes nothing"))
            else:
                self._queue(conversation, owner, send)
            self._pauses.pause_if_full(conversation, session)

    def send_run(self, agent: LocalAgent, session: LocalSession, run: wire.TellRun) -> None:
        """Tells of one agent to one name, in order. What cannot be said of all is said of each."""
        conversation = self._find(agent, run.to)
        slot = None if conversation is None else conversation.slot
        unix_s = self._clock.unix_s()
        if (
            conversation is not None
            and slot is not None
            and slot.opened
            and _is_ready(slot, unix_s)
            and not conversation.stalled
            and (permit := slot.permits_out.get(Action.MESSAGE_TELL)) is not None
            and self._decisions.still_holds(permit, max(map(len, run.bodies)), unix_s)
        ):
            self._send_tells(permit, conversation, Owner(session, 0, agent.handle), run)
            self._pauses.pause_if_full(conversation, session)
            return
        sends = [
            wire.Send(0, run.agent, run.to, wire.TELL, body, run.content_type, 0)
            for body in run.bodies
        ]
        self.send_batch(agent, session, sends)

    def answer(self, conversation: Conversation, slot: ChannelSlot, envelope: Envelope) -> None:
        """Send an answer on the channel that carried the question."""
        channels = self.conversations.channels
        if not channels.may_pass(slot):
            return
        waiting_bytes = slot.links.waiting_bytes
        if waiting_bytes > ANSWER_BYTES_WAITING_MAX or (
            waiting_bytes and not channels.admission.may_hold(slot)
        ):
            channels.end(slot, Code.CHANNEL_LIMIT_EXCEEDED)
        elif slot is conversation.slot:
            self._add(conversation, envelope)
        else:
            slot.links.channel.send(encode_batch([envelope]), self._clock.now_s())
            slot.links.pump()

    def flush(self) -> None:
        """The end of a turn: seal what each conversation has gathered."""
        dirty, self._dirty = self._dirty, {}
        for conversation in dirty:
            self._seal(conversation)
            self._pauses.resume_if_low(conversation)

    def want_channel(self, agent: LocalAgent, remote: AgentUri, then: ChannelWanted) -> None:
        """Call ``then`` once a channel to this name is open, or with why there is none."""
        self._find(agent, str(remote))  # So that no channel is taken that is denied now.
        conversation = self.conversations.get(agent, remote)
        slot = self.conversations.ensure_channel(conversation)
        if slot is not None and slot.opened and not slot.holds:
            then(slot)
        else:
            conversation.wanted.append(then)

    def close(self) -> None:
        """Nothing that waits for a channel will get one. Its senders keep it for the next start."""
        for conversation in self.conversations.all():
            self._fail_queue(conversation, Failure(Code.LOCAL_DRAINING))

    # What channels tell.

    def channel_verified(self, slot: ChannelSlot) -> None:
        """The peer is proved: what waited is decided now, with all that is known."""
        conversation = self.conversations.verified(slot)
        if conversation.slot is slot:
            self._release(conversation)

    def channel_opened(self, slot: ChannelSlot) -> None:
        conversation = self.conversations.opened(slot)
        if conversation.slot is slot:
            for _number, owner in conversation.unconfirmed:
                confirm(owner)
            conversation.unconfirmed.clear()
        self._dirty[conversation] = None  # What was decided for the opening goes now.
        self._release(conversation)

    def channel_moved(self, slot: ChannelSlot) -> None:
        """A channel has a link again, or may be used again."""
        conversation = self.conversations.of(slot)
        if conversation is not None and conversation.slot is slot:
            self._release(conversation)

    def progressed(self, slot: ChannelSlot) -> None:
        """Something may have left: who was held back for it may go on."""
        conversation = self.conversations.of(slot)
        if conversation is None:
            return
        self._pauses.progressed(conversation)
        if slot.leaving and self.conversations.settle(conversation):
            self._release(conversation)

    def channel_ended(self, slot: ChannelSlot, failed: Failure) -> None:
        """A channel is gone. Whoever waited on it learns why; the next message opens another."""
        conversation = self.conversations.of(slot)
        if conversation is not None:
            self._go_on_without(slot, conversation, failed)
            self.conversations.forget_if_over(conversation)

    def _go_on_without(
        self, slot: ChannelSlot, conversation: Conversation, failed: Failure
    ) -> None:
        was_in_use = conversation.slot is slot
        self.conversations.ended(slot)
        for number in [key for key, ask in conversation.asks.items() if ask.slot is slot]:
            ask = self.take_ask(conversation, number)
            assert ask is not None
            self.fail(ask.owner, _outcome(slot, number, failed))
        if not was_in_use:
            return
        if _may_have_lost(slot, conversation):
            self.tell_rejected(
                conversation, Failure(Code.MESSAGE_OUTCOME_UNKNOWN, failed.code.text)
            )
        conversation.batch.clear()
        conversation.batch_bytes = 0
        for number, owner in conversation.unconfirmed:
            self.fail(owner, _outcome(slot, number, failed))
        conversation.unconfirmed.clear()
        if not self._goes_on(slot, conversation, failed):
            self._fail_queue(conversation, failed)
            conversation.asking_since_s = None
        elif conversation.slot is not None:
            self._release(conversation)
        elif slot.opened and (conversation.queue or conversation.wanted):
            self.conversations.ensure_channel(conversation)
        self._pauses.progressed(conversation)

    def _goes_on(self, slot: ChannelSlot, conversation: Conversation, failed: Failure) -> bool:
        """Whether what waits for a channel may wait for another one."""
        if failed.denied:
            return False
        if slot.opened:
            return failed.code in _OPENED_AGAIN_AFTER
        return not slot.verified and self.conversations.ask_again(conversation, failed.code)

    def session_gone(self, session: LocalSession) -> None:
        """Nobody waits for the answers of a session that closed."""
        self._pauses.session_gone(session)
        for conversation in self.conversations.all():
            asks = conversation.asks
            for number in [key for key, ask in asks.items() if ask.owner.session is session]:
                self.take_ask(conversation, number)
            owner = conversation.last_owner
            if owner is not None and owner.session is session:
                conversation.last_owner = None

    def take_ask(self, conversation: Conversation, number: int) -> PendingAsk | None:
        """An ask has come to its end: it has neither a place nor a time any more."""
        ask = conversation.asks.pop(number, None)
        if ask is not None:
            self._timers.cancel(ask.timer)
            if ask.slot is not None:
                ask.slot.asks_out -= 1
        return ask

    def fail(self, owner: Owner, failed: Failure) -> None:
        """Tell a sender that its message did not go, with what to do about it."""
        self.failed[failed.code] = self.failed.get(failed.code, 0) + 1
        frame = failure(
            owner.request, failed.code, failed.message, rule=failed.rule, agent=owner.agent
        )
        owner.session.deliver([frame])

    def tell_rejected(self, conversation: Conversation, failed: Failure) -> None:
        """The far side did not hand over a tell. Its sender, who had a receipt, is told so."""
        owner = conversation.last_owner
        if owner is not None:
            self.fail(Owner(owner.session, 0, owner.agent), failed)

    def begin_ask(
        self, conversation: Conversation, owner: Owner, send: wire.Send, slot: ChannelSlot | None
    ) -> int:
        """Give an ask its number and its time. 0 when there are too many, and that is told."""
        if len(conversation.asks) >= ASKS_PER_CONVERSATION_MAX:
            self.fail(owner, Failure(Code.MESSAGE_QUEUE_FULL, "too many asks are in flight"))
            return 0
        number = conversation.next_id(is_ask=True)
        deadline_s = self._clock.now_s() + send.timeout_ms / 1000
        timer = self._timers.at(deadline_s, lambda _: self._time_out(conversation, number))
        conversation.asks[number] = PendingAsk(owner, deadline_s, slot, timer)
        if slot is not None:
            slot.asks_out += 1
        return number

    # Inside.

    def _find(self, agent: LocalAgent, to: str) -> Conversation | None:
        """The conversation of these two, with no channel that the policy in force denies."""
        channels = self.conversations.channels
        conversation = self.conversations.find(agent, to)
        while conversation is not None:
            slot = conversation.slot
            if slot is None or slot.dead or channels.may_pass(slot):
                break
            conversation = self.conversations.find(agent, to)  # It may have ended with its channel.
        return conversation

    def _begin(self, agent: LocalAgent, owner: Owner, to: str) -> Conversation | None:
        try:
            remote = AgentUri.parse(to)
        except IdentityError as exc:
            self.fail(owner, Failure(Code.LOCAL_BAD_REQUEST, exc.detail))
            return None
        if self.conversations.is_full:
            self.fail(owner, Failure(Code.LOCAL_LIMIT, "too many conversations at once"))
            return None
        return self.conversations.get(agent, remote)

    def _queue(self, conversation: Conversation, owner: Owner, send: wire.Send) -> None:
        slot = conversation.slot
        if not conversation.queue and (slot is None or not slot.verified):
            answer = self._decisions.may_open_by_name(
                conversation.agent,
                Party.unproved(conversation.remote),
                _action_of(send),
                len(send.body),
            )
            if isinstance(answer, Denial):
                self.fail(owner, Failure.of(answer))
                return
        # First the channel: one whose time is over ends here, with what waited for it.
        self.conversations.ensure_channel(conversation)
        conversation.queue.append(Queued(owner, send, self._clock.now_s()))
        conversation.queue_bytes += len(send.body) + ENVELOPE_BYTES

    def _release(self, conversation: Conversation) -> None:
        """Send what waited for its channel, if that can be used now."""
        slot, unix_s = conversation.slot, self._clock.unix_s()
        if slot is None or not _is_ready(slot, unix_s):
            return
        if not self.conversations.channels.may_pass(slot):
            return
        queue, conversation.queue, conversation.queue_bytes = conversation.queue, [], 0
        now_s = self._clock.now_s()
        for queued in queue:
            send = queued.left_of(now_s)
            if send is None:
                expired = Failure(Code.MESSAGE_TIMEOUT, "it waited too long for its channel")
                self.fail(queued.owner, expired)
            else:
                self._decide(conversation, slot, queued.owner, send, unix_s)
        if slot.opened:
            wanted, conversation.wanted = conversation.wanted, []
            for then in wanted:
                then(slot)
        # Even if all of them were refused: who was paused for them goes on.
        self._dirty[conversation] = None

    def _decide(
        self,
        conversation: Conversation,
        slot: ChannelSlot,
        owner: Owner,
        send: wire.Send,
        unix_s: float,
    ) -> None:
        if conversation.stalled:
            self.fail(owner, Failure(Code.MESSAGE_QUEUE_FULL, "the receiver takes nothing"))
            return
        action = _action_of(send)
        permit = slot.permits_out.get(action)
        if permit is None or not self._decisions.still_holds(permit, len(send.body), unix_s):
            answer = self._decisions.may_message(
                action,
                slot.agent.party,
                Party.from_verified(slot.peer.identity),
                len(send.body),
                expires_unix_s=slot.expires_unix_s,
            )
            if isinstance(answer, Denial):
                self.fail(owner, Failure.of(answer))
                return
            permit = slot.permits_out[action] = answer
        self._send(permit, conversation, slot, owner, send)

    def _send(
        self,
        permit: Permit,
        conversation: Conversation,
        slot: ChannelSlot,
        owner: Owner,
        send: wire.Send,
    ) -> None:
        """Put a message into the batch of this turn. There is no way here but with a Permit."""
        conversation.last_owner = owner
        if permit.action == Action.MESSAGE_TELL:
            number = conversation.next_id(is_ask=False)
            self._add(conversation, Tell(number, send.body, send.content_type))
            if slot.opened:
                confirm(owner)
            else:
                conversation.unconfirmed.append((number, owner))
        else:
            permit.require(Action.MESSAGE_ASK)
            number = self.begin_ask(conversation, owner, send, slot)
            if number == 0:
                return
            ask = Ask(number, send.body, send.content_type, send.timeout_ms)
            self._add(conversation, ask)
        self.sent += 1

    def _send_tells(
        self, permit: Permit, conversation: Conversation, owner: Owner, run: wire.TellRun
    ) -> None:
        """Put a run into the batch of this turn, under one Permit that covers its largest."""
        permit.require(Action.MESSAGE_TELL)
        conversation.last_owner = owner
        for bodies in runs_of(run.bodies):
            first_id = conversation.next_tell_ids(len(bodies))
            self._add(conversation, TellRun(first_id, bodies, run.content_type))
        self.sent += len(run.bodies)

    def _add(self, conversation: Conversation, envelope: Envelope) -> None:
        size_bytes = size_of(envelope)
        if conversation.batch_bytes + size_bytes > BATCH_BYTES_MAX:
            self._seal(conversation)
        conversation.batch.append(envelope)
        conversation.batch_bytes += size_bytes
        self._dirty[conversation] = None

    def _seal(self, conversation: Conversation) -> None:
        """Seal the batch. Behind an opening only one goes ahead; the next wait for the yes."""
        slot = conversation.slot
        if not conversation.batch or slot is None or slot.dead:
            return
        if not slot.opened and (slot.first_flight_id or not slot.initiator):
            return
        batch = conversation.batch
        # The usual batch fits one record as it is: ``_add`` has seen to that.
        fits = conversation.batch_bytes <= BATCH_BYTES_MAX
        pieces = [batch] if fits else pieces_of(batch)
        conversation.batch, conversation.batch_bytes = [], 0
        if not slot.opened:
            slot.first_flight_id = conversation.last_id
            conversation.batch = [envelope for piece in pieces[1:] for envelope in piece]
            conversation.batch_bytes = sum(map(size_of, conversation.batch))
            if conversation.batch:
                slot.first_flight_id = _first_id(conversation.batch) - 1
            del pieces[1:]
        slot.used_s = now_s = self._clock.now_s()
        for piece in pieces:
            slot.links.channel.send(encode_batch(piece), now_s)
        slot.links.pump()

    def _time_out(self, conversation: Conversation, number: int) -> None:
        ask = self.take_ask(conversation, number)
        if ask is not None:
            self.fail(ask.owner, Failure(Code.MESSAGE_TIMEOUT, "the outcome is not known"))

    def _give_up(self, conversation: Conversation) -> None:
        self._fail_queue(conversation, Failure(Code.MESSAGE_UNREACHABLE, "no gateway is connected"))
        self._pauses.resume_if_low(conversation)

    def _fail_queue(self, conversation: Conversation, failed: Failure) -> None:
        queue, conversation.queue, conversation.queue_bytes = conversation.queue, [], 0
        for queued in queue:
            self.fail(queued.owner, failed)
        wanted, conversation.wanted = conversation.wanted, []
        for then in wanted:
            then(failed)


def _is_ready(slot: ChannelSlot, unix_s: float) -> bool:
    """Whether a message may be decided for this channel now, and sent on it."""
    return slot.verified and not slot.holds and unix_s < slot.expires_unix_s


def _action_of(send: wire.Send) -> Action:
    return Action.MESSAGE_ASK if send.kind == wire.ASK else Action.MESSAGE_TELL


def _first_id(batch: list[Envelope]) -> int:
    """The number of the first message. Behind an opening there are no answers yet."""
    first = batch[0]
    assert isinstance(first, (Tell, Ask)), "runs go out on open channels only"
    return first.id


def _may_have_lost(slot: ChannelSlot, conversation: Conversation) -> bool:
    """Whether something of ours was on its way when this channel ended."""
    if not slot.opened:
        return False
    # Once it is offered for rest, only the offer itself can be: all before was received.
    awaited = slot.resting_since_s is None and slot.links.channel.awaits_acknowledgement
    return bool(conversation.batch) or awaited


def _outcome(slot: ChannelSlot, number: int, failed: Failure) -> Failure:
    """What a sender is told of a message on a channel that ended.

    What left may have been read, and then nobody knows. A denial under seal, in answer to the
    opening, is certain: nothing was handed over.
    """
    left = slot.opened or number <= slot.first_flight_id
    if not left or (failed.denied and not slot.opened):
        return failed
    return Failure(Code.MESSAGE_OUTCOME_UNKNOWN, failed.code.text)
