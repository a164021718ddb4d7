"""The router: what the sidecar does with messages, channels and hops. Pure.

It is told what happened, and acts on sessions and hops, which only queue. After each call the
shell asks ``deadline_s`` when to call again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from sidelink import wire

from channel import ChannelDenied, MakeCipher, Signal
from identity import AgentUri, AttributeValue, Code, SidelinkError
from link import Frame, HopPort, LinkEnd
from node.clocks import Clock
from policy import Denial, Permit
from sidecar.admission import CHANNELS_MAX
from sidecar.agents import AgentRegistry, LocalAgent
from sidecar.channels import ChannelTable, VerifyChannelPeer
from sidecar.children import CHILDREN_MAX, Children
from sidecar.conversation import ChannelWanted, Failure
from sidecar.decisions import SidecarDecisions
from sidecar.delivery import Deliveries
from sidecar.envelope import EnvelopeError
from sidecar.inbound import Inbound
from sidecar.lives import Lives
from sidecar.local_port import LocalSession
from sidecar.outbound import Outbound
from sidecar.rest import IDLE_SECONDS, Rest
from sidecar.slot import ChannelSlot
from sidecar.standing import Judge, Standing
from sidecar.timers import Timers

EXPIRY_SECONDS_MIN: Final = 0.05
EXPIRY_SECONDS_MAX: Final = 300.0


class StreamOwner(Protocol):
    """Who looks after byte streams: ``sidecar.streams``."""

    def stream_announced(self, slot: ChannelSlot, payload: bytes) -> None: ...
    def stream_credit(self, hop: HopPort, link: int, stream: int, limit: int) -> None: ...
    def streams_on(self, end: LinkEnd) -> int: ...
    def channel_gone(self, slot: ChannelSlot, code: Code) -> None: ...


class PathOwner(Protocol):
    """Who looks for ways between sidecars without a gateway: ``sidecar.direct``."""

    def channel_opened(self, slot: ChannelSlot) -> None: ...
    def addresses_received(
        self, slot: ChannelSlot, addresses: tuple[tuple[str, int], ...]
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class RouterLimits:
    """What an operator may choose."""

    channel_idle_s: float = IDLE_SECONDS
    channels_max: int = CHANNELS_MAX
    children_max: int = CHILDREN_MAX


class Router:
    """One for a sidecar. It owns the channels and gives them their meaning."""

    def __init__(
        self,
        agents: AgentRegistry,
        decisions: SidecarDecisions,
        verify: VerifyChannelPeer,
        judge: Judge,
        clock: Clock,
        *,
        limits: RouterLimits | None = None,
        make_cipher: MakeCipher | None = None,
    ) -> None:
        limits = limits or RouterLimits()
        self.agents = agents
        self.timers = Timers()
        self.deliveries = Deliveries(clock)
        self.outbound = Outbound(agents, decisions, self.deliveries, self.timers, clock)
        self.inbound = Inbound(self.outbound, self.deliveries, decisions, clock)
        self.channels = ChannelTable(self, verify, self.timers, make_cipher=make_cipher)
        self.outbound.use_channels(self.channels)
        self.rest = Rest(
            self.channels,
            self.timers,
            idle_s=limits.channel_idle_s,
            channels_max=limits.channels_max,
        )
        self.standing = Standing(self.channels, agents, decisions, self.timers, judge, clock)
        self.children = Children(agents, children_max=limits.children_max)
        self._lives = Lives(self.standing, self.timers, clock)
        self.channels_opened = 0
        self._let_go = 0
        """Agents that lost a channel in this turn."""
        self._decisions = decisions
        self._clock = clock
        self._streams: StreamOwner | None = None
        self._direct: PathOwner | None = None

    def use_direct(self, direct: PathOwner) -> None:
        """Who looks for direct ways. Given at most once, before a hop opens."""
        self._direct = direct

    def use_streams(self, streams: StreamOwner) -> None:
        """Who takes what concerns byte streams. Given once, before a hop opens."""
        self._streams = streams

    # What the shell calls.

    @property
    def deadline_s(self) -> float | None:
        return self.timers.deadline_s

    def handle_deadline(self, now_s: float) -> None:
        self.timers.run(now_s)
        self._end_turn()
        self._put_to_sleep()

    def hop_opened(self, hop: HopPort, *, direct: bool = False) -> None:
        """A hop is open: what waited for one goes now."""
        self.channels.hop_opened(hop, self._clock.now_s(), direct=direct)
        self.outbound.conversations.hop_opened()
        self._end_turn()

    def hop_leaving(self, hop: HopPort) -> None:
        """The neighbour has said that it will stop soon."""
        self.channels.hop_leaving(hop, self._clock.now_s())
        self._end_turn()

    def hop_closed(self, hop: HopPort, code: Code) -> None:
        self.channels.hop_closed(hop, code, self._clock.now_s())
        self._end_turn()
        self._put_to_sleep()

    def judge(self) -> None:
        """Somebody may have been revoked: end what rests on it."""
        self.standing.judge_all()
        self._end_turn()
        self._put_to_sleep()

    def policy_changed(self) -> None:
        """Another policy is in force: end what it denies, at once or soon."""
        self.standing.policy_changed()
        self._end_turn()
        self._put_to_sleep()

    def node_changed(self) -> None:
        """This node's key or credential is another one."""
        self.standing.node_changed()
        self._end_turn()

    def own_agents_changed(self) -> None:
        """Agents of ours can show newer proofs than they have shown."""
        self.standing.show_all()
        self._end_turn()

    def drain(self) -> None:
        """This sidecar stops soon: take no new channel, and put away all that are quiet. What
        agents still send goes out as ever."""
        self.channels.draining = True
        self.rest.drain(self._clock.now_s())
        self._end_turn()

    @property
    def drained(self) -> bool:
        """Whether nothing that was accepted is still under way."""
        return self.outbound.conversations.idle and self.deliveries.idle

    def close(self, code: Code) -> None:
        """End every channel, under its seal where it has a link; fail what waits for one."""
        self.outbound.close()
        for slot in self.channels.slots():
            self.channels.end(slot, code)
        self._end_turn()

    def frames_received(self, hop: HopPort, frames: list[Frame]) -> None:
        self.channels.frames_received(hop, frames, self._clock.now_s())
        self._end_turn()
        self._put_to_sleep()

    # What agents ask for.

    def open_agent(self, name: str, attributes: Mapping[str, AttributeValue]) -> LocalAgent:
        """Raises SidelinkError when this sidecar may not name such an agent, or it is revoked."""
        return self._open(self.agents.open(name, attributes, self._clock.unix_s()))

    def spawn_agent(
        self, parent: str, name: str, attributes: Mapping[str, AttributeValue], ttl_s: int
    ) -> LocalAgent:
        """An agent below another one. Raises SidelinkError when that one may have no such child."""
        unix_s = self._clock.unix_s()
        return self._open(self.children.spawn(parent, name, attributes, ttl_s, unix_s))

    def _open(self, agent: LocalAgent) -> LocalAgent:
        self.standing.check_own(agent)
        self._lives.watch(agent)
        self.standing.show_all()
        self._end_turn()
        return agent

    def send_batch(self, agent: LocalAgent, session: LocalSession, sends: list[wire.Send]) -> None:
        self.outbound.send_batch(agent, session, sends)
        self._end_turn()

    def send_run(self, agent: LocalAgent, session: LocalSession, run: wire.TellRun) -> None:
        self.outbound.send_run(agent, session, run)
        self._end_turn()

    def answer(self, agent: LocalAgent, delivery: int, body: bytes, content_type: str) -> bool:
        """Reply to a delivered ask. False when there is none of this number any more."""
        found = self.deliveries.answer(agent, delivery, body, content_type)
        self._end_turn()
        return found

    def refuse(self, agent: LocalAgent, delivery: int, reason: str) -> bool:
        found = self.deliveries.refuse(agent, delivery, reason)
        self._end_turn()
        return found

    def listen(self, agent: LocalAgent, session: LocalSession) -> bool:
        """Hand an agent's messages to this session. False when another one listens already."""
        listening = self.deliveries.listen(agent, session)
        self._end_turn()
        return listening

    def hold(self, agent: LocalAgent, session: LocalSession) -> None:
        """Hand over nothing until this session listens again; it stays the one that listens."""
        self.deliveries.hold(agent, session)

    def unlisten(self, agent: LocalAgent, session: LocalSession) -> None:
        self.deliveries.unlisten(agent, session)
        self._end_turn()

    def session_writable(self, session: LocalSession) -> None:
        self.deliveries.session_writable(session)
        self._end_turn()

    def let_go(self, agent: LocalAgent) -> None:
        """A session holds it no longer: it may sleep, if no other does."""
        agent.users -= 1
        self.agents.put_to_sleep()

    def session_gone(self, session: LocalSession) -> None:
        self.outbound.session_gone(session)
        self.deliveries.session_gone(session)
        self._end_turn()

    def want_channel(self, agent: LocalAgent, remote: AgentUri, then: ChannelWanted) -> None:
        """Call ``then`` once a channel to this name is open, or with why there is none."""
        self.outbound.want_channel(agent, remote, then)
        self._end_turn()

    # What the channel table tells and asks (ChannelOwner).

    def find_agent(self, name: AgentUri) -> LocalAgent | None:
        agent = self.agents.find(name, self._clock.unix_s())
        if agent is not None:
            try:
                self.standing.check_own(agent)
            except SidelinkError:
                return None
        return agent

    def freshen(self, agent: LocalAgent) -> None:
        self.standing.refresh([agent])

    def ask_again(self, slot: ChannelSlot) -> None:
        self.standing.ask_again(slot)

    def arm(self, slot: ChannelSlot) -> None:
        slot.armed_s = slot.links.channel.deadline_s
        if slot.armed_s is not None:
            deadline_s = slot.armed_s
            self.timers.cancel(slot.timer)
            slot.timer = self.timers.at(
                deadline_s, lambda now_s: self.channels.handle_deadline(slot, now_s)
            )

    def disarm(self, slot: ChannelSlot) -> None:
        self._let_go += 1
        self.rest.ended(slot)
        self.timers.cancel(slot.timer)
        self.timers.cancel(slot.expiry_timer)

    def may_accept(self, slot: ChannelSlot) -> Permit | Denial:
        return self._decisions.may_accept(slot.peer.identity, slot.agent)

    def channel_verified(self, slot: ChannelSlot) -> None:
        self.outbound.channel_verified(slot)

    def channel_opened(self, slot: ChannelSlot) -> None:
        self._watch_expiry(slot)
        if slot.dead:
            return  # The peer said yes when its credential had run out.
        self.channels_opened += 1
        slot.opened = True
        self.rest.opened(slot, self._clock.now_s())
        self.outbound.channel_opened(slot)
        if slot.shown is not slot.agent.full_proof:
            self.standing.show(slot)  # A responder shows the rest now; or it was renewed meanwhile.
        if self._direct is not None and not slot.dead:
            self._direct.channel_opened(slot)

    def channel_denied(self, slot: ChannelSlot, denied: ChannelDenied) -> None:
        reason = denied.reason or "the receiver's policy denies this channel"
        self._ended(slot, Failure(denied.code, reason, denied.rule or None, denied=True))

    def channel_closed(self, slot: ChannelSlot, code: Code) -> None:
        self._ended(slot, Failure(code))

    def data_received(self, slot: ChannelSlot, data: bytes, owed_bytes: int) -> None:
        try:
            conversation = self.outbound.conversations.of(slot)
            assert conversation is not None, "data comes from verified channels only"
            self.inbound.data_untrusted(conversation, slot, data, owed_bytes)
        except EnvelopeError as exc:
            self.channels.end(slot, exc.code)

    def progressed(self, slot: ChannelSlot) -> None:
        self.outbound.progressed(slot)

    def channel_moved(self, slot: ChannelSlot) -> None:
        self.outbound.channel_moved(slot)

    def peer_renewed(self, slot: ChannelSlot) -> None:
        if self.standing.peer_renewed(slot, self._clock.now_s()):
            self.timers.cancel(slot.expiry_timer)
            self._watch_expiry(slot)

    def signal_received(self, slot: ChannelSlot, signal: Signal) -> None:
        self.rest.signal_received(slot, signal, self._clock.now_s())
        if signal is Signal.WAKE:
            self.outbound.channel_moved(slot)

    def addresses_received(self, slot: ChannelSlot, addresses: tuple[tuple[str, int], ...]) -> None:
        if self._direct is not None:
            self._direct.addresses_received(slot, addresses)

    def streams_on(self, end: LinkEnd) -> int:
        return 0 if self._streams is None else self._streams.streams_on(end)

    def stream_announced(self, slot: ChannelSlot, payload: bytes) -> None:
        assert self._streams is not None
        self._streams.stream_announced(slot, payload)

    def stream_credit(self, hop: HopPort, link: int, stream: int, limit: int) -> None:
        assert self._streams is not None
        self._streams.stream_credit(hop, link, stream, limit)

    def _watch_expiry(self, slot: ChannelSlot) -> None:
        """A channel, and every stream on it, ends with the first credential that it rests on."""
        left_s = slot.expires_unix_s - self._clock.unix_s()
        if left_s <= 0:
            self.channels.end(slot, Code.CHANNEL_CREDENTIAL_EXPIRED)
            return
        if not self.standing.look_at(slot):
            return
        # The wall clock may jump, so it is looked at again now and then; never in a tight loop.
        wait_s = min(max(left_s, EXPIRY_SECONDS_MIN), EXPIRY_SECONDS_MAX)
        slot.expiry_timer = self.timers.at(
            self._clock.now_s() + wait_s, lambda _: self._watch_expiry(slot)
        )

    def _ended(self, slot: ChannelSlot, failed: Failure) -> None:
        self.outbound.channel_ended(slot, failed)
        if self._streams is not None:
            self._streams.channel_gone(slot, failed.code)

    def _put_to_sleep(self) -> None:
        """Only where nobody is about to hold an agent that nobody holds yet."""
        if self._let_go:
            self.agents.put_to_sleep(self._let_go)
            self._let_go = 0

    def _end_turn(self) -> None:
        """Hand out what mailboxes hold, then seal what has been gathered, answers included."""
        self.deliveries.flush()
        self.outbound.flush()
