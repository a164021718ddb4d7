"""A sidecar's router and byte streams, between honest agents and a hostile gateway."""

import asyncio
from typing import Any, Final

from sidelink import wire

from channel import (
    ChannelState,
    ChannelStateError,
    Role,
    StreamOpen,
    StreamSecret,
    StreamSession,
    encode_stream_open,
)
from identity import AgentUri, Code, NamePrefix
from link import Credit, FrameKind, PrefixEpoch, StreamPreamble
from link.messages import (
    encode_credit,
    encode_prefix_epoch,
    encode_restarting,
    encode_stream_preamble,
)
from policy import Action
from sidecar.conversation import ANSWER_BYTES_WAITING_MAX
from sidecar.envelope import Ask, Envelope, Reject, Reply, Tell, TellRun, encode_batch
from sidecar.streams import EARLY_BYTES_MAX
from tests.fuzz.loops import VirtualLoop
from tests.fuzz.machines import machine_target
from tests.fuzz.program import Program
from tests.fuzz.sidecar_people import ECHO, REMOTES, FuzzedSidecar, QuickPuppet
from tests.fuzz.target import Target

LINKS: Final = (0, 1, 2, 5, 1 << 31, 1 << 31 | 1, 1 << 31 | 2, 1 << 31 | 9)
SIZES: Final = (0, 1, 200, 40_000)
NUMBERS: Final = (-1, 0, 1, 2, 3, 4, 5, 1 << 62)
WAITS_S: Final = (0.1, 1.0, 6.0, 11.0, 40.0, 90_000.0)
STREAMS: Final = (1, 5, 9, 13)
MORE_THAN_ANY_WAIT_S: Final = 400.0


class SidecarMachine(FuzzedSidecar):
    """Three remote agents, each with the last channel that it had."""

    def __init__(self) -> None:
        super().__init__()
        self.puppets = [QuickPuppet(self, name) for name in REMOTES]
        self.uris = [puppet.uri for puppet in self.puppets]
        self.stream_ends: dict[int, StreamSession] = {}
        self.requests: set[tuple[int, int]] = set()
        self.tasks: list[asyncio.Task[None]] = []
        self.number = 0
        self.seen: dict[int, int] = {}

    def use_loop(self, loop: VirtualLoop) -> None:
        super().use_loop(loop)
        for session in self.sessions:
            session.listen()

    def new_body(self, program: Program) -> bytes:
        """No two bodies are the same, so that each is known again."""
        self.number += 1
        return self.number.to_bytes(4, "big") + bytes(program.choose(SIZES))

    def check(self) -> None:
        if self.hop is not None and self.hop.closed is not None:
            self.lose_hop()
        channels = self.router.channels
        slots = list(channels._slots.values())
        assert channels._unverified == sum(not s.initiator and not s.verified for s in slots)
        assert sum(channels._of_node.values()) == sum(not slot.initiator for slot in slots)
        for slot in slots:
            assert not slot.dead
            assert slot.links.waiting_bytes <= ANSWER_BYTES_WAITING_MAX + (4 << 20)
        for session in self.sessions:
            mailbox = session.agent.mailbox
            assert mailbox.held_bytes == sum(waiting.held_bytes for waiting in mailbox)
            self._check_delivered(session)
        for early in self.streams._early.values():
            assert len(early.data) <= EARLY_BYTES_MAX
        assert len(self.streams._streams) == len(self.streams._by_link)
        assert self.echoed <= len(self.sidecar.decisions.permits(Action.STREAM_OPEN))

    def _check_delivered(self, session: Any) -> None:
        """Who is named as sender has proved that name, was permitted, and has said this."""
        new = [
            frame
            for frame in session.frames[self.seen.get(id(session), 0) :]
            if isinstance(frame, wire.Deliver)
        ]
        self.seen[id(session)] = len(session.frames)
        if not new:
            return
        said = {puppet.uri: puppet.said for puppet in self.puppets}
        permitted = {
            pair
            for action in (Action.MESSAGE_TELL, Action.MESSAGE_ASK)
            for pair in self.sidecar.decisions.permits(action)
        }
        for frame in new:
            assert (frame.sender, session.uri) in permitted, "delivered without a permit"
            assert frame.body in said.get(frame.sender, {frame.body}), "nobody sent this"

    def finish(self) -> None:
        """Every request is answered once; nothing is kept for a hop that is gone."""
        self.lose_hop()
        self.pass_time(MORE_THAN_ANY_WAIT_S)
        channels, streams = self.router.channels, self.streams
        assert len(channels) == 0
        tables: list[Any] = [channels._hops, channels._ids, channels._last_link, channels._of_node]
        tables += [channels._unverified_of_node, channels._unverified, streams._early]
        tables += [streams._streams, streams._by_link, streams._expected, streams._ending]
        tables += [self.router.outbound._of_slot, streams._next_number]
        assert not any(tables)
        for session in self.sessions:
            answered = [f.request for f in session.frames if getattr(f, "request", 0)]
            assert len(answered) == len(set(answered)), "answered twice"
            missing = {number for handle, number in self.requests if handle == id(session)}
            assert missing <= set(answered), "a request without an answer"

    def puppet(self, program: Program) -> QuickPuppet:
        return program.choose(self.puppets)


