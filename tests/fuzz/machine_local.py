"""The local API: processes on one socket that send whatever they like, and the router behind it."""

import os
from collections import Counter
from pathlib import Path
from typing import Any, Final

from sidelink import wire
from sidelink.errors import WireError

from identity import Code
from node.clocks import ManualClock
from sidecar.local_access import LocalAccess
from sidecar.local_port import PeerCredentials
from sidecar.local_router import RouterPort
from sidecar.local_session import LocalLimits, Session
from sidecar.tokens import TOKEN_SECONDS_MAX, TokenBook
from tests.fuzz.machines import machine_target
from tests.fuzz.program import Program
from tests.fuzz.sidecar_people import FuzzedSidecar
from tests.fuzz.target import Target

CONNECTIONS_MAX: Final = 3
NAMES: Final = ("alpha/alice", "alpha/carol", "beta/bob", "no name", "", "alpha")
RECEIVERS: Final = (
    "agent://acme/alpha/alice",
    "agent://acme/alpha/carol",
    "agent://acme/alpha/nobody",
    "agent://acme/beta/bob",
    "nobody",
)
SPAWNERS: Final = ("alpha/alice", "alpha/alice/x", "alpha/alice/x/x")
TOKEN_AGENT: Final = "agent://acme/alpha/alice"
ATTRIBUTES: Final[tuple[Any, ...]] = ({}, {}, {"role": "planner"}, {"clearance": 3}, {"name": "x"})
SIZES: Final = (0, 1, 100, 60_000, wire.MESSAGE_BYTES_MAX, wire.MESSAGE_BYTES_MAX + 1)


