"""Nodes that may not join: each is refused with a code of its own and told what to do."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import sidelink

from identity import (
    AgentUri,
    ChainLink,
    Code,
    Delegable,
    GatewayAddress,
    Identifier,
    Keystore,
    NamePrefix,
    Purpose,
    TrustAnchor,
    issue_credential,
    load_master_key,
    new_identity,
)
from node.own_node import NODE_KEY
from node.store import Store
from policy import STARTER_POLICY
from tests.mesh.meshes import Mesh
from tests.mesh.programs import Program

pytestmark = pytest.mark.mesh

STRANGER = Identifier(bytes(range(32)))


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    """A whole one, for what is refused is tried beside what is not."""
    with Mesh() as mesh:
        yield mesh.up()


@pytest.fixture
def newcomer(mesh: Mesh, request: pytest.FixtureRequest) -> Iterator[Program]:
    """A sidecar with an empty state folder."""
    program = mesh.sidecar(f"new-{len(mesh.programs)}")
    yield program
    program.kill()


def no_ticket(mesh: Mesh) -> str | None:
    return None


def no_ticket_at_all(mesh: Mesh) -> str | None:
    return "a ticket, please"


def expired_ticket(mesh: Mesh) -> str | None:
    ticket = mesh.ticket(name="node/late", expires_in_s=1)
    time.sleep(1.1)
    return ticket


def expired_ticket_with_a_forged_date(mesh: Mesh) -> str | None:
    ticket = mesh.read_ticket(name="node/late", expires_in_s=1)
    time.sleep(1.1)
    return replace(ticket, expires_unix_s=int(time.time()) + 600).encode()


def used_ticket(mesh: Mesh) -> str | None:
    ticket = mesh.ticket(name="node/first")
    first = mesh.sidecar(f"first-{len(mesh.programs)}")
    first.start("--ticket", ticket)
    first.wait_ready()
    first.stop()
    return ticket


def ticket_with_a_guessed_code(mesh: Mesh) -> str | None:
    return replace(mesh.read_ticket(name="node/x"), code=os.urandom(16)).encode()


def ticket_of_another_authority(mesh: Mesh) -> str | None:
    """Sound in itself, but the gateway that it leads to belongs to somebody else."""
    return replace(mesh.read_ticket(name="node/x"), authority=STRANGER).encode()


def ticket_for_another_gateway(mesh: Mesh) -> str | None:
    """The address is right; who answers there is not who the ticket names."""
    ticket = mesh.read_ticket(name="node/x")
    (gateway,) = ticket.gateways
    return replace(ticket, gateways=(replace(gateway, identifier=STRANGER),)).encode()


def ticket_for_a_gateway(mesh: Mesh) -> str | None:
    return mesh.ticket(role="gateway", name="node/other-gateway")


REFUSED_TICKETS: dict[str, tuple[Callable[[Mesh], str | None], Code]] = {
    "no ticket": (no_ticket, Code.ENROL_TICKET_MISSING),
    "what is no ticket": (no_ticket_at_all, Code.ENROL_TICKET_MALFORMED),
    "an expired ticket": (expired_ticket, Code.ENROL_TICKET_EXPIRED),
    "an expired ticket with a forged date": (
        expired_ticket_with_a_forged_date,
        Code.ENROL_TICKET_EXPIRED,
    ),
    "a used ticket": (used_ticket, Code.ENROL_TICKET_USED),
    "a ticket with a guessed code": (ticket_with_a_guessed_code, Code.ENROL_TICKET_UNKNOWN),
    "a ticket of another authority": (ticket_of_another_authority, Code.ENROL_WRONG_AUTHORITY),
    "a ticket that pins another gateway": (ticket_for_another_gateway, Code.HOP_WRONG_IDENTIFIER),
    "a gateway's ticket": (ticket_for_a_gateway, Code.ENROL_WRONG_ROLE),
}


@pytest.mark.parametrize("case", REFUSED_TICKETS)
def test_a_sidecar_with_this_ticket_ends_with_a_code_and_a_remedy(
    case: str, mesh: Mesh, newcomer: Program
) -> None:
    make, code = REFUSED_TICKETS[case]
    ticket = make(mesh)

    newcomer.start(*(() if ticket is None else ("--ticket", ticket)))

    assert newcomer.wait_end() == 1
    paragraph = newcomer.log_text().strip().splitlines()[-1]
    assert paragraph.startswith(f"sidelink: {code.text}: ")
    assert paragraph.endswith(code.remedy)
    assert "Traceback" not in newcomer.log_text()
    if ticket is not None:
        assert ticket not in newcomer.log_text()


def expired_gateway_ticket(mesh: Mesh) -> str | None:
    ticket = mesh.ticket(role="gateway", name="node/late", expires_in_s=1)
    time.sleep(1.1)
    return ticket


REFUSED_GATEWAYS: dict[str, tuple[Callable[[Mesh], str | None], Code]] = {
    "no ticket": (no_ticket, Code.ENROL_TICKET_MISSING),
    "a sidecar's ticket": (lambda mesh: mesh.ticket(name="node/x"), Code.ENROL_WRONG_ROLE),
    "an expired ticket": (expired_gateway_ticket, Code.ENROL_TICKET_EXPIRED),
}


@pytest.mark.parametrize("case", REFUSED_GATEWAYS)
def test_a_gateway_with_this_ticket_ends_with_a_code_and_a_remedy(case: str, mesh: Mesh) -> None:
    make, code = REFUSED_GATEWAYS[case]
    ticket = make(mesh)
    gateway = mesh.second_gateway()

    gateway.start(*(() if ticket is None else ("--ticket", ticket)))

    assert gateway.wait_end() == 1
    assert gateway.log_text().strip().splitlines()[-1].startswith(f"sidelink: {code.text}: ")
    assert code.remedy in gateway.log_text()


def test_a_ticket_that_came_to_nothing_leaves_no_trust(mesh: Mesh, newcomer: Program) -> None:
    """Else its maker could vouch, for ever, for names in a trust domain that is not his."""
    bogus = replace(mesh.read_ticket(name="node/x"), authority=STRANGER).encode()
    newcomer.start("--ticket", bogus)
    assert newcomer.wait_end() == 1

    newcomer.start("--ticket", mesh.ticket(name="node/wiser", prefixes=["wiser"]))
    newcomer.wait_ready()

    with Store.open(newcomer.paths.database) as store:
        trusted = [str(anchor.identifier) for anchor in store.trust_anchors()]
    assert trusted == [mesh.authority.status()["identifier"]]


def test_a_ticket_may_be_used_again_by_the_node_that_has_used_it(
    mesh: Mesh, newcomer: Program
) -> None:
    """The answer may have been lost on the way."""
    ticket = mesh.ticket(name="node/again", prefixes=["again"])
    newcomer.start("--ticket", ticket)
    first = newcomer.wait_ready()["identifier"]
    assert newcomer.stop() == 0
    forget_credential(newcomer)

    newcomer.start("--ticket", ticket)

    assert newcomer.wait_ready()["identifier"] == first


def open_keystore(program: Program) -> Keystore:
    return Keystore.open(
        program.paths.database, load_master_key(program.paths.master_key, environment={})
    )


def forget_credential(program: Program) -> None:
    keystore = open_keystore(program)
    own = keystore.load(NODE_KEY)
    assert own is not None
    keystore.save(own.with_chain(()))
    keystore.close()


def craft_state(
    mesh: Mesh, program: Program, *, issued_by: str, trusts_the_mesh: bool, pinned: Identifier
) -> None:
    """A sidecar's state as enrolment leaves it, but by an authority of our own making."""
    unix_s = int(time.time())
    program.write_state_file("policy.yaml", STARTER_POLICY)
    keystore = open_keystore(program)
    authority = new_identity("authority", unix_s=unix_s, purposes=())
    own = new_identity(NODE_KEY, unix_s=unix_s, purposes=(Purpose.HOP, Purpose.CHANNEL))
    prefix = NamePrefix(issued_by, ("forged",))
    signed = issue_credential(
        authority.signing_key,
        authority.history,
        own.history,
        name=AgentUri.in_domain(issued_by, "node/forged"),
        trust_domain=issued_by,
        kind="node",
        role_of_node="sidecar",
        attributes={},
        delegable=Delegable((prefix,), {}, ("message.ask",), 3, 3600),
        not_before_unix_s=unix_s,
        expires_unix_s=unix_s + 3600,
    )
    keystore.save(own.with_chain((ChainLink(signed.encoded, authority.history.encode()),)))
    keystore.close()
    with Store.open(program.paths.database) as store:
        store.put("purpose_keys_since", str(unix_s).encode())
        store.add_trust_anchor(TrustAnchor(authority.history.identifier, issued_by))
        if trusts_the_mesh:
            anchor = Identifier.parse(mesh.authority.status()["identifier"])
            store.add_trust_anchor(TrustAnchor(anchor, mesh.trust_domain))
        host, _, port = mesh.gateway_address.rpartition(":")
        store.replace_gateways((GatewayAddress(host, int(port), pinned),))


