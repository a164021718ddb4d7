"""Agents without end, all of one node, leave an MCP server to others; children see no secret."""

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from identity import Code, VerifiedIdentity
from identity.master_key import MASTER_KEY_FILE_VARIABLE
from policy import Action
from sidecar import mcp_egress
from sidecar.child import ChildSettings
from sidecar.mcp_answers import filter_list
from sidecar.mcp_egress import StdioService
from sidecar.mcp_message import McpAsk
from sidecar.mcp_service import McpService
from sidecar.mcp_stdio import Answer
from sidecar.mcp_wire import ExchangeReader, ResponseHead
from tests.sidecar.mcp_helpers import call_of
from tests.sidecar.mcp_memory import identity_of
from tests.sidecar.test_mcp_egress import SERVER, Side, running

HOSTILE: Final = identity_of("hostile", 100)
HONEST: Final = identity_of("honest", 101)


def agent_of(node: VerifiedIdentity, number: int) -> VerifiedIdentity:
    return replace(identity_of(f"agent-{number}", number), ancestors=(node,))


def service(tmp_path: Path, **changes: Any) -> StdioService:
    command = (sys.executable, "-I", "-S", str(SERVER))
    child = ChildSettings(command=command, hidden=(tmp_path,), unsafe_same_uid=True)
    return StdioService("fake", child, **changes)


async def busy(side: Side, caller: VerifiedIdentity) -> Any:
    stream = await side.begin(*call_of("wait"), caller)
    await ExchangeReader(stream).response_head()
    return stream


async def test_the_agents_of_one_node_do_not_keep_all_children_busy(tmp_path: Path) -> None:
    async with running(service(tmp_path, children_max=4)) as side:
        held = [await busy(side, agent_of(HOSTILE, number)) for number in range(1, 4)]
        head, answer = await side.ask(*call_of("echo"), agent_of(HOSTILE, 4))
        echoed = await side.echo(agent_of(HONEST, 5))
        for stream in held:
            stream.reset(Code.STREAM_RESET)
    assert head.status == 503
    assert json.loads(answer)["error"]["data"]["code"] == "stream.limit"
    assert echoed["pid"]


async def test_the_agents_of_one_node_do_not_fill_memory_with_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_egress, "EXCHANGES_PER_NODE_MAX", 2)
    async with running(service(tmp_path)) as side:
        body, headers = call_of("echo")
        unfinished = [
            await side.begin(body, headers, agent_of(HOSTILE, number), body_bytes=len(body) + 1)
            for number in (1, 2)
        ]
        refused = await side.begin(body, headers, agent_of(HOSTILE, 3))
        served, _ = await side.ask(*call_of("echo"), agent_of(HONEST, 4))
        for stream in unfinished:
            stream.reset(Code.STREAM_RESET)
    assert refused.reset_code is Code.STREAM_LIMIT
    assert served == ResponseHead(200, (("content-type", "application/json"),))


async def test_a_finished_request_gives_its_place_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_egress, "EXCHANGES_PER_NODE_MAX", 1)
    async with running(service(tmp_path)) as side:
        for _ in range(3):
            assert (await side.echo(agent_of(HONEST, 1)))["pid"]
            await asyncio.gather(*side.tasks)


@pytest.mark.parametrize(("may_read", "left"), [(False, 0), (True, 1)])
def test_templates_of_resources_are_for_those_who_may_read(may_read: bool, left: int) -> None:
    answer = Answer(b'{"resourceTemplates":[{"name":"payroll","uriTemplate":"p://{id}"}]}', b"")
    asked: list[McpAsk] = []

    def may_offer(ask: McpAsk) -> bool:
        asked.append(ask)
        return may_read

    filtered = filter_list("resources/templates/list", answer, may_offer)

    assert asked == [McpAsk(Action.MCP_READ, "resources/read")]
    assert len(json.loads(filtered.result)["resourceTemplates"]) == left


def test_a_master_key_and_a_ticket_kept_elsewhere_are_hidden_from_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MASTER_KEY_FILE_VARIABLE, str(tmp_path / "master.key"))
    settings: Any = SimpleNamespace(
        state=tmp_path / "state",
        config=None,
        ticket_file=tmp_path / "ticket",
        mcp=SimpleNamespace(ingress=[]),
    )
    unused: Any = None

    hidden = McpService(unused, settings, unused, unused)._hidden()

    assert set(hidden) == {tmp_path / name for name in ("state", "master.key", "ticket")}
