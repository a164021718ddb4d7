"""Policies that change while an MCP call is under way, between real programs."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.mesh.meshes import Mesh
from tests.mesh.programs import LOOPBACK, WAIT_S
from tests.mesh.test_mcp import TOKEN, Client
from tests.mesh.test_policy_reload import NEW_WITHIN_S, TOP, add
from tests.sidecar.mcp_helpers import call_of
from tests.sidecar.test_mcp_egress import events_of

pytestmark = pytest.mark.mesh

SERVER = Path(__file__).parents[1] / "sidecar" / "fake_stdio_server.py"
POLICY = f"""\
{TOP}  - name: the assistant uses the tools of billing
    effect: allow
    actions: [mcp.call]
    from: {{name: agent://acme/finance/assistant}}
    to: {{service: tools}}
    tools: ["*"]
"""
NO_WAITING = (
    f"{TOP}  - {{name: nobody waits, effect: deny, actions: [mcp.call], tools: [wait],"
    ' when: "args.days > 2"}\n'
)
INGRESS = """\
mcp:
  ingress:
    - {service: tools, agent: finance/assistant, to: agent://acme/billing/tools, token_file: TOKENS}
"""
SERVERS = """\
mcp:
  servers:
    - {service: tools, agent: billing/tools, command: COMMAND}
"""


@pytest.fixture(scope="module")
def whole_mesh() -> Iterator[Mesh]:
    with Mesh() as mesh:
        tokens = mesh.folder / "token"
        tokens.write_text(TOKEN)
        tokens.chmod(0o600)
        spelled = json.dumps([sys.executable, "-I", "-S", str(SERVER)])
        mesh.a.write_state_file("config.yaml", INGRESS.replace("TOKENS", str(tokens)))
        mesh.b.write_state_file("config.yaml", SERVERS.replace("COMMAND", spelled))
        for program in (mesh.a, mesh.b):
            program.write_state_file("policy.yaml", POLICY)
        yield mesh.up()


@pytest.fixture
async def mesh(whole_mesh: Mesh) -> AsyncIterator[Mesh]:
    async with asyncio.timeout(WAIT_S):
        yield whole_mesh
        for program in (whole_mesh.a, whole_mesh.b):
            (program.paths.policy_folder / "more.yaml").unlink(missing_ok=True)
            await asyncio.to_thread(
                program.wait_status,
                lambda status: len(status["policy"]["files"]) == 1,
                "the policy of before",
            )


@pytest.mark.parametrize("where", ["where the server is", "where the client is"])
async def test_a_call_that_is_denied_now_is_cut_within_a_second_and_cancelled_at_its_server(
    where: str, mesh: Mesh
) -> None:
    program = mesh.b if where == "where the server is" else mesh.a
    port = mesh.a.status()["ports"]["mcp_tools"]
    url = f"http://{LOOPBACK}:{port}/mcp/tools"
    async with aiohttp.ClientSession() as session:
        client = Client(session, port)
        before = await wait_cancelled(client, 0)
        denied = await begin(session, url, days=3)
        allowed = await begin(session, url, days=1)
        put_s = await asyncio.to_thread(add, program, NO_WAITING)
        rest = await denied.read()
        told_s = time.monotonic()
        cancelled = await wait_cancelled(client, len(before) + 1)
        line = await asyncio.to_thread(
            program.wait_audit, lambda line: line["action"] == "call.cut"
        )
        metrics = await asyncio.to_thread(program.metrics)
        goes_on = not allowed.content.at_eof()
        allowed.close()
        await wait_cancelled(client, len(cancelled) + 1)
    (error,) = [one["error"] for one in events_of(rest) if "error" in one]

    assert told_s - put_s < NEW_WITHIN_S
    assert (error["data"]["code"], error["data"]["rule"]) == ("policy.denied", "nobody waits")
    assert error["data"]["decision"] == line["decision_id"]
    assert (line["effect"], line["rule"], line["service"]) == ("cut", "nobody waits", "tools")
    assert line["subject"] == "agent://acme/finance/assistant"
    assert len(cancelled) == len(before) + 1
    assert goes_on
    assert 'sidelink_cuts_total{code="policy.denied",what="call"}' in metrics


async def begin(
    session: aiohttp.ClientSession, url: str, **arguments: object
) -> aiohttp.ClientResponse:
    """A call of which the server has said that it has it, and which it does not answer."""
    body, headers = call_of("wait", **arguments)
    sent = {**dict(headers), "authorization": f"Bearer {TOKEN}"}
    response = await session.post(url, data=body, headers=sent)
    await response.content.readline()
    return response


async def wait_cancelled(client: Client, count: int) -> list[Any]:
    """All that the server was told to cancel so far, once it is so much."""
    while True:
        found: list[Any] = (await client.call("tools", "spy"))["cancelled"]
        if len(found) >= count:
            return found
        await asyncio.sleep(0.01)
