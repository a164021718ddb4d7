"""The sidecar: keeps agents' keys, ends their channels, enforces policy, serves the local API."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import structlog

from channel import MakeCipher
from identity import Code, GatewayAddress, SidelinkError, VerifiedPeer
from link import Frame, HopPort
from node.hop_counters import show_counters
from node.membership import Membership
from node.neighbours import Neighbours
from node.parts import Parts, open_parts, serve_operators
from node.refuse_hops import RefuseHops
from node.renewal import Renewal
from node.settings import SidecarSettings
from sidecar.addresses import AddressRules, own_addresses
from sidecar.agent_admin import AgentAdmin
from sidecar.agents import AgentRegistry, LocalAgent
from sidecar.decisions import SidecarDecisions
from sidecar.direct import DirectPaths
from sidecar.enrol import enrol
from sidecar.figures import agent_page, publish_figures
from sidecar.local_door import LocalDoor, open_door
from sidecar.local_router import RouterPort
from sidecar.mailbox import SharedRoom
from sidecar.mcp_service import McpService
from sidecar.router import Router, RouterLimits
from sidecar.streams import Streams
from sidecar.uplink import Uplink
from transport import Endpoint, Hop, HopHandler, TransportSettings

RESTART_DELAY_MS: Final = 500
"""When agents and neighbours are told to come back."""
CLOSE_SECONDS: Final = 3.0
"""What is kept of the grace of a stop to close everything, or half of it if it is short."""
DRAIN_LOOK_SECONDS: Final = 0.02
SWEEP_SECONDS: Final = 1.0

_log = structlog.get_logger("sidecar")


async def main(
    settings: SidecarSettings,
    stop: asyncio.Event,
    *,
    make_cipher: MakeCipher | None = None,
) -> None:
    """Run until ``stop``. ``make_cipher`` is for compositions that look inside; see ``Channel``."""
    async with open_parts(settings) as parts:
        await run(parts, settings, stop, make_cipher=make_cipher)


async def run(
    parts: Parts,
    settings: SidecarSettings,
    stop: asyncio.Event,
    *,
    make_cipher: MakeCipher | None = None,
) -> None:
    """Enrol if need be, then serve agents. Raises SidelinkError when enrolment is refused."""
    async with AsyncExitStack() as stack:
        door = stack.enter_context(open_door(parts, settings))
        accepted = AcceptedHops()
        endpoint = await Endpoint.bind(
            settings.listen.host,
            settings.listen.port,
            identity=parts.node.hop_identity,
            handler=accepted,
            settings=TransportSettings(
                engine=settings.quic_engine,
                datagram_bytes=settings.datagram_bytes,
                epoch=parts.epoch,
            ),
        )
        stack.push_async_callback(endpoint.close, Code.HOP_CLOSED)
        parts.ports["udp"] = endpoint.address[1]
        show_counters(parts, endpoint)
        running: list[Sidecar] = []
        _await_all(parts, running)

        async def list_agents(request: Mapping[str, Any]) -> object:
            if not running:
                return {"agents": [], "next": None}
            return agent_page(running[0], request)

        parts.admin.add("GET", "/v1/agents", list_agents)
        agent_admin = AgentAdmin(parts.admin, parts.clock)
        stack.callback(agent_admin.close)
        await stack.enter_async_context(serve_operators(parts))
        if not await _unless_stopped(enrol(parts, settings, endpoint), stop):
            return
        sidecar = Sidecar(parts, settings, endpoint, door, make_cipher=make_cipher)
        await stack.enter_async_context(sidecar)
        accepted.handler = sidecar.direct or accepted.handler
        running.append(sidecar)
        agent_admin.serve(sidecar.agents, sidecar.agents_changed)
        await stop.wait()
        await sidecar.drain()


def _await_all(parts: Parts, running: "list[Sidecar]") -> None:
    """All that a sidecar waits for, from its first moment on: it is not ready in between."""
    parts.awaiting["a credential from the authority"] = lambda: parts.node.enrolled
    parts.awaiting["a gateway that is connected"] = lambda: any(
        sidecar.uplink.connected for sidecar in running
    )
    parts.awaiting["its prefixes at the gateway"] = lambda: any(
        sidecar.uplink.registered for sidecar in running
    )


class Sidecar:
    """The parts of an enrolled sidecar, wired up."""

    def __init__(
        self,
        parts: Parts,
        settings: SidecarSettings,
        endpoint: Endpoint,
        door: LocalDoor,
        *,
        make_cipher: MakeCipher | None = None,
    ) -> None:
        self._parts = parts
        self._settings = settings
        self.endpoint = endpoint
        self.door = door
        decisions = SidecarDecisions(
            parts.admission.decide,
            parts.admission.ask_again,
            parts.admission.could_allow,
            lambda: parts.policy.version,
        )
        parts.metrics.counter_read(
            "permits_reused",
            "Messages, and runs of them, that a permit of before was enough for.",
            lambda: decisions.reused,
        )
        self.agents = AgentRegistry(
            parts.keystore,
            lambda: parts.node.own,
            lambda: parts.node.identity,
            messages_max=settings.mailbox_messages_max,
            bytes_max=settings.mailbox_bytes_max,
            mailbox_room=SharedRoom(settings.mailboxes_bytes_max),
        )
        self.router = Router(
            self.agents,
            decisions,
            self._verify,
            parts.admission,
            parts.clock,
            limits=RouterLimits(
                settings.channel_idle_s, settings.channels_max, settings.agents.children_max
            ),
            make_cipher=make_cipher,
        )
        self.streams = Streams(self.router, decisions, parts.clock)
        self.router.use_streams(self.streams)
        self._alarm = _Alarm(self.router)
        self.neighbours = Neighbours(parts.node, parts.mandatory, parts.clock, parts.metrics)
        self.membership = Membership(parts, self._way_to_authority)
        self.renewal = Renewal(parts.node, parts.clock, parts.metrics, self.membership.renew)
        parts.status["renewal"] = self.renewal.status
        parts.node.trust.on_news += [self._judge, self.renewal.look_again]
        parts.rotation.on_used.append(self.renewal.hurry)
        parts.node.on_change.append(self._node_changed)
        parts.live_policy.on_change.append(self._policy_changed)
        self.direct = self._direct_paths() if settings.direct.enabled else None
        self.uplink = Uplink(
            parts, self.router, self.streams, self.neighbours, self.membership, self._alarm.look
        )
        self.port = RouterPort(self.router, str(parts.node.identity.name), self._alarm.look)
        self._local_api = door.api(self.port)
        self.router.standing.on_agent_gone.append(self.port.end_agent)
        self.mcp = McpService(parts, settings, self.agents, self.streams)
        self._tasks: list[asyncio.Task[None]] = []
        publish_figures(self, parts)

    async def __aenter__(self) -> "Sidecar":
        parts = self._parts
        await self.door.start()
        try:
            await self.mcp.start()
        except BaseException:
            await self.mcp.close()
            await self._local_api.close()
            raise
        parts.folder.write_ports(parts.ports)
        keep = parts.keeper.keep
        self._tasks = [
            asyncio.create_task(self.uplink.run(self.endpoint, self._gateways())),
            asyncio.create_task(keep("renewal", self.renewal.run)),
        ]
        if self.direct is not None:
            self._tasks.append(asyncio.create_task(keep("direct_hops", self.direct.run)))
        self._tasks.append(asyncio.create_task(keep("children", self._sweep)))
        return self

    async def _sweep(self) -> None:
        """Now and then look for children whose time is over."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                self.router.children.sweep(self._parts.clock.unix_s())
            except SidelinkError as exc:
                _log.warning("not_swept", code=exc.code.text, why=exc.detail)

    async def drain(self) -> None:
        """Finish what was accepted, as far as the grace of a stop allows, and take nothing new."""
        grace_s = self._settings.stop_grace_s
        limit_s = max(grace_s - CLOSE_SECONDS, grace_s / 2)
        clock, router = self._parts.clock, self.router
        begun_s = clock.now_s()
        self._local_api.drain(RESTART_DELAY_MS)
        self.uplink.announce_restart(RESTART_DELAY_MS)
        router.drain()
        self._alarm.look()
        while self._local_api.may_send or not router.drained:
            if clock.now_s() - begun_s >= limit_s:
                break
            await asyncio.sleep(DRAIN_LOOK_SECONDS)
        _log.info(
            "drained",
            seconds=round(clock.now_s() - begun_s, 3),
            finished=router.drained,
            channels=len(router.channels),
            undelivered=sum(len(agent.mailbox) for agent in self.agents.awake_agents()),
        )

    async def __aexit__(self, *_: object) -> None:
        # Agents first: nothing new comes in while what was accepted goes out.
        await self.mcp.close()
        await self.streams.close()
        self.router.close(Code.CHANNEL_RESTARTING)
        await self._local_api.close(Code.LOCAL_DRAINING, RESTART_DELAY_MS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._alarm.cancel()

    def _verify(
        self, agent: LocalAgent, proof: bytes, noise_key: bytes, is_live: bool
    ) -> VerifiedPeer:
        own = agent.identity.identifier
        return self._parts.node.verify_channel(proof, noise_key, own=own, is_live=is_live)

    def _judge(self) -> None:
        """Somebody may have been revoked: hops, channels and streams that rest on it end now."""
        self.uplink.judge()
        if self.direct is not None:
            self.direct.judge()
        self.router.judge()
        self._alarm.look()

    def _policy_changed(self) -> None:
        """Another policy is in force: hops, channels, streams and MCP calls that it denies end, at
        once or soon."""
        self.uplink.judge()
        if self.direct is not None:
            self.direct.policy_changed()
        self.router.policy_changed()
        self.streams.policy_changed()
        self.mcp.policy_changed()
        self._alarm.look()

    def _way_to_authority(self, failures: int) -> tuple[HopPort, int] | None:
        """Gateways of its trust domain take turns: the authority may have lost one of them."""
        hops = self.router.channels.hops
        authority = self._parts.node.identity.issuer
        gateways = [hop for hop in hops.gateways() if hop.peer.identity.issuer == authority]
        if not gateways:
            return None
        hop = gateways[failures % len(gateways)]
        return hop, hops.take_link(hop)

    def _gateways(self) -> tuple[GatewayAddress, ...]:
        """Those of our own authority, and those of others that the operator names."""
        own = self._parts.store.gateways()
        known = {gateway.identifier for gateway in own}
        further = self._settings.further_gateways
        return (*own, *(one for one in further if one.identifier not in known))

    def _node_changed(self) -> None:
        """The node's key or credential is another: agents show chains that end in what it is now.

        Those that sleep are brought up to date when they wake.
        """
        self.router.node_changed()
        self._alarm.look()

    def agents_changed(self) -> None:
        """Agents that are awake have other proofs: those whom they talk to are to see them."""
        self.router.own_agents_changed()
        self._alarm.look()

    @property
    def direct_hops(self) -> int:
        return 0 if self.direct is None else self.direct.hops

    def _direct_paths(self) -> DirectPaths:
        parts, settings, endpoint = self._parts, self._settings, self.endpoint
        rules = AddressRules(
            is_v6=":" in endpoint.address[0], allow_loopback=settings.direct.allow_loopback
        )
        gateways = [(gateway.host, gateway.port) for gateway in self._gateways()]
        advertised = settings.direct.advertise
        direct = DirectPaths(
            parts.node.identifier,
            endpoint,
            parts.admission,
            self.router,
            self.streams,
            parts.clock,
            self.neighbours,
            rules=rules,
            own_addresses=lambda: own_addresses(endpoint.address, gateways, advertised, rules),
            wake=self._alarm.look,
        )
        self.router.use_direct(direct)
        return direct


class AcceptedHops:
    """The handler of hops that come to this sidecar. They are refused while it enrols, and ever
    after where direct hops are switched off. Fits HopHandler."""

    def __init__(self) -> None:
        self.handler: HopHandler = RefuseHops()

    def hop_verified(self, hop: Hop) -> None:
        self.handler.hop_verified(hop)

    def hop_opened(self, hop: Hop) -> None:
        self.handler.hop_opened(hop)

    def frames_received(self, hop: Hop, frames: list[Frame]) -> None:
        self.handler.frames_received(hop, frames)

    def stream_received(self, hop: Hop, stream: int, data: bytes, ended: bool) -> None:
        self.handler.stream_received(hop, stream, data, ended)

    def stream_reset(self, hop: Hop, stream: int, code: int) -> None:
        self.handler.stream_reset(hop, stream, code)

    def hop_closed(self, hop: Hop, code: Code, detail: str) -> None:
        self.handler.hop_closed(hop, code, detail)


class _Alarm:
    """Calls the router when its next deadline comes."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._handle: asyncio.TimerHandle | None = None
        self._at_s = 0.0

    def look(self) -> None:
        """The router may have a sooner deadline now."""
        deadline_s = self._router.deadline_s
        if deadline_s is None:
            return
        if self._handle is not None:
            if self._at_s <= deadline_s:
                return  # An early ring is harmless, and cheaper than moving the alarm each turn.
            self._handle.cancel()
        self._at_s = deadline_s
        self._handle = asyncio.get_running_loop().call_at(deadline_s, self._ring)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _ring(self) -> None:
        self._handle = None
        try:
            self._router.handle_deadline(asyncio.get_running_loop().time())
        finally:
            # A fault of ours in one call must not stop the clock for all others.
            self.look()


async def _unless_stopped(work: Any, stop: asyncio.Event) -> bool:
    """Await the work; False when ``stop`` came first."""
    task = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    if task.cancelled():
        return False
    task.result()
    return True
