"""Policy at both ends of a real mesh: what no rule allows is refused, and rules have names."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import sidelink

from tests.mesh.meshes import Mesh
from tests.mesh.programs import WAIT_S

pytestmark = pytest.mark.mesh

SENDERS = """\
apiVersion: sidelink/v1
kind: Policy
metadata: {name: senders}
attributes: {role: text}
rules:
  - name: planners and interns ask billing
    effect: allow
    actions: [message.ask]
    from: {role: [planner, intern]}
    to: {name: "agent://acme/billing/*"}
  - name: nobody writes to the vault
    effect: deny
    actions: [message.ask, message.tell]
    from: {kind: agent}
    to: {name: "agent://acme/billing/vault"}
"""

RECEIVERS = """\
apiVersion: sidelink/v1
kind: Policy
metadata: {name: receivers}
attributes: {role: text}
rules:
  - name: main takes what is asked of it, if it is small
    effect: allow
    actions: [message.ask]
    from: {kind: agent}
    to: {name: "agent://acme/billing/main"}
    when: message.size < 1000
  - name: interns are not served
    effect: deny
    actions: [channel.open, message.ask]
    from: {role: intern}
    to: {kind: agent}
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with Mesh() as mesh:
        mesh.a.write_state_file("policy.yaml", SENDERS)
        mesh.b.write_state_file("policy.yaml", RECEIVERS)
        yield mesh.up()


@pytest.fixture
async def people(mesh: Mesh) -> AsyncIterator[tuple[sidelink.Mesh, sidelink.Mesh]]:
    async with (
        asyncio.timeout(WAIT_S),
        sidelink.connect(mesh.a.agent_socket) as mesh_a,
        sidelink.connect(mesh.b.agent_socket) as mesh_b,
    ):
        yield mesh_a, mesh_b


People = tuple[sidelink.Mesh, sidelink.Mesh]


async def ask(people: People, asker: str, target: str, body: object = 1) -> object:
    """An agent named for its role asks; whoever is asked answers."""
    mesh_a, mesh_b = people
    answerer = await mesh_b.agent(f"billing/{target}")
    agent = await mesh_a.agent(f"finance/{asker}", attributes={"role": asker})

    async def serve() -> None:
        async for message in answerer.inbox():
            await message.reply("served")

    serving = asyncio.create_task(serve())
    try:
        return (await agent.ask(answerer.uri, body, timeout=10)).body
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await answerer.close()


async def test_what_rules_at_both_ends_allow_is_served(people: People) -> None:
    assert await ask(people, "planner", "main") == "served"


REFUSED = {
    "no rule of the sender's allows it": ("clerk", "main", "policy.no_rule", None),
    "a rule of the sender's denies it": (
        "planner",
        "vault",
        "policy.denied",
        "nobody writes to the vault",
    ),
    "no rule of the receiver's allows it": ("planner", "other", "policy.no_rule", None),
    "a rule of the receiver's denies it": (
        "intern",
        "main",
        "policy.denied",
        "interns are not served",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_it_is_refused_with_the_rules_name_when(case: str, people: People) -> None:
    asker, target, code, rule = REFUSED[case]

    with pytest.raises(sidelink.PolicyDenied) as denied:
        await ask(people, asker, target)

    assert (denied.value.code, denied.value.rule) == (code, rule)
    assert f"agent://acme/billing/{target}" in denied.value.message
    assert denied.value.remedy


async def test_a_condition_on_the_size_is_asked_for_each_message(people: People) -> None:
    assert await ask(people, "planner", "main", "small") == "served"
    with pytest.raises(sidelink.PolicyDenied) as denied:
        await ask(people, "planner", "main", "x" * 2_000)
    assert denied.value.code == "policy.no_rule"
    assert await ask(people, "planner", "main", "small again") == "served"


async def test_a_tell_that_only_asks_are_allowed_for_is_refused(people: People) -> None:
    planner = await people[0].agent("finance/planner", attributes={"role": "planner"})

    with pytest.raises(sidelink.PolicyDenied) as denied:
        await planner.tell("agent://acme/billing/main", "psst")

    assert denied.value.code == "policy.no_rule"


async def test_attributes_that_an_agent_merely_asks_for_change_no_decision(
    people: People,
) -> None:
    """Role comes from the credential that its sidecar may issue, not from what a body says."""
    with pytest.raises(sidelink.PolicyDenied):
        await ask(people, "clerk", "main", {"role": "planner"})


async def test_the_log_of_a_running_program_verifies_and_its_decisions_are_explained(
    mesh: Mesh, people: People
) -> None:
    with pytest.raises(sidelink.PolicyDenied):
        await ask(people, "intern", "main")
    line = await asyncio.to_thread(
        mesh.b.wait_audit, lambda line: line["rule"] == "interns are not served"
    )
    paths = mesh.b.paths
    of_b = ("--state", str(paths.folder.parent))

    verified = await asyncio.to_thread(command, "audit", "verify", *of_b, "--json")
    explained = await asyncio.to_thread(
        command, "policy", "explain", line["decision_id"], *of_b, "--json"
    )

    assert verified["problems"] == []
    assert verified["signer"] == mesh.b.status()["identifier"]
    assert verified["last_seq"] >= line["seq"]
    assert (explained["effect"], explained["rule"]) == ("deny", "interns are not served")
    assert explained["recorded"]["policy_version"] == explained["policy_version"]


def command(*words: str) -> Any:
    """What a command prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *words], capture_output=True, text=True, timeout=20
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


async def test_each_decision_is_a_line_of_the_audit_log(mesh: Mesh, people: People) -> None:
    with pytest.raises(sidelink.PolicyDenied):
        await ask(people, "intern", "main")

    line = await asyncio.to_thread(
        mesh.b.wait_audit, lambda line: line["rule"] == "interns are not served"
    )
    assert (line["effect"], line["subject"]) == ("deny", "agent://acme/finance/intern")
    assert line["object"] == "agent://acme/billing/main"
    assert line["policy_version"] == mesh.b.status()["policy"]["version"]
