"""Lanes, windows, directory and relay table, each beside a model too simple to fail."""

from typing import Any, Final

from identity import AgentUri, Identifier, NamePrefix
from link import (
    CreditError,
    Directory,
    FrameParser,
    LaneWriter,
    LinkEnd,
    LinkError,
    LinkIds,
    ReceiveWindow,
    RelayTable,
    RelayWindow,
    SendWindow,
    is_peers_link,
)
from link.limits import (
    CREDIT_MAX,
    FRAME_HEADER_BYTES,
    INITIAL_WINDOW_BYTES,
    LINK_WINDOW_BYTES,
    QUANTUM_BYTES,
)
from link.relay import Direction
from tests.fuzz.machines import machine_target
from tests.fuzz.program import Program
from tests.fuzz.target import Target

LINKS: Final = (1, 5, 9, 13)
SIZES: Final = (0, 14, 1_000, 16_000, 65_535)


class LaneMachine:
    """One lane, and for each link the frames that have not left it yet."""

    def __init__(self) -> None:
        self.writer = LaneWriter()
        self.expected: dict[int, list[bytes]] = {link: [] for link in LINKS}
        self.number = 0

    def check(self) -> None:
        waiting = sum(
            len(body) + FRAME_HEADER_BYTES for bodies in self.expected.values() for body in bodies
        )
        assert self.writer.queued_bytes == waiting
        assert len(self.writer._order) == len(self.writer._queues) == len(set(self.writer._order))
        assert all(queue.frames for queue in self.writer._queues.values())

    def take(self, bytes_max: int) -> None:
        had = self.writer.queued_bytes
        data = self.writer.take(bytes_max)
        frames = FrameParser().feed_untrusted(data)
        assert bool(frames) == bool(had), "nothing was taken, though something waited"
        assert len(data) <= bytes_max or len(frames) == 1
        for frame in frames:
            assert frame.body == self.expected[frame.link].pop(0), "a link's frames changed places"

    def finish(self) -> None:
        while self.writer.queued_bytes:
            self.take(QUANTUM_BYTES)
            self.check()
        assert not any(self.expected.values()), "frames were lost"


