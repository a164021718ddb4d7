"""What may happen to the way of a channel (moves, mentions, direct hops), and to byte streams."""

from typing import Final

from channel import (
    ChannelError,
    ChannelState,
    ChannelStateError,
    Role,
    Signal,
    StreamOpen,
    StreamSecret,
    StreamSession,
    encode_stream_open,
)
from identity import AgentUri
from link import Frame, FrameKind, StreamPreamble
from link.messages import (
    encode_restarting,
    encode_stream_preamble,
)
from tests.fuzz.program import Program
from tests.fuzz.sidecar_machine import LINKS, SidecarMachine
from tests.fuzz.sidecar_people import ECHO
from tests.simulation.people import node

STREAMS: Final = (1, 5, 9, 13)
CHANGED_FROM: Final = 192


def move(machine: SidecarMachine, program: Program) -> None:
    """A channel goes on over another link: at the peer's wish, or in answer to the sidecar's."""
    puppet = machine.puppet(program)
    at = program.byte()

    def change(message: bytes) -> bytes:
        changed = bytearray(message)
        if at >= CHANGED_FROM:
            changed[at % len(changed)] ^= 1
        return bytes(changed)

    if puppet.channel is None or machine.hop is None or puppet.channel.state.name != "OPEN":
        return
    try:
        if program.below(2):
            puppet.ask_to_move(change)
        else:
            puppet.answer_move(change)
    except ChannelError:
        return


def mention(machine: SidecarMachine, program: Program) -> None:
    """Addresses, or a signal: it rests, wakes or leaves."""
    puppet = machine.puppet(program)
    if puppet.channel is None or puppet.channel.state is not ChannelState.OPEN:
        return
    if program.below(3):
        puppet.channel.signal(program.choose(tuple(Signal)))
    else:
        puppet.channel.tell_addresses((("127.0.0.1", 1 + program.byte()),))
    puppet.exchange()


def meet(machine: SidecarMachine, program: Program) -> None:
    """Another sidecar comes, is found by one of our dials, or is a stranger."""
    kind = program.below(3)
    if kind == 0 and machine.dialled:
        hop = machine.dialled.pop(0)
    else:
        name = "beta" if kind < 2 else "gamma"
        hop = machine.new_direct_hop(is_dialler=False, name=name)
    if hop.closed is not None:
        return
    machine.direct.hop_verified(hop)  # type: ignore[arg-type]
    if not hop.has_accepted:
        assert hop.closed is not None
        return
    assert hop.peer.identifier == node("beta").own.identifier, "one who was told nothing is let in"
    machine.direct_hops.append(hop)
    machine.direct.hop_opened(hop)  # type: ignore[arg-type]
    machine.sidecar.look()


def say_directly(machine: SidecarMachine, program: Program) -> None:
    """Whatever another sidecar may send on its hop."""
    if machine.direct_hops:
        hop = program.choose(machine.direct_hops[:4])
        kind = program.choose(tuple(FrameKind))
        link = program.choose(LINKS)
        body = program.choose((program.blob(), encode_restarting(100), bytes(14)))
        machine.direct.frames_received(hop, [Frame(link, kind, body)])  # type: ignore[arg-type]


def part(machine: SidecarMachine, program: Program) -> None:
    if machine.direct_hops:
        machine.lose_direct_hop(program.choose(machine.direct_hops[:4]))


def hurry(machine: SidecarMachine, program: Program) -> None:
    """From here on no time passes between what comes and the next, or some does again."""
    machine.is_patient = bool(program.below(2))


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
