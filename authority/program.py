"""The authority: issues credentials for one trust domain. It dials; nobody dials it."""

import asyncio
from typing import Any, Final

import structlog

from authority.desk import Desk
from authority.hearing import Hearing
from authority.registrar import Registrar
from identity import Code, GatewayAddress, Identifier, SidelinkError
from link import Frame, FrameError, HopPort
from node.addresses import SocketAddress
from node.hop_counters import show_counters
from node.neighbours import KINDS as NEIGHBOUR_KINDS
from node.neighbours import Neighbours
from node.parts import Parts, open_parts, serve_operators
from node.redial import Redial
from node.refuse_hops import RefuseHops
from node.settings import AuthoritySettings
from transport import Endpoint, Hop, HopPurpose, TransportSettings

TIDY_SECONDS: Final = 1.0

# A gateway that starts after us should not have to wait long for the next attempt.
DIAL_SECONDS: Final = 2.0

_log = structlog.get_logger("authority")


async def main(settings: AuthoritySettings, stop: asyncio.Event) -> None:
    """Run until ``stop``."""
    async with open_parts(settings, authority_of=settings.trust_domain) as parts:
        authority = Authority(parts, settings)
        await authority.run(stop)


class Authority:
    """The handler of its hops: one to each gateway, kept open."""

    def __init__(self, parts: Parts, settings: AuthoritySettings) -> None:
        self._parts = parts
        self._settings = settings
        self._registrar = Registrar(
            parts,
            settings,
            gateways=self._gateways,
            ticket_given=self._hurry,
            gateway_enrolled=self._gateway_enrolled,
            may_publish=self._may_publish,
        )
        self._members = self._registrar.members
        self._desk = Desk(
            parts.node,
            lambda peer: parts.admission.decide_hop(peer, HopPurpose.ENROL),
            self._registrar.answer,
            parts.clock,
        )
        self._neighbours = Neighbours(parts.node, parts.mandatory, parts.clock, parts.metrics)
        parts.node.trust.on_news.append(self._judge)
        parts.live_policy.on_change.append(self._judge)
        self._dialled: dict[str, Redial] = {}
        self._open: dict[str, Hop] = {}
        self._enrolling: set[str] = set()
        own = parts.node.identifier
        self._lists_heard = Hearing(
            parts.clock,
            told=lambda: self._neighbours.lists.newest_told(own),
            held=lambda: parts.node.trust.lists.number(own),
        )
        self._policies_heard = Hearing(
            parts.clock,
            told=lambda: self._neighbours.policies.newest_told(own),
            held=lambda: parts.mandatory.number(own),
        )
        self._publishes = False
        parts.metrics.gauge("gateways_connected", "Gateways connected.", lambda: len(self._open))
        parts.status["trust_domain"] = lambda: settings.trust_domain
        parts.status["gateways"] = self._gateway_status

    async def run(self, stop: asyncio.Event) -> None:
        """Dial the gateways and answer enrolments until ``stop``."""
        endpoint = await Endpoint.bind(
            "0.0.0.0",  # noqa: S104  # It only dials; whoever dials it is refused.
            0,
            identity=self._parts.node.hop_identity,
            handler=RefuseHops(),
            settings=TransportSettings(
                engine=self._settings.quic_engine,
                datagram_bytes=self._settings.datagram_bytes,
                handshake_timeout_s=DIAL_SECONDS,
                epoch=self._parts.epoch,
            ),
        )
        show_counters(self._parts, endpoint)
        keep = self._parts.keeper.keep
        tasks = [asyncio.create_task(keep("authority", self._tidy))]
        try:
            async with serve_operators(self._parts):
                for address in self._settings.gateways:
                    redial = Redial(endpoint, address, self._chooser(address), self)
                    self._dialled[str(address)] = redial
                    tasks.append(asyncio.create_task(keep("gateway_hop", redial.run)))
                await stop.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await endpoint.close(Code.HOP_RESTARTING)
            await self._registrar.close()

    # HopHandler.

    def hop_verified(self, hop: Hop) -> None:
        address = self._address_of(hop)
        peer = hop.peer.identity
        if address is None:
            hop.refuse(Code.HOP_DENIED)
            return
        if hop.purpose is HopPurpose.ADMIT and peer.role_of_node != "gateway":
            self._enrolling.add(address)
            hop.refuse(Code.HOP_WRONG_ROLE)
            return
        self._parts.admission.answer_hop(hop)

    def hop_opened(self, hop: Hop) -> None:
        address = self._address_of(hop)
        if address is None:
            return
        self._desk.hop_opened(hop)
        self._dialled[address].opened()
        if hop.purpose is HopPurpose.ADMIT:
            self._open[address] = hop
            self._members.set_gateway(address, hop.peer.identifier)
            self._neighbours.hop_opened(hop)
        _log.info("gateway_connected", address=address, purpose=str(hop.purpose))

    def frames_received(self, hop: Hop, frames: list[Frame]) -> None:
        try:
            for frame in frames:
                if frame.kind in NEIGHBOUR_KINDS:
                    self._neighbours.receive_untrusted(hop, frame)
        except FrameError as exc:
            hop.close(exc.code)
            return
        self._desk.frames_received(hop, frames)

    def stream_received(self, hop: Hop, stream: int, data: bytes, ended: bool) -> None:
        hop.reset_stream(stream, Code.STREAM_SERVICE_UNKNOWN)

    def stream_reset(self, hop: Hop, stream: int, code: int) -> None:
        """An authority has no streams."""

    def hop_closed(self, hop: Hop, code: Code, detail: str) -> None:
        address = self._address_of(hop)
        if address is None:
            return
        self._desk.hop_closed(hop)
        self._neighbours.hop_closed(hop)
        self._open.pop(address, None)
        if hop.purpose is HopPurpose.ENROL:
            self._enrolling.discard(address)
        elif code is Code.HOP_WRONG_IDENTIFIER:
            # Another gateway stands there now. It must enrol before it is anything to us.
            self._enrolling.add(address)
        self._dialled[address].closed(hop, code, detail)

    def _chooser(self, address: SocketAddress) -> Any:
        def choose() -> tuple[HopPurpose, Identifier | None]:
            known = self._members.gateway_at(str(address))
            if known is None or str(address) in self._enrolling:
                return HopPurpose.ENROL, None
            return HopPurpose.ADMIT, known

        return choose

    def _address_of(self, hop: Hop) -> str | None:
        for address, redial in self._dialled.items():
            if redial.hop is hop:
                return address
        return None

    def _gateway_enrolled(self, hop: HopPort, gateway: Identifier) -> None:
        for address, redial in self._dialled.items():
            if redial.hop is hop:
                self._members.set_gateway(address, gateway)
                self._enrolling.discard(address)

    def _gateways(self) -> tuple[GatewayAddress, ...]:
        found = []
        for address in self._settings.gateways:
            identifier = self._members.gateway_at(str(address))
            if identifier is not None:
                found.append(GatewayAddress(address.host, address.port, identifier))
        return tuple(found)

    def _hurry(self) -> None:
        for redial in self._dialled.values():
            redial.hurry()

    def _may_publish(self) -> bool:
        """Once a gateway has said which list of ours it holds, and has had time to bring it."""
        self._publishes = self._publishes or self._lists_heard.is_over()
        return self._publishes

    def _adopt(self) -> None:
        """Sign anew what a signer has published, once gateways have brought what they hold."""
        if not self._policies_heard.is_over():
            return
        try:
            self._parts.mandatory.adopt()
        except SidelinkError as exc:
            _log.error("mandatory_policy_not_adopted", code=exc.code.text, why=exc.detail)

    def _judge(self) -> None:
        """Close the hops of gateways that may be gateways no longer."""
        for hop in list(self._open.values()):
            self._parts.admission.close_hop_if_cut(hop)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            self._desk.tidy()
            self._registrar.publish()
            self._neighbours.tick()
            self._adopt()
            self._judge()

    def _gateway_status(self) -> list[dict[str, Any]]:
        return [
            {
                "address": address,
                "connected": address in self._open,
                "engine": self._open[address].engine if address in self._open else None,
                "fault": redial.fault,
            }
            for address, redial in self._dialled.items()
        ]
