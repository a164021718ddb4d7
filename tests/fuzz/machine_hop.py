"""Two hops over carriers in memory, their owners, and a peer that speaks beside the honest one."""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any, Final

from identity import Code
from link import Frame, FrameKind, HopLimits, encode_frame
from link.limits import STREAMS_PER_HOP_MAX
from link.messages import HopHello, encode_code, encode_hop_accept, encode_hop_hello
from tests.fuzz.machines import machine_target
from tests.fuzz.program import Program
from tests.fuzz.target import Target
from tests.transport.helpers import FakePermit, make_identity
from transport import HopPurpose, TransportError, TransportSettings, limits, memory_hop_pair
from transport.engine import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    EngineEvent,
    StreamData,
    StreamReset,
    Terminated,
)
from transport.hop_state import DECIDABLE, HopState
from transport.hop_streams import CONTROL_STREAM

DIALLER: Final = make_identity("d")
ACCEPTOR: Final = make_identity("a")
CODES: Final = (Code.HOP_CLOSED, Code.HOP_DENIED, Code.LOCAL_DRAINING)
WAITS_S: Final = (0.0, 0.1, 4.9, 5.1)
STREAMS: Final = (0, 4, 8, 12, 16, 20, 24, 1, 5, 2, 3, 20 + 4 * 5_000, (1 << 62) - 4)
LINKS: Final = (0, 1, 2, 3, 4, 1 << 31, 1 << 31 | 1)


