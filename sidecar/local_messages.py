"""Messages between two agents of this sidecar: the same decisions, no channel. Pure."""

from typing import Protocol

from sidelink import wire

from identity import Code
from policy import Action, Denial
from sidecar.agents import AgentRegistry, LocalAgent
from sidecar.conversation import Conversation, Failure, Owner, PendingAsk
from sidecar.decisions import SidecarDecisions
from sidecar.delivery import Deliveries
from sidecar.mailbox import Sender, Waiting


class Asks(Protocol):
    """What keeps the asks of a conversation and tells their owners: ``sidecar.outbound``."""

    sent: int

    def begin_ask(
        self, conversation: Conversation, owner: Owner, send: wire.Send, slot: None
    ) -> int: ...
    def take_ask(self, conversation: Conversation, number: int) -> PendingAsk | None: ...
    def fail(self, owner: Owner, failed: Failure) -> None: ...


class LocalAnswers:
    """The way back of an ask between two agents of this sidecar."""

    __slots__ = ("_asks", "_conversation", "_number", "_target")

    def __init__(
        self, asks: Asks, conversation: Conversation, number: int, target: LocalAgent
    ) -> None:
        self._asks = asks
        self._conversation = conversation
        self._number = number
        self._target = target

    def reply(self, body: bytes, content_type: str) -> None:
        ask = self._asks.take_ask(self._conversation, self._number)
        if ask is None:
            return
        sender = Sender.of(self._target.identity)
        reply = wire.Reply(
            ask.owner.request,
            body,
            content_type,
            sender.uri,
            sender.identifier,
            sender.attributes,
        )
        ask.owner.session.deliver([reply])

    def reject(self, reason: str, *, expired: bool = False) -> None:
        ask = self._asks.take_ask(self._conversation, self._number)
        if ask is not None:
            code = Code.MESSAGE_EXPIRED if expired else Code.MESSAGE_REJECTED
            self._asks.fail(ask.owner, Failure(code, reason))


class LocalMessages:
    """Sends from one agent of this sidecar to another."""

    def __init__(
        self,
        asks: Asks,
        agents: AgentRegistry,
        decisions: SidecarDecisions,
        deliveries: Deliveries,
    ) -> None:
        self._asks = asks
        self._agents = agents
        self._decisions = decisions
        self._deliveries = deliveries

    def send(
        self, conversation: Conversation, owner: Owner, send: wire.Send, unix_s: float
    ) -> None:
        """Both agents are ours. Both decisions are taken all the same, and audited."""
        target = self._agents.find(conversation.remote, unix_s)
        if target is None:
            self._asks.fail(owner, Failure(Code.MESSAGE_AGENT_UNKNOWN, str(conversation.remote)))
            return
        sender = self._agents.find(conversation.agent.uri, unix_s) or conversation.agent
        is_ask = send.kind == wire.ASK
        for side in ("sender", "receiver"):
            answer = self._decisions.may_message(
                Action.MESSAGE_ASK if is_ask else Action.MESSAGE_TELL,
                sender.party,
                target.party,
                len(send.body),
                expires_unix_s=min(sender.expires_unix_s, target.expires_unix_s),
                again=side == "receiver",
            )
            if isinstance(answer, Denial):
                self._asks.fail(owner, Failure.of(answer))
                return
        waiting = Waiting(Sender.of(sender.identity), [send.body], send.content_type)
        number = 0
        if is_ask:
            number = self._asks.begin_ask(conversation, owner, send, None)
            if number == 0:
                return
            waiting.deadline_s = conversation.asks[number].deadline_s
            waiting.answers = LocalAnswers(self._asks, conversation, number, target)
        code = self._deliveries.offer(target, waiting)
        if code is not None:
            self._asks.take_ask(conversation, number)
            self._asks.fail(owner, Failure(code))
            return
        self._asks.sent += 1
        if not is_ask:
            confirm(owner)


def confirm(owner: Owner) -> None:
    """Tell a sender that its message is accepted, if it wants to know."""
    if owner.request:
        owner.session.deliver([wire.Receipt(owner.request)])
