"""A gateway's relay among hops that send whatever they like, and a model of what may pass."""

from dataclasses import dataclass, field
from typing import Any, Final

from gateway.enrolling import EnrollingHops
from gateway.hops import RelayLimits
from gateway.relay import GatewayRelay
from gateway.streams import STREAM_QUEUED_BYTES_MAX, StreamRelay
from identity import AgentUri, Code, NamePrefix
from link import Credit, Frame, FrameKind, HopLimits, HopPort, LinkOpen, StreamPreamble
from link.limits import ACCEPTOR_LINK_BIT, INITIAL_WINDOW_BYTES, STREAM_PREAMBLE_BYTES
from link.messages import (
    decode_link_open_untrusted,
    encode_code,
    encode_credit,
    encode_link_open,
    encode_prefix,
    encode_restarting,
    encode_stream_preamble,
)
from policy import Denial, Permit
from tests.fuzz.machines import machine_target
from tests.fuzz.program import Program
from tests.fuzz.target import Target
from tests.gateway.helpers import FakeHop, PolicyDecisions
from tests.simulation.people import authority, authority_node, node, stranger

LINKS: Final = (1, 2, 3, 5, 0, ACCEPTOR_LINK_BIT, ACCEPTOR_LINK_BIT | 1, ACCEPTOR_LINK_BIT | 2)
RECORDS: Final = (0, 13, 14, 1_000, 65_535)
LIMITS: Final = (0, 1, INITIAL_WINDOW_BYTES + 1, 1 << 20, 1 << 40, (1 << 63) - 1)
PREFIXES: Final = tuple(
    NamePrefix.parse(f"agent://{text}") for text in ("acme/alpha", "acme/beta", "acme", "acme/x")
)
NAMES: Final = tuple(
    AgentUri.parse(f"agent://{text}")
    for text in ("acme/alpha/alice", "acme/beta/bob", "acme/x/y", "globex/alpha/z", "acme/alpha")
)
HOPS_MAX: Final = 5
LIMITS_OF_RELAY: Final = RelayLimits(
    hop_queue_bytes_max=4 << 20, queue_bytes_max=9 << 20, openings_per_s=1.0, openings_burst=20
)
QUEUES: Final = (0, LIMITS_OF_RELAY.congested_bytes + 1, 4 << 20, (4 << 20) + 1)


@dataclass(eq=False)
class WatchedHop(FakeHop):
    """Notices frames of links that this hop was never given, or that it was told are closed."""

    opened: set[int] = field(default_factory=set)
    """Links that the gateway has opened to this hop."""
    asked: set[int] = field(default_factory=set)
    live: set[int] = field(default_factory=set)

    def send_frame(self, link: int, kind: int, body: bytes) -> None:
        match kind:
            case FrameKind.LINK_OPEN:
                assert link not in self.opened, "a link's number is used again"
                self.opened.add(link)
                self.live.add(link)
            case FrameKind.LINK_CLOSE:
                assert link in self.live | self.asked
                self.live.discard(link)
            case FrameKind.RECORD | FrameKind.LINK_ACCEPT | FrameKind.LINK_FINISH:
                assert link in self.live, "a frame of a link that this hop has not"
            case FrameKind.CREDIT:
                assert link in self.live
        self.sent.append(Frame(link, kind, body))
        del self.sent[:-8]


class RememberedDecisions(PolicyDecisions):
    """The baseline, asked once for each question: its answers do not change here."""

    def __init__(self) -> None:
        super().__init__()
        self.relayed = 0

    def may_relay(self, source: HopPort, target: HopPort, opening: LinkOpen) -> Permit | Denial:
        answer = super().may_relay(source, target, opening)
        self.relayed += isinstance(answer, Permit)
        return answer

    def _decide(self, action: Any, hop: Any, target: Any, prefix: Any = None) -> Permit | Denial:
        key = (action, hop.peer.identifier, str(target), prefix)
        if key not in _ANSWERS:
            _ANSWERS[key] = super()._decide(action, hop, target, prefix)
        return _ANSWERS[key]


_ANSWERS: dict[Any, Permit | Denial] = {}


