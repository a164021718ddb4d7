"""A sidecar whose gateway is the fuzzer, and remote agents with real identities and free wills."""

import ipaddress
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from types import SimpleNamespace
from typing import Any, Final

from channel import Channel
from identity import AgentUri, Code, OwnIdentity, VerifiedPeer
from link import Frame, FrameKind, LinkOpen
from link.limits import LINK_NONCE_BYTES
from link.messages import encode_link_open
from node.link_channel import LinkChannel
from policy import Permit
from sidecar.addresses import AddressRules
from sidecar.agents import LocalAgent
from sidecar.decisions import SidecarDecisions
from sidecar.direct import DirectPaths
from sidecar.handshakes import BETWEEN_STEPS_SECONDS
from sidecar.mesh_stream import MeshStream, StreamError
from sidecar.streams import Streams
from sidecar.uplink import Uplink
from tests.fuzz.loops import VirtualLoop
from tests.node.quiet import QuietNeighbours
from tests.sidecar.router_helpers import FakeHop, Lonely, Puppet
from tests.simulation.mesh import Session, Sidecar
from tests.simulation.network import SimulatedNetwork
from tests.simulation.people import OPEN_POLICY, MemoryKeystore, engine, node
from transport import HopPurpose

QUIET: Any = QuietNeighbours()

AGENTS: Final = ("alice", "carol")
OUTCAST: Final = "trudy"
"""Whom the policy gives no word."""
REMOTES: Final = ("mallory", "bob", OUTCAST)
ECHO: Final = "echo"
READ_BYTES: Final = 1 << 16
POLICY: Final = f"""\
{OPEN_POLICY}
  - name: sidecars meet
    effect: allow
    actions: [path.direct]
    from: {{kind: agent}}
    to: {{kind: agent}}
"""


@cache
def _rows() -> dict[str, OwnIdentity]:
    """Agents that all runs begin with: minting them is slow, and is not what is fuzzed."""
    keystore = node("alpha").new_keystore()
    registry = node("alpha").new_registry(keystore)
    for name in AGENTS:
        registry.open(f"alpha/{name}", {}, SimulatedNetwork(0).clock.unix_s())
    return keystore.rows


@cache
def _remote(name: str) -> LocalAgent:
    attributes = {"role": "outcast"} if name == OUTCAST else {}
    unix_s = SimulatedNetwork(0).clock.unix_s()
    return node("beta").new_registry().open(f"beta/{name}", attributes, unix_s)


class QuickSidecar(Sidecar):
    """Verifies each proof once in the life of the process."""

    def verify(
        self, agent: LocalAgent, proof: bytes, noise_key: bytes, is_live: bool
    ) -> VerifiedPeer:
        verify = partial(super().verify, agent, proof, noise_key, is_live)
        return _once((agent.uri, proof, noise_key), self.network, verify)

    def start(self) -> None:
        self.keystore = MemoryKeystore(_rows())
        super().start()


_VERIFIED: dict[Any, VerifiedPeer] = {}


def _once(key: Any, network: SimulatedNetwork, verify: Callable[[], VerifiedPeer]) -> VerifiedPeer:
    """What was verified before, for as long as it is good."""
    known = _VERIFIED.get(key)
    if known is None or network.clock.unix_s() >= known.identity.expires_unix_s:
        known = _VERIFIED[key] = verify()
    return known


class StreamHop(FakeHop):
    """The sidecar's hop, with byte streams."""

    engine = "none"
    opened_in_s = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.next_stream = 20
        self.streams: dict[int, bytearray] = {}
        self.resets: set[int] = set()

    def open_stream(self) -> int:
        stream, self.next_stream = self.next_stream, self.next_stream + 4
        self.streams[stream] = bytearray()
        return stream

    def send_stream(self, stream: int, data: bytes, end: bool = False) -> None:
        if stream not in self.resets:
            self.streams.setdefault(stream, bytearray()).extend(data)

    def reset_stream(self, stream: int, code: int) -> None:
        self.resets.add(stream)


@dataclass(eq=False)
class DirectHop(StreamHop):
    """A hop that comes from, or goes to, another sidecar."""

    purpose: HopPurpose = HopPurpose.DIRECT
    has_accepted: bool = False

    def accept(self, _permit: object) -> None:
        self.has_accepted = True

    def refuse(self, code: Code) -> None:
        self.close(code)


