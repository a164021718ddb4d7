"""Another company's authority vouches for an agent of ours: by cards and vouchers, as typed."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import sidelink

from tests.mesh.meshes import Mesh
from tests.mesh.programs import WAIT_S, Program, run_sidelink

pytestmark = pytest.mark.mesh

SENDERS = """\
apiVersion: sidelink/v1
kind: Policy
metadata: {name: senders}
rules:
  - {name: agents ask, effect: allow, actions: [message.ask], from: {kind: agent}}
"""
# What the agents' own authority says of them does not count here.
RECEIVERS = """\
apiVersion: sidelink/v1
kind: Policy
metadata: {name: receivers}
rules:
  - name: auditors of globex are answered
    effect: allow
    actions: [message.ask]
    from: {kind: agent}
    when: subject.from["GLOBEX"].role == 'auditor'
"""


class TwoCompanies:
    """A mesh of acme, and the authority of globex, which runs nothing else."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.globex = Program("globex", "authority", mesh.folder / "globex", ("authority", "up"))
        self.globex.flags = ("--trust-domain", "globex", "--ops-port", "0")
        self.globex.start()
        status = self.globex.wait_status(bool, "its admin socket")
        self.identifier = str(status["identifier"])
        mesh.a.write_state_file("policy.yaml", SENDERS)
        mesh.b.write_state_file("policy.yaml", RECEIVERS.replace("GLOBEX", self.identifier))
        mesh.up()

    def run(self, program: Program, *arguments: str) -> str:
        done = run_sidelink(*arguments, "--state", str(program.base))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def vouch(self, agent: str, role: str) -> str:
        """What both operators type. Returns the voucher."""
        card = self.run(self.mesh.a, "credential", "card", "--agent", agent)
        voucher = self.run(
            self.globex,
            *("credential", "issue", card, "--name", "guests/one", "--attribute", f"role={role}"),
        )
        self.run(self.mesh.a, "credential", "add", voucher, "--agent", agent)
        return voucher


@pytest.fixture(scope="module")
def companies() -> Iterator[TwoCompanies]:
    with Mesh() as mesh:
        both = TwoCompanies(mesh)
        yield both
        both.globex.kill()


@pytest.fixture(autouse=True)
async def deadline() -> AsyncIterator[None]:
    async with asyncio.timeout(2 * WAIT_S):
        yield


async def test_a_voucher_counts_once_its_issuer_is_trusted_and_until_it_is_removed(
    companies: TwoCompanies,
) -> None:
    mesh, identifier = companies.mesh, companies.identifier
    async with (
        sidelink.connect(mesh.a.agent_socket) as here,
        sidelink.connect(mesh.b.agent_socket) as there,
    ):
        asker = await here.agent("finance/asker", attributes={"role": "auditor"})
        answerer = await there.agent("billing/answerer")

        async def serve() -> None:
            async for message in answerer.inbox():
                await message.reply("yes")

        async def ask() -> object:
            try:
                return (await asker.ask(answerer.uri, "may I?", timeout=10)).body
            except sidelink.PolicyDenied as denied:
                return denied.code

        task = asyncio.create_task(serve())
        on_its_own = await ask()
        await asyncio.to_thread(companies.vouch, "finance/asker", "auditor")
        not_trusted = await ask()
        await asyncio.to_thread(companies.run, mesh.b, "trust", "add", identifier, "globex")
        trusted = await ask()
        await asyncio.to_thread(companies.vouch, "finance/asker", "clerk")
        another_word = await ask()
        await asyncio.to_thread(companies.vouch, "finance/asker", "auditor")
        again = await ask()
        await asyncio.to_thread(
            companies.run, mesh.a, "credential", "remove", identifier, "--agent", "finance/asker"
        )
        removed = await ask()
        task.cancel()

    denied = "policy.no_rule"
    assert (on_its_own, not_trusted) == (denied, denied)
    assert trusted == "yes"
    assert another_word == denied
    assert again == "yes"
    assert removed == denied


async def test_a_voucher_for_another_agent_is_refused(companies: TwoCompanies) -> None:
    mesh = companies.mesh
    async with sidelink.connect(mesh.a.agent_socket) as here:
        for name in ("finance/one", "finance/two"):
            await here.agent(name)
        voucher = await asyncio.to_thread(companies.vouch, "finance/one", "auditor")
        done = await asyncio.to_thread(
            run_sidelink,
            *("credential", "add", voucher, "--agent", "finance/two"),
            *("--state", str(mesh.a.base)),
        )

    assert done.returncode != 0
    assert "it is about sl1" in done.stderr
