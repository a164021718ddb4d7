"""The live channels of a sidecar: opened, accepted, fed and forgotten. Pure; it decides nothing.

Who may open a channel, and what its messages mean, is its owner's to say (``sidecar.router``);
which link carries an open one is that of ``sidecar.paths``.
"""

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from channel import (
    AddressesReceived,
    Channel,
    ChannelClosed,
    ChannelDenied,
    ChannelEvent,
    ChannelOpened,
    ChannelState,
    DataReceived,
    MakeCipher,
    Part,
    PeerRenewed,
    PeerVerified,
    Prologue,
    SignalReceived,
    StreamOpenReceived,
)
from channel.limits import EARLY_BYTES_MAX
from identity import AgentUri, Code, Identifier, VerifiedPeer
from link import (
    PROTOCOL_VERSION,
    CreditError,
    Frame,
    FrameError,
    FrameKind,
    HopPort,
    LinkEnd,
    LinkOpen,
)
from link.limits import LINK_NONCE_BYTES
from link.messages import (
    decode_code_untrusted,
    decode_credit_untrusted,
    decode_link_open_untrusted,
    encode_code,
)
from node.link_channel import LinkChannel
from policy import Denial
from sidecar.admission import Admission
from sidecar.agents import LocalAgent
from sidecar.channel_owner import ChannelOwner
from sidecar.handshakes import Handshakes
from sidecar.hops import HopBook
from sidecar.mailbox import Sender
from sidecar.paths import SAID_BY_ONE_GATEWAY, Paths
from sidecar.slot import ChannelSlot
from sidecar.timers import Timers

VerifyChannelPeer = Callable[[LocalAgent, bytes, bytes, bool], VerifiedPeer]
"""For which agent of ours, the proof, the Noise key, and whether the channel is open already."""


