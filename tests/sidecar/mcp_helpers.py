"""Parts that the MCP tests share: requests as a client writes them, and decisions by a table."""

import json
from collections.abc import Callable
from typing import Any

from identity import AgentUri, Code, Identifier
from policy import Action, Denial, Permit
from policy.decision import make_permit
from sidecar.mcp_message import McpAsk
from sidecar.mcp_wire import Headers

VERSION = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
}
PERMIT = make_permit(
    Action.MCP_CALL,
    Identifier(bytes([1]) * 32),
    AgentUri.in_domain("acme", "weather"),
    policy_version="1",
    expires_unix_s=2_000_000_000.0,
    rule="tests",
    decision_id="d0",
    message_bytes_max=None,
    cacheable=False,
)


def denial(reason: str = "nothing allows it") -> Denial:
    return Denial(Code.POLICY_NO_RULE, None, reason, "d1", "1")


def permit_all(*_: object) -> Permit | Denial:
    return PERMIT


def deny_all(*_: object) -> Permit | Denial:
    return denial()


def deny_tool(name: str) -> Callable[..., Permit | Denial]:
    """Everything but that tool."""

    def decide(*asked: Any) -> Permit | Denial:
        ask: McpAsk = asked[-1]
        return denial(f"{name} is not for you") if ask.tool == name else PERMIT

    return decide


def body_of(method: str, request_id: object = 1, **params: object) -> bytes:
    params.setdefault("_meta", META)
    return json.dumps(
        {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
    ).encode()


def headers_of(method: str, name: str | None = None) -> Headers:
    headers = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", VERSION),
        ("mcp-method", method),
    ]
    if name is not None:
        headers.append(("mcp-name", name))
    return tuple(headers)


def call_of(tool: str, request_id: object = 1, **arguments: object) -> tuple[bytes, Headers]:
    body = body_of("tools/call", request_id, name=tool, arguments=arguments)
    return body, headers_of("tools/call", tool)
