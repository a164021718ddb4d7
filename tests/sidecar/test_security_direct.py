"""What another sidecar that may have a direct hop may not have: many of them, or our time."""

from collections.abc import Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from identity import AgentUri, Code
from link import Frame, FrameKind, LinkOpen
from link.messages import encode_link_open
from policy import PolicyEngine
from sidecar import hops
from sidecar.addresses import AddressRules
from sidecar.direct import QUEUE_BYTES_MAX, DirectPaths
from sidecar.slot import MENTIONS_BURST
from tests.node.quiet import QuietNeighbours
from tests.sidecar.router_helpers import FakeHop, Lonely, Puppet
from tests.simulation.people import Node, node
from transport import HopPurpose

QUIET: Any = QuietNeighbours()

POLICY = """\
apiVersion: sidelink/v1
kind: Policy
metadata: {name: direct}
rules:
  - {name: all may meet, effect: allow, actions: [channel.open, path.direct], from: {kind: agent}}
"""


class DirectHop(FakeHop):
    purpose = HopPurpose.DIRECT

    def accept(self, _permit: object) -> None:
        """Policy is somebody else's here."""

    def refuse(self, code: Code) -> None:
        self.close(code)


class Stage(Lonely):
    """A sidecar that may be reached directly, by a node that its agents have told so."""

    def __init__(self) -> None:
        super().__init__(policy=PolicyEngine.load(POLICY, file="policy.yaml"))
        self.asked = 0
        decisions = self.sidecar.decisions

        def decide(*args: Any, **options: Any) -> Any:
            self.asked += 1
            return decisions.decide(*args, **options)

        self.direct = DirectPaths(
            self.sidecar.node.own.identifier,
            SimpleNamespace(dial=lambda *_args, **_options: pytest.fail("dialled")),  # type: ignore[arg-type]
            SimpleNamespace(  # type: ignore[arg-type]
                decide=decide,
                could_allow=decisions.could_allow,
                answer_hop=lambda hop, role: hop.accept(None),
            ),
            self.router,
            SimpleNamespace(hop_closed=lambda hop: None),  # type: ignore[arg-type]
            self.network.clock,
            QUIET,
            rules=AddressRules(is_v6=True),
            own_addresses=lambda: (("192.0.2.7", 7441),),
            wake=lambda: None,
        )
        self.router.use_direct(self.direct)
        self.alice = self.sidecar.new_session("alice")

    def dial(self, other: Node, number: int) -> Any:
        hop: Any = DirectHop(other.peer, id=number, is_dialler=False)
        self.direct.hop_verified(hop)
        assert hop.closed is None
        self.direct.hop_opened(hop)
        return hop


def nodes() -> Iterator[Node]:
    return (node(f"n{number}") for number in count())


def test_a_node_that_dials_again_and_again_has_one_hop() -> None:
    stage = Stage()
    own = stage.sidecar.node.own.identifier
    # Of two hops that cross, the one that the lower identifier dialled stays.
    other = next(one for one in nodes() if one.own.identifier.digest < own.digest)
    puppet = Puppet(stage, of=other)
    puppet.connect(stage.alice.uri)
    assert puppet.is_open
    dialled = []
    for number in range(2, 8):
        dialled.append(stage.dial(other, number))
        for hop in dialled[:-1]:
            if hop.closed is Code.HOP_SUPERSEDED:
                stage.direct.hop_closed(hop, hop.closed, "for the test")

    assert [hop.closed for hop in dialled] == [Code.HOP_SUPERSEDED] * 5 + [None]
    assert stage.direct.hops == 1


def test_a_peer_that_tells_addresses_without_end_has_policy_asked_a_few_times() -> None:
    stage = Stage()
    puppet = Puppet(stage)
    puppet.connect(stage.alice.uri)
    asked_before = stage.asked

    for _ in range(3 * MENTIONS_BURST):
        puppet.links.channel.tell_addresses(())
        puppet.exchange()

    assert stage.asked - asked_before == MENTIONS_BURST
    assert stage.direct.refused == 2 * MENTIONS_BURST


def met(stage: Stage) -> tuple[Any, Puppet]:
    """A direct hop, and an agent of the node at its other end."""
    puppet = Puppet(stage)
    puppet.connect(stage.alice.uri)
    return stage.dial(node("beta"), 2), puppet


def test_a_node_that_opens_links_without_end_loses_its_direct_hop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each is answered, and an answer takes more room than its question."""
    monkeypatch.setattr(hops, "OPENINGS_BURST", 10)
    stage = Stage()
    hop, puppet = met(stage)
    nobody = AgentUri.parse("agent://acme/alpha/nobody")
    opening = LinkOpen(nobody, puppet.agent.uri, bytes(16), None, b"")
    body = encode_link_open(opening)

    for number in range(1, 20):
        stage.direct.frames_received(hop, [Frame(number, FrameKind.LINK_OPEN, body)])

    assert hop.closed is Code.HOP_LIMIT_EXCEEDED
    assert len(hop.closes()) == 10


def test_a_node_that_takes_nothing_loses_its_direct_hop() -> None:
    stage = Stage()
    hop, _ = met(stage)
    hop.queued_bytes = QUEUE_BYTES_MAX + 1

    stage.direct.frames_received(hop, [])

    assert hop.closed is Code.HOP_LIMIT_EXCEEDED
