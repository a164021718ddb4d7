"""The live channels of a sidecar: opened, accepted, fed and forgotten. Pure; it decides nothing.

Who may open a channel, and what its messages mean, is its owner's to say (``sidecar.router``).
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from channel import (
    Channel,
    ChannelClosed,
    ChannelDenied,
    ChannelEvent,
    ChannelOpened,
    ChannelState,
    DataReceived,
    MakeCipher,
    Part,
    PeerVerified,
    Prologue,
    StreamOpenReceived,
)
from identity import AgentUri, AttributeValue, Code, Identifier, VerifiedPeer
from link import (
    PROTOCOL_VERSION,
    CreditError,
    Frame,
    FrameError,
    FrameKind,
    HopPort,
    LinkEnd,
    LinkIds,
    LinkOpen,
    is_peers_link,
)
from link.limits import LANES, LINK_NONCE_BYTES
from link.messages import (
    decode_credit_untrusted,
    decode_link_open_untrusted,
    encode_code,
)
from node.link_channel import LinkChannel
from policy import Action, Denial, Permit
from sidecar.agents import LocalAgent
from sidecar.mailbox import Sender
from sidecar.timers import Timer

CHANNELS_MAX: Final = 65_536
CHANNELS_UNVERIFIED_MAX: Final = 1_024
# Of those that one node's agents open: a gateway says truly whose they are, and one node alone
# must not take the places of all others.
CHANNELS_PER_NODE_MAX: Final = CHANNELS_MAX // 4
CHANNELS_UNVERIFIED_PER_NODE_MAX: Final = CHANNELS_UNVERIFIED_MAX // 4

VerifyChannelPeer = Callable[[LocalAgent, bytes, bytes], VerifiedPeer]


@dataclass(slots=True, eq=False)
class ChannelSlot:
    """One live channel and what its owner keeps beside it."""

    agent: LocalAgent
    links: LinkChannel
    initiator: bool
    remote: AgentUri
    """The name asked for, or, until the peer is verified, the name that the opener claims."""
    source_node: Identifier | None = None
    """The node whose agent opened it, as the gateway attests; None for our own."""
    permits_in: dict[Action, Permit] = field(default_factory=dict)
    permits_out: dict[Action, Permit] = field(default_factory=dict)
    expires_unix_s: float = 0.0
    armed_s: float | None = None
    timer: Timer | None = None
    expiry_timer: Timer | None = None
    first_flight_id: int = 0
    """The last message that left behind the opening, before its yes. 0 while none has."""
    sender: Sender | None = None
    """The peer as agents are told of it, once it is verified."""
    verified: bool = False
    opened: bool = False
    dead: bool = False
    said: Mapping[str, AttributeValue] = field(init=False)
    """The attributes that our agent had when it opened: what the peer believes of it."""

    def __post_init__(self) -> None:
        self.said = self.agent.identity.attributes

    @property
    def state(self) -> ChannelState:
        return self.links.channel.state

    @property
    def peer(self) -> VerifiedPeer:
        """Who the other end is proved to be. Legal once ``verified``."""
        return self.links.channel.peer


class ChannelOwner(Protocol):
    """What the table tells, and asks, whoever gives its channels a meaning."""

    def find_agent(self, name: AgentUri) -> LocalAgent | None: ...
    def may_accept(self, slot: ChannelSlot) -> Permit | Denial: ...
    def channel_verified(self, slot: ChannelSlot) -> None: ...
    def channel_opened(self, slot: ChannelSlot) -> None: ...
    def channel_denied(self, slot: ChannelSlot, denied: ChannelDenied) -> None: ...
    def channel_closed(self, slot: ChannelSlot, code: Code) -> None: ...
    def data_received(self, slot: ChannelSlot, data: bytes, owed_bytes: int) -> None: ...
    def stream_announced(self, slot: ChannelSlot, payload: bytes) -> None: ...
    def credit_received(self, slot: ChannelSlot) -> None: ...
    def stream_credit(self, hop: HopPort, link: int, stream: int, limit: int) -> None: ...
    def arm(self, slot: ChannelSlot) -> None: ...
    def disarm(self, slot: ChannelSlot) -> None: ...


class ChannelTable:
    """All channels of one sidecar, by the link that carries each."""

    def __init__(
        self,
        owner: ChannelOwner,
        verify: VerifyChannelPeer,
        *,
        make_cipher: MakeCipher | None = None,
    ) -> None:
        self._owner = owner
        self._verify = verify
        self._options: dict[str, Any] = {} if make_cipher is None else {"make_cipher": make_cipher}
        self._slots: dict[LinkEnd, ChannelSlot] = {}
        self._hops: dict[int, HopPort] = {}
        self._ids: dict[int, LinkIds] = {}
        self._last_link: dict[int, list[int]] = {}
        self._unverified = 0
        self._of_node: Counter[Identifier | None] = Counter()
        self._unverified_of_node: Counter[Identifier | None] = Counter()
        self.refused: dict[Code, int] = {}

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def hop(self) -> HopPort | None:
        """The hop to open channels on: the one that has been open longest."""
        return next(iter(self._hops.values()), None)

    def hop_opened(self, hop: HopPort) -> None:
        self._hops[hop.id] = hop
        self._ids[hop.id] = LinkIds(is_dialler=hop.is_dialler)
        self._last_link[hop.id] = [0] * LANES

    def hop_closed(self, hop: HopPort, code: Code) -> None:
        """Every channel over this hop is gone; each owner learns it."""
        if self._hops.pop(hop.id, None) is None:
            return
        del self._ids[hop.id], self._last_link[hop.id]
        for slot in [slot for end, slot in self._slots.items() if end.hop == hop.id]:
            self._forget(slot, code)

    def open(self, agent: LocalAgent, remote: AgentUri, now_s: float) -> ChannelSlot | None:
        """Begin a channel to a name. None when no hop is open or too many channels live."""
        hop = self.hop
        if hop is None or len(self._slots) >= CHANNELS_MAX:
            return None
        nonce = os.urandom(LINK_NONCE_BYTES)
        channel = Channel.connect(
            key=agent.noise_key,
            proof=agent.proof,
            prologue=Prologue(purpose="channel", target=str(remote), nonce=nonce),
            verify=self._verifier(agent),
            now_s=now_s,
            **self._options,
        )
        link = self._ids[hop.id].take()
        slot = ChannelSlot(agent, LinkChannel(hop, link, channel), True, remote)
        self._keep(slot)
        slot.links.send_open(remote, agent.uri, nonce)
        self._owner.arm(slot)
        return slot

    def close(self, slot: ChannelSlot, code: Code) -> None:
        """End a channel, sealed when it is open. Its owner is not called for its own doing."""
        if not self._drop(slot):
            return
        slot.links.channel.close(code)
        slot.links.pump()
        slot.links.abandon(code)

    def end(self, slot: ChannelSlot, code: Code) -> None:
        """End a channel for a reason that its owner has yet to be told."""
        self.close(slot, code)
        self._owner.channel_closed(slot, code)

    def end_outdated(self, agent: LocalAgent) -> None:
        """End the channels in which this agent still says what it says no longer."""
        said = agent.identity.attributes
        for slot in [slot for slot in self._slots.values() if slot.agent is agent]:
            if slot.said != said:
                self.end(slot, Code.CHANNEL_CLOSED)

    def frames_received(self, hop: HopPort, frames: list[Frame], now_s: float) -> None:
        """Take frames of a hop. A neighbour that breaks the protocol loses the hop."""
        if hop.id not in self._hops:
            return
        try:
            for frame in frames:
                self._receive_untrusted(hop, frame, now_s)
        except FrameError as exc:
            hop.close(exc.code)

    def find(self, hop: HopPort, link: int) -> ChannelSlot | None:
        """The live channel on this link, proved or not."""
        return self._slots.get(LinkEnd(hop.id, link))

    def handle_deadline(self, slot: ChannelSlot, now_s: float) -> None:
        if not slot.dead:
            self._handle(slot, slot.links.channel.handle_deadline(now_s), 0)

    def _receive_untrusted(self, hop: HopPort, frame: Frame, now_s: float) -> None:
        if frame.kind == FrameKind.LINK_OPEN:
            self._accept_untrusted(hop, frame, now_s)
        elif frame.kind == FrameKind.CREDIT:
            self._credit_untrusted(hop, frame)
        elif FrameKind.LINK_ACCEPT <= frame.kind <= FrameKind.LINK_CLOSE:
            slot = self._slots.get(LinkEnd(hop.id, frame.link))
            if slot is None:
                return  # Closed by us while this frame was on its way.
            try:
                events, owed_bytes = slot.links.receive(frame.kind, frame.body, now_s)
            except CreditError as exc:
                self.end(slot, exc.code)
                return
            self._handle(slot, events, owed_bytes)

    def _accept_untrusted(self, hop: HopPort, frame: Frame, now_s: float) -> None:
        last = self._last_link[hop.id]
        lane = frame.link % LANES
        if not is_peers_link(frame.link, is_dialler=hop.is_dialler) or frame.link <= last[lane]:
            raise FrameError(f"link {frame.link} is not the peer's to open")
        last[lane] = frame.link
        opening = decode_link_open_untrusted(frame.body)
        agent = self._target_untrusted(opening)
        if isinstance(agent, Code):
            self.refused[agent] = self.refused.get(agent, 0) + 1
            hop.send_frame(frame.link, FrameKind.LINK_CLOSE, encode_code(agent))
            return
        assert isinstance(opening.source, AgentUri)
        channel = Channel.respond(
            key=agent.noise_key,
            proof=agent.proof,
            prologue=Prologue(
                purpose="channel",
                target=str(opening.target),
                nonce=opening.nonce,
                versions=opening.versions,
            ),
            verify=self._verifier(agent),
            now_s=now_s,
            **self._options,
        )
        slot = ChannelSlot(
            agent,
            LinkChannel(hop, frame.link, channel),
            False,
            opening.source,
            opening.source_node,
        )
        self._keep(slot)
        self._handle(slot, channel.receive(Part.OPEN, opening.noise_1, now_s), 0)

    def _target_untrusted(self, opening: LinkOpen) -> LocalAgent | Code:
        """The agent that a link asks for, or why there is none. A no costs no key and no crypto."""
        if PROTOCOL_VERSION not in opening.versions:
            return Code.CHANNEL_VERSION_UNSUPPORTED
        if not isinstance(opening.target, AgentUri) or not isinstance(opening.source, AgentUri):
            return Code.ROUTE_UNKNOWN
        node = opening.source_node
        if (
            len(self._slots) >= CHANNELS_MAX
            or self._unverified >= CHANNELS_UNVERIFIED_MAX
            or self._of_node[node] >= CHANNELS_PER_NODE_MAX
            or self._unverified_of_node[node] >= CHANNELS_UNVERIFIED_PER_NODE_MAX
        ):
            return Code.ROUTE_LINK_LIMIT
        agent = self._owner.find_agent(opening.target)
        return Code.ROUTE_UNKNOWN if agent is None else agent

    def _credit_untrusted(self, hop: HopPort, frame: Frame) -> None:
        credit = decode_credit_untrusted(frame.body)
        if credit.stream:
            self._owner.stream_credit(hop, frame.link, credit.stream, credit.limit)
            return
        slot = self._slots.get(LinkEnd(hop.id, frame.link))
        if slot is not None:
            slot.links.credit(credit)
            self._owner.credit_received(slot)

    def _handle(self, slot: ChannelSlot, events: list[ChannelEvent], owed_bytes: int) -> None:
        for event in events:
            if slot.dead and not isinstance(event, ChannelClosed):
                continue  # An event before this one ended it.
            match event:
                case DataReceived():
                    self._owner.data_received(slot, event.data, owed_bytes)
                case PeerVerified():
                    self._verified(slot)
                case ChannelOpened():
                    self._owner.channel_opened(slot)
                case StreamOpenReceived():
                    self._owner.stream_announced(slot, event.payload)
                case ChannelDenied():
                    self._owner.channel_denied(slot, event)
                case ChannelClosed():
                    slot.links.pump()
                    self._forget(slot, event.code)
                    slot.links.abandon(event.code)
                    return
        slot.links.pump()
        if not slot.dead and slot.links.channel.deadline_s != slot.armed_s:
            self._owner.arm(slot)

    def _verified(self, slot: ChannelSlot) -> None:
        """The peer is proved. An initiator asked for its name; a responder checks the claim."""
        self._count_unverified(slot, -1)
        slot.verified = True
        slot.expires_unix_s = min(slot.peer.identity.expires_unix_s, slot.agent.expires_unix_s)
        if slot.peer.name != slot.remote or slot.peer.identity.kind != "agent":
            self.end(slot, Code.CHANNEL_WRONG_NAME)
            return
        slot.sender = Sender.of(slot.peer.identity)
        if slot.initiator:
            self._owner.channel_verified(slot)
            return
        answer = self._owner.may_accept(slot)
        if isinstance(answer, Denial):
            # The name of a rule is for colleagues; strangers learn only that they were refused.
            shown = slot.peer.identity.trust_domain == slot.agent.uri.trust_domain
            rule, reason = (answer.rule or "", answer.reason) if shown else ("", "")
            slot.links.channel.deny(answer.code, rule, reason)
            slot.links.pump()
            self.close(slot, answer.code)
            return
        self._owner.channel_verified(slot)
        self._handle(slot, slot.links.channel.accept(answer), 0)

    def _verifier(self, agent: LocalAgent) -> Callable[[bytes, bytes], VerifiedPeer]:
        return lambda proof, noise_key: self._verify(agent, proof, noise_key)

    def _keep(self, slot: ChannelSlot) -> None:
        self._slots[LinkEnd(slot.links.hop.id, slot.links.link)] = slot
        self._count_unverified(slot, 1)
        _count(self._of_node, slot, 1)
        slot.agent.users += 1

    def _count_unverified(self, slot: ChannelSlot, count: int) -> None:
        if not slot.verified:
            _count(self._unverified_of_node, slot, count)
            self._unverified += 0 if slot.initiator else count

    def _drop(self, slot: ChannelSlot) -> bool:
        """Take a channel out of every count. False when that has been done."""
        if self._slots.pop(LinkEnd(slot.links.hop.id, slot.links.link), None) is None:
            return False
        self._count_unverified(slot, -1)
        _count(self._of_node, slot, -1)
        slot.agent.users -= 1
        slot.dead = True
        self._owner.disarm(slot)
        return True

    def _forget(self, slot: ChannelSlot, code: Code) -> None:
        """The other end, or the hop, is gone."""
        if self._drop(slot):
            slot.links.closed = slot.links.closed or slot.links.hop.id not in self._hops
            self._owner.channel_closed(slot, code)


def _count(of_node: Counter[Identifier | None], slot: ChannelSlot, count: int) -> None:
    """Strangers' channels are counted; those of our own agents cost them nothing."""
    if slot.initiator:
        return
    of_node[slot.source_node] += count
    if not of_node[slot.source_node]:
        del of_node[slot.source_node]
