"""A channel's two ends, and somebody between them who does as he likes with what they say."""

from typing import Final

from channel import (
    Channel,
    ChannelClosed,
    ChannelError,
    ChannelEvent,
    ChannelOpened,
    ChannelState,
    ChannelStateError,
    DataReceived,
    Part,
    PeerRenewed,
    PeerVerified,
    RekeyLimits,
    Role,
    Signal,
    StreamOpenReceived,
)
from channel.limits import (
    EARLY_BYTES_MAX,
    FRAME_BODY_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    NONCE_BYTES,
    RECORD_PLAINTEXT_BYTES_MAX,
    UNSENT_BYTES_MAX,
)
from channel.wire import encode_code
from identity import Code
from tests.channel.helpers import ALICE, BOB, MALLORY, FakePermit, Party, new_channel
from tests.fuzz.machines import machine_target
from tests.fuzz.program import Program
from tests.fuzz.target import Target

SIZES: Final = (0, 1, 100, RECORD_PLAINTEXT_BYTES_MAX, RECORD_PLAINTEXT_BYTES_MAX + 1, 200_000)
WAITS_S: Final = (0.0, 0.5, 4.9, 5.0, 3_600.0)
CODES: Final = (Code.CHANNEL_CLOSED, Code.POLICY_DENIED, Code.LOCAL_DRAINING, Code.ROUTE_UNKNOWN)
SEEN_MAX: Final = 64