def gateway_identifier(mesh: Mesh) -> Identifier:
    return Identifier.parse(mesh.gateway.status()["identifier"])


# The domain the forger writes, whether the sidecar trusts the mesh's authority too, and the code.
FORGED_CREDENTIALS = {
    "the credential of another authority": ("acme", True, Code.HOP_WRONG_AUTHORITY),
    "the credential and the trust of another authority": ("acme", False, Code.HOP_WRONG_AUTHORITY),
    "the credential of another trust domain": ("globex", True, Code.HOP_DENIED),
}


@pytest.mark.parametrize("case", FORGED_CREDENTIALS)
def test_a_sidecar_with_this_credential_is_refused_and_told_why(
    case: str, mesh: Mesh, newcomer: Program
) -> None:
    domain, trusts_the_mesh, code = FORGED_CREDENTIALS[case]
    pinned = gateway_identifier(mesh)
    craft_state(mesh, newcomer, issued_by=domain, trusts_the_mesh=trusts_the_mesh, pinned=pinned)

    newcomer.start()

    assert_kept_out(mesh, newcomer, code)


def test_a_sidecar_whose_pinned_gateway_is_another_keeps_away_and_says_so(
    mesh: Mesh, newcomer: Program
) -> None:
    newcomer.start("--ticket", mesh.ticket(name="node/pinned", prefixes=["pinned"]))
    newcomer.wait_ready()
    assert newcomer.stop() == 0
    with Store.open(newcomer.paths.database) as store:
        (gateway,) = store.gateways()
        store.replace_gateways((replace(gateway, identifier=STRANGER),))

    newcomer.start()

    assert_kept_out(mesh, newcomer, Code.HOP_WRONG_IDENTIFIER)


