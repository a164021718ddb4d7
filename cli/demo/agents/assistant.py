"""An MCP client of the demo: the official package, unmodified, which has never heard of a mesh."""

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any

import httpx2  # type: ignore[import-not-found]  # Comes with mcp, in this script's environment.
from mcp import Client  # type: ignore[import-not-found]
from mcp.client.streamable_http import streamable_http_client  # type: ignore[import-not-found]
from mcp.shared.exceptions import MCPError  # type: ignore[import-not-found]

TIMEOUT_S = 30.0
NOTE = "com.example/note"  # A key of its own in _meta, which reaches the server beside the call.


async def main(wishes: Mapping[str, Any]) -> dict[str, Any]:
    clock = asyncio.get_running_loop()
    token = {"Authorization": f"Bearer {wishes['token']}"}
    async with httpx2.AsyncClient(timeout=TIMEOUT_S) as stranger:
        answer = await stranger.post(wishes["url"], json={})
    async with httpx2.AsyncClient(headers=token, timeout=TIMEOUT_S) as http:
        begun_s = clock.time()
        transport = streamable_http_client(wishes["url"], http_client=http)
        async with Client(transport, mode="auto") as client:
            listed = await client.list_tools(meta={NOTE: wishes["canaries"]["mcp-list"]})
            listed_s = clock.time()
            called = await client.call_tool(
                "get_current_time",
                {"timezone": "Europe/Berlin"},
                meta={NOTE: wishes["canaries"]["mcp-call"]},
            )
            echoed = await client.call_tool(
                "get_current_time", {"timezone": wishes["canaries"]["mcp-call"]}
            )
            called_s = clock.time()
            refusal = await refused(client, wishes["canaries"]["deny-tool"])
            refused_s = clock.time()
            server = client.server_info
            return {
                "without_token": answer.status_code,
                "revision": client.protocol_version,
                "server": None if server is None else f"{server.name} {server.version}",
                "list": {
                    "seconds": listed_s - begun_s,
                    "tools": sorted(tool.name for tool in listed.tools),
                },
                "call": {
                    "seconds": called_s - listed_s,
                    "answer": called.structured_content,
                    "echo": "".join(getattr(block, "text", "") for block in echoed.content),
                },
                "refused": {"seconds": refused_s - called_s, "error": refusal},
            }


async def refused(client: Any, canary: str) -> dict[str, Any] | None:
    """The error that the call of a tool that policy denies ends in; None if it was answered."""
    arguments = {
        "source_timezone": "UTC",
        "time": "12:00",
        "target_timezone": "Asia/Tokyo",
    }
    try:
        await client.call_tool("convert_time", arguments, meta={NOTE: canary})
    except MCPError as error:
        return {"code": error.code, "message": error.message, "data": error.data}
    return None


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.loads(sys.stdin.readline())))))
