"""Whole meshes of real routers and real relays on a simulated network, and what must hold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sidelink import wire

from channel import MakeCipher
from gateway.relay import GatewayRelay
from gateway.streams import StreamRelay
from identity import AgentUri, Code, Identifier, Purpose, VerifiedPeer
from link import Frame, FrameKind, HopLimits, HopPort
from link.messages import encode_prefix, encode_restarting
from node.clocks import Clock
from policy import Action, Denial, Party, Permit, PolicyEngine, Request
from sidecar.agents import LocalAgent
from sidecar.decisions import SidecarDecisions
from sidecar.router import Router, RouterLimits
from sidecar.standing import Judge
from tests.node.quiet import NobodyIsCut
from tests.runs import deliveries_of
from tests.simulation.network import SimulatedHop, SimulatedNetwork, Weather
from tests.simulation.people import Node, engine, node, verifier_of

REDIAL_S = 0.5
RESTART_DELAY_MS = 500
GATEWAY_DRAIN_S = 0.5
LINKS = HopLimits(links=65_536)


class Decisions:
    """Policy without an audit log: remembers what it permitted."""

    def __init__(self, clock: Clock, policy: PolicyEngine) -> None:
        self._clock = clock
        self.policy = policy
        self.asked: list[tuple[Request, Permit | Denial]] = []
        self.cut: list[tuple[str, str, Code]] = []
        """What was live and was denied: what it was, who had it, and why."""
        self._permitted: set[tuple[Action, str, str]] = set()

    def decide(self, request: Request, *, expires_unix_s: float | None = None) -> Permit | Denial:
        unix_s = self._clock.unix_s()
        answer = self.policy.decide(request, unix_s, expires_unix_s=expires_unix_s)
        self.asked.append((request, answer))
        if isinstance(answer, Permit):
            names = str(request.subject.name), str(request.object.name)
            self._permitted.add((request.action, *names))
        return answer

    def ask_again(
        self, request: Request, what: str, *, expires_unix_s: float | None = None
    ) -> Permit | Denial:
        answer = self.decide(request, expires_unix_s=expires_unix_s)
        if isinstance(answer, Denial):
            self.cut.append((what, str(request.subject), answer.code))
        return answer

    def could_allow(self, request: Request) -> bool:
        return self.policy.could_allow(request, self._clock.unix_s())

    def permits(self, action: Action) -> list[tuple[str, str]]:
        return [
            (str(request.subject.name), str(request.object.name))
            for request, answer in self.asked
            if request.action is action and isinstance(answer, Permit)
        ]

    def permitted(self, action: Action, subject: str, object_: str) -> bool:
        return (action, subject, object_) in self._permitted

    # RelayDecisions.

    def may_register(self, hop: HopPort, prefix: Any) -> Permit | Denial:
        subject = Party.from_verified(hop.peer.identity)
        own = Party.from_verified(node("gw", role="gateway").identity)
        return self.decide(Request(Action.ROUTE_REGISTER, subject, own, prefix=prefix))

    def may_relay(
        self, source: HopPort, target: HopPort, to: AgentUri | Identifier
    ) -> Permit | Denial:
        subject = Party.from_verified(source.peer.identity)
        if isinstance(to, AgentUri):
            return self.decide(Request(Action.LINK_RELAY, subject, Party.unproved(to)))
        authority = Party.from_verified(target.peer.identity)
        return self.decide(Request(Action.LINK_RELAY, subject, authority))


class SkewedClock:
    """A program's own clock: its seconds are as long as everybody's, its date is not quite."""

    def __init__(self, clock: Clock, skew_s: float) -> None:
        self._clock = clock
        self._skew_s = skew_s

    def now_s(self) -> float:
        return self._clock.now_s()

    def unix_s(self) -> float:
        return self._clock.unix_s() + self._skew_s

    def raise_floor(self, unix_s: float) -> bool:
        return False


class Gateway:
    """A real relay. ``crash`` loses everything that it held; ``start`` makes a new one."""

    def __init__(self, network: SimulatedNetwork, name: str = "gw") -> None:
        self.network = network
        self.node = node(name, role="gateway")
        self.observed: list[Frame] = []
        self.is_up = False
        self.is_stopping = False
        self.hops: list[SimulatedHop] = []
        self.start()

    def start(self) -> None:
        assert not self.is_up
        self.decisions = Decisions(self.network.clock, engine())
        self.relay = GatewayRelay(self.decisions, observe=self.observed.append)
        self.streams = StreamRelay(self.relay)
        self.is_up = True

    def crash(self) -> None:
        self.is_up = False
        hops, self.hops = self.hops, []
        for hop in hops:
            hop.vanish()

    def stop(self) -> None:
        """Announce it, relay on for a moment, then close every hop."""
        self.is_stopping = True
        self.relay.drain(RESTART_DELAY_MS)
        self.network.after(GATEWAY_DRAIN_S, self._end)

    def _end(self) -> None:
        self.is_up = self.is_stopping = False
        for hop in list(self.hops):
            hop.close(Code.HOP_RESTARTING)

    def is_empty(self) -> bool:
        relay, streams = self.relay, self.streams
        held = (
            relay.hops._hops,
            relay.hops._authorities,
            relay._table._directions,
            relay._table._of_hop,
        )
        routes = (relay.directory._routes, relay.directory._of_hop)
        ends = (streams._ends, streams._preambles, streams._numbers, streams._per_hop)
        return not any((*held, *routes, *ends))

    # HopOwner.

    def hop_opened(self, hop: SimulatedHop) -> None:
        self.hops.append(hop)
        enrolling = hop.peer.identity.kind == "unenrolled"
        self.relay.hop_opened(hop, enrolling=enrolling, limits=LINKS)

    def hop_closed(self, hop: SimulatedHop, code: Code) -> None:
        if hop in self.hops:
            self.hops.remove(hop)
        self.streams.hop_closed(hop)
        self.relay.hop_closed(hop)

    def frames_received(self, hop: SimulatedHop, frames: list[Frame]) -> None:
        self.relay.frames_received(hop, frames, self.network.clock.now_s())

    def stream_received(self, hop: SimulatedHop, stream: int, data: bytes, ended: bool) -> None:
        self.streams.received(hop, stream, data, ended)

    def stream_reset(self, hop: SimulatedHop, stream: int, code: int) -> None:
        self.streams.reset(hop, stream, code)


class NoStreams:
    """A sidecar without byte streams."""

    def stream_announced(self, *_: Any) -> None:
        pass

    def stream_credit(self, *_: Any) -> None:
        pass

    def streams_on(self, *_: Any) -> int:
        return 0

    def channel_gone(self, *_: Any) -> None:
        pass


class Sidecar:
    """A real router under one node's prefix. It redials for as long as it is up."""

    def __init__(
        self,
        network: SimulatedNetwork,
        name: str,
        gateways: Sequence[Gateway],
        *,
        policy: PolicyEngine | None = None,
        make_cipher: MakeCipher | None = None,
        who: Node | None = None,
        limits: RouterLimits | None = None,
        skew_s: float = 0.0,
        **registry: Any,
    ) -> None:
        self.network = network
        self.clock = SkewedClock(network.clock, skew_s)
        self.name = name
        self.node = who or node(name)
        self.keystore = self.node.new_keystore()
        self.policy = policy or engine()
        self.is_up = False
        self.hops: list[SimulatedHop] = []
        self.sessions: list[Session] = []
        self._gateways = gateways
        self._make_cipher = make_cipher
        self._registry = registry
        self._limits = limits
        self.judge: Judge = NobodyIsCut()
        self.life = 0
        self.start()

    def start(self) -> None:
        self.life += 1
        self.is_up = True
        self.decisions = Decisions(self.clock, self.policy)
        self.router = Router(
            self.node.new_registry(self.keystore, **self._registry),
            SidecarDecisions(
                self.decisions.decide,
                self.decisions.ask_again,
                self.decisions.could_allow,
                lambda: self.decisions.policy.version,
            ),
            self.verify,
            self.judge,
            self.clock,
            limits=self._limits,
            make_cipher=self._make_cipher,
        )
        self.router.use_streams(NoStreams())
        self._armed_s: float | None = None
        for gateway in self._gateways:
            self._dial(gateway, self.life)

    def crash(self) -> None:
        self.is_up = False
        self.life += 1
        hops, self.hops = self.hops, []
        for hop in hops:
            hop.vanish()
        for session in self.sessions:
            session.is_gone = True
        self.sessions = []

    def verify(
        self, agent: LocalAgent, proof: bytes, noise_key: bytes, is_live: bool
    ) -> VerifiedPeer:
        return verifier_of(agent.identity.identifier).verify(
            proof,
            purpose=Purpose.CHANNEL,
            noise_key=noise_key,
            unix_s=self.clock.unix_s(),
            is_live=is_live,
        )

    def new_session(self, agent: str, **attributes: Any) -> "Session":
        session = Session(self, self.router.open_agent(f"{self.name}/{agent}", attributes))
        session.agent.users += 1
        self.sessions.append(session)
        return session

    def do(self, call: Callable[[], Any]) -> Any:
        """Call the router, then look at its deadline, as the shell does."""
        result = call()
        self.look()
        return result

    def look(self) -> None:
        deadline_s = self.router.deadline_s
        if not self.is_up or deadline_s is None or deadline_s == self._armed_s:
            return
        self._armed_s = deadline_s
        router = self.router
        delay_s = max(0.0, deadline_s - self.network.clock.now_s())
        self.network.after(delay_s, lambda: self._wake(router))

    def _wake(self, router: Router) -> None:
        if router is self.router and self.is_up:
            self._armed_s = None
            self.do(lambda: router.handle_deadline(self.network.clock.now_s()))

    def _dial(self, gateway: Gateway, life: int) -> None:
        if life != self.life or not self.is_up:
            return
        if not gateway.is_up:
            self.network.after(REDIAL_S, lambda: self._dial(gateway, life))
            return
        hop = self.network.connect(self, gateway, (gateway.node.peer, self.node.peer))
        hop.gateway = gateway  # type: ignore[attr-defined]

    def meet(self, other: "Sidecar") -> SimulatedHop:
        """Open a direct hop."""
        return self.network.connect(self, other, (other.node.peer, self.node.peer), direct=True)

    def drain(self) -> None:
        """The first half of a stop: it finishes what was accepted."""
        for hop in self.hops:
            hop.send_frame(0, FrameKind.RESTARTING, encode_restarting(RESTART_DELAY_MS))
        self.do(self.router.drain)

    def end(self) -> None:
        """The second half: it closes what there is."""
        self.do(lambda: self.router.close(Code.CHANNEL_RESTARTING))
        self.is_up = False
        self.life += 1
        for hop in list(self.hops):
            hop.close(Code.HOP_CLOSED)
        for session in self.sessions:
            session.is_gone = True
        self.sessions = []

    # HopOwner.

    def hop_opened(self, hop: SimulatedHop) -> None:
        self.hops.append(hop)
        if not hop.direct:
            for prefix in self.node.prefixes:
                hop.send_frame(0, FrameKind.REGISTER, encode_prefix(prefix))
        self.do(lambda: self.router.hop_opened(hop, direct=hop.direct))

    def hop_closed(self, hop: SimulatedHop, code: Code) -> None:
        if hop not in self.hops:
            return  # Of an earlier life.
        self.hops.remove(hop)
        self.do(lambda: self.router.hop_closed(hop, Code.ROUTE_UNREACHABLE))
        if hop.direct:
            return
        gateway, life = hop.gateway, self.life  # type: ignore[attr-defined]
        self.network.after(REDIAL_S, lambda: self._dial(gateway, life))

    def frames_received(self, hop: SimulatedHop, frames: list[Frame]) -> None:
        if any(frame.kind == FrameKind.RESTARTING for frame in frames):
            self.do(lambda: self.router.hop_leaving(hop))
        self.do(lambda: self.router.frames_received(hop, frames))

    def stream_received(self, hop: SimulatedHop, stream: int, data: bytes, ended: bool) -> None:
        hop.reset_stream(stream, int(Code.STREAM_SERVICE_UNKNOWN))

    def stream_reset(self, hop: SimulatedHop, stream: int, code: int) -> None:
        pass


