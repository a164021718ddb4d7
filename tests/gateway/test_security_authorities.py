"""Which authority is the gateway's own: others may be trusted here, and are guests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from gateway.program import Gateway
from identity import Code, Identifier, Ticket, VerifiedPeer
from link import HopLimits
from node.parts import Parts, open_parts
from node.settings import GatewaySettings
from node.settings_load import load_settings
from tests.node.members import Authority
from tests.simulation.people import authority_node
from transport import HopPurpose

NOW_MAX = 2**31


@dataclass(eq=False)
class FakeHop:
    """A hop that an authority has opened."""

    id: int
    peer: VerifiedPeer
    purpose: HopPurpose = HopPurpose.ENROL
    closed: Code | None = None
    refused: Code | None = None
    accepted: bool = False
    is_dialler: bool = False
    engine: str = "fake"
    opened_in_s: float = 0.0
    peer_epoch: int = 1

    def __post_init__(self) -> None:
        self.peer_limits = HopLimits(64)
        self.sent: list[tuple[int, int, bytes]] = []

    def send_frame(self, link: int, kind: int, body: bytes) -> None:
        self.sent.append((link, kind, body))

    def accept(self, _: Any) -> None:
        self.accepted = True

    def refuse(self, code: Code) -> None:
        self.refused = code

    def close(self, code: Code) -> None:
        self.closed = self.closed or code


def by(identifier: Identifier, number: int) -> Any:
    """A hop whose peer is this authority."""
    somebody = authority_node().peer
    identity = replace(somebody.identity, identifier=identifier)
    return FakeHop(number, replace(somebody, identity=identity))


@asynccontextmanager
async def gateway_in(folder: Path, ticket: str | None) -> AsyncIterator[tuple[Gateway, Parts]]:
    flags = {"state": str(folder), "ops_port": "0"}
    settings = load_settings(
        GatewaySettings, flags | ({} if ticket is None else {"ticket": ticket}), variables={}
    )
    async with open_parts(settings) as parts:
        yield Gateway(parts, settings), parts


async def test_a_gateway_enrols_with_the_authority_of_its_ticket_and_with_no_other(
    tmp_path: Path,
) -> None:
    acme, globex = Authority(), Authority("globex")
    ticket = Ticket("acme", acme.identifier, (), bytes(16), NOW_MAX).encode()
    async with gateway_in(tmp_path, ticket) as (gateway, parts):
        parts.node.trust.add(globex.anchor)
        gateway._prepare_enrolment()
        guest, own = by(globex.identifier, 1), by(acme.identifier, 2)
        gateway.hop_verified(guest)
        gateway.hop_verified(own)
        gateway.hop_opened(own)
        asked = gateway._exchange
        for task in gateway._tasks:
            task.cancel()

    assert guest.refused is Code.HOP_DENIED
    assert own.accepted
    assert asked is not None
    assert asked[0] is own


async def test_an_authority_that_is_a_guest_enrols_as_everybody_does(tmp_path: Path) -> None:
    """For so long, and so many; not in the place of the gateway's own."""
    acme, globex = Authority(), Authority("globex")
    async with gateway_in(tmp_path, None) as (gateway, parts):
        acme.enrol(parts.node, parts.clock.unix_s(), role="gateway")
        parts.node.trust.add(globex.anchor)
        guest, own = by(globex.identifier, 1), by(acme.identifier, 2)
        for hop in (guest, own):
            gateway.hop_opened(hop)
        enrolling = list(gateway._enrolling._until_s)

    assert enrolling == [guest]


async def test_a_gateway_whose_credential_has_ended_says_what_it_needs(tmp_path: Path) -> None:
    acme = Authority()
    async with gateway_in(tmp_path, None) as (gateway, parts):
        unix_s = parts.clock.unix_s()
        acme.enrol(parts.node, unix_s - 7_200, role="gateway", ttl_s=3_600)
        own = by(acme.identifier, 1)
        with capture_logs() as logs:
            gateway.hop_opened(own)

    assert own.closed is Code.HOP_CREDENTIAL_EXPIRED
    [told] = [line for line in logs if line["event"] == "credential_over"]
    assert told["remedy"] == Code.ENROL_TICKET_MISSING.remedy