def connect(machine: SidecarMachine, program: Program) -> None:
    """A remote agent opens a channel to one of ours, or to somebody who is not here."""
    puppet = machine.puppet(program)
    to = program.choose((machine.alice.uri, machine.carol.uri, "agent://acme/alpha/nobody"))
    claimed = program.choose((puppet.uri, puppet.uri, puppet.uri, "agent://acme/beta/else"))
    if machine.hop is not None:
        puppet.connect(to, source=AgentUri.parse(claimed))


def respond(machine: SidecarMachine, program: Program) -> None:
    """A remote agent answers the link that the sidecar has opened last."""
    puppet = machine.puppet(program)
    accepts = program.below(4) != 3
    if machine.hop is not None and machine.opened_links():
        puppet.respond(accepts=accepts)


def say(machine: SidecarMachine, program: Program) -> None:
    puppet = machine.puppet(program)
    body = machine.new_body(program)
    puppet.said.add(body)
    number = program.choose(NUMBERS)
    envelopes: tuple[Envelope, ...] = (
        Tell(number, body, "text/plain"),
        Ask(number, body, "", program.choose((0, 1_000, 30_000))),
        Reply(number, body, ""),
        Reject(number, program.number(2), "a rule", "a reason"),
        TellRun(number, [body] * (1 + program.below(4)), ""),
    )
    _say_bytes(puppet, encode_batch([program.choose(envelopes)]))


def say_garbage(machine: SidecarMachine, program: Program) -> None:
    _say_bytes(machine.puppet(program), program.blob())


def _say_bytes(puppet: QuickPuppet, data: bytes) -> None:
    if puppet.channel is None:
        return
    try:
        puppet.say_bytes(data)
    except ChannelStateError:
        return


def end_channel(machine: SidecarMachine, program: Program) -> None:
    puppet = machine.puppet(program)
    if puppet.channel is None:
        return
    if program.below(2):
        puppet.channel.close()
    elif puppet.channel.state is ChannelState.OPEN:
        puppet.channel.deny(Code.POLICY_DENIED, "their rule", "their reason")
    puppet.exchange()


def hold_credit(machine: SidecarMachine, program: Program) -> None:
    machine.puppet(program).takes_credit = bool(program.below(2))


def frame(machine: SidecarMachine, program: Program) -> None:
    """Whatever a gateway may send."""
    kind = program.choose(tuple(FrameKind))
    body = program.choose((program.blob(), bytes(14), bytes(60_000)))
    machine.receive((program.choose(LINKS), kind, body))


