"""The egress: decides again, keeps callers apart, and never loses track of a child."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from identity import Code, Identifier
from policy import Action, Denial, Obligations, Permit
from policy.decision import make_permit
from sidecar import mcp_egress
from sidecar.child import ChildSettings
from sidecar.mcp_egress import EgressDecide, McpEgress, StdioService
from sidecar.mcp_message import McpAsk
from sidecar.mcp_wire import (
    ExchangeReader,
    Headers,
    RequestHead,
    ResponseHead,
    encode_request_head,
)
from sidecar.mesh_stream import StreamError
from tests.sidecar.mcp_helpers import (
    META,
    PERMIT,
    body_of,
    call_of,
    denial,
    deny_all,
    deny_tool,
    headers_of,
    permit_all,
)
from tests.sidecar.mcp_memory import MemoryStream, identity_of, memory_stream_pair

SERVER = Path(__file__).with_name("fake_stdio_server.py")
ALICE, BOB = identity_of("alice", 1), identity_of("bob", 2)
OFFERER = identity_of("weather", 9)


def offer_all(*_: object) -> bool:
    return True


def service(tmp_path: Path, **changes: Any) -> StdioService:
    command = changes.pop("command", (sys.executable, "-I", "-S", str(SERVER)))
    settings = ChildSettings(
        command=command, hidden=(tmp_path,), unsafe_same_uid=changes.pop("unsafe", True)
    )
    return StdioService("fake", settings, **changes)


class Side:
    """An egress, and the exchanges that a test has with it."""

    def __init__(self, egress: McpEgress) -> None:
        self.egress = egress
        self.tasks: list[asyncio.Task[None]] = []

    async def begin(
        self, body: bytes, headers: Headers, caller: Any = ALICE, **head: Any
    ) -> MemoryStream:
        near, far = memory_stream_pair(caller, OFFERER)
        self.tasks.append(asyncio.create_task(self.egress.serve(far)))
        described = {"method": "POST", "suffix": "", "body_bytes": len(body)} | head
        await near.write(encode_request_head(RequestHead(headers=headers, **described)) + body)
        return near

    async def ask(
        self, body: bytes, headers: Headers, caller: Any = ALICE, **head: Any
    ) -> tuple[ResponseHead, bytes]:
        reader = ExchangeReader(await self.begin(body, headers, caller, **head))
        answer = await reader.response_head()
        return answer, b"".join([chunk async for chunk in reader.rest()])

    async def call(self, tool: str, caller: Any = ALICE, **arguments: Any) -> Any:
        _, body = await self.ask(*call_of(tool, **arguments), caller)
        return json.loads(body)

    async def echo(self, caller: Any = ALICE, **arguments: Any) -> Any:
        answer = await self.call("echo", caller, **arguments)
        return json.loads(answer["result"]["content"][0]["text"])


@asynccontextmanager
async def running(
    settings: StdioService,
    decide: EgressDecide = permit_all,
    may_offer: Any = offer_all,
    judges_results: bool = False,
) -> AsyncIterator[Side]:
    egress = McpEgress(settings, decide, may_offer, lambda: judges_results)
    async with asyncio.timeout(20), egress:
        side = Side(egress)
        yield side
        await asyncio.gather(*side.tasks)


async def eventually(holds: Callable[[], bool]) -> None:
    """For what no event of the seam announces; each test has its deadline."""
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


def events_of(body: bytes) -> list[Any]:
    return [
        json.loads(line.removeprefix(b"data: "))
        for line in body.split(b"\r\n")
        if line.startswith(b"data: ")
    ]


async def test_discovery_is_answered_by_the_server(tmp_path: Path) -> None:
    async with running(service(tmp_path)) as side:
        body = body_of("server/discover", "x:1")
        head, answer = await side.ask(body, headers_of("server/discover"))
    assert head == ResponseHead(200, (("content-type", "application/json"),))
    assert json.loads(answer)["id"] == "x:1"
    assert json.loads(answer)["result"]["supportedVersions"] == ["2026-07-28"]


async def test_an_answer_keeps_its_bytes(tmp_path: Path) -> None:
    async with running(service(tmp_path)) as side:
        _, answer = await side.ask(*call_of("newline", 5))
    assert answer == b'{"jsonrpc":"2.0","id":5,"result":{"content":[],"kept": null, "x":1.50}}'


async def test_a_pretty_printed_call_cannot_smuggle_a_second_message(tmp_path: Path) -> None:
    body, headers = call_of("echo", note="a\nb")
    pretty = json.dumps(json.loads(body), indent=2).encode()
    async with running(service(tmp_path)) as side:
        _, answer = await side.ask(pretty, headers)
    said = json.loads(json.loads(answer)["result"]["content"][0]["text"])
    assert said["params"]["arguments"] == {"note": "a\nb"}


async def test_notifications_come_as_events_with_the_callers_own_token(tmp_path: Path) -> None:
    meta = {**META, "progressToken": "tok"}
    body = body_of("tools/call", 3, name="progress", arguments={"steps": 2}, _meta=meta)
    async with running(service(tmp_path)) as side:
        head, answer = await side.ask(body, headers_of("tools/call", "progress"))
    said = events_of(answer)
    assert dict(head.headers)["content-type"] == "text/event-stream"
    assert [one["params"]["progressToken"] for one in said[:2]] == ["tok", "tok"]
    assert "extra" in said[0]["params"]
    assert said[2]["id"] == 3


async def test_two_clients_of_one_agent_may_use_the_same_id_and_token(tmp_path: Path) -> None:
    meta = {**META, "progressToken": 1}
    bodies = [
        body_of("tools/call", 1, name="progress", arguments={"steps": steps}, _meta=meta)
        for steps in (1, 4)
    ]
    async with running(service(tmp_path)) as side:
        answers = await asyncio.gather(
            *(side.ask(body, headers_of("tools/call", "progress")) for body in bodies)
        )
    assert [len(events_of(answer)) for _, answer in answers] == [2, 5]


async def test_a_subscription_is_named_by_the_callers_id(tmp_path: Path) -> None:
    body = body_of("subscriptions/listen", "sub", notifications={"toolsListChanged": True})
    async with running(service(tmp_path)) as side:
        _, answer = await side.ask(body, headers_of("subscriptions/listen"))
    key = "io.modelcontextprotocol/subscriptionId"
    said = events_of(answer)
    assert [one["params"]["_meta"][key] for one in said[:2]] == ["sub", "sub"]
    assert said[2]["result"]["_meta"][key] == "sub"


async def test_each_caller_has_a_child_of_its_own(tmp_path: Path) -> None:
    async with running(service(tmp_path)) as side:
        pids = [(await side.echo(caller))["pid"] for caller in (ALICE, BOB, ALICE)]
    assert pids[0] == pids[2] != pids[1]


async def test_a_caller_beyond_the_number_of_children_takes_the_place_of_an_idle_one(
    tmp_path: Path,
) -> None:
    async with running(service(tmp_path, children_max=1)) as side:
        first = (await side.echo(ALICE))["pid"]
        await side.echo(BOB)
        children = side.egress.children
    assert children == 1
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


async def test_when_all_children_are_busy_the_next_caller_is_told(tmp_path: Path) -> None:
    async with running(service(tmp_path, children_max=1)) as side:
        busy = await side.begin(*call_of("wait"), ALICE)
        await ExchangeReader(busy).response_head()
        head, answer = await side.ask(*call_of("echo"), BOB)
        busy.reset(Code.STREAM_RESET)
    assert head.status == 503
    assert json.loads(answer)["error"]["data"]["code"] == "stream.limit"


async def test_an_idle_child_is_put_away(tmp_path: Path) -> None:
    async with running(service(tmp_path, idle_s=0.05)) as side:
        await side.echo()
        await eventually(lambda: side.egress.children == 0)


async def test_a_reset_by_the_caller_cancels_at_the_server(tmp_path: Path) -> None:
    async with running(service(tmp_path)) as side:
        await side.echo()
        near = await side.begin(*call_of("wait"))
        await ExchangeReader(near).response_head()
        near.reset(Code.STREAM_RESET)
        await asyncio.gather(*side.tasks)
        answer = await side.call("spy")
    spied = json.loads(answer["result"]["content"][0]["text"])
    assert spied["cancelled"] == [2]


async def test_a_crash_fails_what_is_in_flight_and_the_next_start_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_egress, "BACK_OFF_S_MIN", 0.1)
    async with running(service(tmp_path)) as side:
        waiting = ExchangeReader(await side.begin(*call_of("wait", "w")))
        await waiting.response_head()
        crashed, crash_body = await side.ask(*call_of("crash", 8))
        rest = b"".join([chunk async for chunk in waiting.rest()])
        again, _ = await side.ask(*call_of("echo"))
        later = again
        while later.status != 200:
            later, later_body = await side.ask(*call_of("echo"))
    error = json.loads(crash_body)["error"]
    assert (crashed.status, error["code"]) == (502, -32011)
    assert error["data"]["code"] == "stream.upstream_failed"
    last = events_of(rest)[-1]
    assert (last["id"], last["error"]["code"]) == ("w", -32011)
    assert again.status == 502
    assert json.loads(later_body)["result"]["isError"] is False


async def test_a_line_without_end_ends_the_child_and_not_the_sidecar(tmp_path: Path) -> None:
    async with running(service(tmp_path)) as side:
        head, _ = await side.ask(*call_of("flood"))
    assert head.status == 502


async def test_a_server_that_asks_the_client_is_told_that_nobody_answers(tmp_path: Path) -> None:
    async with running(service(tmp_path)) as side:
        answer = await side.call("ask_client")
    told = json.loads(answer["result"]["content"][0]["text"])
    assert (told["id"], told["error"]["code"]) == ("s1", -32601)


async def test_a_command_that_is_not_there_is_an_error_and_not_a_hang(tmp_path: Path) -> None:
    async with running(service(tmp_path, command=("/nowhere/at/all",))) as side:
        head, _ = await side.ask(*call_of("echo"))
    assert head.status == 502


async def test_a_denied_call_never_starts_a_child(tmp_path: Path) -> None:
    async with running(service(tmp_path), deny_all) as side:
        head, answer = await side.ask(*call_of("echo", "d"))
        assert side.egress.children == 0
    error = json.loads(answer)["error"]
    assert (head.status, error["code"]) == (200, -32010)
    assert json.loads(answer)["id"] == "d"
    assert error["data"] == {
        "code": "policy.no_rule",
        "rule": None,
        "reason": "nothing allows it",
        "decision": "d1",
    }


async def test_the_decision_is_about_the_verified_caller(tmp_path: Path) -> None:
    asked: list[tuple[Identifier, str, McpAsk]] = []

    def decide(caller: Any, name: str, ask: McpAsk) -> Any:
        asked.append((caller.identifier, name, ask))
        return permit_all()

    async with running(service(tmp_path), decide) as side:
        await side.echo(BOB, days=3)
    ((identifier, name, ask),) = asked
    assert (identifier, name) == (BOB.identifier, "fake")
    assert (ask.tool, ask.args) == ("echo", {"days": 3})


async def test_a_list_leaves_out_what_the_caller_may_not_call(tmp_path: Path) -> None:
    def may_offer(caller: Any, name: str, ask: McpAsk) -> bool:
        return caller == ALICE and ask.tool in ("echo", "spy")

    async with running(service(tmp_path), deny_tool("crash"), may_offer) as side:
        _, answer = await side.ask(body_of("tools/list"), headers_of("tools/list"))
    result = json.loads(answer)["result"]
    assert [tool["name"] for tool in result["tools"]] == ["echo", "spy"]
    assert result["ttlMs"] == 0


STATUSES: dict[str, tuple[bytes, Headers, dict[str, Any], int]] = {
    "a method the server lacks": (
        body_of("prompts/list"),
        headers_of("prompts/list"),
        {},
        404,
    ),
    "a tool the server lacks": (*call_of("nope"), {}, 400),
    "a legacy client": (
        b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}',
        headers_of("initialize"),
        {},
        400,
    ),
    "headers that lie, past an ingress that did not look": (
        body_of("tools/call", name="crash", arguments={}),
        headers_of("tools/call", "echo"),
        {},
        400,
    ),
    "a client that does not take events": (
        body_of("tools/list"),
        tuple(one for one in headers_of("tools/list") if one[0] != "accept"),
        {},
        406,
    ),
    "GET": (b"", (), {"method": "GET"}, 405),
    "a path below the endpoint": (body_of("tools/list"), (), {"suffix": "/x"}, 404),
    "a body that says it is too long": (b"", (), {"body_bytes": 2**40}, 413),
}


@pytest.mark.parametrize("case", STATUSES)
async def test_the_status_is_right_for(case: str, tmp_path: Path) -> None:
    body, headers, head, status = STATUSES[case]
    async with running(service(tmp_path)) as side:
        answer, _ = await side.ask(body, headers, **head)
    assert answer.status == status


async def test_a_stream_cut_within_the_body_is_never_served(tmp_path: Path) -> None:
    async with running(service(tmp_path)) as side:
        body, headers = call_of("echo")
        near = await side.begin(body[:-1], headers, body_bytes=len(body))
        await near.finish()
        await asyncio.gather(*side.tasks)
        assert side.egress.children == 0
    assert near.reset_code is Code.STREAM_TRUNCATED


def obliging(**obligations: Any) -> EgressDecide:
    """Permits everything, and asks something of the answer."""
    permit = make_permit(
        PERMIT.action,
        PERMIT.subject,
        PERMIT.object_name,
        policy_version="1",
        expires_unix_s=PERMIT.expires_unix_s,
        rule="tests",
        decision_id="d0",
        message_bytes_max=None,
        cacheable=False,
        obligations=Obligations(**obligations),
    )
    return lambda *_: permit


async def test_fields_that_a_permit_redacts_stay_on_this_side(tmp_path: Path) -> None:
    decide = obliging(redact=("params.arguments.secret",))
    async with running(service(tmp_path), decide) as side:
        said = await side.echo(secret="hunter2", open="yes")
    assert said["params"]["arguments"] == {"secret": "[redacted]", "open": "yes"}


async def test_what_is_said_on_the_way_to_a_redacted_result_stays_too(tmp_path: Path) -> None:
    meta = {**META, "progressToken": "tok"}
    body = body_of("tools/call", 3, name="progress", arguments={"steps": 2}, _meta=meta)
    async with running(service(tmp_path), obliging(redact=("x",))) as side:
        _, answer = await side.ask(body, headers_of("tools/call", "progress"))
    (last,) = events_of(answer)
    assert last["result"]["content"] == [{"type": "text", "text": "[redacted]"}]


async def test_an_error_of_a_redacted_call_keeps_its_code_alone(tmp_path: Path) -> None:
    async with running(service(tmp_path), obliging(redact=("x",))) as side:
        answer = await side.call("no such tool")
    assert answer["error"] == {"code": -32602, "message": "[redacted]"}


async def test_a_result_larger_than_its_permit_allows_is_withheld(tmp_path: Path) -> None:
    async with running(service(tmp_path), obliging(max_bytes=100)) as side:
        answer = await side.call("echo", note="x" * 200)
    assert answer["error"]["code"] == -32010
    assert "more than 100 bytes" in answer["error"]["message"]


async def test_a_call_that_takes_longer_than_its_permit_allows_is_ended(tmp_path: Path) -> None:
    async with running(service(tmp_path), obliging(max_seconds=0.2)) as side:
        with pytest.raises(StreamError) as caught:
            await side.ask(*call_of("wait"))
    assert caught.value.code is Code.STREAM_TIMEOUT


def deny_results(caller: Any, service_name: str, ask: McpAsk) -> Permit | Denial:
    """Denies what an echo gives back of a secret."""
    if ask.action is Action.MCP_RESULT and ask.result is not None and "secret" in str(ask.result):
        return denial("results hold no secrets")
    return PERMIT


async def test_a_result_is_decided_on_before_it_goes_back(tmp_path: Path) -> None:
    async with running(service(tmp_path), deny_results, judges_results=True) as side:
        kept = await side.call("echo", note="a secret")
        open_ = await side.call("echo", note="nothing")
    assert kept["error"]["code"] == -32010
    assert kept["error"]["data"]["reason"] == "results hold no secrets"
    assert kept["id"] == 1
    assert "result" in open_


async def test_where_no_rule_speaks_of_results_none_is_decided_on(tmp_path: Path) -> None:
    async with running(service(tmp_path), deny_results) as side:
        answer = await side.call("echo", note="a secret")
    assert "result" in answer
