"""The conversations of a sidecar: one for each agent of ours and name it talks to, and which of
their channels each speaks on. Pure.

Both agents may open a channel to each other at the same moment. Both channels live; the one whose
initiator has the lower identifier stays, and the other is left once all that was said on it has
been received, so that nothing is overtaken.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from identity import AgentUri, Code
from node.clocks import Clock
from sidecar.agents import AgentRegistry, LocalAgent
from sidecar.channels import ChannelTable
from sidecar.conversation import CONVERSATIONS_MAX, CONVERSATIONS_OVER_MAX, Conversation
from sidecar.slot import ChannelSlot
from sidecar.timers import Timers

# How long a message waits for a hop before it has failed: as long as an agent waits by default.
HOP_WAIT_SECONDS: Final = 30.0

# Openings that failed before anything was said, and may succeed a little later: how long it is
# tried. A name that no gateway knows is told at once, unless the gateway has only just been joined.
ASK_AGAIN_SECONDS: Final[Mapping[Code, float]] = MappingProxyType(
    {
        Code.ROUTE_UNREACHABLE: HOP_WAIT_SECONDS,
        Code.ROUTE_RESTARTING: HOP_WAIT_SECONDS,
        Code.ROUTE_LINK_LIMIT: 10.0,
        Code.ROUTE_UNKNOWN: 10.0,
    }
)
ASK_AGAIN_SECONDS_MIN: Final = 0.1
ASK_AGAIN_SECONDS_MAX: Final = 2.0


class Conversations:
    """Finds, begins and ends them, and gives each its channel."""

    def __init__(
        self,
        agents: AgentRegistry,
        timers: Timers,
        clock: Clock,
        give_up: Callable[[Conversation], None],
    ) -> None:
        """``give_up`` is called for one that has waited too long for a hop."""
        self._agents = agents
        self._timers = timers
        self._clock = clock
        self._give_up = give_up
        self._all: dict[tuple[int, str], Conversation] = {}
        self._of_slot: dict[ChannelSlot, Conversation] = {}
        self._channels: ChannelTable | None = None
        self._drop_over_at = CONVERSATIONS_OVER_MAX

    def __len__(self) -> int:
        return len(self._all)

    def all(self) -> list[Conversation]:
        """Those of this moment: what their owners are told may end some."""
        return list(self._all.values())

    def use_channels(self, channels: ChannelTable) -> None:
        """Where to open channels. Given once, before anything is sent."""
        self._channels = channels

    @property
    def channels(self) -> ChannelTable:
        assert self._channels is not None
        return self._channels

    def find(self, agent: LocalAgent, to: str) -> Conversation | None:
        return self._all.get((agent.handle, to))

    def of(self, slot: ChannelSlot) -> Conversation | None:
        return self._of_slot.get(slot)

    @property
    def idle(self) -> bool:
        return all(conversation.idle for conversation in self._all.values())

    @property
    def is_full(self) -> bool:
        """Whether no further one may be begun by our own agents."""
        if len(self._all) >= CONVERSATIONS_MAX:
            self._drop_over()
        return len(self._all) >= CONVERSATIONS_MAX

    def get(self, agent: LocalAgent, remote: AgentUri) -> Conversation:
        """The conversation of these two, begun if there is none. Keyed by the proved name."""
        key = (agent.handle, str(remote))
        conversation = self._all.get(key)
        if conversation is None:
            if len(self._all) >= self._drop_over_at:
                self._drop_over()
            conversation = self._all[key] = Conversation(agent, remote)
        return conversation

    def ensure_channel(self, conversation: Conversation) -> ChannelSlot | None:
        """The channel to send on, opened if need be. None while there is no hop to open it on."""
        unix_s = self._clock.unix_s()
        slot = conversation.slot
        if slot is not None and not slot.dead:
            if not slot.verified or unix_s < slot.expires_unix_s:
                return slot
            self.channels.end(slot, Code.CHANNEL_CREDENTIAL_EXPIRED)
        now_s = self._clock.now_s()
        agent = self._agents.find(conversation.agent.uri, unix_s) or conversation.agent
        slot = self.channels.open(agent, conversation.remote, now_s)
        if slot is None:
            if conversation.hop_timer is None:
                conversation.hop_timer = self._timers.at(
                    now_s + HOP_WAIT_SECONDS, lambda _: self._waited(conversation)
                )
            return None
        self._stop_waiting_for_hop(conversation)
        conversation.slot = slot
        self._add(conversation, slot)
        return slot

    def hop_opened(self) -> None:
        """Open what waited for a hop."""
        for conversation in list(self._all.values()):
            if conversation.hop_timer is not None:
                self.ensure_channel(conversation)

    def ask_again(self, conversation: Conversation, code: Code) -> bool:
        """An opening was refused. Whether another one is to follow, for those that wait."""
        seconds = ASK_AGAIN_SECONDS.get(code)
        now_s = self._clock.now_s()
        if seconds is None or not (conversation.queue or conversation.wanted):
            return False
        if code is Code.ROUTE_UNKNOWN and not self.channels.hops.is_settling(now_s):
            return False
        if conversation.asking_since_s is None:
            conversation.asking_since_s = now_s
        elif now_s - conversation.asking_since_s >= seconds:
            return False
        wait_s = min(ASK_AGAIN_SECONDS_MIN * 2**conversation.asked, ASK_AGAIN_SECONDS_MAX)
        conversation.asked = min(conversation.asked + 1, 16)
        self._timers.cancel(conversation.hop_timer)
        conversation.hop_timer = self._timers.at(
            now_s + wait_s, lambda _: self._ask_again(conversation)
        )
        return True

    def _ask_again(self, conversation: Conversation) -> None:
        conversation.hop_timer = None
        self.ensure_channel(conversation)

    def verified(self, slot: ChannelSlot) -> Conversation:
        """The peer is proved: the conversation that its channel serves."""
        conversation = self._of_slot.get(slot)
        if conversation is None:
            # The peer opened it: it serves the conversation of the name that it proved.
            assert slot.peer.name is not None
            conversation = self.get(slot.agent, slot.peer.name)
            self._add(conversation, slot)
        if conversation.slot is None or conversation.slot.dead:
            conversation.slot = slot
            self._stop_waiting_for_hop(conversation)
        conversation.asking_since_s = None
        conversation.asked = 0
        return conversation

    def opened(self, slot: ChannelSlot) -> Conversation:
        """Both sides have said yes. Of two channels to one peer, one is to stay."""
        conversation = self._of_slot[slot]
        for other in list(conversation.slots):
            if other is slot or not other.opened or other.peer.identifier != slot.peer.identifier:
                continue
            if other.parked_until_s is not None:
                # Its peer opens another: it has forgotten this one.
                self.channels.end(other, Code.CHANNEL_SESSION_UNKNOWN)
                continue
            leaving = _loser(other, slot)
            leaving.leaving = True
            leaving.links.channel.hurry_acknowledgements()
        self.settle(conversation)
        return conversation

    def settle(self, conversation: Conversation) -> bool:
        """Go on to the channel that stays, once all on the other one was received. Returns whether
        there is something to send on now."""
        slot = conversation.slot
        if slot is None or not slot.leaving or conversation.batch:
            return False
        if slot.links.waiting_bytes or slot.links.channel.awaits_acknowledgement:
            return False
        staying = [one for one in conversation.slots if one.opened and not one.leaving]
        if not staying:
            slot.leaving = False
            return True
        conversation.slot = staying[0]
        return True

    def ended(self, slot: ChannelSlot) -> Conversation | None:
        """A channel is gone. The conversation goes on with another one, if it has one."""
        conversation = self._of_slot.pop(slot, None)
        if conversation is None:
            return None
        conversation.slots.remove(slot)
        if conversation.slot is slot:
            conversation.slot = next(iter(conversation.slots), None)
        self.settle(conversation)
        return conversation

    def forget_if_over(self, conversation: Conversation) -> None:
        """So that a channel that was put away leaves nothing, its agent's keys least of all."""
        if conversation.over:
            key = (conversation.agent.handle, str(conversation.remote))
            if self._all.get(key) is conversation:
                del self._all[key]

    def _add(self, conversation: Conversation, slot: ChannelSlot) -> None:
        conversation.slots.append(slot)
        self._of_slot[slot] = conversation

    def _waited(self, conversation: Conversation) -> None:
        conversation.hop_timer = None
        self._give_up(conversation)

    def _stop_waiting_for_hop(self, conversation: Conversation) -> None:
        self._timers.cancel(conversation.hop_timer)
        conversation.hop_timer = None

    def _drop_over(self) -> None:
        over = [key for key, value in self._all.items() if value.over]
        for key in over:
            del self._all[key]
        # What peers begin is bounded by the channels they may have; the search for what is over
        # is spread over as many beginnings as were kept.
        self._drop_over_at = max(CONVERSATIONS_OVER_MAX, 2 * len(self._all))


def _loser(one: ChannelSlot, newer: ChannelSlot) -> ChannelSlot:
    """Which of two open channels to one peer is left: the same for both sides."""
    mine, its = _initiator_of(one), _initiator_of(newer)
    return newer if mine < its else one


def _initiator_of(slot: ChannelSlot) -> bytes:
    return (slot.agent.identity if slot.initiator else slot.peer.identity).identifier.digest
