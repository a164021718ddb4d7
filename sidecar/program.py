"""The sidecar: keeps agents' keys, ends their channels, enforces policy, serves the local API."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final

import structlog

from channel import MakeCipher
from identity import Code, ProofVerifier, Purpose, VerifiedPeer
from node.hop_counters import show_counters
from node.parts import Parts, open_parts, serve_operators
from node.refuse_hops import RefuseHops
from node.settings import SidecarSettings
from sidecar.agents import AgentRegistry, LocalAgent
from sidecar.decisions import SidecarDecisions
from sidecar.enrol import enrol
from sidecar.local_api import LocalApi
from sidecar.local_router import RouterPort
from sidecar.mcp_service import McpService
from sidecar.router import Router
from sidecar.streams import Streams
from sidecar.uplink import Uplink
from transport import Endpoint, TransportSettings

VERIFIERS_MAX: Final = 4_096

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
        endpoint = await Endpoint.bind(
            settings.listen.host,
            settings.listen.port,
            identity=parts.node.hop_identity,
            handler=RefuseHops(),
            settings=TransportSettings(
                engine=settings.quic_engine, datagram_bytes=settings.datagram_bytes
            ),
        )
        stack.push_async_callback(endpoint.close, Code.HOP_CLOSED)
        parts.ports["udp"] = endpoint.address[1]
        show_counters(parts, endpoint)
        running: list[Sidecar] = []
        _await_all(parts, running)

        async def list_agents(_: Any) -> object:
            return {"agents": [agent for one in running for agent in one.agent_status()]}

        parts.admin.add("GET", "/v1/agents", list_agents)
        await stack.enter_async_context(serve_operators(parts))
        if not await _unless_stopped(enrol(parts, settings, endpoint), stop):
            return
        sidecar = Sidecar(parts, settings, endpoint, make_cipher=make_cipher)
        await stack.enter_async_context(sidecar)
        running.append(sidecar)
        await stop.wait()
        _log.info("draining")


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
        *,
        make_cipher: MakeCipher | None = None,
    ) -> None:
        self._parts = parts
        self._settings = settings
        self._endpoint = endpoint
        decisions = SidecarDecisions(
            parts.admission.decide,
            lambda request: parts.policy.could_allow(request, parts.clock.unix_s()),
            lambda: parts.policy.version,
        )
        self.agents = AgentRegistry(
            parts.keystore,
            parts.node.own,
            parts.node.identity,
            messages_max=settings.mailbox_messages_max,
            bytes_max=settings.mailbox_bytes_max,
        )
        self.router = Router(
            self.agents,
            decisions,
            _Verifiers(parts).verify,
            parts.clock,
            make_cipher=make_cipher,
        )
        self.streams = Streams(self.router, decisions, parts.clock)
        self.router.use_streams(self.streams)
        self._alarm = _Alarm(self.router)
        self.uplink = Uplink(parts, self.router, self.streams, self._alarm.look)
        self._port = RouterPort(self.router, str(parts.node.identity.name), self._alarm.look)
        self._local_api = LocalApi(self._port)
        self._mcp = McpService(parts, settings, self.agents, self.streams)
        self._uplink_task: asyncio.Task[None] | None = None
        self._count()

    async def __aenter__(self) -> "Sidecar":
        parts = self._parts
        await self._local_api.start(self._settings.agent_socket or parts.folder.agent_socket)
        try:
            await self._mcp.start()
        except BaseException:
            await self._mcp.close()
            await self._local_api.close()
            raise
        parts.folder.write_ports(parts.ports)
        gateways = parts.store.gateways()
        self._uplink_task = asyncio.create_task(self.uplink.run(self._endpoint, gateways))
        return self

    async def __aexit__(self, *_: object) -> None:
        # Agents first: nothing new comes in while what was accepted goes out.
        await self._mcp.close()
        await self.streams.close()
        await self._local_api.close(Code.LOCAL_DRAINING)
        if self._uplink_task is not None:
            self._uplink_task.cancel()
            await asyncio.gather(self._uplink_task, return_exceptions=True)
        self._alarm.cancel()

    def _count(self) -> None:
        metrics, router = self._parts.metrics, self.router
        read, gauge = metrics.counter_read, metrics.gauge
        read("messages_sent", "Messages accepted from agents.", lambda: router.outbound.sent)
        read("messages_received", "Messages taken for agents.", lambda: router.inbound.received)
        read(
            "messages_failed",
            "Messages that were not sent.",
            lambda: sum(router.outbound.failed.values()),
        )
        read(
            "messages_rejected",
            "Messages from others that were not taken.",
            lambda: sum(router.inbound.rejected.values()),
        )
        read("channels_opened", "Channels opened.", lambda: router.channels_opened)
        read("streams_opened", "Byte streams opened.", lambda: self.streams.opened)
        read("hop_losses", "Hops to gateways that were lost.", lambda: self.uplink.hop_losses)
        gauge("channels", "Channels open now.", lambda: len(router.channels))
        gauge("streams", "Byte streams open now.", lambda: len(self.streams))
        gauge("agents_awake", "Agents in memory.", lambda: self.agents.awake)
        gauge("local_sessions", "Agent processes connected.", lambda: self._port.sessions)
        gauge("gateway_connected", "1 while a gateway is connected.", lambda: self.uplink.connected)
        gauge("mcp_children", "MCP servers running.", lambda: self._mcp.children)
        status = self._parts.status
        status["gateways"] = self.uplink.status
        status["displaced"] = lambda: list(self.uplink.displaced)
        status["engine"] = lambda: self._endpoint.engine_name
        status["channels"] = lambda: len(router.channels)
        status["messages"] = self._message_status

    def _message_status(self) -> dict[str, Any]:
        outbound, inbound = self.router.outbound, self.router.inbound
        return {
            "sent": outbound.sent,
            "received": inbound.received,
            "failed": {code.text: count for code, count in outbound.failed.items()},
            "rejected": {code.text: count for code, count in inbound.rejected.items()},
        }

    def agent_status(self) -> list[dict[str, Any]]:
        awake = {str(agent.uri): agent for agent in self.agents.awake_agents()}
        found = []
        for name in self.agents.names():
            agent = awake.get(name)
            found.append(
                {
                    "uri": name,
                    "awake": agent is not None,
                    "identifier": None if agent is None else str(agent.identity.identifier),
                    "listening": agent is not None and self.router.deliveries.listens(agent),
                    "waiting": 0 if agent is None else len(agent.mailbox),
                }
            )
        return found


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


class _Verifiers:
    """A verifier for each agent, since each refuses its own identifier as a peer."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._verifiers: dict[int, ProofVerifier] = {}

    def verify(self, agent: LocalAgent, proof: bytes, noise_key: bytes) -> VerifiedPeer:
        verifier = self._verifiers.get(agent.handle)
        if verifier is None:
            if len(self._verifiers) >= VERIFIERS_MAX:
                self._verifiers.clear()
            verifier = self._parts.node.verifier_for(agent.identity.identifier)
            self._verifiers[agent.handle] = verifier
        return verifier.verify(
            proof,
            purpose=Purpose.CHANNEL,
            noise_key=noise_key,
            unix_s=self._parts.clock.unix_s(),
        )


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