def grant(machine: SidecarMachine, program: Program) -> None:
    credit = Credit(program.below(4), program.choose((0, 1 << 18, 1 << 20, 1 << 40)))
    machine.receive((program.choose(LINKS), FrameKind.CREDIT, encode_credit(credit)))


def control(machine: SidecarMachine, program: Program) -> None:
    """What a gateway tells of prefixes and of its own end."""
    prefix = NamePrefix.parse(program.choose(("agent://acme/alpha", "agent://acme/beta")))
    told = encode_prefix_epoch(PrefixEpoch(prefix, program.byte()))
    kind, body = program.choose(
        (
            (FrameKind.REGISTERED, told),
            (FrameKind.DISPLACED, told),
            (FrameKind.RESTARTING, encode_restarting(100)),
            (FrameKind.REGISTERED, program.blob()),
        )
    )
    machine.receive((0, kind, body))


def tell(machine: SidecarMachine, program: Program) -> None:
    _send(machine, program, wire.TELL)


def ask(machine: SidecarMachine, program: Program) -> None:
    _send(machine, program, wire.ASK)


def _send(machine: SidecarMachine, program: Program, kind: int) -> None:
    session = program.choose(machine.sessions)
    receivers = (*machine.uris, machine.carol.uri, "agent://acme/alpha/nobody", "nobody")
    to, body = program.choose(receivers), machine.new_body(program)
    wants_receipt = kind == wire.ASK or program.below(2) == 0
    if session.is_gone:
        return
    number = session.send(kind, to, body, receipt=wants_receipt, timeout_s=20.0)
    if wants_receipt:
        machine.requests.add((id(session), number))


def tell_run(machine: SidecarMachine, program: Program) -> None:
    session = program.choose(machine.sessions)
    bodies = [machine.new_body(program) for _ in range(1 + program.below(4))]
    run = wire.TellRun(session.agent.handle, program.choose(machine.uris), "", bodies)
    if not session.is_gone:
        machine.sidecar.do(lambda: machine.router.send_run(session.agent, session, run))


def answer(machine: SidecarMachine, program: Program) -> None:
    session = program.choose(machine.sessions)
    delivery = program.byte()
    if program.below(2):
        session.answer(delivery, machine.new_body(program))
    else:
        session.refuse(delivery, "no")


def listen(machine: SidecarMachine, program: Program) -> None:
    session, router = program.choose(machine.sessions), machine.router
    match program.below(4):
        case 0:
            session.listen()
        case 1:
            router.hold(session.agent, session)
        case 2:
            machine.sidecar.do(lambda: router.unlisten(session.agent, session))
        case _:
            session.writable = not session.writable
            machine.sidecar.do(lambda: router.session_writable(session))


def lose_hop(machine: SidecarMachine, program: Program) -> None:
    machine.lose_hop()
    if program.below(4):
        machine.open_hop()


def wait(machine: SidecarMachine, program: Program) -> None:
    machine.pass_time(program.choose(WAITS_S))


def announce(machine: SidecarMachine, program: Program) -> None:
    """A remote agent tells of a stream; its bytes may be here already, or come, or not."""
    puppet = machine.puppet(program)
    number = program.choose((1, 3, 2, 4))
    service = program.choose((ECHO, "nothing"))
    stream = program.choose(STREAMS)
    channel = puppet.channel
    if channel is None:
        return
    secret, raw = StreamSecret.generate()
    try:
        payload = encode_stream_open(StreamOpen(number, service, raw))
        channel.open_stream(payload if program.below(8) else payload[:-1])
    except ChannelStateError:
        return
    session = StreamSession(
        Role.INITIATOR,
        secret,
        channel_hash=channel.handshake_hash,
        stream=number,
        service=service,
        opened_by_initiator=True,
    )
    preamble = encode_stream_preamble(StreamPreamble(puppet.link, number))
    first = preamble + session.write(program.blob())
    if program.below(2):
        puppet.exchange()
        _stream(machine, stream, first, ended=False)
    else:
        _stream(machine, stream, first, ended=False)
        puppet.exchange()
    machine.stream_ends[stream] = session


