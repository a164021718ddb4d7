"""Hops between sidecars themselves, where they can reach each other: offered inside channels, tried
by QUIC, and used as long as they last.

Whom our addresses are told, and whom we dial, policy says (``path.direct``). A direct hop carries
the same sealed channels as a gateway; nothing more is believed of the node at its other end.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from identity import Code, Identifier
from link import Frame, FrameError, FrameKind
from link.messages import decode_restarting_untrusted
from node.admission import Admission
from node.clocks import Clock
from node.neighbours import KINDS as NEIGHBOUR_KINDS
from node.neighbours import Neighbours
from policy import Action, Party, Permit, Request
from sidecar.addresses import Address, AddressRules, usable_untrusted
from sidecar.router import Router
from sidecar.slot import ChannelSlot
from sidecar.streams import Streams
from transport import Endpoint, Hop, HopPurpose

# One address after the other, so that the first to answer is mostly the only one dialled.
STAGGER_SECONDS: Final = 0.3
# Whoever has the higher identifier waits for the other one to dial, and dials if it does not.
SECOND_SECONDS: Final = 0.5
# After a failure of all addresses of a node; doubled each time.
RETRY_SECONDS_MIN: Final = 30.0
RETRY_SECONDS_MAX: Final = 1_800.0
# After the loss of a hop that had been open.
AGAIN_SECONDS: Final = 1.0
# A hop that carries no channel is closed after so long.
IDLE_SECONDS: Final = 60.0
SWEEP_SECONDS: Final = 15.0
# How long a node that was told our addresses may come.
EXPECTED_SECONDS: Final = 3_600.0
NODES_MAX: Final = 4_096
DIRECT_HOPS_MAX: Final = 1_024
# What may wait for one of them.
QUEUE_BYTES_MAX: Final = 64 << 20

_log = structlog.get_logger("sidecar.direct")


@dataclass(slots=True, eq=False)
class _Node:
    """What we know of another sidecar."""

    identifier: Identifier
    addresses: list[Address] = field(default_factory=list)
    expected_until_s: float = 0.0
    hop: Hop | None = None
    dialled: list[Hop] = field(default_factory=list)
    """Not open yet."""
    failures: int = 0
    not_before_s: float = 0.0
    task: asyncio.Task[None] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class DirectPaths:
    """The handler of every hop between this sidecar and others. Fits PathOwner too."""

    def __init__(
        self,
        own: Identifier,
        endpoint: Endpoint,
        admission: Admission,
        router: Router,
        streams: Streams,
        clock: Clock,
        neighbours: Neighbours,
        *,
        rules: AddressRules,
        own_addresses: Callable[[], Sequence[Address]],
        wake: Callable[[], None],
    ) -> None:
        self._own = own
        self._endpoint = endpoint
        self._admission = admission
        self._router = router
        self._streams = streams
        self._clock = clock
        self._neighbours = neighbours
        self._rules = rules
        self._own_addresses = own_addresses
        self._wake = wake
        self._nodes: OrderedDict[Identifier, _Node] = OrderedDict()
        self._open: dict[Hop, float | None] = {}
        """Open hops, and since when each has carried no channel."""
        self.opened = 0
        self.failed = 0
        self.refused = 0

    @property
    def hops(self) -> int:
        return len(self._open)

    async def run(self) -> None:
        """Close what is idle, until cancelled; then stop trying."""
        try:
            while True:
                await asyncio.sleep(SWEEP_SECONDS)
                self._close_idle()
                self.judge()
        finally:
            tasks = [node.task for node in self._nodes.values() if node.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # What the router tells (PathOwner).

    def channel_opened(self, slot: ChannelSlot) -> None:
        """Tell the peer where we are, if policy lets it know and it might come."""
        node = self._node_of(slot)
        if node is None or node.hop is not None:
            return
        addresses = self._own_addresses()
        if addresses:
            slot.links.channel.tell_addresses(tuple(addresses))
            slot.links.pump()

    def addresses_received(self, slot: ChannelSlot, addresses: tuple[Address, ...]) -> None:
        """The peer's node may be there. It proves who it is, or is not let in."""
        if not slot.mentions.take(self._clock.now_s()):
            self.refused += 1
            return
        node = self._node_of(slot)
        if node is None:
            self.refused += 1
            return
        node.addresses = usable_untrusted(addresses, self._rules)
        self._try(node)

    # HopHandler.

    def hop_verified(self, hop: Hop) -> None:
        node = self._nodes.get(hop.peer.identifier)
        expected = node is not None and self._clock.now_s() < node.expected_until_s
        if hop.purpose is not HopPurpose.DIRECT or not expected:
            # Nobody comes here who was not told inside a channel that we are here.
            hop.refuse(Code.HOP_DENIED)
        elif len(self._open) >= DIRECT_HOPS_MAX:
            hop.refuse(Code.HOP_LIMIT_EXCEEDED)
        else:
            self._admission.answer_hop(hop, role="sidecar")

    def hop_opened(self, hop: Hop) -> None:
        node = self._nodes.get(hop.peer.identifier)
        if node is None:
            hop.close(Code.HOP_CLOSED)
            return
        _discard(node.dialled, hop)
        before = node.hop
        if before is not None and not self._goes_first(hop):
            hop.close(Code.HOP_CLOSED)  # Both dialled: the other hop stays.
            return
        node.hop = hop
        node.failures = 0
        self._open[hop] = None
        self.opened += 1
        node.changed.set()
        _log.info("direct_hop_opened", peer=str(node.identifier), dialled=hop.is_dialler)
        self._neighbours.hop_opened(hop)
        self._router.hop_opened(hop, direct=True)
        if before is not None and before.is_dialler == hop.is_dialler:
            # Whoever dials again has noticed before us that its hop was lost; or would have many.
            before.close(Code.HOP_SUPERSEDED)
        elif before is not None:
            self._router.hop_leaving(before)
        self._wake()

    def frames_received(self, hop: Hop, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.link == 0 and frame.kind >= FrameKind.REGISTER:
                try:
                    self._control_untrusted(hop, frame)
                except FrameError as exc:
                    hop.close(exc.code)
                    return
        self._router.frames_received(hop, frames)
        if hop.queued_bytes > QUEUE_BYTES_MAX:
            # It asks, and takes no answer. Channels go on over a gateway, which has the same bound.
            hop.close(Code.HOP_LIMIT_EXCEEDED)
        self._wake()

    def stream_received(self, hop: Hop, stream: int, data: bytes, ended: bool) -> None:
        self._streams.stream_received(hop, stream, data, ended)

    def stream_reset(self, hop: Hop, stream: int, code: int) -> None:
        self._streams.stream_reset(hop, stream, code)

    def hop_closed(self, hop: Hop, code: Code, detail: str) -> None:
        if hop not in self._open:
            for node in self._nodes.values():
                if hop in node.dialled:
                    _discard(node.dialled, hop)
                    node.changed.set()
            return
        del self._open[hop]
        self._neighbours.hop_closed(hop)
        _log.info("direct_hop_closed", peer=str(hop.peer.identifier), code=code.text, detail=detail)
        self._streams.hop_closed(hop)
        self._router.hop_closed(hop, Code.ROUTE_UNREACHABLE)
        self._wake()
        lost = self._nodes.get(hop.peer.identifier)
        if lost is not None and lost.hop is hop:
            lost.hop = None
            lost.not_before_s = self._clock.now_s() + AGAIN_SECONDS
            if any(slot.node == lost.identifier for slot in self._router.channels.slots()):
                asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._try, lost)

    # Trying.

    def _node_of(self, slot: ChannelSlot) -> _Node | None:
        """The peer's node, if policy lets the two of us meet."""
        if slot.node is None or slot.node == self._own:
            return None
        if not self._may_meet(slot):
            return None
        node = self._nodes.get(slot.node)
        if node is None:
            node = self._nodes[slot.node] = _Node(slot.node)
            self._make_room()
        self._nodes.move_to_end(slot.node)
        node.expected_until_s = self._clock.now_s() + EXPECTED_SECONDS
        return node

    def _may_meet(self, slot: ChannelSlot) -> bool:
        request = _meeting(slot)
        if not self._admission.could_allow(request):
            return False
        expires_unix_s = slot.peer.identity.expires_unix_s
        return isinstance(self._admission.decide(request, expires_unix_s=expires_unix_s), Permit)

    def _make_room(self) -> None:
        idle = [n for n in self._nodes.values() if n.hop is None and n.task is None]
        for node in idle[: max(0, len(self._nodes) - NODES_MAX)]:
            del self._nodes[node.identifier]

    def _try(self, node: _Node) -> None:
        busy = node.hop is not None or node.task is not None
        if busy or not node.addresses or self._clock.now_s() < node.not_before_s:
            return
        node.task = asyncio.get_running_loop().create_task(self._meet(node))

    async def _meet(self, node: _Node) -> None:
        """Dial one address after the other until a hop is open, by us or by them."""
        try:
            if self._own.digest > node.identifier.digest:
                await self._wait(node, SECOND_SECONDS)
            for host, port in node.addresses:
                if node.hop is not None:
                    return
                hop = self._endpoint.dial(
                    host, port, purpose=HopPurpose.DIRECT, target=node.identifier, handler=self
                )
                node.dialled.append(hop)
                await self._wait(node, STAGGER_SECONDS)
            while node.hop is None and node.dialled:
                await self._wait(node, STAGGER_SECONDS)
            if node.hop is None:
                self._failed(node)
        finally:
            node.task = None
            for hop in list(node.dialled):
                hop.close(Code.HOP_CLOSED)

    async def _wait(self, node: _Node, seconds: float) -> None:
        """Until a hop to this node has opened or failed, or the time is over."""
        node.changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await node.changed.wait()
        except TimeoutError:
            return

    def _failed(self, node: _Node) -> None:
        self.failed += 1
        wait_s = min(RETRY_SECONDS_MIN * 2**node.failures, RETRY_SECONDS_MAX)
        node.failures = min(node.failures + 1, 16)
        node.not_before_s = self._clock.now_s() + wait_s
        _log.info("direct_path_failed", peer=str(node.identifier), retry_s=wait_s)

    def _goes_first(self, hop: Hop) -> bool:
        """Of two hops between the same two nodes, the one that the lower identifier dialled."""
        return hop.is_dialler == (self._own.digest < hop.peer.identifier.digest)

    # While it lasts.

    def judge(self) -> None:
        """Close the hops of sidecars that may be here no longer."""
        for hop in list(self._open):
            self._admission.close_hop_if_cut(hop)

    def policy_changed(self) -> None:
        """Another policy is in force: sidecars that it keeps apart meet no more. Their channels
        go on over a gateway."""
        self.judge()
        of_node: dict[Identifier | None, list[ChannelSlot]] = {}
        for slot in self._router.channels.slots():
            if slot.verified:
                of_node.setdefault(slot.node, []).append(slot)
        for node in list(self._nodes.values()):
            slots = of_node.get(node.identifier, [])
            if not any(map(self._may_meet, slots)):
                self._part(node, slots)

    def _part(self, node: _Node, slots: list[ChannelSlot]) -> None:
        """Neither come nor go there any more."""
        node.expected_until_s = 0.0
        node.addresses = []
        if node.hop is not None and slots:
            expires_unix_s = slots[0].peer.identity.expires_unix_s
            request = _meeting(slots[0])
            self._admission.ask_again(request, "path", expires_unix_s=expires_unix_s)
        for hop in (*node.dialled, node.hop):
            if hop is not None:
                hop.close(Code.HOP_DENIED)

    def _control_untrusted(self, hop: Hop, frame: Frame) -> None:
        if frame.kind in NEIGHBOUR_KINDS:
            self._neighbours.receive_untrusted(hop, frame)
            return
        if frame.kind != FrameKind.RESTARTING:
            raise FrameError(f"kind {frame.kind:#04x} is not for a sidecar's direct hop")
        decode_restarting_untrusted(frame.body)
        self._router.hop_leaving(hop)

    def _close_idle(self) -> None:
        now_s = self._clock.now_s()
        used = {slot.links.hop.id for slot in self._router.channels.slots()}
        for hop, idle_since_s in list(self._open.items()):
            if hop.id in used:
                self._open[hop] = None
            elif idle_since_s is None:
                self._open[hop] = now_s
            elif now_s - idle_since_s >= IDLE_SECONDS:
                hop.close(Code.HOP_CLOSED)


def _discard(hops: list[Hop], hop: Hop) -> None:
    if hop in hops:
        hops.remove(hop)


def _meeting(slot: ChannelSlot) -> Request:
    """What policy is asked before the nodes of two agents meet."""
    return Request(Action.PATH_DIRECT, Party.from_verified(slot.peer.identity), slot.agent.party)