@dataclass(eq=False)
class Session:
    """One agent process. Fits LocalSession."""

    sidecar: Sidecar
    agent: LocalAgent
    writable: bool = True
    is_paused: bool = False
    is_gone: bool = False
    frames: list[Any] = field(default_factory=list)
    handler: Callable[[wire.Deliver], None] | None = None
    last_request: int = 0

    @property
    def uri(self) -> str:
        return str(self.agent.uri)

    def listen(self) -> bool:
        router = self.sidecar.router
        return bool(self.sidecar.do(lambda: router.listen(self.agent, self)))

    def tell(self, to: str, body: bytes = b"", *, receipt: bool = True) -> int:
        return self.send(wire.TELL, to, body, receipt=receipt)

    def ask(self, to: str, body: bytes = b"", timeout_s: float = 30.0) -> int:
        return self.send(wire.ASK, to, body, timeout_s=timeout_s)

    def send(
        self, kind: int, to: str, body: bytes, *, receipt: bool = True, timeout_s: float = 30.0
    ) -> int:
        frame = self.new_send(kind, to, body, receipt=receipt, timeout_s=timeout_s)
        self.send_all([frame])
        return frame.request

    def new_send(
        self, kind: int, to: str, body: bytes, *, receipt: bool = True, timeout_s: float = 30.0
    ) -> wire.Send:
        self.last_request += 1
        request = self.last_request if receipt else 0
        timeout_ms = int(timeout_s * 1000)
        return wire.Send(request, self.agent.handle, to, kind, body, "text/plain", timeout_ms)  # type: ignore[arg-type]

    def send_all(self, sends: list[wire.Send]) -> None:
        router = self.sidecar.router
        self.sidecar.do(lambda: router.send_batch(self.agent, self, sends))

    def answer(self, delivery: int, body: bytes) -> bool:
        router = self.sidecar.router
        return bool(
            self.sidecar.do(lambda: router.answer(self.agent, delivery, body, "text/plain"))
        )

    def refuse(self, delivery: int, reason: str) -> bool:
        router = self.sidecar.router
        return bool(self.sidecar.do(lambda: router.refuse(self.agent, delivery, reason)))

    def leave(self) -> None:
        """The process ends: its connection with it."""
        self.is_gone = True
        self.writable = False
        self.sidecar.sessions.remove(self)
        router = self.sidecar.router
        self.sidecar.do(lambda: router.session_gone(self))
        self.sidecar.do(lambda: router.let_go(self.agent))

    def of(self, kind: type) -> list[Any]:
        return [frame for frame in self.frames if isinstance(frame, kind)]

    def bodies(self) -> list[bytes]:
        return [frame.body for frame in self.of(wire.Deliver)]

    def failures(self) -> list[tuple[int, str]]:
        return [(frame.request, frame.code) for frame in self.of(wire.Failed)]

    # LocalSession.

    @property
    def peer(self) -> Any:
        raise NotImplementedError

    def deliver(self, frames: Sequence[Any]) -> None:
        if self.is_gone:
            return
        apart = deliveries_of(frames)
        self.frames += apart
        for frame in apart:
            if isinstance(frame, wire.Deliver) and self.handler is not None:
                # Never back into the router from here.
                self.sidecar.network.after(0.0, lambda frame=frame: self._handle(frame))

    def _handle(self, frame: wire.Deliver) -> None:
        if not self.is_gone and self.handler is not None:
            self.handler(frame)

    def agent_opened(self, opened: Any) -> None:
        raise NotImplementedError

    def agent_refused(self, failed: Any) -> None:
        raise NotImplementedError

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False

    def close(self, code: Code, delay_ms: int = 0) -> None:
        raise NotImplementedError


def new_mesh(
    *names: str, seed: int = 0, weather: Weather | None = None, **options: Any
) -> tuple[SimulatedNetwork, Gateway, list[Sidecar]]:
    """One gateway and sidecars of these names, all connected and registered."""
    network = SimulatedNetwork(seed, weather)
    gateway = Gateway(network)
    sidecars = [Sidecar(network, name, [gateway], **options) for name in names]
    network.run_for(1.0)
    return network, gateway, sidecars