class Agenda:
    """Fits transport.memory.Scheduler: calls wait until the machine lets them happen."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self._due: list[tuple[float, int, list[Callable[[], Any]]]] = []
        self._numbers = count()

    def time(self) -> float:
        return self.now_s

    def call_soon(self, callback: Callable[[], Any], /) -> None:
        self.call_at(self.now_s, callback)

    def call_at(self, when: float, callback: Callable[[], Any], /) -> "_Timer":
        calls = [callback]
        heapq.heappush(self._due, (when, next(self._numbers), calls))
        return _Timer(calls)

    def run(self, calls_max: int) -> None:
        for _ in range(calls_max):
            if not self._due or self._due[0][0] > self.now_s:
                return
            for call in heapq.heappop(self._due)[2]:
                call()


class _Timer:
    def __init__(self, calls: list[Callable[[], Any]]) -> None:
        self._calls = calls

    def cancel(self) -> None:
        self._calls.clear()


class WatchedOwner:
    """Fits HopHandler, and notices whatever it should not be told."""

    def __init__(self) -> None:
        self.verified = 0
        self.opened = 0
        self.closed: list[Code] = []
        self.ended: set[int] = set()
        self.has_accepted = False
        self.frame_bytes = 0

    def hop_verified(self, hop: Any) -> None:
        assert not self.closed
        self.verified += 1
        assert self.verified == 1
        assert hop.peer is not None

    def hop_opened(self, hop: Any) -> None:
        assert not self.closed
        assert self.has_accepted, "open without our permit"
        self.opened += 1
        assert self.opened == 1

    def frames_received(self, hop: Any, frames: list[Frame]) -> None:
        self._check_may_hear()
        assert frames
        for frame in frames:
            assert frame.kind not in (FrameKind.LANE_OPEN, FrameKind.HOP_ACCEPT)
            self.frame_bytes += len(frame.body)

    def stream_received(self, hop: Any, stream: int, data: bytes, ended: bool) -> None:
        self._check_may_hear()
        assert stream not in self.ended
        if ended:
            self.ended.add(stream)

    def stream_reset(self, hop: Any, stream: int, code: int) -> None:
        self._check_may_hear()
        assert stream not in (0, 4, 8, 12, 16)

    def hop_closed(self, hop: Any, code: Code, detail: str) -> None:
        self.closed.append(code)
        assert len(self.closed) == 1, "closed twice"

    def _check_may_hear(self) -> None:
        assert self.opened, "something is delivered before the hop is open"
        assert not self.closed, "something is delivered behind the end"


class HopMachine:
    """The dialler's end and the acceptor's, with honest handshakes between them."""

    def __init__(self) -> None:
        self.agenda = Agenda()
        self.owners = (WatchedOwner(), WatchedOwner())
        pair = memory_hop_pair(
            *self.owners,
            dialler_identity=lambda: DIALLER,
            acceptor_identity=lambda: ACCEPTOR,
            target=ACCEPTOR.identifier,
            settings=TransportSettings(),
            scheduler=self.agenda,
            connection_bindings=((b"c" * 32, b"b" * 32),) * 2,
        )
        self.hops = (pair.dialler, pair.acceptor)
        self.pair = pair
        self.states: list[HopState] = [hop.state for hop in self.hops]
        self.held = [0, 0]

    def feed(self, number: int, events: list[EngineEvent]) -> None:
        """Hand events to one end, as its carrier does."""
        hop = self.hops[number]
        if hop.state is HopState.ACCEPTED:
            self.held[number] += sum(
                len(event.data)
                for event in events
                if isinstance(event, StreamData) and event.stream != CONTROL_STREAM
            )
        hop.receive(events)
        hop.deliver()

    def check(self) -> None:
        for number, hop in enumerate(self.hops):
            if self.states[number] is HopState.CLOSED:
                assert hop.state is HopState.CLOSED, "closed, and open again"
            self.states[number] = hop.state
            # What came between our yes and the peer's is kept, up to a limit.
            assert hop.state is not HopState.ACCEPTED or self.held[number] <= limits.HELD_BYTES_MAX
            assert len(hop._streams) <= STREAMS_PER_HOP_MAX
            assert hop._streams._ended_here | hop._streams._ended_there <= hop._streams._live
            assert hop.is_open == (hop.state is HopState.OPEN)
            assert not hop.is_open or self.owners[number].has_accepted

    def finish(self) -> None:
        """Each owner hears of the end exactly once, whatever came before."""
        self.pair.cut()
        self.agenda.now_s += 10.0
        self.agenda.run(100)
        for hop, owner in zip(self.hops, self.owners, strict=True):
            hop.deliver()
            assert len(owner.closed) == 1
            hop.send_frame(1, FrameKind.RECORD, b"nobody hears it")
            assert hop.state is HopState.CLOSED


def run(machine: HopMachine, program: Program) -> None:
    machine.agenda.run(program.choose((1, 2, 5, 100)))


def wait(machine: HopMachine, program: Program) -> None:
    machine.agenda.now_s += program.choose(WAITS_S)
    machine.agenda.run(20)


def accept(machine: HopMachine, program: Program) -> None:
    number = program.below(2)
    hop, owner = machine.hops[number], machine.owners[number]
    is_wrong = program.below(8) == 7
    subject = program.choose((DIALLER, ACCEPTOR)).identifier if is_wrong else None
    if hop.state not in DECIDABLE:
        return
    right = hop.peer.identifier
    action = "node.enrol" if is_wrong and subject == right else "hop.admit"
    owner.has_accepted = not is_wrong
    try:
        hop.accept(FakePermit(subject or right, action))
    except PermissionError:
        assert is_wrong
        return
    assert not is_wrong, "accepted with a wrong permit"


def refuse(machine: HopMachine, program: Program) -> None:
    hop = machine.hops[program.below(2)]
    if hop.state in DECIDABLE:
        hop.refuse(program.choose(CODES))


def send_frame(machine: HopMachine, program: Program) -> None:
    hop = machine.hops[program.below(2)]
    kind = program.choose((FrameKind.RECORD, FrameKind.CREDIT, FrameKind.LINK_OPEN))
    body = bytes(program.choose((0, 14, 60_000)))
    if hop.state in (HopState.OPEN, HopState.CLOSED):
        hop.send_frame(program.choose(LINKS[1:]), kind, body)


def drop_link(machine: HopMachine, program: Program) -> None:
    machine.hops[program.below(2)].drop_link(program.choose(LINKS))


def write_stream(machine: HopMachine, program: Program) -> None:
    """On a stream of our own, of the peer's, or on one that never was."""
    hop = machine.hops[program.below(2)]
    stream = program.choose(STREAMS)
    if program.below(2):
        try:
            stream = hop.open_stream()
        except TransportError:
            return
    hop.send_stream(stream, program.blob(), program.below(3) == 0)


