"""Two companies, each with an authority and a gateway of its own, whose agents meet at one of
them."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import sidelink

from identity import (
    AgentUri,
    ChainLink,
    Code,
    GatewayAddress,
    Identifier,
    Keystore,
    NamePrefix,
    OwnIdentity,
    Purpose,
    TrustAnchor,
    issue_credential,
    load_master_key,
    new_identity,
)
from identity.credential import Delegable
from node.admin_client import admin_request
from node.own_node import NODE_KEY
from node.store import Store
from tests.mesh.meshes import A_TICKET, Mesh
from tests.mesh.programs import WAIT_S, Program, run_sidelink

pytestmark = pytest.mark.mesh

HEAD: Final = """\
apiVersion: sidelink/v1
kind: Policy
metadata: {name: two-companies}
rules:
"""
# Of acme's gateway: whom of globex it takes, and whom of its own it lets go there.
GATEWAY: Final = f"""\
{HEAD}
  - name: nodes of globex come here, with their names
    effect: allow
    actions: [hop.admit, route.register, link.relay]
    from: {{trust_domain: globex, kind: node}}
  - name: ours reach them
    effect: allow
    actions: [link.relay]
    from: {{trust_domain: acme, kind: node}}
    to: {{trust_domain: globex}}
"""
# Of both sidecars; the first rule is of use to the one that goes to the other company's gateway.
SIDECARS: Final = f"""\
{HEAD}
  - name: the gateway of acme is a gateway
    effect: allow
    actions: [hop.admit]
    from: {{trust_domain: acme, role_of_node: gateway}}
  - name: acme asks globex
    effect: allow
    actions: [message.ask, message.tell]
    from: {{trust_domain: acme, kind: agent}}
    to: {{trust_domain: globex}}
  - name: globex asks acme
    effect: allow
    actions: [message.ask, message.tell]
    from: {{trust_domain: globex, kind: agent}}
    to: {{trust_domain: acme}}
"""
CUT_WITHIN_S: Final = 2.0


class Companies:
    """acme and globex. The sidecar of globex goes to acme's gateway beside its own."""

    def __init__(self, acme: Mesh, globex: Mesh) -> None:
        self.acme = acme
        self.globex = globex
        acme.gateway.write_state_file("policy.yaml", GATEWAY)
        for mesh in (acme, globex):
            mesh.a.write_state_file("policy.yaml", SIDECARS)
            mesh.authority.start()
            mesh.authority.wait_status(bool, "its admin socket")
            mesh.gateway.start("--ticket", mesh.ticket(role="gateway", name="node/gw"))
            mesh.gateway.wait_ready()
        where = f"{acme.gateway.status()['identifier']}@{acme.gateway_address}"
        globex.a.write_state_file("config.yaml", f"further_gateways: [{where}]\n")
        for mesh in (acme, globex):
            mesh.a.start("--ticket", mesh.ticket(**A_TICKET))
            mesh.a.wait_ready()
        self.trust("add")

    def trust(self, what: str) -> None:
        """Each trusts the other, as its operators type it; or no longer."""
        for program, other in (
            (self.acme.gateway, self.globex),
            (self.acme.a, self.globex),
            (self.globex.a, self.acme),
        ):
            domain = (other.trust_domain,) if what == "add" else ()
            told = run_sidelink(
                *("trust", what, self.authority(other), *domain),
                *("--program", program.program, "--state", str(program.base)),
            )
            assert told.returncode == 0, told.stderr
        if what == "add":
            self.globex.a.wait_status(
                lambda status: all(gateway["connected"] for gateway in status["gateways"]),
                "both gateways",
            )

    @staticmethod
    def authority(mesh: Mesh) -> str:
        return str(mesh.authority.status()["identifier"])


@pytest.fixture(scope="module")
def companies() -> Iterator[Companies]:
    with Mesh() as acme, Mesh(trust_domain="globex") as globex:
        yield Companies(acme, globex)


@pytest.fixture(autouse=True)
async def deadline() -> AsyncIterator[None]:
    async with asyncio.timeout(2 * WAIT_S):
        yield


@asynccontextmanager
async def listening(program: Program, name: str) -> AsyncIterator[sidelink.Agent]:
    """An agent that answers whatever it is asked, and says who asked."""
    async with sidelink.connect(program.agent_socket) as connected:
        agent = await connected.agent(name)

        async def serve() -> None:
            async for message in agent.inbox():
                await message.reply(message.sender)

        task = asyncio.create_task(serve())
        yield agent
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until_answered(asker: sidelink.Agent, target: str) -> Any:
    """Names and lists of another company take a moment to arrive."""
    while True:
        try:
            return (await asker.ask(target, "who am I?", timeout=5)).body
        except sidelink.SidelinkError as error:
            if not error.code.startswith(("route.", "channel.")):
                raise


def cuts(program: Program) -> str:
    return "\n".join(line for line in program.metrics().splitlines() if "cuts_total" in line)


async def test_agents_of_two_companies_ask_each_other_under_policies_that_name_both(
    companies: Companies,
) -> None:
    async with (
        listening(companies.acme.a, "finance/here") as here,
        listening(companies.globex.a, "finance/there") as there,
    ):
        to_globex = await until_answered(here, there.uri)
        to_acme = await until_answered(there, here.uri)

    assert to_globex == "agent://acme/finance/here"
    assert to_acme == "agent://globex/finance/there"


