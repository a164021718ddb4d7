"""A sidecar's router and byte streams, between honest agents and a hostile gateway."""

from typing import Final

from sidelink import wire

from channel import (
    ChannelState,
    ChannelStateError,
)
from identity import AgentUri, Code, NamePrefix
from link import Credit, FrameKind, PrefixEpoch
from link.messages import (
    encode_credit,
    encode_prefix_epoch,
    encode_restarting,
)
from sidecar.envelope import Ask, Envelope, Reject, Reply, Tell, TellRun, encode_batch
from tests.fuzz.machines import machine_target
from tests.fuzz.program import Program
from tests.fuzz.sidecar_machine import LINKS, SidecarMachine
from tests.fuzz.sidecar_people import QuickPuppet
from tests.fuzz.sidecar_ways import (
    announce,
    hurry,
    meet,
    mention,
    move,
    part,
    reset_stream,
    say_directly,
    talk,
    write_stream,
)
from tests.fuzz.target import Target

NUMBERS: Final = (-1, 0, 1, 2, 3, 4, 5, 1 << 62)
WAITS_S: Final = (0.1, 1.0, 6.0, 11.0, 40.0, 90_000.0)


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


def stop(machine: SidecarMachine, program: Program) -> None:
    """The sidecar finishes what it has, and takes no new channel."""
    machine.sidecar.do(machine.router.drain)


def wait(machine: SidecarMachine, program: Program) -> None:
    machine.pass_time(program.choose(WAITS_S))


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
    move,
    mention,
    meet,
    say_directly,
    part,
    hurry,
    stop,
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
            ("hurry", 0, *_CONNECTED, "connect", 1, 0, 0, "lose_hop", 1, "hurry", 1, *_CONNECTED),
            ("talk", 1, "respond", 1, 0, "wait", 1, "talk", 3, "talk", 4, "wait", 3),
            (*_CONNECTED, *_say(0, kind=0), "move", 0, 0, 1, *_say(0, kind=1), "mention", 0, 1),
            (*_CONNECTED, "lose_hop", 1, "wait", 1, "move", 0, 0, 0, *_say(0, kind=0)),
            (*_CONNECTED, "move", 0, 255, 1, "mention", 0, 0, 9, "mention", 0, 2, "wait", 2),
            (*_CONNECTED, "mention", 0, 0, 9, "meet", 1, "say_directly", 0, 11, 0, 0, 1, "part", 0),
            (
                *_CONNECTED,
                "mention",
                0,
                0,
                9,
                "wait",
                1,
                "meet",
                0,
                "meet",
                2,
                "say_directly",
                0,
                2,
            ),
            (*_CONNECTED, *_say(0, kind=1), "stop", "connect", 1, 0, 0, "wait", 0, "wait", 1),
            (*_CONNECTED, "hold_credit", 0, 0, "tell_run", 0, 0, 1, 3, 3, "end_channel", 0, 1),
            (*_CONNECTED, "listen", 0, 2, *_say(0, kind=4), "listen", 0, 0, "frame", 4, 0, 1),
        ],
        in_loop=True,
        bytes_max=400,
    ),
]