def reset_stream(machine: HopMachine, program: Program) -> None:
    hop = machine.hops[program.below(2)]
    hop.reset_stream(program.choose(STREAMS), program.byte())


def close(machine: HopMachine, program: Program) -> None:
    machine.hops[program.below(2)].close(program.choose(CODES))


def cut(machine: HopMachine, program: Program) -> None:
    if program.below(4) == 0:
        machine.pair.cut()


def inject(machine: HopMachine, program: Program) -> None:
    """An event that no honest peer would cause: the carrier hands it in all the same."""
    number = program.below(2)
    kind = program.below(6)
    stream = program.choose(STREAMS)
    event: EngineEvent
    if kind == 0:
        event = StreamReset(stream, program.number(2))
    elif kind == 1:
        event = Terminated(program.number(2), bool(program.below(2)), "for the test")
    elif kind == 2:
        event = program.choose((ConnectionIdIssued(b"id"), ConnectionIdRetired(b"id")))
    else:
        event = StreamData(stream, _bytes_of(program), program.below(4) == 3)
    machine.feed(number, [event])


def inject_many(machine: HopMachine, program: Program) -> None:
    """Much of the same, to reach what bounds it."""
    number, stream = program.below(2), program.choose(STREAMS)
    frame = encode_frame(program.choose(LINKS), FrameKind.RECORD, bytes(60_000))
    machine.feed(number, [StreamData(stream, frame, False)] * program.below(24))


def _bytes_of(program: Program) -> bytes:
    kind = program.below(5)
    if kind == 0:
        return program.blob()
    if kind == 1:
        hello = HopHello(program.choose(tuple(HopPurpose)).value, "", bytes(16), program.blob())
        return encode_frame(0, FrameKind.HOP_HELLO, encode_hop_hello(hello))
    if kind == 2:
        return encode_frame(0, FrameKind.HOP_ACCEPT, encode_hop_accept(1, HopLimits(9)))
    if kind == 3:
        return encode_frame(0, FrameKind.HOP_CLOSE, encode_code(program.choose(CODES)))
    kind_of_frame = program.choose(tuple(FrameKind))
    return encode_frame(program.choose(LINKS), kind_of_frame, program.blob())


OPERATIONS: Final = (
    run,
    wait,
    accept,
    refuse,
    send_frame,
    drop_link,
    write_stream,
    reset_stream,
    close,
    cut,
    inject,
    inject_many,
)
_VERIFIED: Final = ("run", 3)
_OPEN: Final = (*_VERIFIED, "accept", 0, 0, "accept", 1, 0, "run", 3)

TARGETS: Final[list[Target]] = [
    machine_target(
        "machine.hop",
        "two ends of a hop in memory, and events that no honest peer causes",
        HopMachine,
        OPERATIONS,
        [
            (*_OPEN, "send_frame", 0, 0, 1, 0, "write_stream", 0, 0, 1, 3, b"abc", 0, "run", 3),
            (*_OPEN, "write_stream", 1, 7, 1, 1, b"x", 1, "reset_stream", 0, 5, 9, "run", 3),
            (*_VERIFIED, "accept", 0, 0, "run", 3, "inject_many", 0, 1, 1, 20, "accept", 1, 0),
            (*_OPEN, "inject", 1, 3, 0, 4, 4, 1, 2, b"xx", 0, "close", 0, 0, "run", 3),
            (*_OPEN, "inject", 0, 0, 5, 0, 1, "inject", 0, 1, 0, 0, 9, 1, "run", 3, "wait", 3),
        ],
        bytes_max=300,
    ),
]