class FuzzedSidecar(Lonely):
    """A router, its streams, its uplink, and its direct ways."""

    def __init__(self) -> None:
        self.network = SimulatedNetwork(0)
        self.sidecar = QuickSidecar(self.network, "alpha", [], policy=engine(POLICY))
        self._last_link = 1 << 31
        decisions = SidecarDecisions(
            self.sidecar.decisions.decide,
            self.sidecar.decisions.ask_again,
            self.sidecar.decisions.could_allow,
            lambda: self.sidecar.decisions.policy.version,
        )
        self.streams = Streams(self.router, decisions, self.network.clock)
        self.router.use_streams(self.streams)
        parts: Any = SimpleNamespace(node=SimpleNamespace(identity=self.sidecar.node.identity))
        self.uplink = Uplink(parts, self.router, self.streams, QUIET, QUIET, wake=self.sidecar.look)
        self.is_patient = True
        self.dialled: list[DirectHop] = []
        self.direct_hops: list[DirectHop] = []
        self.direct = DirectPaths(
            self.sidecar.node.own.identifier,
            SimpleNamespace(dial=self._dial_directly),  # type: ignore[arg-type]
            SimpleNamespace(  # type: ignore[arg-type]
                decide=self.sidecar.decisions.decide,
                could_allow=self.sidecar.decisions.could_allow,
                answer_hop=_let_in,
            ),
            self.router,
            self.streams,
            self.network.clock,
            QUIET,
            rules=AddressRules(is_v6=True, allow_loopback=True),
            own_addresses=lambda: (("127.0.0.1", 7441),),
            wake=self.sidecar.look,
        )
        self.router.use_direct(self.direct)
        self.alice, self.carol = (self.sidecar.new_session(name) for name in AGENTS)
        self.streams.offer(self.alice.agent, ECHO, self._echo)
        self.echoed = 0
        self.hop: Any = None
        self.hops = 0
        self.open_hop()

    def use_loop(self, loop: VirtualLoop) -> None:
        self.loop = loop

    def pass_time(self, seconds: float) -> None:
        """Each timer in its turn, and those that it starts."""
        until_s = self.network.clock.now_s() + seconds
        for _ in range(1_000):
            due_s = self.router.deadline_s
            if due_s is None or due_s > until_s:
                break
            self.network.clock.advance(max(0.0, due_s - self.network.clock.now_s()))
            now_s = self.network.clock.now_s()
            self.sidecar.do(lambda now_s=now_s: self.router.handle_deadline(now_s))
        self.network.clock.advance(until_s - self.network.clock.now_s())
        self.loop.now_s += seconds

    @property
    def sessions(self) -> tuple[Session, Session]:
        return self.alice, self.carol

    def open_hop(self) -> None:
        self.hops += 1
        self.hop = StreamHop(node("gw", role="gateway").peer, id=self.hops)
        self._last_link = 1 << 31
        hop = self.hop
        self.sidecar.do(lambda: self.uplink.hop_opened(hop))

    def lose_hop(self) -> None:
        hop, self.hop = self.hop, None
        if hop is not None:
            self.sidecar.do(lambda: self.uplink.hop_closed(hop, Code.HOP_PEER_LOST, ""))

    def _dial_directly(self, host: str, port: int, **_options: Any) -> Any:
        """Nobody answers, until the fuzzer does."""
        ipaddress.ip_address(host)
        assert 0 < port < 1 << 16
        hop = self.new_direct_hop(is_dialler=True)
        self.dialled.append(hop)
        return hop

    def new_direct_hop(self, *, is_dialler: bool, name: str = "beta") -> DirectHop:
        self.hops += 1
        return DirectHop(node(name).peer, id=self.hops, is_dialler=is_dialler)

    def lose_direct_hop(self, hop: DirectHop) -> None:
        self.direct_hops.remove(hop)
        self.direct.hop_closed(hop, Code.HOP_PEER_LOST, "for the test")  # type: ignore[arg-type]
        self.sidecar.look()

    def receive(self, *frames: tuple[int, int, bytes]) -> None:
        if self.hop is not None:
            given = [Frame(*frame) for frame in frames]
            self.sidecar.do(lambda: self.uplink.frames_received(self.hop, given))
        if self.is_patient:
            # The costly steps of openings are done in turns of their own.
            self.network.run_for(2 * BETWEEN_STEPS_SECONDS)

    async def _echo(self, stream: MeshStream) -> None:
        self.echoed += 1
        while data := await stream.read(READ_BYTES):
            await stream.write(data)
        await stream.finish()

    async def talk(self, to: AgentUri, data: bytes) -> None:
        """Open a stream, say something, hear whatever comes."""
        try:
            stream = await self.streams.open(self.alice.agent, to, ECHO)
            await stream.write(data)
            await stream.finish()
            while await stream.read(READ_BYTES):
                pass
        except StreamError:
            return


