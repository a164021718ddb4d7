"""The ops and the admin server: who may reach them, what they answer, and how they fail."""

import asyncio
import io
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from identity import Code, SidelinkError
from node.admin_client import admin_request
from node.errors import ConfigError, error_paragraph
from node.http_servers import AdminServer, OpsServer, bind_error
from node.metrics import Metrics


async def get(port: int, path: str) -> tuple[int, str]:
    async with (
        asyncio.timeout(5),
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as response,
    ):
        return response.status, await response.text()


def ops_server(awaiting: list[str], port: int = 0) -> OpsServer:
    metrics = Metrics("gateway", "0")
    return OpsServer("127.0.0.1", port, metrics=metrics, awaited=lambda: awaiting)


async def test_a_program_that_waits_is_alive_but_not_ready_and_says_for_what() -> None:
    ops = ops_server(["credential", "gateway"])
    port = await ops.start()

    alive, ready = await get(port, "/healthz"), await get(port, "/readyz")
    await ops.close()

    assert alive[0] == 200
    assert ready[0] == 503
    assert json.loads(ready[1]) == {"ready": False, "awaiting": ["credential", "gateway"]}


async def test_a_program_that_waits_for_nothing_is_ready() -> None:
    ops = ops_server([])
    port = await ops.start()

    ready = await get(port, "/readyz")
    await ops.close()

    assert (ready[0], json.loads(ready[1])["ready"]) == (200, True)


async def test_metrics_are_in_the_format_that_prometheus_reads() -> None:
    ops = ops_server([])
    port = await ops.start()

    status, text = await get(port, "/metrics")
    await ops.close()

    assert status == 200
    assert "# TYPE sidelink_program_info gauge" in text


async def test_a_busy_port_is_an_error_with_a_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(ConfigError) as caught:
            await ops_server([], port).start()

    assert caught.value.code is Code.CONFIG_PORT_BUSY
    paragraph = error_paragraph(caught.value)
    assert f"127.0.0.1:{port}" in paragraph
    assert "--ops-port" in paragraph


def test_an_address_of_another_machine_is_no_busy_port() -> None:
    error = bind_error(OSError(99, "Cannot assign requested address"), "UDP", "a:1", "listen")

    assert error.code is Code.CONFIG_INVALID


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "admin.sock"
    server = AdminServer(path, status=lambda: {"ready": True})

    async def echo(body: Mapping[str, Any]) -> object:
        return {"body": dict(body)}

    async def refuse(_: Mapping[str, Any]) -> object:
        raise SidelinkError(Code.ENROL_TICKET_USED, "once only")

    async def fail(_: Mapping[str, Any]) -> object:
        raise RuntimeError("a secret that must not be told")

    server.add("POST", "/v1/echo", echo)
    server.add("POST", "/v1/refuse", refuse)
    server.add("POST", "/v1/fail", fail)
    await server.start()
    yield path
    await server.close()
    assert not path.exists()


async def ask_admin(path: Path, method: str, url: str, body: Any = None) -> dict[str, Any]:
    return await asyncio.to_thread(admin_request, path, method, url, body)


async def test_the_admin_socket_is_closed_to_other_users(admin: Path) -> None:
    assert stat.S_IMODE(os.stat(admin).st_mode) == 0o600


async def test_the_admin_server_answers_json(admin: Path) -> None:
    assert await ask_admin(admin, "GET", "/v1/status") == {"ready": True}
    assert await ask_admin(admin, "POST", "/v1/echo", {"a": 1}) == {"body": {"a": 1}}


async def test_a_refusal_comes_back_with_its_code(admin: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        await ask_admin(admin, "POST", "/v1/refuse", {})

    assert caught.value.code is Code.ENROL_TICKET_USED
    assert caught.value.detail == "once only"
    assert caught.value.remedy == Code.ENROL_TICKET_USED.remedy


@pytest.mark.filterwarnings("default")
async def test_a_failure_of_ours_tells_nothing_but_that_it_happened(admin: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        await ask_admin(admin, "POST", "/v1/fail", {})

    assert caught.value.code is Code.LOCAL_INTERNAL
    assert "secret" not in str(caught.value)


HOSTILE_BODIES = {
    "no JSON": b"{",
    "no object": b"[1]",
    "no UTF-8": b'{"a": "\xff"}',
    "deep nesting": b"[" * 100_000,
    "a long body": b"x" * (2 << 20),
}


@pytest.mark.parametrize("case", HOSTILE_BODIES)
async def test_a_hostile_body_is_answered_with_an_error(case: str, admin: Path) -> None:
    connector = aiohttp.UnixConnector(str(admin))
    async with (
        asyncio.timeout(5),
        aiohttp.ClientSession(connector=connector) as session,
        session.post("http://localhost/v1/echo", data=io.BytesIO(HOSTILE_BODIES[case])) as response,
    ):
        answer = await response.json()

    assert 400 <= response.status < 500
    assert answer["error"]["code"] == "local.bad_request"


async def test_an_unknown_path_is_an_error_too(admin: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        await ask_admin(admin, "GET", "/v1/nothing")

    assert caught.value.code is Code.LOCAL_BAD_REQUEST


def test_nobody_at_the_socket_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        admin_request(tmp_path / "admin.sock", "GET", "/v1/status")

    assert caught.value.code is Code.LOCAL_UNAVAILABLE


async def test_a_socket_that_is_held_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    first = AdminServer(path, status=dict)
    await first.start()

    with pytest.raises(ConfigError) as caught:
        await AdminServer(path, status=dict).start()
    await first.close()

    assert caught.value.code is Code.CONFIG_PORT_BUSY