def add(machine: LaneMachine, program: Program) -> None:
    link = program.choose(LINKS)
    machine.number += 1
    body = machine.number.to_bytes(4, "big") * (program.choose(SIZES) // 4)
    machine.writer.add(link, 4, body)
    machine.expected[link].append(body)


def take(machine: LaneMachine, program: Program) -> None:
    machine.take(program.choose((1, 20, 2_000, 70_000, 1 << 20)))


def drop(machine: LaneMachine, program: Program) -> None:
    link = program.choose(LINKS)
    machine.writer.drop(link)
    machine.expected[link].clear()


class WindowMachine:
    """An honest sender and receiver with a relay between; grants are late, doubled and lost."""

    def __init__(self) -> None:
        self.sender = SendWindow()
        self.relay = RelayWindow()
        self.receiver = ReceiveWindow(LINK_WINDOW_BYTES)
        self.grants: list[int] = []
        self.on_the_way = 0

    def check(self) -> None:
        assert 0 <= self.sender.available_bytes <= CREDIT_MAX
        assert self.on_the_way + self.receiver.held_bytes <= max(
            LINK_WINDOW_BYTES, INITIAL_WINDOW_BYTES
        )

    def finish(self) -> None:
        """Whatever was lost before, once all is read and told a sender may send again."""
        arrive(self, Program(b""))
        self.receiver.consume(self.receiver.held_bytes)
        self.sender.grant_untrusted(self.receiver._granted)
        # Less than half of a window is granted later, with what is read next.
        assert self.sender.available_bytes >= INITIAL_WINDOW_BYTES // 2


def spend(machine: WindowMachine, program: Program) -> None:
    count = min(program.choose((1, 1_000, 65_000)), machine.sender.available_bytes)
    machine.sender.spend(count)
    machine.relay.pass_untrusted(count)
    machine.on_the_way += count


def arrive(machine: WindowMachine, program: Program) -> None:
    machine.receiver.receive_untrusted(machine.on_the_way)
    machine.on_the_way = 0


def consume(machine: WindowMachine, program: Program) -> None:
    count = min(program.choose((1, 5_000, 1 << 20)), machine.receiver.held_bytes)
    limit = machine.receiver.consume(count)
    if limit is not None:
        # A relay sees each grant of an honest receiver as earned.
        assert machine.relay.grant_untrusted(limit)
        machine.grants.append(limit)


def grant(machine: WindowMachine, program: Program) -> None:
    if machine.grants:
        limit = machine.grants[program.byte() % len(machine.grants)]
        before = machine.sender.available_bytes
        machine.sender.grant_untrusted(limit)
        assert machine.sender.available_bytes >= before


def overspend(machine: WindowMachine, program: Program) -> None:
    """Somebody who sends what nobody granted is found by relay and receiver alike."""
    beyond = machine.sender.available_bytes + INITIAL_WINDOW_BYTES + LINK_WINDOW_BYTES
    for window in (RelayWindow(), ReceiveWindow(LINK_WINDOW_BYTES)):
        call: Any = getattr(window, "pass_untrusted", None) or window.receive_untrusted  # type: ignore[union-attr]
        try:
            call(beyond)
        except CreditError:
            continue
        raise AssertionError("more than was granted went unseen")


def beg(machine: WindowMachine, program: Program) -> None:
    """Grants that were not earned end in an error, and never in a lower limit."""
    relay = RelayWindow()
    try:
        for number in range(program.byte()):
            relay.grant_untrusted(INITIAL_WINDOW_BYTES + 1 + number * program.byte())
    except CreditError:
        return
    assert relay._grants <= 64


PREFIXES: Final = tuple(
    NamePrefix.parse(f"agent://{text}")
    for text in ("acme", "acme/a", "acme/a/b", "acme/ab", "globex", "globex/a/b/c/d/e/f/g/h")
)
NAMES: Final = tuple(
    AgentUri.parse(f"agent://{text}")
    for text in ("acme/a", "acme/a/b", "acme/a/b/c", "acme/ab/c", "globex/z", "other/x")
)
HOPS: Final = (1, 2, 3)


class DirectoryMachine:
    """A directory, and a dictionary that says who should have what."""

    def __init__(self) -> None:
        self.directory = Directory()
        self.owner: dict[NamePrefix, int] = {}
        self.epochs: dict[NamePrefix, int] = {}

    def check(self) -> None:
        routes = {route.prefix: route.hop for route in self.directory.routes()}
        assert routes == self.owner
        assert len(self.directory) == len(self.owner)
        for name in NAMES:
            found = self.directory.find(name)
            covering = [prefix for prefix in self.owner if prefix.covers(name)]
            longest = max(covering, key=lambda prefix: len(prefix.path), default=None)
            assert (None if found is None else found.prefix) == longest
            for hop in HOPS:
                serves = any(self.owner[prefix] == hop for prefix in covering)
                assert self.directory.serves(hop, name) == serves

    def finish(self) -> None:
        for hop in HOPS:
            self.directory.forget_hop(hop)
        assert (self.directory._routes, self.directory._of_hop) == ({}, {})


def register(machine: DirectoryMachine, program: Program) -> None:
    prefix, hop = program.choose(PREFIXES), program.choose(HOPS)
    try:
        route, displaced = machine.directory.register(prefix, hop, Identifier(bytes(32)))
    except LinkError as error:
        raise AssertionError("no limit is near") from error
    before = machine.owner.get(prefix)
    assert (displaced is not None) == (before not in (None, hop))
    assert route.epoch == machine.epochs.get(prefix, 0) + 1
    machine.owner[prefix], machine.epochs[prefix] = hop, route.epoch


def unregister(machine: DirectoryMachine, program: Program) -> None:
    prefix, hop = program.choose(PREFIXES), program.choose(HOPS)
    machine.directory.unregister(prefix, hop)
    if machine.owner.get(prefix) == hop:
        del machine.owner[prefix]


def forget_hop(machine: DirectoryMachine, program: Program) -> None:
    hop = program.choose(HOPS)
    machine.directory.forget_hop(hop)
    machine.owner = {prefix: owner for prefix, owner in machine.owner.items() if owner != hop}


class TableMachine:
    """A relay table, and the pairs of ends that should be in it."""

    def __init__(self) -> None:
        self.table: RelayTable[int] = RelayTable()
        self.pairs: dict[LinkEnd, LinkEnd] = {}
        self.ids = {hop: LinkIds(is_dialler=hop == 1) for hop in HOPS}

    def check(self) -> None:
        assert 2 * len(self.table) == len(self.pairs)
        for hop in HOPS:
            assert self.table.links_of(hop) == sum(end.hop == hop for end in self.pairs)
        for end, other in self.pairs.items():
            direction = self.table.find(end)
            assert isinstance(direction, Direction)
            assert direction.to == other

    def finish(self) -> None:
        for hop in HOPS:
            part_hop(self, Program(bytes([hop - 1])))
        assert (self.table._directions, self.table._of_hop) == ({}, {})


def join(machine: TableMachine, program: Program) -> None:
    near, far = program.choose(HOPS), program.choose(HOPS)
    ends = [LinkEnd(hop, machine.ids[hop].take()) for hop in (near, far)]
    assert all(not is_peers_link(end.link, is_dialler=end.hop == 1) for end in ends)
    machine.table.join(ends[0], ends[1], 7)
    machine.pairs[ends[0]], machine.pairs[ends[1]] = ends[1], ends[0]


def part(machine: TableMachine, program: Program) -> None:
    ends = list(machine.pairs)
    end = ends[program.byte() % len(ends)] if ends else LinkEnd(1, 1)
    other = machine.pairs.pop(end, None)
    assert machine.table.part(end) == other
    if other is not None:
        del machine.pairs[other]
    assert machine.table.part(end) is None


def part_hop(machine: TableMachine, program: Program) -> None:
    hop = program.choose(HOPS)
    others = machine.table.part_hop(hop)
    mine = {end: other for end, other in machine.pairs.items() if end.hop == hop}
    # A link of a hop with itself is told at its other end, which is gone with it.
    assert set(others) <= set(mine.values())
    assert {other for other in mine.values() if other.hop != hop} <= set(others)
    for end, other in mine.items():
        machine.pairs.pop(end, None)
        machine.pairs.pop(other, None)


TARGETS: Final[list[Target]] = [
    machine_target(
        "machine.lane",
        "frames of several links that share a lane",
        LaneMachine,
        (add, take, drop),
        [
            ("add", 0, 4, "add", 1, 1, "add", 0, 3, "add", 1, 4, "take", 2, "take", 3, "drop", 0),
            (*(("add", 0, 4, "add", 1, 2) * 4), *(("take", 3) * 4)),
        ],
        bytes_max=128,
    ),
    machine_target(
        "machine.window",
        "what is sent, granted and read on one link",
        WindowMachine,
        (spend, arrive, consume, grant, overspend, beg),
        [
            (*(("spend", 2, "arrive", "consume", 2) * 6), "grant", 0, "overspend"),
            ("spend", 2, "arrive", "consume", 1, "grant", 0, "beg", 200, 1),
        ],
        bytes_max=128,
    ),
    machine_target(
        "machine.directory",
        "prefixes that come, go and displace each other",
        DirectoryMachine,
        (register, unregister, forget_hop),
        [("register", 0, 0, "register", 2, 1, "register", 2, 2, "unregister", 2, 2)],
        bytes_max=128,
    ),
    machine_target(
        "machine.table",
        "links that are joined and parted",
        TableMachine,
        (join, part, part_hop),
        [("join", 0, 1, "join", 1, 2, "join", 2, 2, "part", 1, "part_hop", 1)],
        bytes_max=128,
    ),
]