class RelayMachine:
    """A relay and its streams; hops of two nodes, an authority and strangers come and go."""

    def __init__(self) -> None:
        self.decisions = RememberedDecisions()
        self.relay = GatewayRelay(self.decisions, limits=LIMITS_OF_RELAY)
        self.streams = StreamRelay(self.relay)
        self.enrolling = EnrollingHops()
        self.hops: list[WatchedHop] = []
        self.now_s = 0.0
        self.last_hop = 0
        for name in ("alpha", "beta", "authority"):
            self.open_hop(name)
        for hop, prefix in zip(self.hops, PREFIXES[:2], strict=False):
            self.receive(hop, 0, FrameKind.REGISTER, encode_prefix(prefix))

    def open_hop(self, name: str) -> None:
        who = WHO[name]()
        self.last_hop += 1
        hop = WatchedHop(self.last_hop, who.peer, is_dialler=name == "authority")
        self.hops.append(hop)
        is_stranger = name == "stranger"
        self.relay.hop_opened(hop, enrolling=is_stranger, limits=HopLimits(links=6))
        if is_stranger:
            self.enrolling.add(hop, self.now_s)

    def receive(self, hop: WatchedHop, link: int, kind: int, body: bytes) -> None:
        opened = self.relay.counters.links_opened
        if kind == FrameKind.LINK_OPEN:
            hop.asked.add(link)
        elif kind == FrameKind.LINK_CLOSE and len(body) == 2:
            hop.live.discard(link)
        self.relay.frames_received(hop, [Frame(link, kind, body)], self.now_s)
        if self.relay.counters.links_opened > opened:
            hop.live.add(link)

    def check(self) -> None:
        for hop in [hop for hop in self.hops if hop.closed is not None]:
            self.lose(hop)
        assert len(self.relay.hops) == len(self.hops)
        live = sum(len(hop.live) for hop in self.hops)
        assert 2 * self.relay.links == len(self.relay._table._directions) == live
        assert self.relay.counters.links_opened <= self.decisions.relayed, "joined with no permit"
        assert len(self.streams._ends) == 2 * len(self.streams)
        assert all(len(held) < STREAM_PREAMBLE_BYTES for held in self.streams._preambles.values())
        ends = self.relay._table._directions
        for state in self.relay.hops:
            assert all(end in ends for end in state.withheld), "a grant of a link that is gone"
        for direction in ends.values():
            for window in (direction.window, *direction.streams.values()):
                assert window._passed <= window._granted

    def lose(self, hop: WatchedHop) -> None:
        self.hops.remove(hop)
        self.enrolling.discard(hop)
        self.streams.hop_closed(hop)
        self.relay.hop_closed(hop)

    def finish(self) -> None:
        """When all hops are gone, so is all that was kept for them."""
        for hop in list(self.hops):
            self.lose(hop)
        relay, streams = self.relay, self.streams
        tables: list[Any] = [relay.hops._hops, relay.hops._authorities, relay._table._directions]
        tables += [relay._table._of_hop, relay.directory._routes, relay.directory._of_hop]
        tables += [streams._ends, streams._preambles, streams._numbers, streams._per_hop]
        assert not any(tables)
        assert len(self.enrolling) == 0

    def choose(self, program: Program) -> WatchedHop | None:
        number = program.byte()
        return self.hops[number % len(self.hops)] if self.hops else None


def open_link(machine: RelayMachine, program: Program) -> None:
    hop = machine.choose(program)
    if hop is None:
        return
    link = program.choose(LINKS)
    nodes = (None, None, None, hop.peer.identifier)
    message = LinkOpen(
        target=program.choose((*NAMES, authority().identifier)),
        source=program.choose((*NAMES, hop.peer.identifier)),
        nonce=bytes(16),
        source_node=program.choose(nodes),
        noise_1=bytes(program.choose((0, 48, 16_384))),
    )
    opened = machine.relay.counters.links_opened
    machine.receive(hop, link, FrameKind.LINK_OPEN, encode_link_open(message))
    if machine.relay.counters.links_opened > opened:
        _check_attested(machine, hop, message)


def _check_attested(machine: RelayMachine, hop: WatchedHop, asked: LinkOpen) -> None:
    """Somewhere the opening came out, with the node that it truly came from."""
    told = [decode_link_open_untrusted(frame.body) for frame in _last_openings(machine)]
    assert any(
        one.source_node == hop.peer.identifier
        and (one.target, one.source) == (asked.target, asked.source)
        for one in told
    )
    if isinstance(asked.source, AgentUri):
        delegable = hop.peer.identity.delegable
        assert delegable is not None
        assert any(prefix.covers(asked.source) for prefix in delegable.name_prefixes)
    assert hop.peer.identity.kind != "unenrolled" or asked.target == authority().identifier


def _last_openings(machine: RelayMachine) -> list[Frame]:
    return [hop.of(FrameKind.LINK_OPEN)[-1] for hop in machine.hops if hop.of(FrameKind.LINK_OPEN)]


def answer_link(machine: RelayMachine, program: Program) -> None:
    """A handshake frame, in turn or out of it."""
    if hop := machine.choose(program):
        kind = program.choose((FrameKind.LINK_ACCEPT, FrameKind.LINK_FINISH))
        machine.receive(hop, program.choose(LINKS), kind, program.blob())


def send_record(machine: RelayMachine, program: Program) -> None:
    if hop := machine.choose(program):
        body = bytes(program.choose(RECORDS))
        machine.receive(hop, program.choose(LINKS), FrameKind.RECORD, body)


def grant(machine: RelayMachine, program: Program) -> None:
    if hop := machine.choose(program):
        credit = Credit(program.below(4), program.choose(LIMITS))
        machine.receive(hop, program.choose(LINKS), FrameKind.CREDIT, encode_credit(credit))