def _let_in(hop: DirectHop, *, role: str) -> None:
    assert role == "sidecar"
    hop.accept(None)


class QuickPuppet(Puppet):
    """A remote agent whose keys were made before."""

    def __init__(self, lonely: FuzzedSidecar, name: str) -> None:
        self.lonely: Any = lonely
        self.node = node("beta")
        self.agent = _remote(name)
        self.link = 0
        self.events = []
        self.takes_credit = True
        self.accepts = True
        self._read = 0
        self._owed_bytes = 0
        self.to = ""
        self.links: Any = None
        self.port: Any = None
        self.said: set[bytes] = set()

    @property
    def channel(self) -> Channel | None:
        links: LinkChannel | None = self.links
        return None if links is None else links.channel

    def connect(self, to: str, *, link: int | None = None, **changes: Any) -> None:
        self.to = to
        super().connect(to, link=link, **changes)

    def respond(self, *, accepts: bool = True) -> None:
        self.to = str(self.lonely.opened_links()[-1][1].source)
        super().respond(accepts=accepts)

    def ask_to_move(self, change: Callable[[bytes], bytes]) -> None:
        """Wish to go on over another link, and do so if the sidecar agrees."""
        nonce, link = os.urandom(LINK_NONCE_BYTES), self.lonely.next_link()
        move = change(self.links.channel.ask_to_move(nonce))
        opening = LinkOpen(
            target=AgentUri.parse(self.to),
            source=self.agent.uri,
            nonce=nonce,
            source_node=self.node.own.identifier,
            noise_1=b"",
            move=move,
        )
        sent = self.lonely.hop.sent
        self.lonely.receive((link, FrameKind.LINK_OPEN, encode_link_open(opening)))
        for number, frame in enumerate(sent):
            if (frame.link, frame.kind) == (link, FrameKind.LINK_ACCEPT):
                self.links.channel.finish_move_untrusted(frame.body)
                self._read = number + 1
                self._go_on(link)
                return

    def answer_move(self, change: Callable[[bytes], bytes]) -> None:
        """Agree to the sidecar's last wish, if it is for this channel."""
        wishes = [(link, one) for link, one in self.lonely.opened_links() if one.move is not None]
        if wishes:
            link, wish = wishes[-1]
            answer = self.links.channel.answer_move_untrusted(wish.move, wish.nonce)
            self._read = len(self.lonely.hop.sent)
            self.lonely.receive((link, FrameKind.LINK_ACCEPT, change(answer)))
            self._go_on(link)

    def _go_on(self, link: int) -> None:
        self.link = link
        self.links.attach(self.port, link)
        self.exchange()

    def forget_read(self) -> None:
        """Another hop: nothing has been read of it."""
        self._read = 0

    def exchange(self) -> None:
        if self.lonely.hop is not None and self.links is not None:
            super().exchange()

    def _hear(self, frame: Frame) -> None:
        # Numbers of links begin anew on another hop: an opening there is for somebody else.
        if FrameKind.LINK_ACCEPT <= frame.kind <= FrameKind.LINK_CLOSE:
            super()._hear(frame)

    def _begin(self, channel: Channel) -> None:
        super()._begin(channel)
        self.events = []
        self._read = len(self.lonely.hop.sent)

    def _verify(self, proof: bytes, noise_key: bytes) -> VerifiedPeer:
        verify = partial(super()._verify, proof, noise_key)
        return _once((self.agent.uri, proof, noise_key), self.lonely.network, verify)

    def _permit(self, peer: VerifiedPeer) -> Any:
        key = (self.agent.uri, peer.identifier)
        if key not in _PERMITS:
            _PERMITS[key] = super()._permit(peer)
        return _PERMITS[key]


_PERMITS: dict[Any, Permit] = {}