class End:
    """One side: the channel, what it said and heard, and what its owner has done."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.events: list[ChannelEvent] = []
        self.said: list[bytes] = []
        self.has_permitted = False
        self.has_ended = False
        """By its owner, or by a fault that it found: then it may have said so under the seal."""

    def hear(self, events: list[ChannelEvent]) -> None:
        assert not (self.closed and events), "an event after the last one"
        for event in events:
            assert not self.closed, "ChannelClosed is not the last event"
            self.events.append(event)

    @property
    def closed(self) -> list[ChannelClosed]:
        return [event for event in self.events if isinstance(event, ChannelClosed)]

    @property
    def heard(self) -> list[bytes]:
        return [
            event.data if isinstance(event, DataReceived) else event.payload
            for event in self.events
            if isinstance(event, DataReceived | StreamOpenReceived)
        ]


class ChannelMachine:
    """Alice, who connects, Bob, who responds, and the one between."""

    def __init__(self) -> None:
        limits = RekeyLimits(records_max=6)
        self.ends = (
            End(new_channel(Role.INITIATOR, ALICE, limits=limits)),
            End(new_channel(Role.RESPONDER, BOB, limits=limits)),
        )
        self.waiting: tuple[list[tuple[Part, bytes]], ...] = ([], [])
        self.seen: list[tuple[Part, bytes]] = []
        self.asked: list[tuple[bytes, bytes]] = []
        self.now_s = 0.0

    @property
    def bob(self) -> End:
        return self.ends[1]

    def give(self, to: int, part: Part, body: bytes) -> None:
        end = self.ends[to]
        was_closed = end.channel.state is ChannelState.CLOSED
        end.hear(end.channel.receive(part, body, self.now_s))
        if end.channel.state is ChannelState.CLOSED and not was_closed:
            assert end.closed, "closed without a word"
            end.has_ended = end.has_ended or not end.closed[0].sealed

    def check(self) -> None:
        for number, end in enumerate(self.ends):
            said = end.channel.take_output()
            self.waiting[number].extend(said)
            self.seen.extend(said)
            del self.seen[:-SEEN_MAX]
            self._check_held(end.channel)
        for end, other in (self.ends, self.ends[::-1]):
            heard = end.heard
            assert heard == other.said[: len(heard)], "what was heard is not what was said"
            assert not any(one.sealed for one in end.closed) or other.has_ended
        assert self.bob.has_permitted or not self.bob.heard, "delivered before the permit"
        opened = [one for end in self.ends for one in end.events if isinstance(one, ChannelOpened)]
        assert not opened or self.bob.has_permitted, "open without a permit"
        assert all(isinstance(event, ChannelEvent) for end in self.ends for event in end.events)
        for end, proved in zip(self.ends, (BOB, ALICE), strict=True):
            for event in end.events:
                if isinstance(event, PeerVerified | PeerRenewed):
                    assert event.peer.identifier == proved.identifier, "the peer became another"
                    assert event.peer.name == proved.uri, "the peer took another name"

    def finish(self) -> None:
        """A channel that was closed holds nothing of what it knew."""
        for end in self.ends:
            end.channel.close()
            assert end.channel.state is ChannelState.CLOSED
            assert end.channel.deadline_s is None
            assert end.channel.receive(Part.RECORD, bytes(64), self.now_s) == []
            kept = (end.channel._session, end.channel._handshake, end.channel._mover)
            assert kept == (None, None, None)

    @staticmethod
    def _check_held(channel: Channel) -> None:
        assert channel._held_bytes <= EARLY_BYTES_MAX + FRAME_BODY_BYTES_MAX
        if channel._session is not None:
            outgoing, incoming = channel._session
            assert outgoing._early_left_bytes >= 0
            waiting_bytes = sum(len(fragment) for _, fragment, _ in outgoing._unsealed)
            assert outgoing.waiting_bytes == waiting_bytes <= UNSENT_BYTES_MAX
            assert outgoing.sent.held_bytes == sum(map(len, outgoing.sent._records))
            assert sum(map(len, incoming.message._fragments)) <= MESSAGE_BYTES_MAX


def pass_on(machine: ChannelMachine, program: Program) -> None:
    to = program.below(2)
    if machine.waiting[1 - to]:
        machine.give(to, *machine.waiting[1 - to].pop(0))


def pass_all(machine: ChannelMachine, program: Program) -> None:
    to = program.below(2)
    waiting = machine.waiting[1 - to]
    while waiting:
        machine.give(to, *waiting.pop(0))


def drop(machine: ChannelMachine, program: Program) -> None:
    del machine.waiting[program.below(2)][:1]


def double(machine: ChannelMachine, program: Program) -> None:
    waiting = machine.waiting[program.below(2)]
    waiting[:0] = waiting[:1]


def swap(machine: ChannelMachine, program: Program) -> None:
    waiting = machine.waiting[program.below(2)]
    waiting[:2] = waiting[:2][::-1]


def change(machine: ChannelMachine, program: Program) -> None:
    waiting = machine.waiting[program.below(2)]
    if waiting:
        part, body = waiting[0]
        at = program.number(2) % (len(body) + 1)
        waiting[0] = (part, body[:at] + program.blob() + body[at + program.below(4) :])


def cut(machine: ChannelMachine, program: Program) -> None:
    waiting = machine.waiting[program.below(2)]
    if waiting:
        part, body = waiting[0]
        waiting[0] = (part, body[: program.number(2) % (len(body) + 1)])


def replay(machine: ChannelMachine, program: Program) -> None:
    if machine.seen:
        machine.give(program.below(2), *machine.seen[program.byte() % len(machine.seen)])


def invent(machine: ChannelMachine, program: Program) -> None:
    machine.give(program.below(2), program.choose(tuple(Part)), program.blob())


def end_link(machine: ChannelMachine, program: Program) -> None:
    machine.give(program.below(2), Part.CLOSE, encode_code(program.choose(CODES)))


def wait(machine: ChannelMachine, program: Program) -> None:
    machine.now_s += program.choose(WAITS_S)
    for end in machine.ends:
        before = end.channel.state
        end.hear(end.channel.handle_deadline(machine.now_s))
        if before is not end.channel.state:
            end.has_ended = True


def send(machine: ChannelMachine, program: Program) -> None:
    end = machine.ends[program.below(2)]
    message = bytes([program.byte()]) * program.choose(SIZES)
    try:
        end.channel.send(message, machine.now_s)
    except ChannelStateError:
        return
    end.said.append(message)


def open_stream(machine: ChannelMachine, program: Program) -> None:
    end = machine.ends[program.below(2)]
    payload = program.blob()
    try:
        end.channel.open_stream(payload)
    except ChannelStateError:
        return
    end.said.append(payload)


def accept(machine: ChannelMachine, program: Program) -> None:
    """Bob's owner says yes: to Alice, or by mistake with a permit of somebody else."""
    bob = machine.bob
    verified = [event for event in bob.events if isinstance(event, PeerVerified)]
    party = program.choose((ALICE, ALICE, ALICE, MALLORY))
    action = program.choose(("channel.open", "channel.open", "channel.open", "link.relay"))
    try:
        events = bob.channel.accept(FakePermit(party.identifier, action))
    except ChannelStateError:
        return
    assert verified, "accepted before anybody was proved"
    assert (party, action) == (ALICE, "channel.open"), "accepted with a wrong permit"
    bob.has_permitted = True
    bob.hear(events)