def close_link(machine: RelayMachine, program: Program) -> None:
    if hop := machine.choose(program):
        body = program.choose((encode_code(Code.CHANNEL_CLOSED), b"\xff\xff", b"", b"abc"))
        machine.receive(hop, program.choose(LINKS), FrameKind.LINK_CLOSE, body)


def register(machine: RelayMachine, program: Program) -> None:
    if hop := machine.choose(program):
        kind = program.choose((FrameKind.REGISTER, FrameKind.UNREGISTER))
        machine.receive(hop, 0, kind, encode_prefix(program.choose(PREFIXES)))


def restart(machine: RelayMachine, program: Program) -> None:
    """A node says that it will be back; its names are told from unknown ones until then."""
    if hop := machine.choose(program):
        body = encode_restarting(program.choose((0, 1_000, 600_000)))
        machine.receive(hop, 0, FrameKind.RESTARTING, body)


def say_anything(machine: RelayMachine, program: Program) -> None:
    if hop := machine.choose(program):
        kind = program.choose(tuple(FrameKind))
        machine.receive(hop, program.choose(LINKS), kind, program.blob())


def open_hop(machine: RelayMachine, program: Program) -> None:
    name = program.choose(tuple(WHO))
    if len(machine.hops) < HOPS_MAX and (name != "authority" or program.below(2)):
        machine.open_hop(name)


def lose_hop(machine: RelayMachine, program: Program) -> None:
    if hop := machine.choose(program):
        machine.lose(hop)


def write_stream(machine: RelayMachine, program: Program) -> None:
    """Bytes of a byte stream: its preamble at first, in pieces, or whatever."""
    if hop := machine.choose(program):
        stream = _choose_stream(hop, program)
        preamble = encode_stream_preamble(StreamPreamble(program.choose(LINKS), program.below(4)))
        pieces = (preamble, preamble + bytes(100), preamble[:5], preamble[5:], bytes(60_000))
        data = program.choose((*pieces, program.blob()))
        machine.streams.received(hop, stream, data, program.below(4) == 0)


def reset_stream(machine: RelayMachine, program: Program) -> None:
    if hop := machine.choose(program):
        machine.streams.reset(hop, _choose_stream(hop, program), program.byte())


def _choose_stream(hop: WatchedHop, program: Program) -> int:
    """One of the peer's, or one that the gateway has opened: QUIC lets nobody use another."""
    return program.choose((20, 24, 28, *list(hop.streams)[:4]))


def stop_reading(machine: RelayMachine, program: Program) -> None:
    """A hop that takes nothing more, or that does again."""
    if hop := machine.choose(program):
        hop.queued_bytes = program.choose(QUEUES)
        hop.stream_queue_bytes = program.choose((0, STREAM_QUEUED_BYTES_MAX + 1))


def flood(machine: RelayMachine, program: Program) -> None:
    """As many records as the windows take, and more."""
    if hop := machine.choose(program):
        link = program.choose(LINKS)
        for _ in range(program.below(80)):
            machine.receive(hop, link, FrameKind.RECORD, bytes(65_000))


def wait(machine: RelayMachine, program: Program) -> None:
    machine.now_s += program.byte()
    machine.enrolling.close_overdue(machine.now_s)
    machine.relay.tick(machine.now_s)
    if program.below(8) == 0:
        machine.relay.drain(1_000)


WHO: Final = {
    "alpha": lambda: node("alpha"),
    "beta": lambda: node("beta"),
    "authority": authority_node,
    "stranger": stranger,
}
OPERATIONS: Final = (
    open_link,
    answer_link,
    send_record,
    grant,
    close_link,
    register,
    restart,
    say_anything,
    open_hop,
    lose_hop,
    write_stream,
    reset_stream,
    stop_reading,
    flood,
    wait,
)
# Alpha's alice opens link 1 to beta's bob, whose end has the first number of an acceptor.
_JOINED: Final = (
    *("open_link", 0, 0, 1, 0, 0, 1),
    *("answer_link", 1, 0, 6, 0),
    *("answer_link", 0, 1, 0, 0),
)

TARGETS: Final[list[Target]] = [
    machine_target(
        "machine.relay",
        "a gateway's relay among hostile hops",
        RelayMachine,
        OPERATIONS,
        [
            (*_JOINED, "send_record", 0, 3, 0, "grant", 1, 0, 3, 6, "flood", 0, 0, 70),
            (*_JOINED, "write_stream", 0, 0, 0, 1, 0, 1, 1, "write_stream", 0, 0, 0, 1, 0, 4, 0),
            ("open_hop", 3, "open_link", 3, 0, 5, 5, 0, 1, "send_record", 3, 3, 0, "lose_hop", 2),
            (*_JOINED, "close_link", 1, 0, 6, "register", 1, 1, 1, "restart", 0, 1, "lose_hop", 0),
            (*_JOINED, "stop_reading", 1, 2, 1, "flood", 0, 0, 79, "wait", 255, 0),
        ],
        bytes_max=400,
    ),
]
