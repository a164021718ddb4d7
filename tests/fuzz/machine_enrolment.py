"""A node that enrols and its authority at the desk, and a gateway between that is up to no good."""

from types import SimpleNamespace
from typing import Any, Final

from authority.desk import CHANNELS_MAX, Desk, Reply
from channel import Channel, Part, Prologue
from identity import Code, Identifier, Purpose, SidelinkError, Ticket, VerifiedPeer
from link import Frame, FrameKind, HopPort, LinkOpen
from link.limits import ACCEPTOR_LINK_BIT
from link.messages import decode_link_open_untrusted, encode_code, encode_link_open
from node.clocks import ManualClock
from node.enrolment import ticket_exchange
from node.enrolment_wire import AnyRequest, EnrolGrant, EnrolRequest, encode_grant
from policy import Action, Denial, Party, Permit, Request
from tests.authority.helpers import FakeHop, OwnNodeOfAuthority
from tests.fuzz.loops import VirtualLoop
from tests.fuzz.machines import machine_target
from tests.fuzz.program import Program
from tests.fuzz.target import Target
from tests.simulation.people import authority, authority_node, engine, stranger, verifier_of

TICKET: Final = Ticket("acme", authority().identifier, (), b"c" * 16, 2_000_000_000)
GRANT: Final = EnrolGrant(b"credential", b"history", ())
AT_THE_DESK: Final = ACCEPTOR_LINK_BIT | 1
KINDS: Final = (
    FrameKind.LINK_ACCEPT,
    FrameKind.LINK_FINISH,
    FrameKind.RECORD,
    FrameKind.LINK_CLOSE,
    FrameKind.CREDIT,
    FrameKind.LINK_OPEN,
)
_VERIFIED: dict[tuple[Identifier, bytes, bytes], VerifiedPeer] = {}


def verify(own: Identifier, unix_s: float, proof: bytes, noise_key: bytes) -> VerifiedPeer:
    """Each proof once in the life of the process: no clock here runs for as long as they last."""
    key = (own, proof, noise_key)
    if key not in _VERIFIED:
        _VERIFIED[key] = verifier_of(own).verify(
            proof, purpose=Purpose.CHANNEL, noise_key=noise_key, unix_s=unix_s
        )
    return _VERIFIED[key]


