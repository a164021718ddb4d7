"""Enrolment from end to end without a network: a stranger, a gateway, an authority, and mishaps."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from authority.desk import Desk
from identity import Code, Keystore, MasterKey, Purpose, SidelinkError, Ticket, new_identity
from link import Frame, FrameKind, LinkIds
from link.messages import encode_code
from node import enrolment
from node.enrolment import (
    EnrolmentExchange,
    adopt_grant,
    adopt_renewal,
    renewal_exchange,
    ticket_exchange,
    trust_ticket,
)
from node.enrolment_wire import EnrolGrant, EnrolRequest
from node.own_node import OwnNode
from node.store import Store
from tests.authority.helpers import GATEWAYS, DeskUnderTest, Office
from tests.simulation.mesh import Gateway
from tests.simulation.network import SimulatedHop, SimulatedNetwork
from tests.simulation.people import Node, authority, authority_node, stranger


class AuthorityAtItsDesk:
    """Owns the authority's end of a hop."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def hop_opened(self, hop: Any) -> None:
        self.desk.hop_opened(hop)

    def hop_closed(self, hop: Any, code: Code) -> None:
        self.desk.hop_closed(hop)

    def frames_received(self, hop: Any, frames: list[Frame]) -> None:
        self.desk.frames_received(hop, frames)


class Newcomer:
    """Owns the stranger's end of a hop, and starts its exchange there."""

    def __init__(self, make: Callable[[SimulatedHop], EnrolmentExchange]) -> None:
        self._make = make
        self.exchange: Any = None

    def hop_opened(self, hop: Any) -> None:
        self.exchange = self._make(hop)

    def hop_closed(self, hop: Any, code: Code) -> None:
        self.exchange.hop_closed(code, "the hop was lost")

    def frames_received(self, hop: Any, frames: list[Frame]) -> None:
        self.exchange.frames_received(frames)


@dataclass
class Scene:
    network: SimulatedNetwork
    gateway: Gateway
    office: Office
    at: DeskUnderTest
    node: OwnNode
    store: Store

    def open_authority(self) -> SimulatedHop:
        return self.network.connect(
            AuthorityAtItsDesk(self.at.desk),  # type: ignore[arg-type]
            self.gateway,
            (self.gateway.node.peer, authority_node().peer),
        )

    def begin(self, ticket: Ticket) -> tuple[EnrolmentExchange, SimulatedHop]:
        trust_ticket(self.node, ticket, self.network.clock.unix_s())
        newcomer = Newcomer(lambda hop: ticket_exchange(self.node, ticket, hop, self.network.clock))
        shown = Node(self.node.own, replace(stranger().identity, identifier=self.node.identifier))
        hop = self.network.connect(
            newcomer,  # type: ignore[arg-type]
            self.gateway,
            (self.gateway.node.peer, shown.peer),
        )
        return newcomer.exchange, hop

    def adopt(self, ticket: Ticket, grant: EnrolGrant) -> None:
        adopt_grant(self.node, self.store, ticket, grant, self.network.clock)


@pytest.fixture
def scene(tmp_path: Path) -> Any:
    network = SimulatedNetwork(0)
    office = Office(tmp_path, network.clock)
    path = tmp_path / "node.db"
    keystore = Keystore.open(path, MasterKey.generate())
    store = Store.open(path)
    node = OwnNode(keystore, store, network.clock)
    yield Scene(network, Gateway(network), office, DeskUnderTest(office), node, store)
    store.close()
    keystore.close()
    office.tables.close()


async def failure_of(exchange: EnrolmentExchange) -> Code:
    with pytest.raises(SidelinkError) as caught:
        await exchange.answer()
    return caught.value.code


async def test_a_node_enrols_through_a_gateway_that_sees_none_of_it(scene: Scene) -> None:
    scene.open_authority()
    ticket = scene.office.ticket(allowed_attributes={"role": None})
    exchange, _ = scene.begin(ticket)
    scene.network.run_for(2)
    grant = await exchange.answer()
    scene.adopt(ticket, grant)

    assert scene.node.enrolled
    assert str(scene.node.identity.name) == "agent://acme/finance"
    assert scene.store.gateways() == GATEWAYS
    seen = b"".join(frame.body for frame in scene.gateway.observed)
    assert ticket.code not in seen
    assert grant.credential not in seen
    scene.network.run_for(2)
    assert scene.gateway.relay.links == 0
    assert scene.at.desk.visits == 0