def write_stream(machine: SidecarMachine, program: Program) -> None:
    """Sealed data on a stream that was announced, or bytes of whatever kind."""
    stream = program.choose(STREAMS)
    end = machine.stream_ends.get(stream)
    data = program.blob()
    preamble = encode_stream_preamble(StreamPreamble(program.choose(LINKS), program.below(4)))
    if end is not None and program.below(4):
        try:
            data = end.finish() if program.below(4) == 0 else end.write(data)
        except ChannelStateError:
            return
    else:
        data = program.choose((data, preamble, preamble[:4], preamble + data, bytes(70_000)))
    _stream(machine, stream, data, ended=program.below(4) == 0)


def reset_stream(machine: SidecarMachine, program: Program) -> None:
    stream, code = program.choose(STREAMS), program.number(2)
    machine.stream_ends.pop(stream, None)
    if machine.hop is not None and stream not in machine.hop.resets:
        machine.hop.resets.add(stream)
        machine.streams.stream_reset(machine.hop, stream, code)


def _stream(machine: SidecarMachine, stream: int, data: bytes, *, ended: bool) -> None:
    """As a hop hands it over: nothing behind a reset or an end, from either side."""
    if machine.hop is None or stream in machine.hop.resets:
        return
    if ended:
        machine.hop.resets.add(stream)
    machine.streams.stream_received(machine.hop, stream, data, ended)


def talk(machine: SidecarMachine, program: Program) -> None:
    """One of our agents opens a stream to somebody."""
    to = program.choose((*machine.uris, machine.alice.uri, "agent://acme/alpha/nobody"))
    machine.tasks.append(machine.loop.create_task(machine.talk(AgentUri.parse(to), b"hello")))


OPERATIONS: Final = (
    connect,
    respond,
    say,
    say_garbage,
    end_channel,
    hold_credit,
    frame,
    grant,
    control,
    tell,
    ask,
    tell_run,
    answer,
    listen,
    lose_hop,
    wait,
    announce,
    write_stream,
    reset_stream,
    talk,
)
_CONNECTED: Final = ("connect", 0, 0, 0)


def _say(puppet: int, *, kind: int, number: int = 0) -> tuple[str | bytes | int, ...]:
    """A tell, ask, reply, rejection or run, with one of NUMBERS."""
    code = int(Code.MESSAGE_MAILBOX_FULL).to_bytes(2, "big")
    return ("say", puppet, 1, number, 2, code, 1, kind)


TARGETS: Final[list[Target]] = [
    machine_target(
        "machine.sidecar",
        "a sidecar between its agents and a hostile gateway",
        SidecarMachine,
        OPERATIONS,
        [
            (*_CONNECTED, *_say(0, kind=1), *_say(0, kind=0), "answer", 0, 1, 1, 1),
            ("tell", 0, 1, 1, 0, "ask", 0, 1, 1, "respond", 1, 0, *_say(1, kind=3, number=6)),
            ("ask", 1, 0, 1, "respond", 0, 0, *_say(0, kind=3, number=4), *_say(0, kind=2)),
            (*_CONNECTED, "announce", 0, 0, 0, 0, 1, 3, b"abc", 1, "write_stream", 0, 1, 7, 0),
            ("control", 0, 1, 0, "control", 0, 1, 2, "tell", 0, 0, 1, 0, "lose_hop", 1, "wait", 3),
            ("talk", 1, "respond", 1, 0, "wait", 1, "talk", 3, "talk", 4, "wait", 3),
            (*_CONNECTED, "hold_credit", 0, 0, "tell_run", 0, 0, 1, 3, 3, "end_channel", 0, 1),
            (*_CONNECTED, "listen", 0, 2, *_say(0, kind=4), "listen", 0, 0, "frame", 4, 0, 1),
        ],
        in_loop=True,
        bytes_max=400,
    ),
]
