"""Two endpoints over a path that loses, doubles, changes, splits and forges their datagrams.

The QUIC engine is real, and so is its TLS: that is most of what an input costs here.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from identity import Code
from link import FrameKind
from tests.fuzz.loops import VirtualLoop
from tests.fuzz.machine_hop import ACCEPTOR, DIALLER, WatchedOwner
from tests.fuzz.machines import machine_target
from tests.fuzz.program import Program, pieces
from tests.fuzz.target import Target
from tests.fuzz.targets_transport import initial_of
from tests.transport.helpers import permit_for
from transport import Endpoint, HopPurpose, TransportSettings, limits
from transport.errors import DatagramError
from transport.retry import is_long, parse_long_header_untrusted

NEAR: Final = ("127.0.0.1", 7441)
FAR: Final = ("127.0.0.1", 7440)
ELSEWHERE: Final = ("10.0.0.1", 9)
SEEN_MAX: Final = 32
ROUND_TRIP_S: Final = 0.02
WAITS_S: Final = (0.0, 0.05, 1.0, 6.0)
ENGINES: Final = ("qh3", "aioquic")

Datagram = tuple[bytes, tuple[str, int]]


class Wire:
    """Fits UdpSocket as far as an endpoint uses it."""

    is_blocked = False
    is_behind = False
    is_v6 = False
    counters: Any = None

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.sent: list[Datagram] = []
        self.arrived: list[tuple[bytes, int, tuple[str, int]]] = []

    def receive(self) -> Iterator[tuple[bytes, int, tuple[str, int], bytes | None]]:
        arrived, self.arrived = self.arrived, []
        for data, segment_bytes, source in arrived:
            yield data, segment_bytes, source, None

    def expect_more(self) -> None: ...

    def choose_local(self, address: tuple[str, int], local: bytes | None) -> bytes | None:
        return local

    def send(self, datagrams: Sequence[Datagram], local: bytes | None = None) -> None:
        self.sent += datagrams

    def close(self) -> None: ...


class DecidingOwner(WatchedOwner):
    """Accepts whoever is proved."""

    def hop_verified(self, hop: Any) -> None:
        super().hop_verified(hop)
        self.has_accepted = True
        hop.accept(permit_for(hop))


class Owners:
    """An owner for each hop that comes: the acceptor may get several."""

    def __init__(self) -> None:
        self.of: dict[int, DecidingOwner] = {}

    def __getattr__(self, name: str) -> Any:
        def tell(hop: Any, *rest: Any) -> None:
            owner = self.of.setdefault(hop.id, DecidingOwner())
            getattr(owner, name)(hop, *rest)

        return tell


class DatagramMachine:
    """A dialler and an acceptor, and the datagrams on their way."""

    engine: Any = ENGINES[0]

    def __init__(self) -> None:
        self.near, self.far = Wire(NEAR), Wire(FAR)
        self.owners = (Owners(), Owners())
        self.tokens = 0

    def use_loop(self, loop: VirtualLoop) -> None:
        self.loop = loop
        settings = TransportSettings(engine=self.engine, datagram_bytes=1_452)
        ends = zip((self.near, self.far), (DIALLER, ACCEPTOR), self.owners, strict=True)
        self.ends = [
            _endpoint(wire, loop, identity, owners, settings) for wire, identity, owners in ends
        ]
        self.ends[0].dial(*FAR, purpose=HopPurpose.ADMIT, target=ACCEPTOR.identifier)
        self.seen: list[bytes] = []

    def wire(self, number: int) -> Wire:
        return (self.near, self.far)[number]

    def deliver(self, to: int, data: bytes, source: tuple[str, int], segment: int = 0) -> None:
        self.seen.append(data)
        del self.seen[:-SEEN_MAX]
        self.tokens += sum(map(_has_token, pieces(data, segment)))
        self.wire(to).arrived.append((data, segment, source))
        self.ends[to]._on_readable()

    def check(self) -> None:
        for end in self.ends:
            assert not end._is_in_turn
            half_open = [one for one in end._connections if one.is_half_open]
            assert end.half_open_count == len(half_open) <= limits.HALF_OPEN_MAX
            assert set(end._by_id.values()) <= set(end._connections)
        acceptor = self.ends[1]
        assert acceptor.counters.accepted <= self.tokens, "state for one who showed no token"

    def finish(self) -> None:
        """All that is left ends by itself within the time that it is given."""
        for end in self.ends:
            end._is_closed = True
            for connection in list(end._connections):
                connection.hop.end(Code.HOP_CLOSED, "for the test")
            end._flush()
            for connection in list(end._connections):
                connection.finish(self.loop.time())
            assert (end._connections, end._by_id) == ({}, {})
            assert end.half_open_count == 0
        for owners in self.owners:
            assert all(len(owner.closed) == 1 for owner in owners.of.values())


def _has_token(data: bytes) -> bool:
    try:
        return is_long(data) and bool(parse_long_header_untrusted(data).token)
    except DatagramError:
        return False


def _endpoint(wire: Any, loop: Any, identity: Any, owners: Any, settings: Any) -> Endpoint:
    return Endpoint(wire, loop, identity=lambda: identity, handler=owners, settings=settings)


def carry(machine: DatagramMachine, program: Program) -> None:
    """Everything that is on its way, there and back, honestly; it takes a while."""
    for to, source in ((1, NEAR), (0, FAR)):
        sent, machine.wire(1 - to).sent = machine.wire(1 - to).sent, []
        for data, _ in sent:
            machine.deliver(to, data, source)
    machine.loop.now_s += ROUND_TRIP_S


def carry_one(machine: DatagramMachine, program: Program) -> None:
    """One datagram, as it is or from another address."""
    to = program.below(2)
    sent = machine.wire(1 - to).sent
    if sent:
        source = program.choose(((NEAR, FAR)[1 - to], ELSEWHERE))
        machine.deliver(to, sent.pop(0)[0], source)


def lose(machine: DatagramMachine, program: Program) -> None:
    del machine.wire(program.below(2)).sent[:1]


def swap(machine: DatagramMachine, program: Program) -> None:
    sent = machine.wire(program.below(2)).sent
    sent[:2] = sent[:2][::-1]


def change(machine: DatagramMachine, program: Program) -> None:
    sent = machine.wire(program.below(2)).sent
    if sent:
        data, address = sent[0]
        at = program.number(2) % (len(data) + 1)
        sent[0] = (data[:at] + program.blob() + data[at + program.byte() :], address)


def replay(machine: DatagramMachine, program: Program) -> None:
    if machine.seen:
        to = program.below(2)
        source = program.choose((NEAR, FAR, ELSEWHERE))
        machine.deliver(to, machine.seen[program.byte() % len(machine.seen)], source)


def join(machine: DatagramMachine, program: Program) -> None:
    """Several datagrams in one read, as the kernel joins them, or with a wrong length."""
    to = program.below(2)
    sent = machine.wire(1 - to).sent
    datagrams = [data for data, _ in sent]
    sent.clear()
    if datagrams:
        length = program.choose((len(datagrams[0]), 1, 20, 1_452, 70_000))
        machine.deliver(to, b"".join(datagrams), (NEAR, FAR)[1 - to], length)


def invent(machine: DatagramMachine, program: Program) -> None:
    to = program.below(2)
    head = program.choose((b"", initial_of(b""), initial_of(b"", 0), initial_of(b"", 2)))
    data = (head + program.blob()).ljust(program.choose((0, 1_200)), b"\0")
    machine.deliver(to, data, program.choose((NEAR, FAR, ELSEWHERE)))


def send(machine: DatagramMachine, program: Program) -> None:
    """Whatever an open hop may say."""
    end = machine.ends[program.below(2)]
    for connection in end._connections:
        hop = connection.hop
        if hop.is_open:
            hop.send_frame(1 + program.below(4), FrameKind.RECORD, bytes(50 * program.byte()))
            if program.below(2):
                hop.send_stream(hop.open_stream(), program.blob(), program.below(2) == 0)


def close(machine: DatagramMachine, program: Program) -> None:
    end = machine.ends[program.below(2)]
    for connection in list(end._connections):
        connection.hop.close(Code.HOP_CLOSED)


def dial(machine: DatagramMachine, program: Program) -> None:
    if machine.ends[0].connection_count < 3:
        machine.ends[0].dial(*FAR, purpose=HopPurpose.ADMIT, target=ACCEPTOR.identifier)


def wait(machine: DatagramMachine, program: Program) -> None:
    machine.loop.now_s += program.choose(WAITS_S)


OPERATIONS: Final = (
    carry,
    carry_one,
    lose,
    swap,
    change,
    replay,
    join,
    invent,
    send,
    close,
    dial,
    wait,
)
_OPEN: Final = ("carry",) * 10
_SCRIPTS: Final = (
    (*_OPEN, "send", 0, 0, 9, 1, 3, b"abc", 1, "carry", "carry", "close", 0, "carry", "wait", 2),
    ("carry_one", 1, 0, "carry_one", 0, 0, "replay", 1, 0, 2, *_OPEN, "replay", 1, 3, 0, "carry"),
    ("invent", 1, 1, 0, 1, 0, "invent", 1, 3, 0, 1, 2, *_OPEN, "join", 1, 0, "change", 0, 0, 9, 0),
    (*_OPEN, "send", 0, 1, 80, 0, "join", 1, 3, "lose", 0, "dial", *_OPEN, "wait", 3, "carry"),
)


class AioquicMachine(DatagramMachine):
    engine = ENGINES[1]


TARGETS: Final[list[Target]] = [
    machine_target(
        f"machine.datagrams_{make.engine}",
        f"two endpoints on {make.engine} and a path between them",
        make,
        OPERATIONS,
        _SCRIPTS,
        in_loop=True,
        bytes_max=200,
    )
    for make in (DatagramMachine, AioquicMachine)
]
