"""MCP from a client's HTTP request through the mesh to a stdio server, and what that cannot do."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.mesh.meshes import Mesh
from tests.mesh.programs import LOOPBACK, WAIT_S
from tests.sidecar.mcp_helpers import body_of, call_of, headers_of

pytestmark = pytest.mark.mesh

SERVER = Path(__file__).with_name("mcp_stdio_server.py")
TOKEN = "a-token-of-this-test-and-no-other"

POLICY = """\
apiVersion: sidelink/v1
kind: Policy
metadata: {name: tools}
rules:
  - name: the assistant uses the tools of billing
    effect: allow
    actions: [mcp.call]
    from: {name: agent://acme/finance/assistant}
    to: {service: [tools, open]}
    tools: TOOLS
"""

INGRESS = """\
mcp:
  ingress:
    - {service: tools, agent: finance/assistant, to: agent://acme/billing/tools, token_file: TOKENS}
    - {service: open, agent: finance/assistant, to: agent://acme/billing/open, token_file: TOKENS}
    - {service: none, agent: finance/assistant, to: agent://acme/billing/none, token_file: TOKENS}
"""

SERVERS = """\
mcp:
  servers:
    - {service: tools, agent: billing/tools, command: COMMAND}
    - {service: open, agent: billing/open, command: COMMAND, unsafe_same_uid: true}
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with Mesh() as mesh:
        tokens = mesh.folder / "token"
        tokens.write_text(TOKEN)
        tokens.chmod(0o600)
        outside = mesh.folder / "outside"
        outside.mkdir()
        state = mesh.b.paths.folder
        command = [sys.executable, "-I", "-S", SERVER, state, mesh.b.agent_socket, outside]
        spelled = json.dumps([str(word) for word in command])
        mesh.a.write_state_file("config.yaml", INGRESS.replace("TOKENS", str(tokens)))
        mesh.a.write_state_file("policy.yaml", POLICY.replace("TOOLS", '["*"]'))
        mesh.b.write_state_file("config.yaml", SERVERS.replace("COMMAND", spelled))
        mesh.b.write_state_file("policy.yaml", POLICY.replace("TOOLS", "[echo, attack]"))
        mesh.b.environment = {"AWS_SECRET_ACCESS_KEY": "hunter2"}
        yield mesh.up()


class Client:
    """An MCP client of one ingress: it knows a URL and a token, and nothing of a mesh."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._port = port

    async def post(self, service: str, sent: tuple[bytes, Any], token: str = TOKEN) -> Any:
        body, headers = sent
        url = f"http://{LOOPBACK}:{self._port}/mcp/{service}"
        headers = {**dict(headers), "authorization": f"Bearer {token}"}
        async with self._session.post(url, data=body, headers=headers) as response:
            text = await response.text()
        return response.status, json.loads(text) if text else None

    async def call(self, service: str, tool: str, **arguments: object) -> Any:
        """The result of a tool that answers with JSON."""
        status, answer = await self.post(service, call_of(tool, **arguments))
        assert status == 200, answer
        assert "result" in answer, answer
        return json.loads(answer["result"]["content"][0]["text"])


@pytest.fixture
async def client(mesh: Mesh) -> AsyncIterator[Client]:
    port = mesh.a.status()["ports"]["mcp_tools"]
    async with asyncio.timeout(WAIT_S), aiohttp.ClientSession() as session:
        yield Client(session, port)


async def test_a_call_is_answered_by_the_server_on_the_far_side(client: Client) -> None:
    assert await client.call("tools", "echo", text="hello") == {"echoed": {"text": "hello"}}


async def test_the_list_leaves_out_what_the_far_policy_denies(client: Client) -> None:
    status, answer = await client.post("tools", (body_of("tools/list"), headers_of("tools/list")))

    assert status == 200
    assert [tool["name"] for tool in answer["result"]["tools"]] == ["echo", "attack"]


async def test_a_denied_tool_is_refused_with_a_reason(mesh: Mesh, client: Client) -> None:
    status, answer = await client.post("tools", call_of("forbidden"))

    assert "result" not in answer
    assert "forbidden" in answer["error"]["message"]
    assert "denied" in json.dumps(answer)
    assert status in (200, 403)
    line = await asyncio.to_thread(mesh.b.wait_audit, lambda line: line["effect"] == "deny")
    assert (line["action"], line["subject"]) == ("mcp.call", "agent://acme/finance/assistant")
    assert "forbidden" in line["reason"]


async def test_a_client_without_the_token_is_turned_away(client: Client) -> None:
    status, _ = await client.post("tools", call_of("echo"), token="another-token-of-some-length")

    assert status == 401


async def test_a_service_that_nobody_offers_is_an_error_for_the_client(client: Client) -> None:
    status, answer = await client.post("none", call_of("echo"))

    assert "error" in answer
    assert status != 401


async def test_many_calls_at_once_are_all_answered(client: Client) -> None:
    answers = await asyncio.gather(
        *(client.call("tools", "echo", number=number) for number in range(40))
    )

    assert answers == [{"echoed": {"number": number}} for number in range(40)]


async def test_a_hostile_server_can_neither_read_the_state_nor_act_as_an_agent(
    mesh: Mesh, client: Client
) -> None:
    before = mesh.b.paths.master_key.read_bytes()

    outcomes: dict[str, str] = await client.call("tools", "attack")

    obtained = {name: got for name, got in outcomes.items() if not got.startswith("refused")}
    assert obtained == {}
    assert {"open the state", "connect to the agents' socket"} <= set(outcomes)
    assert len(outcomes) >= 38
    assert mesh.b.paths.master_key.read_bytes() == before
    assert mesh.b.status()["ready"]


async def test_the_same_server_without_isolation_can(client: Client) -> None:
    """So the attempts are real, and ``unsafe_same_uid`` is what its name says."""
    attempts = ["open the state", "connect to the agents' socket", "secrets in the environment"]

    outcomes = await client.call("open", "attack", attempts=attempts)

    assert not outcomes["open the state"].startswith("refused")
    assert outcomes["connect to the agents' socket"] == "connected"
    assert outcomes["secrets in the environment"].startswith("refused"), "not even then"


async def test_servers_end_with_their_sidecar(mesh: Mesh, client: Client) -> None:
    await client.call("tools", "echo")
    children = children_of(mesh.b.pid)
    assert children

    assert await asyncio.to_thread(mesh.b.stop) == 0

    assert running_of(children) == []
    mesh.heal()


def running_of(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def children_of(pid: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                stat = Path(f"/proc/{name}/stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == pid:
                found.append(int(name))
    return found


def test_a_busy_port_for_mcp_clients_is_told_in_one_paragraph(mesh: Mesh) -> None:
    port = mesh.a.status()["ports"]["mcp_tools"]
    other = mesh.sidecar("busy")
    other.write_state_file(
        "config.yaml",
        INGRESS.replace("TOKENS", str(mesh.folder / "token")).replace("finance", "busy"),
    )

    other.start(
        "--ticket", mesh.ticket(name="node/busy", prefixes=["busy"]), "--mcp-port", str(port)
    )

    assert other.wait_end() == 2
    paragraph = other.log_text().strip().splitlines()[-1]
    assert paragraph.startswith("sidelink: config.port_busy: ")
    assert str(port) in paragraph
    assert "choose another port" in paragraph
    assert "Traceback" not in other.log_text()