def move(machine: ChannelMachine, program: Program) -> None:
    """One side asks to go on over another link; what is said of that is lost, changed or old."""
    asker = program.below(2)
    ends = machine.ends[asker], machine.ends[1 - asker]
    nonce = bytes([program.below(2)]) * NONCE_BYTES
    try:
        asked = ends[0].channel.ask_to_move(nonce)
    except ChannelStateError:
        return
    machine.asked.append((asked, nonce))
    asked, nonce = program.choose(((asked, nonce), (asked, nonce), machine.asked[0]))
    try:
        answer = ends[1].channel.answer_move_untrusted(_flipped(asked, program), nonce)
    except (ChannelError, ChannelStateError):
        return
    # What was under way on the link that was left never arrives.
    machine.waiting[1 - asker].clear()
    try:
        ends[0].channel.finish_move_untrusted(_flipped(answer, program))
    except ChannelError:
        return
    machine.waiting[asker].clear()


def _flipped(message: bytes, program: Program) -> bytes:
    """Mostly as it is."""
    at = program.byte()
    if at < 192:
        return message
    changed = bytearray(message)
    changed[at % len(changed)] ^= 1 + program.below(255)
    return bytes(changed[: len(changed) - program.below(2)])


def mention(machine: ChannelMachine, program: Program) -> None:
    """Addresses, a signal, or haste."""
    channel = machine.ends[program.below(2)].channel
    kind = program.below(4)
    try:
        if kind == 0:
            channel.tell_addresses((("gw.acme.example", 1 + program.byte()),))
        elif kind < 3:
            channel.signal(program.choose(tuple(Signal)))
        elif channel.state is ChannelState.OPEN:
            channel.hurry_acknowledgements()
    except ChannelStateError:
        return


def renew(machine: ChannelMachine, program: Program) -> None:
    """One side shows a proof anew: its own, another's, one of another name, or no proof."""
    number = program.below(2)
    own = (ALICE, BOB)[number]
    other = Party("mallory", own.key)
    proofs = (own.proof, own.proof, MALLORY.proof, other.proof, program.blob())
    try:
        machine.ends[number].channel.renew(program.choose(proofs))
    except ChannelStateError:
        return


def deny(machine: ChannelMachine, program: Program) -> None:
    end = machine.ends[program.below(2)]
    try:
        end.channel.deny(program.choose(CODES), "a rule", "r" * program.byte() * 9)
    except ChannelStateError:
        return
    end.has_ended = True


def close(machine: ChannelMachine, program: Program) -> None:
    end = machine.ends[program.below(2)]
    end.channel.close(program.choose(CODES))
    end.has_ended = True


OPERATIONS: Final = (
    pass_on,
    pass_all,
    drop,
    double,
    swap,
    change,
    cut,
    replay,
    invent,
    end_link,
    wait,
    send,
    open_stream,
    accept,
    deny,
    close,
    move,
    mention,
    renew,
)
_VERIFIED: Final = ("pass_all", 1, "pass_all", 0, "pass_all", 1)
_OPEN: Final = (*_VERIFIED, "accept", 0, 0, "pass_all", 0)
_MOVE_0: Final = ("move", 0, 0, 0, 0, 0)
_MOVE_1: Final = ("move", 1, 1, 0, 0, 0)
_SAY: Final = ("send", 0, 65, 2, "send", 1, 66, 4, "pass_all", 0, "pass_all", 1)

TARGETS: Final[list[Target]] = [
    machine_target(
        "machine.channel",
        "two ends of a channel and somebody between them",
        ChannelMachine,
        OPERATIONS,
        [
            (*_OPEN, *_SAY, *_SAY, *_SAY, "close", 0, 0, "pass_all", 1),
            (*_VERIFIED, *_SAY, "accept", 0, 0, "pass_all", 0, "deny", 1, 1, 9, "pass_all", 0),
            (*_VERIFIED, "send", 0, 1, 5, "send", 0, 2, 5, "accept", 0, 0, "pass_all", 0),
            (*_OPEN, "send", 0, 1, 2, "double", 0, "swap", 0, "pass_all", 1, "wait", 4),
            (*_OPEN, "send", 0, 1, 2, "change", 0, 0, 9, 1, 7, 1, "pass_all", 1, "replay", 1, 3),
            (
                *_OPEN,
                *_SAY,
                "send",
                0,
                67,
                2,
                "pass_on",
                1,
                *_MOVE_0,
                "pass_all",
                1,
                *_MOVE_1,
                *_SAY,
            ),
            (*_OPEN, "mention", 0, 0, 9, "mention", 1, 1, "mention", 0, 3, *_SAY, "wait", 1, *_SAY),
            (*_OPEN, "open_stream", 0, 3, b"abc", "pass_all", 1, "end_link", 1, 3),
            (*_OPEN, "renew", 0, 0, 0, "renew", 1, 0, 1, *_SAY, "renew", 0, 0, 3, "pass_all", 1),
        ],
    ),
]