def assert_kept_out(mesh: Mesh, program: Program, code: Code) -> None:
    """Not connected, not ready, and its status and its log say why and what to do."""

    def told(status: dict[str, Any]) -> bool:
        return any(code.text in (gateway["fault"] or "") for gateway in status["gateways"])

    status = program.wait_status(
        lambda status: status.get("gateways") and told(status), f"the fault {code.text}"
    )
    assert not status["ready"]
    assert "a gateway that is connected" in status["awaiting"]
    assert code.remedy.split("`")[0] in program.log_text()
    assert "Traceback" not in program.log_text()
    names = [hop["name"] for hop in mesh.gateway.status()["hops"]]
    assert status["name"] not in names


# What a sidecar that has a credential may still not do with it.


def hostile(mesh: Mesh, sin: str) -> Program:
    """A sidecar that is enrolled for ``rogue`` and cheats."""
    program = mesh.sidecar(f"rogue-{sin}")
    program.executable = (sys.executable, "-m", "tests.mesh.hostile_sidecar", sin)
    program.command = ()
    program.start("--ticket", mesh.ticket(name=f"node/{sin}", prefixes=["rogue"]))
    return program


async def test_an_agent_whose_name_is_outside_the_prefix_is_not_opened(mesh: Mesh) -> None:
    async with asyncio.timeout(20), sidelink.connect(mesh.a.agent_socket) as people:
        with pytest.raises(sidelink.LocalError) as refused:
            await people.agent("billing/main")

    assert refused.value.code == "local.name_outside_prefix"
    assert "agent://acme/finance" in refused.value.message
    assert refused.value.remedy


async def test_an_agent_whose_attribute_is_not_delegated_is_not_opened(mesh: Mesh) -> None:
    async with asyncio.timeout(20), sidelink.connect(mesh.a.agent_socket) as people:
        with pytest.raises(sidelink.LocalError) as refused:
            await people.agent("finance/ambitious", attributes={"clearance": 4})

    assert refused.value.code == "local.attribute_denied"
    assert refused.value.remedy


def test_a_node_that_registers_a_prefix_it_was_not_given_loses_its_hop(mesh: Mesh) -> None:
    program = hostile(mesh, "register-beyond")

    status = program.wait_status(
        lambda status: "route.prefix_denied" in str(status.get("gateways")), "route.prefix_denied"
    )

    assert not status["ready"]
    assert Code.ROUTE_PREFIX_DENIED.remedy in program.log_text()
    routes = {route["prefix"]: route["node"] for route in mesh.gateway.status()["routes"]}
    assert routes["agent://acme/billing"] == mesh.b.status()["identifier"]


async def test_a_node_that_speaks_as_somebody_elses_agent_is_refused_by_the_gateway(
    mesh: Mesh,
) -> None:
    program = await asyncio.to_thread(hostile, mesh, "name-beyond")
    await asyncio.to_thread(program.wait_ready)

    refused = await ask_main(mesh, program, "finance/planner", {})

    assert refused.code == "route.source_denied"
    assert refused.remedy


async def test_an_agent_with_an_attribute_beyond_its_nodes_ticket_is_refused_by_the_far_side(
    mesh: Mesh,
) -> None:
    program = await asyncio.to_thread(hostile, mesh, "attribute-beyond")
    await asyncio.to_thread(program.wait_ready)

    refused = await ask_main(mesh, program, "rogue/agent", {"role": "planner"})

    # The first message went along with the proof, so only its reader could say what became of it.
    assert refused.code == "message.outcome_unknown"
    assert "channel.delegation_exceeded" in refused.message
    assert refused.remedy


async def ask_main(
    mesh: Mesh, program: Program, name: str, attributes: dict[str, Any]
) -> sidelink.SidelinkError:
    """How an ask ends that must not arrive."""
    async with (
        asyncio.timeout(20),
        sidelink.connect(mesh.b.agent_socket) as honest,
        sidelink.connect(program.agent_socket) as rogue,
    ):
        main = await honest.agent("billing/main")
        arrived = asyncio.create_task(anext(main.inbox()))
        agent = await rogue.agent(name, attributes=attributes)
        with pytest.raises(sidelink.SidelinkError) as refused:
            await agent.ask(main.uri, "let me in", timeout=10)
        assert not arrived.done()
        arrived.cancel()
    return refused.value