async def test_without_an_authority_it_is_unreachable(scene: Scene) -> None:
    exchange, _ = scene.begin(scene.office.ticket())
    scene.network.run_for(2)

    assert await failure_of(exchange) is Code.ENROL_AUTHORITY_UNREACHABLE


async def test_an_authority_that_leaves_in_the_middle_is_unreachable(scene: Scene) -> None:
    hop = scene.open_authority()
    exchange, _ = scene.begin(scene.office.ticket())
    hop.close(Code.HOP_RESTARTING)
    scene.network.run_for(2)

    assert await failure_of(exchange) is Code.ENROL_AUTHORITY_UNREACHABLE


async def test_an_authority_that_says_nothing_is_unreachable_in_time(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment, "ANSWER_SECONDS_MAX", 0.01)
    scene.open_authority()
    exchange, _ = scene.begin(scene.office.ticket())

    async with asyncio.timeout(5):
        assert await failure_of(exchange) is Code.ENROL_AUTHORITY_UNREACHABLE


async def test_a_lost_hop_ends_the_exchange_with_its_code(scene: Scene) -> None:
    scene.open_authority()
    exchange, hop = scene.begin(scene.office.ticket())
    hop.cut()
    scene.network.run_for(10)

    assert await failure_of(exchange) is Code.HOP_PEER_LOST


async def test_the_refusal_of_the_authority_comes_with_its_code(scene: Scene) -> None:
    scene.open_authority()
    ticket = scene.office.ticket()
    other = stranger().own.identifier
    scene.office.book.redeem(ticket.code, other, scene.network.clock.unix_s())
    exchange, _ = scene.begin(ticket)
    scene.network.run_for(2)
    assert await failure_of(exchange) is Code.ENROL_TICKET_USED
    exchange, _ = scene.begin(replace(ticket, code=bytes(16)))
    scene.network.run_for(2)
    assert await failure_of(exchange) is Code.ENROL_TICKET_UNKNOWN


async def test_the_denial_of_its_policy_comes_under_its_seal(scene: Scene) -> None:
    scene.at.denies = True
    scene.open_authority()
    exchange, _ = scene.begin(scene.office.ticket())
    scene.network.run_for(2)

    assert await failure_of(exchange) is Code.POLICY_DENIED


async def test_an_authority_that_a_ticket_does_not_name_is_told_nothing(scene: Scene) -> None:
    """The gateway leads the link to another authority of its own choice."""
    scene.open_authority()
    other = new_identity(".node", unix_s=scene.network.clock.unix_s(), purposes=tuple(Purpose))
    ticket = replace(scene.office.ticket(), authority=other.identifier)
    scene.gateway.relay.hops._authorities[other.identifier] = scene.gateway.relay.hops._authorities[
        authority().identifier
    ]
    scene.at.desk._node.identifier = other.identifier  # type: ignore[misc]
    asked: list[Any] = []
    scene.at.desk._answer = lambda *args: asked.append(args)
    exchange, _ = scene.begin(ticket)
    scene.network.run_for(2)

    assert await failure_of(exchange) is Code.CHANNEL_WRONG_NAME
    assert asked == []


HOSTILE_FRAMES: dict[str, tuple[int, bytes]] = {
    "a handshake of garbage": (FrameKind.LINK_ACCEPT, bytes(2_000)),
    "a record before the handshake": (FrameKind.RECORD, bytes(100)),
    "records beyond the window": (FrameKind.RECORD, bytes(300_000)),
    "a malformed grant": (FrameKind.CREDIT, b"x"),
    "a close that claims a refusal": (
        FrameKind.LINK_CLOSE,
        encode_code(Code.ENROL_TICKET_USED),
    ),
    "a close without a code": (FrameKind.LINK_CLOSE, b""),
}


@pytest.mark.parametrize(("kind", "body"), HOSTILE_FRAMES.values(), ids=HOSTILE_FRAMES)
async def test_a_gateway_that_meddles_cannot_speak_for_the_authority(
    scene: Scene, kind: int, body: bytes
) -> None:
    scene.open_authority()
    exchange, hop = scene.begin(scene.office.ticket())
    exchange.frames_received([Frame(7, kind, body), Frame(1, kind, body), Frame(1, kind, body)])
    code = await failure_of(exchange)

    assert code.group in ("channel", "enrol", "route", "hop")
    assert code is not Code.ENROL_TICKET_USED
    assert not scene.node.enrolled
    assert hop


