"""Two nodes that show each other proofs and lists, and somebody on the hop who makes his own."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from identity import (
    Identifier,
    IdentityError,
    OwnIdentity,
    PolicyFile,
    Purpose,
    SigningKey,
    TrustAnchor,
    VerifiedPeer,
    cbor,
    cose,
    decode_signed_policy_untrusted,
    issue_policy,
    issue_policy_under,
    issue_revocations,
)
from identity.cose import SignedType
from link import Frame, FrameError, FrameKind
from link.trust_messages import (
    DocumentPart,
    Held,
    encode_held,
    encode_part,
    parts_of,
)
from node.clocks import ManualClock
from node.database import connect, migrate
from node.mandatory import MandatoryPolicy
from node.neighbours import KINDS, Neighbours
from node.spreading import ASSEMBLING_BYTES_MAX
from node.store import MIGRATIONS, Store
from node.trust import Trust
from tests.fuzz.machines import machine_target
from tests.fuzz.program import Program
from tests.fuzz.target import Target
from tests.sidecar.router_helpers import FakeHop
from tests.simulation.people import DAY_S, START_UNIX_S, authority, node

NOW: Final = int(START_UNIX_S)
NAMES: Final = ("alpha", "beta")
WAITS_S: Final = (0.5, 2.0, 61.0, 3_600.0)
"""All steps of a program together stay within the overlap of the authority's replaced key."""
OVERLAP_S: Final = 30 * DAY_S
MANY: Final = tuple(Identifier(number.to_bytes(32, "big")) for number in range(4_000))
"""So many that their list takes several frames."""
SIZES: Final = ((), MANY[:1], MANY, MANY[1:3], MANY, ())
ACME: Final = TrustAnchor(authority().identifier, "acme")
GLOBEX: Final = TrustAnchor(authority("globex").identifier, "globex")


def _rotated(own: OwnIdentity) -> OwnIdentity:
    announced = own.with_next_key(
        SigningKey.from_private_bytes(own.identifier.digest),
        unix_s=START_UNIX_S,
        overlap_s=OVERLAP_S,
    )
    return announced.using_next_key(unix_s=START_UNIX_S)


def _signed_list(own: OwnIdentity, domain: str, number: int, revoked: Any) -> bytes:
    return issue_revocations(
        own,
        domain,
        number=NOW + number,
        issued_unix_s=NOW,
        next_update_unix_s=NOW + DAY_S,
        revoked=revoked,
    )