class EnrolmentMachine:
    """Frames of the one link between them, each way, as the gateway has them."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.near, self.far = FakeHop(), FakeHop()
        self.enrolled: list[EnrolRequest] = []
        self.refuses = False
        self.denies = False
        own: Any = OwnNodeOfAuthority(self.clock)
        own.verify_channel = lambda proof, key: verify(
            own.identifier, self.clock.unix_s(), proof, key
        )
        self.desk = Desk(own, self._may_enrol, self._answer, self.clock)
        self.desk.hop_opened(self.far)  # type: ignore[arg-type]
        self.exchange: Any = None
        self.to_desk: list[Frame] = []
        self.to_node: list[Frame] = []
        self.links = 0

    def use_loop(self, loop: VirtualLoop) -> None:
        own = stranger().own
        node: Any = SimpleNamespace(
            own=own,
            identifier=own.identifier,
            channel_key=own.purpose_keys[Purpose.CHANNEL].key,
            channel_proof=own.proof(Purpose.CHANNEL),
            verify_channel=lambda proof, key: verify(
                own.identifier, self.clock.unix_s(), proof, key
            ),
        )
        hop: Any = self.near
        self.exchange = ticket_exchange(node, TICKET, hop, self.clock)
        [opening] = self.near.sent
        self.opening = decode_link_open_untrusted(opening.body)

    def _may_enrol(self, peer: VerifiedPeer) -> Permit | Denial:
        if self.denies:
            return Denial(Code.POLICY_DENIED, "nobody today", "closed", "1", "1")
        asked = Request(
            Action.NODE_ENROL,
            Party.from_verified(peer.identity),
            Party.from_verified(authority_node().identity),
        )
        return engine().decide(asked, self.clock.unix_s())

    def _answer(self, request: AnyRequest, peer: VerifiedPeer, hop: HopPort, reply: Reply) -> None:
        assert peer.identifier == stranger().own.identifier
        assert isinstance(request, EnrolRequest), "a question that nobody asked"
        self.enrolled.append(request)
        if self.refuses:
            raise SidelinkError(Code.ENROL_TICKET_USED, "for the test")
        reply(encode_grant(GRANT))

    def check(self) -> None:
        for hop, frames in ((self.near, self.to_desk), (self.far, self.to_node)):
            frames += hop.sent
            hop.sent = []
        if self.far.closed is not None:
            self.far.closed = None
            self.desk.hop_closed(self.far)  # type: ignore[arg-type]
            assert self.desk.visits == 0
            self.desk.hop_opened(self.far)  # type: ignore[arg-type]
        assert self.desk.visits <= CHANNELS_MAX
        assert len(self.enrolled) <= self.links, "one channel asked twice"
        for request in self.enrolled:
            assert request.code == TICKET.code, "a question that nobody asked"
        answer = self.exchange._answer
        if answer.done() and answer.exception() is None:
            assert answer.result() == GRANT
            assert self.enrolled

    def finish(self) -> None:
        self.clock.advance(60.0)
        self.desk.tidy()
        assert self.desk.visits == 0, "a visit without an end"
        self.exchange.hop_closed(Code.HOP_PEER_LOST, "for the test")
        assert self.exchange._answer.done()
        self.exchange._answer.exception()

    def bring_to_desk(self, frame: Frame) -> None:
        """Under the number that the gateway gives the link there."""
        kind, body = frame.kind, frame.body
        link = AT_THE_DESK + 4 * max(0, self.links - 1)
        if kind == FrameKind.LINK_OPEN:
            link = AT_THE_DESK + 4 * self.links
            self.links += 1
        self.desk.frames_received(self.far, [Frame(link, kind, body)])  # type: ignore[arg-type]

    def bring_to_node(self, frame: Frame) -> None:
        self.exchange.frames_received([Frame(1, frame.kind, frame.body)])


def pass_on(machine: EnrolmentMachine, program: Program) -> None:
    if program.below(2):
        if machine.to_node:
            machine.bring_to_node(machine.to_node.pop(0))
    elif machine.to_desk:
        machine.bring_to_desk(machine.to_desk.pop(0))


def drop(machine: EnrolmentMachine, program: Program) -> None:
    del program.choose((machine.to_desk, machine.to_node))[:1]


def double(machine: EnrolmentMachine, program: Program) -> None:
    frames = program.choose((machine.to_desk, machine.to_node))
    frames[:0] = frames[:1]


def change(machine: EnrolmentMachine, program: Program) -> None:
    frames = program.choose((machine.to_desk, machine.to_node))
    if frames:
        link, kind, body = frames[0]
        at = program.number(2) % (len(body) + 1)
        changed = body[:at] + program.blob() + body[at + program.below(3) :]
        frames[0] = Frame(link, kind, changed)


def invent(machine: EnrolmentMachine, program: Program) -> None:
    kind, body = program.choose(KINDS), program.blob()
    if program.below(2):
        machine.bring_to_node(Frame(1, kind, body))
    else:
        machine.bring_to_desk(Frame(1, kind, body))


def redirect(machine: EnrolmentMachine, program: Program) -> None:
    """The opening goes to the desk with another target, source or number of versions."""
    if machine.to_desk and machine.to_desk[0].kind == FrameKind.LINK_OPEN:
        opening = machine.opening
        changed = LinkOpen(
            target=program.choose((opening.target, stranger().own.identifier)),
            source=opening.source,
            nonce=program.choose((opening.nonce, bytes(16))),
            source_node=program.choose((None, stranger().own.identifier)),
            noise_1=opening.noise_1,
            versions=program.choose((opening.versions, (1, 2), (2,))),
        )
        machine.to_desk[0] = Frame(1, FrameKind.LINK_OPEN, encode_link_open(changed))


def answer_as_another(machine: EnrolmentMachine, program: Program) -> None:
    """The gateway answers the opening itself, as somebody who is not the authority."""
    opening = machine.opening
    own = stranger(1).own
    channel = Channel.respond(
        prologue=Prologue(purpose="channel", target=str(opening.target), nonce=opening.nonce),
        key=own.purpose_keys[Purpose.CHANNEL].key,
        proof=own.proof(Purpose.CHANNEL),
        verify=lambda proof, key: verify(own.identifier, machine.clock.unix_s(), proof, key),
        now_s=machine.clock.now_s(),
    )

    channel.receive(Part.OPEN, opening.noise_1, machine.clock.now_s())
    for part, body in channel.take_output():
        if part is Part.ACCEPT:
            machine.bring_to_node(Frame(1, FrameKind.LINK_ACCEPT, body))


def end_link(machine: EnrolmentMachine, program: Program) -> None:
    code = program.choose((Code.ROUTE_UNKNOWN, Code.POLICY_DENIED, Code.CHANNEL_CLOSED))
    machine.bring_to_node(Frame(1, FrameKind.LINK_CLOSE, encode_code(code)))


def refuse(machine: EnrolmentMachine, program: Program) -> None:
    machine.refuses, machine.denies = bool(program.below(2)), program.below(4) == 3


def wait(machine: EnrolmentMachine, program: Program) -> None:
    machine.clock.advance(program.choose((0.0, 1.0, 5.0, 16.0)))
    machine.desk.tidy()


OPERATIONS: Final = (
    pass_on,
    drop,
    double,
    change,
    invent,
    redirect,
    answer_as_another,
    end_link,
    refuse,
    wait,
)
_THERE: Final = ("pass_on", 0)
_BACK: Final = ("pass_on", 1)
_SHAKEN: Final = (*_THERE, *_BACK, *_THERE, *_BACK)

TARGETS: Final[list[Target]] = [
    machine_target(
        "machine.enrolment",
        "a node that enrols, its authority, and a hostile gateway between them",
        EnrolmentMachine,
        OPERATIONS,
        [
            (*_SHAKEN, *_THERE, *_BACK, *_THERE, *_BACK, *_BACK),
            ("refuse", 1, 0, *_SHAKEN, *_THERE, *_BACK, *_THERE, *_BACK),
            ("refuse", 0, 3, *_SHAKEN, *_THERE, *_BACK, *_BACK),
            ("redirect", 0, 1, 1, 1, *_SHAKEN),
            ("answer_as_another", *_SHAKEN, "end_link", 1),
            (*_THERE, "change", 1, 0, 40, 2, 1, 2, 0, *_BACK, "wait", 3, "invent", 2, 0, 0),
        ],
        in_loop=True,
        bytes_max=200,
    ),
]