async def test_a_grant_that_is_not_ours_or_not_theirs_is_not_adopted(scene: Scene) -> None:
    ticket = scene.office.ticket()
    trust_ticket(scene.node, ticket, scene.network.clock.unix_s())
    somebody = new_identity(".node", unix_s=scene.network.clock.unix_s(), purposes=tuple(Purpose))
    theirs, _ = scene.office.issuer.enrol(
        EnrolRequest(ticket.code, somebody.history.encode()),
        somebody.identifier,
        GATEWAYS,
        unix_s=scene.network.clock.unix_s(),
    )
    refused = {
        "the credential of somebody else": theirs,
        "garbage for a credential": replace(theirs, credential=b"garbage"),
        "garbage for a history": replace(theirs, authority_history=b"garbage"),
        "the history of another": replace(theirs, authority_history=somebody.history.encode()),
    }
    for title, grant in refused.items():
        with pytest.raises(SidelinkError):
            scene.adopt(ticket, grant)
        assert not scene.node.enrolled, title
        assert scene.store.gateways() == ()


async def test_a_node_renews_over_the_hop_that_it_has_with_other_links_on_it(
    scene: Scene,
) -> None:
    scene.open_authority()
    ticket = scene.office.ticket(allowed_attributes={"role": None})
    exchange, _ = scene.begin(ticket)
    scene.network.run_for(2)
    scene.adopt(ticket, await exchange.answer())
    before = scene.node.identity.expires_unix_s
    scene.network.run_for(60)
    ids = LinkIds(is_dialler=True)
    for _ in range(6):
        ids.take()
    newcomer = Newcomer(
        lambda hop: renewal_exchange(scene.node, hop, scene.network.clock, link=ids.take())
    )
    member = Node(scene.node.own, scene.node.identity)
    scene.network.connect(
        newcomer,  # type: ignore[arg-type]
        scene.gateway,
        (scene.gateway.node.peer, member.peer),
    )
    scene.network.run_for(2)
    grant = await newcomer.exchange.answer()
    adopt_renewal(scene.node, scene.store, grant, scene.network.clock)

    assert newcomer.exchange.link == 7
    assert scene.node.identity.expires_unix_s >= before + 60
    assert scene.store.gateways() == GATEWAYS


def test_a_node_without_a_credential_has_nothing_to_renew(scene: Scene) -> None:
    hop: Any = None
    with pytest.raises(SidelinkError) as caught:
        renewal_exchange(scene.node, hop, scene.network.clock)

    assert caught.value.code is Code.ENROL_NOT_A_MEMBER


async def test_a_renewal_by_another_authority_is_not_adopted(scene: Scene) -> None:
    ticket = scene.office.ticket()
    trust_ticket(scene.node, ticket, scene.network.clock.unix_s())
    grant, _ = scene.office.enrol(ticket.code, scene.node.own)
    scene.adopt(ticket, grant)
    held = scene.node.own.chain
    other = new_identity(".node", unix_s=scene.network.clock.unix_s(), purposes=tuple(Purpose))
    refused = {
        "the history of another": replace(grant, authority_history=other.history.encode()),
        "garbage for a credential": replace(grant, credential=b"garbage"),
    }
    for title, one in refused.items():
        with pytest.raises(SidelinkError):
            adopt_renewal(scene.node, scene.store, one, scene.network.clock)
        assert scene.node.own.chain == held, title


async def test_a_renewal_that_names_no_gateway_leaves_them_as_they_were(scene: Scene) -> None:
    ticket = scene.office.ticket()
    trust_ticket(scene.node, ticket, scene.network.clock.unix_s())
    grant, _ = scene.office.enrol(ticket.code, scene.node.own)
    scene.adopt(ticket, grant)
    adopt_renewal(scene.node, scene.store, replace(grant, gateways=()), scene.network.clock)

    assert scene.store.gateways() == GATEWAYS


def test_a_ticket_that_is_over_is_not_even_tried(scene: Scene) -> None:
    ticket = scene.office.ticket(expires_in_s=60)
    with pytest.raises(SidelinkError) as caught:
        trust_ticket(scene.node, ticket, ticket.expires_unix_s)

    assert caught.value.code is Code.ENROL_TICKET_EXPIRED
    assert scene.store.trust_anchors() == ()