class Pipe:
    """Stands for a connection's transport: keeps what was written, and its state."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.is_aborted = False
        self.is_reading = True

    def set_write_buffer_limits(self, high: int, low: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        assert not self.is_aborted
        self.written += data

    def write_eof(self) -> None: ...

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def abort(self) -> None:
        self.is_aborted = True


class Process:
    """One agent process: its connection, and what it was told on it."""

    def __init__(self, home: Any, *, is_vouched: bool = True) -> None:
        self.pipe: Any = Pipe()
        self.session = Session(home, is_vouched=is_vouched)
        self.is_vouched = is_vouched
        self.token: str | None = None
        self.reader = wire.server_frame_reader()
        self.own = wire.client_frame_reader()
        self.opened: dict[int, str] = {}
        self.asked: Counter[int] = Counter()
        self.answered: Counter[int] = Counter()
        self.has_goodbye = False
        self.has_welcome = False
        self.session.connection_made(self.pipe)

    def say(self, data: bytes) -> None:
        """Write bytes; what they ask for is read here as well, so that answers can be counted."""
        try:
            for frame in self.own.feed_untrusted(data):
                self.asked[getattr(frame, "request", 0)] += 1
                if isinstance(frame, wire.CloseAgent):
                    self.opened.pop(frame.agent, None)
        except WireError:
            self.own = wire.client_frame_reader()
        self.session.data_received(data)

    def hear(self) -> None:
        """Everything written since the last look is well formed, in order and its own affair."""
        data = bytes(self.pipe.written)
        self.pipe.written.clear()
        for frame in self.reader.feed_untrusted(data):
            assert not self.has_goodbye, "something behind the Goodbye"
            if isinstance(frame, wire.Goodbye):
                self.has_goodbye = True
                continue
            assert self.has_welcome or isinstance(frame, wire.Welcome)
            self._hear(frame)

    def _hear(self, frame: wire.ServerFrame) -> None:
        match frame:
            case wire.Welcome():
                assert not self.has_welcome
                assert self.is_vouched or self.token, "nobody is let in by nothing"
                self.has_welcome = True
            case wire.Opened():
                own = frame.uri == TOKEN_AGENT or frame.uri.startswith(f"{TOKEN_AGENT}/")
                assert own or not self.token, "an agent that is not its own"
                self.opened[frame.agent] = frame.uri
                self.answered[frame.request] += 1
            case wire.Receipt() | wire.Failed() | wire.Reply():
                self.answered[frame.request] += 1
            case wire.Deliver() | wire.DeliverRun():
                assert frame.agent in self.opened, "a message for somebody else's agent"


class Home:
    """Fits SessionHome: what a listener is to its sessions."""

    def __init__(self, router: RouterPort) -> None:
        self.router = router
        self.limits = LocalLimits(agents_per_connection_max=2)
        self.tokens = TokenBook(Path(":memory:"))
        self.token, _ = self.tokens.create(["alpha/alice"], unix_s=0, lifetime_s=TOKEN_SECONDS_MAX)
        self.access = LocalAccess(tokens=self.tokens, clock=ManualClock(unix=1))
        self.strangers: set[Session] = set()
        self.peer_credentials = lambda _: PeerCredentials(1, os.geteuid(), 0)
        self.sessions: set[Session] = set()
        self.goodbyes: Counter[Code] = Counter()

    @property
    def has_room(self) -> bool:
        return True

    def stranger_came(self, session: Session) -> None:
        self.strangers.add(session)

    def stranger_proved(self, session: Session) -> bool:
        self.strangers.discard(session)
        return True

    def session_gone(self, session: Session) -> None:
        self.sessions.discard(session)
        self.strangers.discard(session)


class LocalMachine(FuzzedSidecar):
    """The sidecar has no hop: its agents have each other."""

    def __init__(self) -> None:
        super().__init__()
        self.lose_hop()
        for agent in (self.alice, self.carol):
            agent.leave()
        self.router_port = RouterPort(self.sidecar.router, "agent://acme/alpha", self.sidecar.look)
        self.sidecar.router.standing.on_agent_gone.append(self.router_port.end_agent)
        self.home = Home(self.router_port)
        self.processes: list[Process] = []

    def check(self) -> None:
        for process in self.processes:
            process.hear()
            for request, count in process.answered.items():
                if request:
                    assert count <= process.asked[request], "answered more often than asked"
        port = self.router_port
        for agent in self.sidecar.router.agents.awake_agents():
            holders = sum(agent.handle in mine for mine in port._agents.values())
            assert agent.users == holders
            mailbox = agent.mailbox
            assert mailbox.held_bytes == sum(waiting.held_bytes for waiting in mailbox)

    def finish(self) -> None:
        """When all processes are gone nothing is kept for them."""
        for process in list(self.processes):
            self.end(process)
        self.check()
        deliveries = self.sidecar.router.deliveries
        tables: list[Any] = [
            self.home.sessions,
            self.home.strangers,
            self.router_port._agents,
            deliveries._listeners,
        ]
        tables += [deliveries._agents, deliveries._held, deliveries._leases]
        assert not any(tables)
        self.home.tokens.close()

    def end(self, process: Process) -> None:
        self.processes.remove(process)
        process.session.connection_lost(None)

    def choose(self, program: Program) -> Process | None:
        number = program.byte()
        return self.processes[number % len(self.processes)] if self.processes else None


def begin(machine: LocalMachine, program: Program) -> None:
    if len(machine.processes) < CONNECTIONS_MAX:
        kind = program.below(8)
        machine.processes.append(Process(machine.home, is_vouched=kind < 4))
        if kind % 4:
            _send(machine.processes[-1], wire.Hello(1))


def greet(machine: LocalMachine, program: Program) -> None:
    if process := machine.choose(program):
        version = program.below(3)
        token = program.choose((None, "a token", machine.home.token))
        if not process.has_welcome:
            process.token = token
        _send(process, wire.Hello(version, token))


def open_agent(machine: LocalMachine, program: Program) -> None:
    if process := machine.choose(program):
        request = program.below(5)
        _send(process, wire.OpenAgent(request, program.choose(NAMES), program.choose(ATTRIBUTES)))


def spawn_agent(machine: LocalMachine, program: Program) -> None:
    if process := machine.choose(program):
        request, parent = program.below(5), program.choose((*SPAWNERS, *NAMES))
        name, attributes = program.choose(("x", "", "a/b")), program.choose(ATTRIBUTES)
        ttl_s = program.choose((0, 1, 3, 3600, 2**24))
        _send(process, wire.SpawnAgent(request, parent, name, attributes, ttl_s))


def close_agent(machine: LocalMachine, program: Program) -> None:
    if process := machine.choose(program):
        request, agent = program.below(5), program.below(4)
        _send(process, wire.CloseAgent(request, agent))


def send(machine: LocalMachine, program: Program) -> None:
    if process := machine.choose(program):
        request, agent, kind = program.below(9), program.below(4), program.below(2)
        to, body = program.choose(RECEIVERS), bytes(program.choose(SIZES))
        _send(process, wire.Send(request, agent, to, kind, body, "", 1_000))  # type: ignore[arg-type]


def tell_run(machine: LocalMachine, program: Program) -> None:
    if process := machine.choose(program):
        bodies = [bytes(program.choose(SIZES[:4])) for _ in range(1 + program.below(4))]
        _send(process, wire.TellRun(program.below(4), program.choose(RECEIVERS), "", bodies))


def listen(machine: LocalMachine, program: Program) -> None:
    if process := machine.choose(program):
        _send(process, wire.Listen(program.below(4), program.below(4) != 0))


def answer(machine: LocalMachine, program: Program) -> None:
    if process := machine.choose(program):
        agent, delivery = program.below(4), program.below(8)
        body = bytes(program.choose(SIZES))
        if program.below(2):
            _send(process, wire.Answer(agent, delivery, body, ""))
        else:
            _send(process, wire.Refuse(agent, delivery, "no"))


def flush(machine: LocalMachine, program: Program) -> None:
    if process := machine.choose(program):
        request = program.below(9)
        _send(process, wire.Flush(request, program.below(4)))


def say_anything(machine: LocalMachine, program: Program) -> None:
    """Bytes, a batch of half a frame, or one that is far too long."""
    if process := machine.choose(program):
        whole = wire.encode_batch([wire.Flush(1, 1)])
        data = program.choose((program.blob(), whole[:5], whole[5:], b"\0\x3f\xff\xff", bytes(9)))
        process.say(data)


def stop_reading(machine: LocalMachine, program: Program) -> None:
    if process := machine.choose(program):
        if program.below(2):
            process.session.pause_writing()
        else:
            process.session.resume_writing()


def leave(machine: LocalMachine, program: Program) -> None:
    if process := machine.choose(program):
        machine.end(process)


def drain(machine: LocalMachine, program: Program) -> None:
    """The sidecar stops: it says so, it says Goodbye, or the process leaves."""
    process, step = machine.choose(program), program.below(3)
    if process is None:
        return
    if step == 0:
        process.session.drain(100)
    elif step == 1:
        process.session.close(Code.LOCAL_DRAINING, 100)
    else:
        _send(process, wire.Leave())


def wait(machine: LocalMachine, program: Program) -> None:
    machine.pass_time(program.choose((0.1, 1.5, 6.0)))


def _send(process: Process, frame: wire.ClientFrame) -> None:
    process.say(wire.encode_batch([frame]))


OPERATIONS: Final = (
    begin,
    greet,
    open_agent,
    close_agent,
    send,
    tell_run,
    listen,
    answer,
    flush,
    say_anything,
    stop_reading,
    leave,
    drain,
    wait,
    spawn_agent,
)
_TWO: Final = (
    *("begin", 1, "begin", 1),
    *("open_agent", 0, 1, 0, 0, "open_agent", 1, 1, 1, 0),
    *("listen", 1, 2, 1, "listen", 0, 1, 1),
)
_SPAWN: Final = (*_TWO, "spawn_agent", 0, 1, 0, 0, 0, 2, "spawn_agent", 0, 2, 1, 0, 0, 0)
_BY_TOKEN: Final = (
    "begin",
    4,
    "greet",
    0,
    1,
    2,
    "open_agent",
    0,
    1,
    0,
    0,
    "open_agent",
    0,
    2,
    1,
    0,
)

TARGETS: Final[list[Target]] = [
    machine_target(
        "machine.local",
        "processes at the local API",
        LocalMachine,
        OPERATIONS,
        [
            (*_TWO, "send", 0, 2, 1, 1, 1, 2, "answer", 1, 2, 1, 2, 1, "tell_run", 0, 3, 0, 1, 2),
            (*_TWO, "send", 0, 0, 1, 0, 1, 4, "flush", 0, 3, 1, "stop_reading", 1, 1, "leave", 1),
            (*_TWO, "say_anything", 0, 0, 1, "say_anything", 0, 0, 2, "drain", 1, 1, "leave", 0),
            (*_TWO, "drain", 1, 0, "send", 0, 0, 1, 0, 1, 4, "drain", 1, 2, "drain", 1, 1),
            (*_SPAWN, "wait", 2, "spawn_agent", 0, 2, 2, 0, 0, 0, "leave", 0),
            (*_BY_TOKEN, "begin", 5, "begin", 4, "greet", 1, 1, 1, "greet", 2, 1, 0, "wait", 2),
            ("begin", 0, "greet", 0, 2, 0, "begin", 0, "greet", 1, 1, 1, "begin", 0, "wait", 2),
        ],
        in_loop=True,
        bytes_max=400,
    ),
]