async def test_no_rule_that_names_one_company_speaks_of_the_other(companies: Companies) -> None:
    """Two agents of globex: no rule lets them talk, though each may talk to acme."""
    async with (
        listening(companies.globex.a, "finance/one") as one,
        listening(companies.globex.a, "finance/two") as two,
    ):
        with pytest.raises(sidelink.PolicyDenied):
            await one.ask(two.uri, "hello", timeout=5)


def keys_of(program: Program, name: str = NODE_KEY) -> OwnIdentity:
    keystore = Keystore.open(
        program.paths.database, load_master_key(program.paths.master_key, environment={})
    )
    own = keystore.load(name)
    keystore.close()
    assert own is not None
    return own


def test_a_name_of_one_company_under_the_authority_of_the_other_is_refused(
    companies: Companies,
) -> None:
    """acme's own authority says that somebody is a node of globex. acme's gateway trusts both."""
    acme, unix_s = companies.acme, int(time.time())
    authority = keys_of(acme.authority)
    own = new_identity(NODE_KEY, unix_s=unix_s, purposes=(Purpose.HOP, Purpose.CHANNEL))
    signed = issue_credential(
        authority.signing_key,
        authority.history,
        own.history,
        name=AgentUri.in_domain("globex", "node/double"),
        trust_domain="globex",
        kind="node",
        role_of_node="sidecar",
        attributes={},
        delegable=Delegable((NamePrefix("globex", ("finance",)),), {}, ("message.ask",), 3, 3600),
        not_before_unix_s=unix_s,
        expires_unix_s=unix_s + 3600,
    )
    double = acme.sidecar("double")
    double.write_state_file("policy.yaml", SIDECARS)
    keystore = Keystore.open(
        double.paths.database, load_master_key(double.paths.master_key, environment={})
    )
    keystore.save(own.with_chain((ChainLink(signed.encoded, authority.history.encode()),)))
    keystore.close()
    host, _, port = acme.gateway_address.rpartition(":")
    gateway = Identifier.parse(acme.gateway.status()["identifier"])
    with Store.open(double.paths.database) as store:
        store.add_trust_anchor(TrustAnchor(authority.identifier, "acme"))
        store.replace_gateways((GatewayAddress(host, int(port), gateway),))
    double.start()
    try:
        status = double.wait_status(
            lambda status: any(one["fault"] for one in status["gateways"]), "being refused"
        )
    finally:
        double.kill()

    assert Code.HOP_WRONG_AUTHORITY.text in status["gateways"][0]["fault"]


async def test_an_agent_revoked_by_its_own_authority_is_cut_at_the_other_company(
    companies: Companies,
) -> None:
    async with (
        listening(companies.acme.a, "finance/revoking") as here,
        listening(companies.globex.a, "finance/revoked") as there,
    ):
        await until_answered(there, here.uri)
        socket = companies.globex.authority.paths.admin_socket
        asked_s = time.monotonic()
        body = {"who": there.identifier, "reason": "a test"}
        await asyncio.to_thread(admin_request, socket, "POST", "/v1/revocations", body)
        line = await asyncio.to_thread(
            companies.acme.a.wait_audit,
            lambda line: line["effect"] == "cut" and line["subject_identifier"] == there.identifier,
        )
        took_s = time.monotonic() - asked_s
        metrics = await asyncio.to_thread(cuts, companies.acme.a)

    assert took_s < CUT_WITHIN_S
    assert line["action"] == "channel.cut"
    assert "channel.revoked" in line["reason"]
    assert 'code="channel.revoked",what="channel"' in metrics


async def test_who_is_trusted_no_longer_is_cut_at_once_and_it_is_said_why(
    companies: Companies,
) -> None:
    acme, globex = companies.acme, companies.globex
    async with (
        listening(acme.a, "finance/parting") as here,
        listening(globex.a, "finance/parted") as there,
    ):
        await until_answered(there, here.uri)
        await asyncio.to_thread(companies.trust, "remove")
        lines = [
            await asyncio.to_thread(
                program.wait_audit,
                lambda line: line["effect"] == "cut" and "wrong_authority" in line["reason"],
            )
            for program in (acme.a, acme.gateway)
        ]
        metrics = [await asyncio.to_thread(cuts, program) for program in (acme.a, acme.gateway)]
        hops = (await asyncio.to_thread(acme.gateway.status))["hops"]
        with pytest.raises(sidelink.SidelinkError):
            await there.ask(here.uri, "still there?", timeout=3)
        own = await asyncio.to_thread(globex.a.status)
        await asyncio.to_thread(companies.trust, "add")
        again = await until_answered(there, here.uri)

    assert [line["action"] for line in lines] == ["channel.cut", "hop.cut"]
    assert 'code="channel.wrong_authority",what="channel"' in metrics[0]
    assert 'code="channel.wrong_authority",what="hop"' in metrics[1]
    assert not [hop for hop in hops if "globex" in (hop["name"] or "")]
    assert own["ready"], "its own company's mesh is as it was"
    assert again == "agent://globex/finance/parted"
