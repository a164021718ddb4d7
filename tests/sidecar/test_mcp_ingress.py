"""From an HTTP client through the ingress and a mesh stream to a stdio server, and back."""

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from identity import AgentUri, Code, SidelinkError
from policy import Denial, Permit
from sidecar import mcp_ingress
from sidecar.child import ChildSettings
from sidecar.mcp_egress import McpEgress, StdioService
from sidecar.mcp_ingress import IngressDecide, IngressSettings, McpIngress, McpListener
from sidecar.mcp_wire import (
    BODY_BYTES_MAX,
    ExchangeReader,
    RequestHead,
    ResponseHead,
    encode_response_head,
)
from sidecar.mesh_stream import OpenStream
from tests.sidecar.mcp_helpers import (
    META,
    VERSION,
    body_of,
    call_of,
    deny_tool,
    headers_of,
    permit_all,
)
from tests.sidecar.mcp_memory import MemoryStream, identity_of, memory_stream_pair

SERVER = Path(__file__).with_name("fake_stdio_server.py")
TOKEN = "a-token-of-some-length"
ALICE, OFFERER = identity_of("alice", 1), identity_of("weather", 9)
TO = AgentUri.in_domain("acme", "weather")
SSE = (("content-type", "text/event-stream"),)


class Client:
    """A client of one ingress, with headers that a test may change."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    def post(
        self, body: bytes | AsyncIterator[bytes], headers: Any = (), **changes: str | None
    ) -> Any:
        """`changes` use _ for -; None leaves a header out."""
        sent = dict(headers) | {"authorization": f"Bearer {TOKEN}"}
        for name, value in changes.items():
            sent.pop(name.replace("_", "-"), None)
            if value is not None:
                sent[name.replace("_", "-")] = value
        sent_body = io.BytesIO(body) if isinstance(body, bytes) else body
        return self._session.post(self.url, data=sent_body, headers=sent)

    async def ask(self, body: bytes, headers: Any = (), **changes: str | None) -> Any:
        """The response with its whole body."""
        async with self.post(body, headers, **changes) as response:
            await response.read()
        return response

    async def request(self, method: str) -> Any:
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with self._session.request(method, self.url, headers=headers) as response:
            await response.read()
        return response


def later(decide: Callable[..., Permit | Denial]) -> IngressDecide:
    """The same decision, as an ingress asks for it: once the far agent has proved who it is."""

    async def decide_later(*asked: Any) -> Permit | Denial:
        return decide(*asked)

    return decide_later


@asynccontextmanager
async def ingress_to(
    open_stream: OpenStream, decide: Any = permit_all, **settings: Any
) -> AsyncIterator[Client]:
    settings = {"token": TOKEN} | settings
    ingress = McpIngress(
        IngressSettings("alice", {"weather": TO}, **settings), later(decide), open_stream
    )
    port = await ingress.start_tcp("127.0.0.1", 0)
    try:
        async with asyncio.timeout(20), aiohttp.ClientSession() as session:
            yield Client(session, f"http://127.0.0.1:{port}/mcp/weather")
    finally:
        await ingress.close()


class FarSide:
    """Opens streams and hands their far ends to the test."""

    def __init__(self) -> None:
        self.streams: asyncio.Queue[MemoryStream] = asyncio.Queue()
        self.asked: list[tuple[str, AgentUri, str]] = []

    async def open(self, agent: str, to: AgentUri, service: str) -> MemoryStream:
        self.asked.append((agent, to, service))
        near, far = memory_stream_pair(ALICE, OFFERER)
        self.streams.put_nowait(far)
        return near

    async def request(self) -> tuple[MemoryStream, RequestHead, bytes]:
        far = await self.streams.get()
        reader = ExchangeReader(far)
        head = await reader.request_head()
        return far, head, await reader.body(head.body_bytes)


@asynccontextmanager
async def whole_path(
    tmp_path: Path, decide: Any = permit_all, far_decide: Any = permit_all
) -> AsyncIterator[Client]:
    settings = ChildSettings(
        command=(sys.executable, "-I", "-S", str(SERVER)), hidden=(tmp_path,), unsafe_same_uid=True
    )
    service = StdioService("weather", settings)
    async with (
        McpEgress(service, far_decide, lambda *_: True) as egress,
        asyncio.TaskGroup() as tasks,
    ):

        async def open_stream(agent: str, to: AgentUri, name: str) -> MemoryStream:
            near, far = memory_stream_pair(ALICE, OFFERER)
            tasks.create_task(egress.serve(far))
            return near

        async with ingress_to(open_stream, decide) as client:
            yield client


async def test_a_call_is_answered_by_the_server_on_the_far_side(tmp_path: Path) -> None:
    async with whole_path(tmp_path) as client:
        response = await client.ask(*call_of("echo", "id-1", days=3))
        answer = await response.json()
    said = json.loads(answer["result"]["content"][0]["text"])
    assert answer["id"] == "id-1"
    assert said["params"]["arguments"] == {"days": 3}


async def test_progress_arrives_as_events(tmp_path: Path) -> None:
    meta = {**META, "progressToken": "p"}
    body = body_of("tools/call", 1, name="progress", arguments={"steps": 3}, _meta=meta)
    async with whole_path(tmp_path) as client:
        response = await client.ask(body, headers_of("tools/call", "progress"))
        text = await response.text()
    assert response.content_type == "text/event-stream"
    assert response.headers["x-accel-buffering"] == "no"
    assert text.count("event: message") == 4


async def test_a_denial_at_either_end_names_its_reason(tmp_path: Path) -> None:
    async with whole_path(tmp_path, decide=deny_tool("echo")) as client:
        response = await client.ask(*call_of("echo", 4))
        near = await response.json()
    async with whole_path(tmp_path, far_decide=deny_tool("echo")) as client:
        response = await client.ask(*call_of("echo", 4))
        far = await response.json()
    assert near == far
    assert near["error"]["data"]["reason"] == "echo is not for you"


async def test_a_disconnect_cancels_at_the_server(tmp_path: Path) -> None:
    async with whole_path(tmp_path) as client:
        response = await client.post(*call_of("wait")).__aenter__()
        await response.content.readline()
        response.close()
        cancelled: list[int] = []
        while not cancelled:
            spied = await client.ask(*call_of("spy"))
            text = (await spied.json())["result"]["content"][0]["text"]
            cancelled = json.loads(text)["cancelled"]
    assert cancelled == [1]


async def test_a_disconnect_resets_the_stream_while_nothing_is_said() -> None:
    far_side = FarSide()
    async with ingress_to(far_side.open) as client:
        asking = asyncio.create_task(client.post(*call_of("wait")).__aenter__())
        far, _, _ = await far_side.request()
        asking.cancel()
        with pytest.raises(SidelinkError):
            await far.read(1)
    assert far.reset_code is Code.STREAM_RESET


async def test_events_arrive_while_the_answer_is_still_open() -> None:
    far_side = FarSide()
    async with ingress_to(far_side.open) as client:
        asking = asyncio.create_task(client.post(*call_of("t")).__aenter__())
        far, _, _ = await far_side.request()
        await far.write(encode_response_head(ResponseHead(200, SSE)) + b": ping\r\n\r\n")
        response = await asking
        first = await response.content.readline()
        await far.write(b"data: {}\r\n\r\n")
        await far.finish()
        rest = await response.read()
    assert first == b": ping\r\n"
    assert rest == b"\r\ndata: {}\r\n\r\n"


async def test_an_answer_that_is_cut_short_does_not_look_complete() -> None:
    far_side = FarSide()
    async with ingress_to(far_side.open) as client:
        asking = asyncio.create_task(client.post(*call_of("t")).__aenter__())
        far, _, _ = await far_side.request()
        await far.write(encode_response_head(ResponseHead(200, SSE)) + b"data: 1\r\n\r\n")
        response = await asking
        await response.content.readline()
        far.reset(Code.STREAM_TRUNCATED)
        with pytest.raises(aiohttp.ClientError):
            await response.read()


async def test_the_body_and_the_headers_travel_as_they_came() -> None:
    far_side = FarSide()
    body, headers = call_of("t", 1, x=1)
    body = body.replace(b'{"x": 1}', b'{ "x" :1.0 }')
    async with ingress_to(far_side.open) as client:
        asking = asyncio.create_task(
            client.post(
                body, headers, mcp_param_region="eu", sidelink_identity="boss", te="trailers"
            ).__aenter__()
        )
        far, head, sent = await far_side.request()
        await far.write(encode_response_head(ResponseHead(418, (("x-own", "é"),))) + b"tea")
        await far.finish()
        response = await asking
        answer = await response.read()
    names = dict(head.headers)
    assert sent == body
    assert names["mcp-param-region"] == "eu"
    assert not {"sidelink-identity", "te", "host", "authorization"} & names.keys()
    assert (response.status, answer) == (418, b"tea")
    assert far_side.asked == [("alice", TO, "weather")]


REFUSED: dict[str, tuple[dict[str, str | None], int]] = {
    "no token": ({"authorization": None}, 401),
    "a wrong token": ({"authorization": "Bearer wrong"}, 401),
    "a token that is not ASCII": ({"authorization": "Bearer ÿ"}, 401),
    "an empty token": ({"authorization": "Bearer "}, 401),
    "another scheme": ({"authorization": f"Basic {TOKEN}"}, 401),
    "a foreign host (DNS rebinding)": ({"host": "evil.example"}, 421),
    "a host that only begins like ours": ({"host": "127.0.0.1.evil.example"}, 421),
    "a host with a user": ({"host": "127.0.0.1@evil.example"}, 421),
    "a foreign origin": ({"origin": "https://evil.example"}, 403),
    "an opaque origin": ({"origin": "null"}, 403),
    "a form": ({"content_type": "application/x-www-form-urlencoded"}, 415),
    "a method header that lies": ({"mcp_method": "tools/list"}, 400),
    "a name header that lies": ({"mcp_name": "other"}, 400),
    "no version header": ({"mcp_protocol_version": None}, 400),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_it_is_refused_before_a_stream_is_opened(case: str) -> None:
    changes, status = REFUSED[case]
    far_side = FarSide()
    async with ingress_to(far_side.open) as client:
        response = await client.ask(*call_of("t"), **changes)
    assert response.status == status
    assert far_side.asked == []


async def test_a_missing_token_is_asked_for() -> None:
    async with ingress_to(FarSide().open) as client:
        response = await client.ask(*call_of("t"), authorization=None)
        challenge = response.headers["www-authenticate"]
    assert challenge.startswith("Bearer")


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
async def test_only_post_is_allowed(method: str) -> None:
    async with ingress_to(FarSide().open) as client:
        response = await client.request(method)
    assert (response.status, response.headers["allow"]) == (405, "POST")


async def test_an_unknown_service_is_not_found() -> None:
    async with ingress_to(FarSide().open) as client:
        client.url += "x"
        response = await client.ask(*call_of("t"))
        assert response.status == 404


async def test_a_body_beyond_the_limit_is_told_so() -> None:
    async with ingress_to(FarSide().open) as client:
        response = await client.ask(b"x" * (BODY_BYTES_MAX + 1), headers_of("tools/list"))
        assert response.status == 413


async def test_a_body_of_megabytes_passes_the_window() -> None:
    far_side = FarSide()
    body, headers = call_of("t", text="x" * 3_000_000)
    async with ingress_to(far_side.open) as client:
        asking = asyncio.create_task(client.post(body, headers).__aenter__())
        far, _, sent = await far_side.request()
        await far.write(encode_response_head(ResponseHead(200, ())) + body)
        await far.finish()
        answer = await (await asking).read()
    assert sent == answer == body


async def test_a_notification_is_acknowledged_and_goes_nowhere() -> None:
    far_side = FarSide()
    body = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}'
    async with ingress_to(far_side.open) as client:
        response = await client.ask(body, headers_of("notifications/cancelled"))
        assert response.status == 202
    assert far_side.asked == []


async def test_a_legacy_client_is_told_the_version_and_a_denied_one_why() -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"x"}}'
    json_type = {"content-type": "application/json"}
    async with ingress_to(FarSide().open) as client:
        response = await client.ask(body, json_type)
        permitted = await response.json()
    async with ingress_to(FarSide().open, deny_tool(None)) as client:  # type: ignore[arg-type]
        response = await client.ask(body, json_type)
        refused = await response.json()
    assert permitted["error"]["data"]["supported"] == [VERSION]
    assert refused["error"]["code"] == -32010


FAILURES: dict[str, tuple[Code, int, int, str]] = {
    "the far side is not there": (Code.ROUTE_UNREACHABLE, 502, -32011, "route.unreachable"),
    "the far side is too slow": (Code.STREAM_TIMEOUT, 504, -32011, "stream.timeout"),
    "the far side denies the channel": (Code.POLICY_DENIED, 200, -32010, "policy.denied"),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_a_stream_that_cannot_be_opened_is_an_answer_when(case: str) -> None:
    code, status, rpc_code, text = FAILURES[case]

    async def open_stream(*_: object) -> MemoryStream:
        raise SidelinkError(code, "a detail that stays here")

    async with ingress_to(open_stream) as client:
        response = await client.ask(*call_of("t", 6))
        answer = await response.json()
    error = answer["error"]
    assert (response.status, answer["id"], error["code"]) == (status, 6, rpc_code)
    assert error["data"]["code"] == text
    assert "a detail" not in json.dumps(answer)


async def test_a_head_that_no_http_answer_may_have_is_not_passed_on() -> None:
    far_side = FarSide()
    async with ingress_to(far_side.open) as client:
        asking = asyncio.create_task(client.post(*call_of("t")).__aenter__())
        far, _, _ = await far_side.request()
        await far.write(b"\0\0\0\x04\xff\xff\xff\xff")
        response = await asking
        assert response.status == 502
    assert far.reset_code is Code.STREAM_RESET


async def test_without_token_or_explicit_wish_there_is_no_tcp_ingress() -> None:
    with pytest.raises(SidelinkError) as refused:
        async with ingress_to(FarSide().open, token=None):
            pass
    assert refused.value.code is Code.CONFIG_INVALID


async def test_any_local_process_may_act_only_when_asked_for() -> None:
    far_side = FarSide()
    async with ingress_to(far_side.open, token=None, allow_any_local=True) as client:
        response = await client.ask(b"{}", headers_of("t"), authorization=None)
        assert response.status == 400


async def test_a_unix_socket_needs_no_token_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "mcp.sock"
    ingress = McpIngress(
        IngressSettings("alice", {"weather": TO}, token=TOKEN), later(permit_all), FarSide().open
    )
    await ingress.start_unix(path)
    try:
        connector = aiohttp.UnixConnector(str(path))
        async with aiohttp.ClientSession(connector=connector) as session:
            headers = dict(headers_of("x"))
            async with session.post("http://localhost/mcp/weather", headers=headers) as response:
                assert response.status == 400
    finally:
        await ingress.close()
    assert not path.exists() or path.stat().st_mode & 0o077 == 0


async def test_the_settings_never_print_the_token() -> None:
    assert TOKEN not in repr(IngressSettings("alice", {}, token=TOKEN))


async def test_requests_beyond_the_limit_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_ingress, "REQUESTS_MAX", 1)
    far_side = FarSide()
    async with ingress_to(far_side.open) as client:
        asking = asyncio.create_task(client.post(*call_of("t")).__aenter__())
        far, _, _ = await far_side.request()
        refused = await client.ask(*call_of("t"))
        await far.write(encode_response_head(ResponseHead(200, ())))
        await far.finish()
        await (await asking).read()
        again = asyncio.create_task(client.post(*call_of("t")).__aenter__())
        await far_side.request()
        again.cancel()
    assert refused.status == 503


async def test_a_body_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_ingress, "BODY_S_MAX", 0.05)
    never = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await never.wait()

    async with (
        ingress_to(FarSide().open) as client,
        client.post(slowly(), headers_of("t")) as response,
    ):
        status = response.status
    assert status == 408


async def test_ingresses_on_one_port_each_have_their_own_token_and_agent() -> None:
    sides = {name: FarSide() for name in ("alice", "bob")}
    listener = McpListener(
        McpIngress(
            IngressSettings(name, {f"of-{name}": TO}, token=f"token of {name}"),
            later(permit_all),
            side.open,
        )
        for name, side in sides.items()
    )
    port = await listener.start_tcp("127.0.0.1", 0)
    try:
        async with asyncio.timeout(20), aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port}/mcp/of-bob"
            client = Client(session, url)
            wrong = await client.ask(*call_of("t"), authorization="Bearer token of alice")
            right = asyncio.create_task(
                client.ask(*call_of("t"), authorization="Bearer token of bob")
            )
            far, _, _ = await sides["bob"].request()
            await far.write(encode_response_head(ResponseHead(200, ())))
            await far.finish()
            client.url = url.replace("of-bob", "of-nobody")
            unknown = await client.ask(*call_of("t"))
            statuses = [wrong.status, (await right).status, unknown.status]
    finally:
        await listener.close()
    assert statuses == [401, 200, 404]
    assert sides["alice"].asked == []
    assert sides["bob"].asked == [("bob", TO, "of-bob")]