class ChannelTable:
    """All channels of one sidecar, by the link that carries each."""

    def __init__(
        self,
        owner: ChannelOwner,
        verify: VerifyChannelPeer,
        timers: Timers,
        *,
        make_cipher: MakeCipher | None = None,
    ) -> None:
        self._owner = owner
        self._verify = verify
        self._options: dict[str, Any] = {} if make_cipher is None else {"make_cipher": make_cipher}
        self._slots: dict[LinkEnd, ChannelSlot] = {}
        self._live: dict[ChannelSlot, None] = {}
        self.admission = Admission()
        self.refused: Counter[Code] = Counter()
        """Openings of others, which never became a channel."""
        self.closed: Counter[Code] = Counter()
        """Channels that ended, those that never opened among them."""
        self.draining = False
        """Whether this sidecar stops soon, and takes no new channel."""
        self.unasked: dict[ChannelSlot, None] = {}
        """Those that an older policy has allowed, and the one in force has yet to: see
        ``may_pass``."""
        self.hops = HopBook()
        self.handshakes = Handshakes(timers)
        self.paths = Paths(self, self.hops, timers)

    def __len__(self) -> int:
        return len(self._live)

    def slots(self) -> list[ChannelSlot]:
        return list(self._live)

    def hop_opened(self, hop: HopPort, now_s: float, *, direct: bool = False) -> None:
        self.hops.add(hop, now_s, direct=direct)
        self.paths.hop_opened(hop, now_s)

    def hop_leaving(self, hop: HopPort, now_s: float) -> None:
        """The neighbour has said that it will stop soon."""
        if self.hops.set_leaving(hop):
            self.paths.hop_leaving(hop, now_s)

    def hop_closed(self, hop: HopPort, code: Code, now_s: float) -> None:
        """Open channels over this hop look for another; of the others each owner learns it."""
        if not self.hops.remove(hop):
            return
        for end in [end for end in self._slots if end.hop == hop.id]:
            slot = self._slots.pop(end)
            if slot.links.end != end:
                self.paths.left_closed(slot, end)
            elif not self._outlives(slot, now_s, code):
                self._forget(slot, code)
        self.paths.hop_closed(hop, now_s)

    def open(self, agent: LocalAgent, remote: AgentUri, now_s: float) -> ChannelSlot | None:
        """Begin a channel to a name. None when no hop is open or too many channels live."""
        gateways = self.hops.gateways()
        if not gateways or not self.admission.may_open():
            return None
        slot = ChannelSlot(agent, self._connect(agent, remote, gateways[0], now_s), True, remote)
        slot.used_s = now_s
        self._keep(slot)
        self._owner.arm(slot)
        return slot

    def _connect(
        self, agent: LocalAgent, remote: AgentUri, hop: HopPort, now_s: float
    ) -> LinkChannel:
        nonce = os.urandom(LINK_NONCE_BYTES)
        self._owner.freshen(agent)
        channel = Channel.connect(
            key=agent.noise_key,
            proof=agent.full_proof,
            prologue=Prologue(purpose="channel", target=str(remote), nonce=nonce),
            verify=self._verifier(agent),
            verify_renewal=self._verifier(agent, is_live=True),
            now_s=now_s,
            **self._options,
        )
        links = LinkChannel(hop, self.hops.take_link(hop), channel)
        links.send_open(remote, agent.uri, nonce)
        return links

    def close(self, slot: ChannelSlot, code: Code) -> None:
        """End a channel, sealed when it is open. Its owner is not called for its own doing."""
        if not self._drop(slot, code):
            return
        slot.links.channel.close(code)
        slot.links.pump()
        slot.links.abandon(code)

    def end(self, slot: ChannelSlot, code: Code) -> None:
        """End a channel for a reason that its owner has yet to be told."""
        self.close(slot, code)
        self._owner.channel_closed(slot, code)

    def frames_received(self, hop: HopPort, frames: list[Frame], now_s: float) -> None:
        """Take frames of a hop. A neighbour that breaks the protocol loses the hop."""
        if hop not in self.hops:
            return
        try:
            for frame in frames:
                self._receive_untrusted(hop, frame, now_s)
        except FrameError as exc:
            hop.close(exc.code)

    def may_pass(self, slot: ChannelSlot) -> bool:
        """Whether anything may go over a channel now, in either direction. Whoever moves something
        asks this first: so another policy holds for all channels from its first moment, though it
        takes a while to end all those that it denies."""
        if slot in self.unasked:
            self._owner.ask_again(slot)
        return not slot.dead

    def find(self, hop: HopPort, link: int) -> ChannelSlot | None:
        """The live channel on this link, proved or not; or that is about to go on there."""
        end = LinkEnd(hop.id, link)
        return self._slots.get(end) or self.paths.wishing(end)

    def handle_deadline(self, slot: ChannelSlot, now_s: float) -> None:
        if not slot.dead:
            self._handle(slot, slot.links.channel.handle_deadline(now_s), 0)

    def _receive_untrusted(self, hop: HopPort, frame: Frame, now_s: float) -> None:
        if frame.kind == FrameKind.LINK_OPEN:
            self._accept_untrusted(hop, frame, now_s)
        elif frame.kind == FrameKind.CREDIT:
            self._credit_untrusted(hop, frame)
        elif FrameKind.LINK_ACCEPT <= frame.kind <= FrameKind.LINK_CLOSE:
            end = LinkEnd(hop.id, frame.link)
            slot = self._slots.get(end)
            if slot is None:
                self.paths.receive_untrusted(end, frame, now_s)
            elif slot.links.end != end:
                # A link that it has left: what comes there, comes again where it is now.
                if frame.kind == FrameKind.LINK_CLOSE:
                    self.paths.left_closed(slot, end)
            else:
                self._feed_untrusted(slot, frame, now_s)

    def _feed_untrusted(self, slot: ChannelSlot, frame: Frame, now_s: float) -> None:
        if frame.kind == FrameKind.LINK_CLOSE:
            code = decode_code_untrusted(frame.body)
            del self._slots[slot.links.end]
            if self._outlives(slot, now_s, code):
                return
        elif slot.early is not None or slot.state is ChannelState.RESPONDING:
            self._hold_untrusted(slot, frame, now_s)
            return
        self._receive_now_untrusted(slot, frame, now_s)

    def _hold_untrusted(self, slot: ChannelSlot, frame: Frame, now_s: float) -> None:
        """The last handshake message is read in its turn, and what comes behind it then as well."""
        if slot.early is not None:
            slot.early_bytes += len(frame.body)
            if slot.early_bytes > EARLY_BYTES_MAX:
                self.end(slot, Code.CHANNEL_LIMIT_EXCEEDED)
                return
            slot.early.append(frame)
            return
        slot.early = [frame]

        def read_last(now_s: float) -> None:
            frames, slot.early = slot.early or [], None
            for one in frames:
                if not slot.dead:
                    self._receive_now_untrusted(slot, one, now_s)

        if not self.handshakes.submit(slot.source_node, read_last, now_s):
            self.end(slot, Code.CHANNEL_LIMIT_EXCEEDED)

    def _receive_now_untrusted(self, slot: ChannelSlot, frame: Frame, now_s: float) -> None:
        if frame.kind == FrameKind.RECORD and not self.may_pass(slot):
            return
        try:
            events, owed_bytes = slot.links.receive(frame.kind, frame.body, now_s)
        except CreditError as exc:
            self.end(slot, exc.code)
            return
        slot.used_s = now_s
        if (slot.held_bytes or slot.links.channel.gathered_bytes) and not self._may_hold(slot):
            return
        self._handle(slot, events, owed_bytes)

    def _may_hold(self, slot: ChannelSlot) -> bool:
        """Look at what a peer makes us hold; end its channel if that is too much."""
        if self.admission.may_hold(slot):
            return True
        self.end(slot, Code.CHANNEL_LIMIT_EXCEEDED)
        return False

    def _outlives(self, slot: ChannelSlot, now_s: float, code: Code) -> bool:
        """Whether a channel goes on without the link that it has lost. Nobody sealed the loss."""
        if slot.state is ChannelState.OPEN:
            self.paths.lost(slot, now_s)
            return True
        if slot.initiator and not slot.verified and code in SAID_BY_ONE_GATEWAY:
            return self._open_elsewhere(slot, now_s)
        return False

    def _open_elsewhere(self, slot: ChannelSlot, now_s: float) -> bool:
        """Begin again at a gateway that has not been asked. Nothing has been said yet."""
        slot.tried.add(slot.links.end.hop)
        hop = next((hop for hop in self.hops.gateways() if hop.id not in slot.tried), None)
        if hop is None:
            return False
        slot.links.closed = True
        slot.links = self._connect(slot.agent, slot.remote, hop, now_s)
        self._slots[slot.links.end] = slot
        self._owner.arm(slot)
        return True

    def _accept_untrusted(self, hop: HopPort, frame: Frame, now_s: float) -> None:
        self.hops.check_opened_untrusted(hop, frame.link, now_s)
        opening = decode_link_open_untrusted(frame.body)
        if opening.move is not None:
            self.paths.answer_untrusted(hop, frame.link, opening, now_s)
            return
        node = hop.peer.identifier if self.hops.is_direct(hop) else opening.source_node
        agent = self._target_untrusted(opening, node, now_s)
        if isinstance(agent, Code):
            self._refuse(hop, frame.link, agent)
            return
        self._respond(hop, frame.link, opening, agent, node, now_s)

    def _refuse(self, hop: HopPort, link: int, code: Code) -> None:
        self.refused[code] += 1
        hop.send_frame(link, FrameKind.LINK_CLOSE, encode_code(code))

    def _respond(
        self,
        hop: HopPort,
        link: int,
        opening: LinkOpen,
        agent: LocalAgent,
        node: Identifier | None,
        now_s: float,
    ) -> None:
        """Begin to answer an opening. Its first message is read in its turn."""
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
            verify_renewal=self._verifier(agent, is_live=True),
            now_s=now_s,
            **self._options,
        )
        links = LinkChannel(hop, link, channel)
        slot = ChannelSlot(agent, links, False, opening.source, node, used_s=now_s)
        self._keep(slot)

        def read_first(now_s: float) -> None:
            if not slot.dead:
                self._handle(slot, channel.receive(Part.OPEN, opening.noise_1, now_s), 0)

        if not self.handshakes.submit(node, read_first, now_s):
            self._drop(slot, Code.ROUTE_LINK_LIMIT)
            self._refuse(hop, link, Code.ROUTE_LINK_LIMIT)

    def _target_untrusted(
        self, opening: LinkOpen, node: Identifier | None, now_s: float
    ) -> LocalAgent | Code:
        """The agent that a link asks for, or why there is none. A no costs no key and no crypto."""
        if PROTOCOL_VERSION not in opening.versions:
            return Code.CHANNEL_VERSION_UNSUPPORTED
        if not isinstance(opening.target, AgentUri) or not isinstance(opening.source, AgentUri):
            return Code.ROUTE_UNKNOWN
        if self.draining:
            return Code.ROUTE_RESTARTING
        if not self.admission.may_answer(node, now_s):
            return Code.ROUTE_LINK_LIMIT
        agent = self._owner.find_agent(opening.target)
        return Code.ROUTE_UNKNOWN if agent is None else agent

    def _credit_untrusted(self, hop: HopPort, frame: Frame) -> None:
        credit = decode_credit_untrusted(frame.body)
        if credit.stream:
            self._owner.stream_credit(hop, frame.link, credit.stream, credit.limit)
            return
        end = LinkEnd(hop.id, frame.link)
        slot = self._slots.get(end)
        if slot is not None and slot.links.end == end and self.may_pass(slot):
            slot.links.credit(credit)
            if slot.held_bytes:
                self.admission.may_hold(slot)
            self._owner.progressed(slot)

    def _handle(self, slot: ChannelSlot, events: list[ChannelEvent], owed_bytes: int) -> None:
        for event in events:
            if isinstance(event, ChannelClosed):
                slot.links.pump()
                self._forget(slot, event.code)
                slot.links.abandon(event.code)
                return
            if not slot.dead:  # Else an event before this one ended it.
                self._apply(slot, event, owed_bytes)
        if slot.dead:
            return
        slot.links.pump()
        if slot.leaving:
            self._owner.progressed(slot)
        if slot.links.channel.deadline_s != slot.armed_s:
            self._owner.arm(slot)

    def _apply(self, slot: ChannelSlot, event: ChannelEvent, owed_bytes: int) -> None:
        match event:
            case DataReceived():
                self._owner.data_received(slot, event.data, owed_bytes)
            case PeerVerified():
                self._verified(slot)
            case ChannelOpened():
                self.paths.opened(slot, slot.used_s)
                self._owner.channel_opened(slot)
            case StreamOpenReceived():
                self._owner.stream_announced(slot, event.payload)
            case AddressesReceived():
                self._owner.addresses_received(slot, event.addresses)
            case SignalReceived():
                self._owner.signal_received(slot, event.signal)
            case PeerRenewed():
                slot.sender = Sender.of(event.peer.identity)
                self._owner.peer_renewed(slot)
            case ChannelDenied():
                self._owner.channel_denied(slot, event)
            case _:
                raise AssertionError("handled by the caller")

    def _verified(self, slot: ChannelSlot) -> None:
        """The peer is proved. An initiator asked for its name; a responder checks the claim."""
        self.admission.proved(slot)
        if slot.peer.name != slot.remote or slot.peer.identity.kind != "agent":
            self.end(slot, Code.CHANNEL_WRONG_NAME)
            return
        slot.sender = Sender.of(slot.peer.identity)
        slot.node = slot.peer.identity.node
        if slot.initiator:
            self._owner.channel_verified(slot)
            return
        answer = self._owner.may_accept(slot)
        if isinstance(answer, Denial):
            self.deny(slot, answer)
            return
        self._owner.channel_verified(slot)
        self._handle(slot, slot.links.channel.accept(answer), 0)

    def deny(self, slot: ChannelSlot, answer: Denial) -> None:
        """Refuse a verified peer, under the seal. The owner is not called for its own doing."""
        colleague = slot.peer.identity.trust_domain == slot.agent.uri.trust_domain
        rule, reason = answer.told(colleague=colleague)
        slot.links.channel.deny(answer.code, rule, reason)
        slot.links.pump()
        self.close(slot, answer.code)

    def end_denied(self, slot: ChannelSlot, answer: Denial) -> None:
        """The same for a channel that was open. Its owner has yet to be told."""
        self.deny(slot, answer)
        self._owner.channel_closed(slot, answer.code)

    def _verifier(
        self, agent: LocalAgent, *, is_live: bool = False
    ) -> Callable[[bytes, bytes], VerifiedPeer]:
        return lambda proof, noise_key: self._verify(agent, proof, noise_key, is_live)

    def _keep(self, slot: ChannelSlot) -> None:
        self._live[slot] = None
        self._slots[slot.links.end] = slot
        self.admission.began(slot)
        slot.agent.users += 1

    def _drop(self, slot: ChannelSlot, code: Code) -> bool:
        """Take a channel out of every count. False when that has been done."""
        if self._live.pop(slot, slot) is slot:
            return False
        self.closed[code] += 1
        slot.dead = True
        self.unasked.pop(slot, None)
        if self._slots.get(slot.links.end) is slot:
            del self._slots[slot.links.end]
        self.paths.forget(slot)
        self.admission.ended(slot, code)
        slot.agent.users -= 1
        self._owner.disarm(slot)
        return True

    def _forget(self, slot: ChannelSlot, code: Code) -> None:
        """The other end, or the hop, is gone."""
        if self._drop(slot, code):
            slot.links.closed = slot.links.closed or slot.links.hop not in self.hops
            self._owner.channel_closed(slot, code)

    # What paths ask (PathHome).

    def bind(self, end: LinkEnd, slot: ChannelSlot) -> None:
        self._slots[end] = slot

    def unbind(self, end: LinkEnd) -> None:
        self._slots.pop(end, None)

    def moved(self, slot: ChannelSlot) -> None:
        slot.links.pump()
        self._owner.channel_moved(slot)

    def streams_on(self, end: LinkEnd) -> int:
        return self._owner.streams_on(end)
