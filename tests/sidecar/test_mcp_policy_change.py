"""Another policy comes into force while MCP calls are under way: those that it denies end."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from identity import Code
from policy import Denial, Obligations, Permit
from sidecar.mcp_egress import McpEgress, StdioService
from sidecar.mcp_ingress import IngressSettings, McpIngress
from sidecar.mcp_message import McpAsk
from sidecar.mcp_wire import ExchangeReader, ResponseHead, encode_response_head
from sidecar.mesh_stream import StreamError
from tests.sidecar.mcp_helpers import PERMIT, call_of, permit_all
from tests.sidecar.mcp_memory import MemoryStream
from tests.sidecar.test_mcp_egress import (
    BOB,
    Side,
    events_of,
    eventually,
    obliging,
    offer_all,
    service,
)
from tests.sidecar.test_mcp_ingress import OFFERER, SSE, TO, TOKEN, Client, FarSide, later

DENIAL = Denial(Code.POLICY_DENIED, "no tools", "tools are closed", "d9", "2")
TOLD = {
    "code": "policy.denied",
    "rule": "no tools",
    "reason": "tools are closed",
    "decision": "d9",
}


class NextPolicy:
    """What the policy that comes next says of calls in flight."""

    def __init__(self, *denied: str) -> None:
        self.denied = denied
        self.obligations: Any = None
        self.asked: list[tuple[Any, str, McpAsk]] = []

    def __call__(self, peer: Any, name: str, ask: McpAsk) -> Permit | Denial:
        self.asked.append((peer, name, ask))
        if ask.tool in self.denied:
            return DENIAL
        return PERMIT if self.obligations is None else obliging(**self.obligations)(peer, name, ask)


@asynccontextmanager
async def serving(tmp_path: Path, after: NextPolicy, **settings: Any) -> AsyncIterator[Side]:
    described: StdioService = service(tmp_path, **settings)
    egress = McpEgress(described, permit_all, offer_all, ask_again=after)
    async with asyncio.timeout(20), egress:
        side = Side(egress)
        yield side
        await asyncio.gather(*side.tasks)


async def answer_of(near: MemoryStream) -> tuple[ResponseHead, bytes]:
    reader = ExchangeReader(near)
    head = await reader.response_head()
    return head, b"".join([chunk async for chunk in reader.rest()])


async def cancelled_at(side: Side) -> list[int]:
    answer = await side.call("spy")
    found: list[int] = json.loads(answer["result"]["content"][0]["text"])["cancelled"]
    return found


async def in_flight(side: Side, count: int = 1) -> None:
    """The server has them: it answers in order."""
    await eventually(lambda: len(side.egress._standing) == count)
    await side.echo()


async def test_a_call_that_is_denied_now_ends_with_the_denial_in_the_place_of_its_answer(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, NextPolicy("say_nothing")) as side:
        near = await side.begin(*call_of("say_nothing", "c"))
        await in_flight(side)
        side.egress.policy_changed()
        head, body = await answer_of(near)
    answer = json.loads(body)
    assert head == ResponseHead(200, (("content-type", "application/json"),))
    assert (answer["id"], answer["error"]["code"]) == ("c", -32010)
    assert answer["error"]["data"] == TOLD


async def test_a_call_that_has_said_something_ends_with_the_denial_as_its_last_event(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, NextPolicy("wait")) as side:
        near = await side.begin(*call_of("wait", "c"))
        reader = ExchangeReader(near)
        await reader.response_head()
        side.egress.policy_changed()
        said = events_of(b"".join([chunk async for chunk in reader.rest()]))
    assert (said[-1]["id"], said[-1]["error"]["data"]) == ("c", TOLD)


async def test_the_server_is_told_to_cancel_what_is_denied_now_and_nothing_else(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, NextPolicy("say_nothing")) as side:
        await side.echo()
        denied = await side.begin(*call_of("say_nothing"))
        await in_flight(side)
        allowed = await side.begin(*call_of("wait"))
        await ExchangeReader(allowed).response_head()
        side.egress.policy_changed()
        await answer_of(denied)
        cancelled = await cancelled_at(side)
        allowed.reset(Code.STREAM_RESET)
    assert cancelled == [2]


async def test_what_a_server_answers_to_a_call_that_was_cut_goes_nowhere(tmp_path: Path) -> None:
    async with serving(tmp_path, NextPolicy("answer_when_cancelled")) as side:
        near = await side.begin(*call_of("answer_when_cancelled", "c"))
        await in_flight(side)
        side.egress.policy_changed()
        _, body = await answer_of(near)
        await side.echo()
    assert b"too late" not in body
    assert json.loads(body)["error"]["data"] == TOLD


async def test_a_call_is_asked_about_with_the_request_that_was_permitted(tmp_path: Path) -> None:
    after = NextPolicy()
    async with serving(tmp_path, after) as side:
        near = await side.begin(*call_of("wait", days=3), BOB)
        await ExchangeReader(near).response_head()
        side.egress.policy_changed()
        await eventually(lambda: bool(after.asked))
        near.reset(Code.STREAM_RESET)
    ((peer, name, ask),) = after.asked
    assert (peer, name) == (BOB, "fake")
    assert (ask.tool, ask.args) == ("wait", {"days": 3})


async def test_a_call_that_is_allowed_still_goes_on_as_the_new_policy_obliges(
    tmp_path: Path,
) -> None:
    after = NextPolicy()
    after.obligations = {"redact": ("x",), "max_bytes": 5}
    async with serving(tmp_path, after) as side:
        near = await side.begin(*call_of("wait"))
        await ExchangeReader(near).response_head()
        side.egress.policy_changed()
        (live,) = side.egress._standing._live
        near.reset(Code.STREAM_RESET)
    assert live.obligations == Obligations(redact=("x",), max_bytes=5)


async def test_a_call_that_waits_for_its_server_to_start_is_never_begun(tmp_path: Path) -> None:
    async with serving(tmp_path, NextPolicy("echo")) as side:
        async with side.egress._start_lock:
            near = await side.begin(*call_of("echo"))
            await eventually(lambda: len(side.egress._standing) == 1)
            side.egress.policy_changed()
            _, body = await answer_of(near)
        await asyncio.gather(*side.tasks)
        children = side.egress.children
    assert json.loads(body)["error"]["data"] == TOLD
    assert children == 0


async def test_in_the_midst_of_an_answer_that_nobody_takes_the_stream_is_reset(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, NextPolicy("echo")) as side:
        near = await side.begin(*call_of("echo", note="x" * 200_000))
        reader = ExchangeReader(near)
        await reader.response_head()
        side.egress.policy_changed()
        await asyncio.gather(*side.tasks)
    assert near.reset_code is Code.POLICY_DENIED


async def test_a_call_that_has_ended_is_not_asked_about(tmp_path: Path) -> None:
    after = NextPolicy("echo")
    async with serving(tmp_path, after) as side:
        await side.echo()
        await asyncio.gather(*side.tasks)
        side.egress.policy_changed()
    assert after.asked == []


class NearSide:
    """An ingress, its client, and the far ends of its streams."""

    def __init__(self, ingress: McpIngress, client: Client, far: FarSide) -> None:
        self.ingress = ingress
        self.client = client
        self.far = far

    def ask(self, tool: str) -> asyncio.Task[Any]:
        return asyncio.create_task(self._ask(tool))

    async def _ask(self, tool: str) -> Any:
        async with self.client.post(*call_of(tool, "c")) as response:
            return await response.read()


@asynccontextmanager
async def asking(after: NextPolicy, far: FarSide | None = None) -> AsyncIterator[NearSide]:
    far = far or FarSide()
    settings = IngressSettings("alice", {"weather": TO}, token=TOKEN)
    ingress = McpIngress(settings, later(permit_all), far.open, after)
    port = await ingress.start_tcp("127.0.0.1", 0)
    try:
        async with asyncio.timeout(20), aiohttp.ClientSession() as session:
            client = Client(session, f"http://127.0.0.1:{port}/mcp/weather")
            yield NearSide(ingress, client, far)
    finally:
        await ingress.close()


async def test_a_client_whose_own_sidecar_denies_its_call_now_is_told_so() -> None:
    after = NextPolicy("echo")
    async with asking(after) as near:
        task = near.ask("echo")
        far, _, _ = await near.far.request()
        near.ingress.policy_changed()
        answer = json.loads(await task)
        with pytest.raises(StreamError) as caught:
            await far.read(1)
    assert (answer["id"], answer["error"]["data"]) == ("c", TOLD)
    assert caught.value.code is Code.POLICY_DENIED, "so that the far side cancels at the server"
    assert after.asked[0][0] == OFFERER


async def test_a_client_that_reads_events_gets_the_denial_as_the_last_one() -> None:
    async with asking(NextPolicy("echo")) as near:
        task = near.ask("echo")
        far, _, _ = await near.far.request()
        event = b'event: message\r\ndata: {"first":1}\r\n\r\n'
        await far.write(encode_response_head(ResponseHead(200, SSE)) + event)
        await eventually(lambda: not far._out.data)
        near.ingress.policy_changed()
        said = events_of(await task)
    assert said[0] == {"first": 1}
    assert (said[-1]["id"], said[-1]["error"]["data"]) == ("c", TOLD)


async def test_in_the_midst_of_an_event_the_connection_is_cut() -> None:
    async with asking(NextPolicy("echo")) as near:
        task = near.ask("echo")
        far, _, _ = await near.far.request()
        await far.write(encode_response_head(ResponseHead(200, SSE)) + b"data: {")
        await eventually(lambda: not far._out.data)
        near.ingress.policy_changed()
        with pytest.raises(aiohttp.ClientError):
            await task


async def test_a_request_whose_stream_is_being_opened_never_leaves() -> None:
    class SlowFarSide(FarSide):
        def __init__(self) -> None:
            super().__init__()
            self.may_open = asyncio.Event()

        async def open(self, *asked: Any) -> MemoryStream:
            near = await super().open(*asked)
            await self.may_open.wait()
            return near

    far = SlowFarSide()
    async with asking(NextPolicy("echo"), far) as near:
        task = near.ask("echo")
        stream = await far.streams.get()
        near.ingress.policy_changed()
        far.may_open.set()
        answer = json.loads(await task)
    assert answer["error"]["data"] == TOLD
    assert not stream._in.data, "not a byte of the request"


async def test_a_client_whose_call_is_allowed_still_gets_its_answer() -> None:
    after = NextPolicy()
    async with asking(after) as near:
        task = near.ask("echo")
        far, _, _ = await near.far.request()
        near.ingress.policy_changed()
        await far.write(encode_response_head(ResponseHead(200, ())) + b"{}")
        await far.finish()
        answer = await task
    assert answer == b"{}"
    assert len(after.asked) == 1