@cache
def honest_lists() -> dict[str, list[bytes]]:
    """Of each authority, in the order of their numbers; the later half by a key that is newer."""
    made: dict[str, list[bytes]] = {}
    for domain in ("acme", "globex"):
        keys = authority(domain), _rotated(authority(domain))
        made[domain] = [
            _signed_list(keys[number > len(SIZES) // 2], domain, number, revoked)
            for number, revoked in enumerate(SIZES, 1)
        ]
    return made


@cache
def forged_lists() -> list[bytes]:
    """Made by somebody who is trusted for nothing, or not for that domain; and torn ones."""
    acme = authority()
    stranger = node("alpha").own
    payload = cbor.decode_untrusted(honest_lists()["acme"][-1], bytes_max=1 << 20)[0]
    body = cbor.decode_untrusted(payload, bytes_max=1 << 20)[2]
    forged = cose.sign(stranger.signing_key, SignedType.REVOCATIONS, body).encode()
    return [
        cbor.encode([forged, _rotated(acme).history.encode()]),
        _signed_list(stranger, "acme", 90, ()),
        _signed_list(acme, "globex", 90, ()),
        _signed_list(acme, "acme", 200_000, ()),
        honest_lists()["acme"][-1][:-1],
    ]


def _policy(own: OwnIdentity, number: int, domain: str = "acme", rules: str = "[]") -> bytes:
    return issue_policy(
        own,
        domain,
        number=NOW + number,
        issued_unix_s=NOW,
        files=[PolicyFile("base.yaml", f"rules: {rules}\n" * 4_000)],
        signers=[node("alpha").own.identifier],
    )


@cache
def honest_policies() -> list[bytes]:
    """By the authority, and by a node whom it has named."""
    first = _policy(authority(), 1)
    second = issue_policy_under(
        node("alpha").own,
        decode_signed_policy_untrusted(first),
        number=NOW + 2,
        issued_unix_s=NOW,
        files=[PolicyFile("more.yaml", "rules: []\n")],
    )
    return [first, second, _policy(_rotated(authority()), 3)]


@cache
def forged_policies() -> list[bytes]:
    """By somebody who is named nowhere, for another domain, far ahead of the clock, and torn."""
    stranger = node("beta").own
    return [
        _policy(stranger, 90),
        _policy(authority(), 90, "globex"),
        _policy(authority(), 200_000),
        honest_policies()[-1][:-1],
    ]


@cache
def proofs(name: str) -> tuple[bytes, ...]:
    """What a node may show of itself, and what somebody else might show for its Noise key."""
    own, other = node(name).own, node("gamma").own
    key = own.purpose_keys[Purpose.HOP].key.public
    renewed = _rotated(own)
    return (
        own.proof(Purpose.HOP),
        renewed.proof(Purpose.HOP),
        other.proof_for(key, Purpose.HOP, unix_s=START_UNIX_S),
        own.with_chain(()).proof(Purpose.HOP),
        own.proof(Purpose.CHANNEL),
    )


@dataclass(eq=False)
class TrustingHop(FakeHop):
    """One end of the hop between the two."""

    own_key: bytes = b""

    def renewed(self, peer: VerifiedPeer) -> None:
        self.peer = peer


def store_in_memory() -> Store:
    path = Path(":memory:")
    connection = connect(path)
    migrate(connection, path, "node_schema", MIGRATIONS)
    return Store(connection, path)


class TrustingNode:
    """One of the two, with a real Trust on tables in memory."""

    def __init__(self, name: str, clock: ManualClock) -> None:
        self.name, self.clock = name, clock
        self.other = NAMES[1 - NAMES.index(name)]
        store = store_in_memory()
        for anchor in (ACME, GLOBEX):
            store.add_trust_anchor(anchor, unix_s=NOW)
        own = node(name).own
        verified = node(name).peer.identity
        self.trust = Trust(store, clock, own.identifier, grace_s=DAY_S, chain_links_max=4)
        self.shown = 0
        fake: Any = SimpleNamespace(
            own=own,
            identifier=own.identifier,
            identity=verified,
            trust=self.trust,
            on_change=[],
            proof_for_hop=lambda key: proofs(name)[self.shown],
            verify_hop=lambda proof, key: self.trust.verifier.verify(
                proof, purpose=Purpose.HOP, noise_key=key, unix_s=clock.unix_s()
            ),
        )
        metrics: Any = SimpleNamespace(counter_read=lambda *_, **__: None)
        self.mandatory = MandatoryPolicy(store, clock, fake)
        self.neighbours = Neighbours(fake, self.mandatory, clock, metrics)
        self.numbers: dict[Identifier, int] = {}
        self.policy_rank = 0
        self.hops = 0
        self.hop: Any = None

    def open_hop(self) -> None:
        if self.hop is not None:
            self.neighbours.hop_closed(self.hop)
        self.hops += 1
        self.hop = TrustingHop(node(self.other).peer, id=self.hops)
        self.neighbours.hop_opened(self.hop)

    def receive(self, frame: Frame) -> bool:
        """Whether the hop lives on."""
        try:
            self.neighbours.receive_untrusted(self.hop, frame)
        except FrameError:
            return False
        return True

    def check(self) -> None:
        known = {one for lists in honest_lists().values() for one in lists}
        for anchor in (ACME, GLOBEX):
            number = self.trust.lists.number(anchor.identifier)
            if anchor in self.trust.anchors:
                assert number >= self.numbers.get(anchor.identifier, 0), "a number went back"
            encoded = self.trust.encoded(anchor.identifier)
            assert encoded is None or encoded in known, "nobody issued this list"
            self.numbers[anchor.identifier] = number
        policy = self.mandatory.held
        rank = 0 if policy is None else policy.rank
        assert rank >= self.policy_rank, "a policy's rank went back"
        assert policy is None or policy.encoded in honest_policies(), "nobody issued this policy"
        self.policy_rank = rank
        for spread in (self.neighbours.lists, self.neighbours.policies):
            mine = list(spread._open.values())
            held_bytes = sum(len(one.parts) for one in mine)
            assert spread.assembling_bytes == held_bytes <= ASSEMBLING_BYTES_MAX
            assert len(mine) == 1
        proved = node(self.other)
        assert self.hop.peer.identifier == proved.own.identifier, "the neighbour became another"
        assert self.hop.peer.name == proved.identity.name


class NeighboursMachine:
    """Alpha and beta, and what is under way from each."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.nodes = [TrustingNode(name, self.clock) for name in NAMES]
        self.reconnect()

    def reconnect(self) -> None:
        for one in self.nodes:
            one.open_hop()

    def waiting(self, to: int) -> list[Frame]:
        """Frames from the other one."""
        sent: list[Frame] = self.nodes[1 - to].hop.sent
        return sent

    def give(self, to: int, frame: Frame) -> None:
        if not self.nodes[to].receive(frame):
            self.reconnect()

    def carry(self, to: int) -> None:
        waiting = self.waiting(to)
        while waiting:
            self.give(to, waiting.pop(0))

    def check(self) -> None:
        for one in self.nodes:
            one.check()

    def finish(self) -> None:
        """On a hop that nobody touches, both come to hold the newer list of whom both trust."""
        self.reconnect()
        for _ in range(20):
            for to in (0, 1):
                self.carry(to)
        self.check()
        first, second = (one.trust for one in self.nodes)
        for anchor in {*first.anchors} & {*second.anchors}:
            assert first.lists.number(anchor.identifier) == second.lists.number(anchor.identifier)
        ours, theirs = (one.mandatory.held for one in self.nodes)
        assert ours == theirs, "one of two obeys an older policy"
        for one in self.nodes:
            one.neighbours.hop_closed(one.hop)
            for spread in (one.neighbours.lists, one.neighbours.policies):
                assert spread.assembling_bytes == 0
                assert not spread._open


def learn(machine: NeighboursMachine, program: Program) -> None:
    """A node hears of a list by another way: of any number, or of nobody's."""
    one = program.choose(machine.nodes)
    lists = honest_lists()[program.choose(("acme", "globex"))]
    encoded = program.choose((*lists, *forged_lists()))
    try:
        one.trust.offer_untrusted(encoded)
    except IdentityError:
        return


def learn_policy(machine: NeighboursMachine, program: Program) -> None:
    """A node hears of a mandatory policy by another way: of any number, or of nobody's."""
    one = program.choose(machine.nodes)
    try:
        one.mandatory.offer_untrusted(program.choose((*honest_policies(), *forged_policies())))
    except IdentityError:
        return


def bring_policy(machine: NeighboursMachine, program: Program) -> None:
    """The parts of a policy, honest or not, under a number that may not be its own."""
    to = program.below(2)
    encoded = program.choose((*honest_policies(), *forged_policies()))
    number = NOW + program.byte()
    for part in parts_of(ACME.identifier, number, encoded):
        machine.give(to, Frame(0, FrameKind.POLICY, encode_part(part)))


def claim_policy(machine: NeighboursMachine, program: Program) -> None:
    """That one holds a policy of some number, which sets the other to send."""
    number = program.choose((0, NOW, NOW + 3, 1 << 62))
    body = encode_held((Held(program.choose((ACME, GLOBEX)).identifier, number),))
    machine.give(program.below(2), Frame(0, FrameKind.POLICY_HELD, body))


def pass_on(machine: NeighboursMachine, program: Program) -> None:
    to = program.below(2)
    if waiting := machine.waiting(to):
        machine.give(to, waiting.pop(0))


def pass_all(machine: NeighboursMachine, program: Program) -> None:
    machine.carry(program.below(2))


def drop(machine: NeighboursMachine, program: Program) -> None:
    del machine.waiting(program.below(2))[:1]


def double(machine: NeighboursMachine, program: Program) -> None:
    waiting = machine.waiting(program.below(2))
    waiting[:0] = waiting[:1]


def change(machine: NeighboursMachine, program: Program) -> None:
    waiting = machine.waiting(program.below(2))
    if waiting:
        body = waiting[0].body
        at = program.number(2) % (len(body) + 1)
        changed = body[:at] + program.blob() + body[at + program.below(4) :]
        waiting[0] = waiting[0]._replace(body=changed)


def invent(machine: NeighboursMachine, program: Program) -> None:
    kind = program.choose(tuple(sorted(KINDS)))
    machine.give(program.below(2), Frame(0, kind, program.blob()))


def claim(machine: NeighboursMachine, program: Program) -> None:
    """That one holds lists of some number, which sets the other to send."""
    number = program.choose((0, 1, NOW, NOW + 3, 1 << 62))
    anchor = program.choose((ACME, GLOBEX, TrustAnchor(MANY[0], "acme")))
    body = encode_held((Held(anchor.identifier, number),))
    machine.give(program.below(2), Frame(0, FrameKind.LISTS_HELD, body))


def bring(machine: NeighboursMachine, program: Program) -> None:
    """The parts of a list, honest or not, under a number that may not be its own."""
    to = program.below(2)
    encoded = program.choose((*honest_lists()["acme"], *forged_lists()))
    number = NOW + program.byte()
    for part in parts_of(ACME.identifier, number, encoded):
        if program.below(8) != 7:
            machine.give(to, Frame(0, FrameKind.LIST, encode_part(part)))


def promise(machine: NeighboursMachine, program: Program) -> None:
    """The beginning of a list that never comes whole."""
    data = bytes(program.choose((1, 1_000, 48 << 10)))
    part = DocumentPart(ACME.identifier, NOW + 99, 1 << 20, program.choose((0, 1, len(data))), data)
    machine.give(program.below(2), Frame(0, FrameKind.LIST, encode_part(part)))


def show(machine: NeighboursMachine, program: Program) -> None:
    """A node shows itself anew, truly or not."""
    one = program.choose(machine.nodes)
    one.shown = program.below(len(proofs(one.name)))
    one.neighbours.show_proof()


def trust(machine: NeighboursMachine, program: Program) -> None:
    one = program.choose(machine.nodes)
    if program.below(2):
        one.trust.add(GLOBEX)
    else:
        one.trust.remove(GLOBEX.identifier)


def lose_hop(machine: NeighboursMachine, program: Program) -> None:
    machine.reconnect()


def wait(machine: NeighboursMachine, program: Program) -> None:
    machine.clock.advance(program.choose(WAITS_S))
    for one in machine.nodes:
        one.neighbours.tick()


OPERATIONS: Final = (
    learn,
    pass_on,
    pass_all,
    drop,
    double,
    change,
    invent,
    claim,
    bring,
    promise,
    show,
    trust,
    lose_hop,
    wait,
    learn_policy,
    bring_policy,
    claim_policy,
)
_GREETED: Final = ("pass_all", 0, "pass_all", 1)

TARGETS: Final[list[Target]] = [
    machine_target(
        "machine.neighbours",
        "two nodes that show each other proofs, revocation lists and mandatory policies",
        NeighboursMachine,
        OPERATIONS,
        [
            (*_GREETED, "learn", 0, 0, 1, *_GREETED, "learn", 1, 0, 5, *_GREETED, "wait", 2),
            (*_GREETED, "learn", 0, 1, 2, "pass_on", 1, "drop", 1, "pass_all", 1, "wait", 1),
            (*_GREETED, "learn", 0, 0, 2, "change", 1, 0, 40, 1, 7, 1, "pass_all", 1, "lose_hop"),
            (*_GREETED, "show", 0, 1, "pass_all", 1, "show", 0, 0, "pass_all", 1, "show", 1, 2),
            ("bring", 0, 2, 3, 0, 0, 0, "bring", 0, 2, 3, 0, 7, 0, "promise", 0, 2, 0, 0),
            ("bring", 0, 6, 200, 0, "bring", 1, 8, 90, 0, "promise", 1, 1, 2, 0, "claim", 1, 0, 1),
            (*_GREETED, "trust", 0, 0, "learn", 0, 1, 1, "trust", 0, 1, "invent", 0, 0, 2, b"ab"),
            (*_GREETED, "learn_policy", 0, 1, *_GREETED, "learn_policy", 1, 2, *_GREETED),
            (*_GREETED, "learn_policy", 1, 2, "bring_policy", 1, 4, 9, "claim_policy", 0, 0, 1),
            (*("claim", 2, 0, 0) * 3, "learn", 0, 0, 4, "double", 1, *_GREETED, "wait", 3),
        ],
    ),
]
