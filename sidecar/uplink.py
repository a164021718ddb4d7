"""The sidecar's hops to its gateways: kept open, registered, and handed to the router."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import structlog

from identity import Code, GatewayAddress, Identifier, SidelinkError
from link import Frame, FrameKind, PrefixEpoch
from link.errors import FrameError
from link.messages import (
    decode_prefix_epoch_untrusted,
    decode_restarting_untrusted,
    encode_prefix,
    encode_restarting,
)
from node.addresses import SocketAddress
from node.membership import Membership
from node.neighbours import KINDS as NEIGHBOUR_KINDS
from node.neighbours import Neighbours
from node.parts import Parts
from node.redial import Redial
from sidecar.router import Router
from sidecar.streams import Streams
from transport import Endpoint, Hop, HopPurpose

EXPIRY_CHECK_SECONDS: Final = 1.0

_log = structlog.get_logger("sidecar.uplink")


class Uplink:
    """The handler of the hops that this sidecar dials to its gateways."""

    def __init__(
        self,
        parts: Parts,
        router: Router,
        streams: Streams,
        neighbours: Neighbours,
        membership: Membership,
        wake: Any,
    ) -> None:
        self._parts = parts
        self._membership = membership
        self._neighbours = neighbours
        self._router = router
        self._streams = streams
        self._wake = wake
        self._redials: list[Redial] = []
        self._open: dict[int, Hop] = {}
        self._registered: dict[int, set[str]] = {}
        """Our prefixes that each open hop's gateway has taken."""
        self._displaced: set[str] = set()
        self.hop_losses = 0

    @property
    def connected(self) -> bool:
        return bool(self._open)

    @property
    def registered(self) -> bool:
        """Whether a gateway leads to all our names. One of another company may not want to."""
        return any(len(taken) == len(self._prefixes()) for taken in self._registered.values())

    @property
    def displaced(self) -> Sequence[str]:
        """Prefixes that another node has taken. An operator has to say which one is right."""
        return sorted(self._displaced)

    async def run(self, endpoint: Endpoint, gateways: Sequence[GatewayAddress]) -> None:
        """Keep a hop to each gateway until cancelled."""
        keep = self._parts.keeper.keep
        async with asyncio.TaskGroup() as group:
            for gateway in gateways:
                address = SocketAddress(gateway.host, gateway.port)
                redial = Redial(endpoint, address, _choose(gateway.identifier), self)
                self._redials.append(redial)
                group.create_task(keep("gateway_hop", redial.run))
            group.create_task(keep("judge", self._judge_now_and_then))

    def announce_restart(self, delay_ms: int) -> None:
        """Tell every gateway that this sidecar will be away for about so long."""
        for hop in self._open.values():
            hop.send_frame(0, FrameKind.RESTARTING, encode_restarting(delay_ms))

    # HopHandler.

    def hop_verified(self, hop: Hop) -> None:
        self._parts.admission.answer_hop(hop, role="gateway")

    def hop_opened(self, hop: Hop) -> None:
        self._open[hop.id] = hop
        for redial in self._redials:
            if redial.hop is hop:
                redial.opened()
        _log.info(
            "gateway_connected",
            peer=str(hop.peer.identifier),
            engine=hop.engine,
            seconds=round(hop.opened_in_s, 3),
        )
        self._registered[hop.id] = set()
        self._displaced.clear()
        for prefix in self._prefixes():
            hop.send_frame(0, FrameKind.REGISTER, encode_prefix(prefix))
        self._neighbours.hop_opened(hop)
        self._router.hop_opened(hop)
        self._wake()

    def frames_received(self, hop: Hop, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.link == 0 and frame.kind >= FrameKind.REGISTER:
                try:
                    self._control_untrusted(hop, frame)
                except FrameError as exc:
                    hop.close(exc.code)
                    return
        self._router.frames_received(hop, self._membership.take(hop, frames))
        self._wake()

    def stream_received(self, hop: Hop, stream: int, data: bytes, ended: bool) -> None:
        self._streams.stream_received(hop, stream, data, ended)

    def stream_reset(self, hop: Hop, stream: int, code: int) -> None:
        self._streams.stream_reset(hop, stream, code)

    def hop_closed(self, hop: Hop, code: Code, detail: str) -> None:
        if self._open.pop(hop.id, None) is not None:
            self.hop_losses += 1
            self._neighbours.hop_closed(hop)
            self._membership.hop_closed(hop, code, detail)
            self._registered.pop(hop.id, None)
            self._streams.hop_closed(hop)
            self._router.hop_closed(hop, _as_route(code))
        for redial in self._redials:
            redial.closed(hop, code, detail)
        self._wake()

    def status(self) -> list[dict[str, Any]]:
        return [
            {
                "address": str(redial.address),
                "connected": redial.hop is not None and redial.hop.id in self._open,
                "engine": redial.hop.engine if redial.hop and redial.hop.is_open else None,
                "post_quantum": redial.hop.post_quantum
                if redial.hop and redial.hop.is_open
                else None,
                "fault": redial.fault,
            }
            for redial in self._redials
        ]

    def _control_untrusted(self, hop: Hop, frame: Frame) -> None:
        if frame.kind in NEIGHBOUR_KINDS:
            self._neighbours.receive_untrusted(hop, frame)
            return
        match frame.kind:
            case FrameKind.REGISTERED:
                told = self._told_untrusted(frame)
                self._taken_at(hop).add(str(told.prefix))
                _log.info("prefix_registered", prefix=str(told.prefix), epoch=told.epoch)
            case FrameKind.DISPLACED:
                told = self._told_untrusted(frame)
                self._taken_at(hop).discard(str(told.prefix))
                self._displaced.add(str(told.prefix))
                _log.error(
                    "prefix_displaced",
                    prefix=str(told.prefix),
                    epoch=told.epoch,
                    remedy="Two nodes hold the same prefix. Stop one; restart the right one.",
                )
            case FrameKind.RESTARTING:
                delay_s = decode_restarting_untrusted(frame.body) / 1000
                for redial in self._redials:
                    if redial.hop is hop:
                        redial.come_back_in(delay_s)
                self._router.hop_leaving(hop)
            case _:
                raise FrameError(f"kind {frame.kind:#04x} is not for a sidecar")

    def _taken_at(self, hop: Hop) -> set[str]:
        """Of a hop that is not open nothing is kept."""
        return self._registered.get(hop.id, set())

    def _told_untrusted(self, frame: Frame) -> PrefixEpoch:
        told = decode_prefix_epoch_untrusted(frame.body)
        if told.prefix not in self._prefixes():
            # Nor is it kept: a gateway could name prefixes without end.
            raise FrameError(f"{told.prefix} is not this sidecar's prefix")
        return told

    def _prefixes(self) -> Sequence[Any]:
        delegable = self._parts.node.identity.delegable
        return () if delegable is None else delegable.name_prefixes

    def judge(self) -> None:
        """Close the hops of gateways that may be gateways no longer."""
        for hop in list(self._open.values()):
            self._parts.admission.close_hop_if_cut(hop)

    async def _judge_now_and_then(self) -> None:
        """A hop lives no longer than the gateway's credential."""
        while True:
            await asyncio.sleep(EXPIRY_CHECK_SECONDS)
            self.judge()
            self._neighbours.tick()


def _choose(gateway: Identifier) -> Any:
    return lambda: (HopPurpose.ADMIT, gateway)


def _as_route(code: Code) -> Code:
    """What losing a hop means to a channel on it."""
    return Code.ROUTE_UNREACHABLE if code is not Code.LOCAL_DRAINING else code


class EnrolmentHandler:
    """The handler of the one hop over which a sidecar enrols."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.opened: asyncio.Future[Hop] = asyncio.get_running_loop().create_future()
        self.exchange: Any = None

    def hop_verified(self, hop: Hop) -> None:
        self._parts.admission.answer_hop(hop, role="gateway")

    def hop_opened(self, hop: Hop) -> None:
        if not self.opened.done():
            self.opened.set_result(hop)

    def frames_received(self, hop: Hop, frames: list[Frame]) -> None:
        if self.exchange is not None:
            self.exchange.frames_received(frames)

    def stream_received(self, hop: Hop, stream: int, data: bytes, ended: bool) -> None:
        hop.reset_stream(stream, int(Code.STREAM_SERVICE_UNKNOWN))

    def stream_reset(self, hop: Hop, stream: int, code: int) -> None:
        """An enrolling node has no streams."""

    def hop_closed(self, hop: Hop, code: Code, detail: str) -> None:
        # A gateway of another authority is what a ticket of another authority leads to.
        code = Code.ENROL_WRONG_AUTHORITY if code is Code.HOP_WRONG_AUTHORITY else code
        if not self.opened.done():
            self.opened.set_exception(SidelinkError(code, detail))
        elif self.exchange is not None:
            self.exchange.hop_closed(code, detail)
