"""Nodes of one authority and hops between them, carried by the test: what neighbours show."""

import contextlib
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from identity import Identifier, PolicyFile, VerifiedPeer, issue_policy
from link import Frame, FrameKind
from node.clocks import ManualClock
from node.mandatory import MandatoryPolicy
from node.metrics import Metrics
from node.neighbours import Neighbours
from node.own_node import OwnNode
from node.store import Store
from tests.node.members import DAY_S, Authority, started


@dataclass(eq=False)
class FakeHop:
    """One end of a hop; the test carries what is sent."""

    id: int
    peer: VerifiedPeer
    own_key: bytes = b""
    is_dialler: bool = True
    queued_bytes: int = 0
    sent: list[Frame] = field(default_factory=list)

    def send_frame(self, link: int, kind: int, body: bytes) -> None:
        self.sent.append(Frame(link, kind, body))

    def renewed(self, peer: VerifiedPeer) -> None:
        self.peer = peer

    def bodies(self, kind: FrameKind) -> list[bytes]:
        return [frame.body for frame in self.sent if frame.kind == kind]


class Side:
    """A real node and what it makes of its neighbours."""

    def __init__(self, node: OwnNode, store: Store, clock: ManualClock) -> None:
        self.node = node
        self.mandatory = MandatoryPolicy(store, clock, node)
        self.renewed: list[FakeHop] = []
        self.told: list[int] = []
        node.trust.on_news.append(lambda: self.told.append(node.trust.taken))
        self.neighbours = Neighbours(
            node, self.mandatory, clock, Metrics("test", "1"), renewed=self.renewed.append
        )

    def number(self, authority: Authority) -> int:
        return self.node.trust.lists.number(authority.identifier)

    @property
    def assembling_bytes(self) -> int:
        return self.neighbours.lists.assembling_bytes


class Street:
    """Nodes of one authority, and hops between them."""

    def __init__(self, folder: Path, clock: ManualClock, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self.clock = clock
        self.stack = stack
        self.acme = Authority()
        self.sides: dict[str, Side] = {}
        self.hops: dict[tuple[str, str], FakeHop] = {}
        self.lists_carried: Counter[tuple[str, str]] = Counter()
        self.policies_carried: Counter[tuple[str, str]] = Counter()

    @property
    def now(self) -> int:
        return int(self.clock.unix_s())

    def policy(self, text: str = "rules: []\n", *, signers: Sequence[Identifier] = ()) -> bytes:
        """A mandatory policy of the authority, encoded."""
        return issue_policy(
            self.acme.own,
            self.acme.trust_domain,
            number=self.now,
            issued_unix_s=self.now,
            files=[PolicyFile("base.yaml", text)],
            signers=signers,
        )

    def add(self, name: str, authority: Authority | None = None) -> Side:
        """A node of the authority, or of another one."""
        folder = self.folder / name
        folder.mkdir()
        node, store = self.stack.enter_context(started(folder, self.clock))
        (authority or self.acme).enrol(node, self.now, name=f"node/{name}", ttl_s=DAY_S)
        side = self.sides[name] = Side(node, store, self.clock)
        return side

    def connect(self, *names: str) -> None:
        """A hop between each of these and the next."""
        for one, other in itertools.pairwise(names):
            for a, b in ((one, other), (other, one)):
                shown = self.sides[b].node.hop_identity()
                peer = self.sides[a].node.verify_hop(shown.proof, shown.key.public.raw)
                own_key = self.sides[a].node.hop_identity().key.public.raw
                self.hops[a, b] = FakeHop(len(self.hops) + 1, peer, own_key)
            for a, b in ((one, other), (other, one)):
                self.sides[a].neighbours.hop_opened(self.hops[a, b])  # type: ignore[arg-type]

    def carry(self) -> None:
        """Until nobody has anything to say."""
        while any(hop.sent for hop in self.hops.values()):
            for (a, b), hop in list(self.hops.items()):
                said, hop.sent = hop.sent, []
                for frame in said:
                    self.lists_carried[a, b] += frame.kind == FrameKind.LIST
                    self.policies_carried[a, b] += frame.kind == FrameKind.POLICY
                    self.hear(b, a, frame)

    def hear(self, at: str, of: str, frame: Frame) -> None:
        hop: Any = self.hops[at, of]
        self.sides[at].neighbours.receive_untrusted(hop, frame)

    def tick(self, seconds: float = 1.0) -> None:
        self.clock.advance(seconds)
        for side in self.sides.values():
            side.neighbours.tick()
