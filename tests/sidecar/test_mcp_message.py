"""What policy reads of an MCP request, and what is refused before policy is asked."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.mcp_message import (
    McpNotification,
    McpRequest,
    MessageError,
    one_line,
    parse_body_untrusted,
)
from tests.sidecar.mcp_helpers import META, VERSION, body_of, call_of, headers_of


def parsed(body: bytes, headers: tuple[tuple[str, str], ...]) -> McpRequest:
    message = parse_body_untrusted(body, headers)
    assert isinstance(message, McpRequest)
    return message


def test_a_call_tells_policy_its_tool_and_arguments() -> None:
    request = parsed(*call_of("get_forecast", "a:1", days=7, place={"city": "Kiel"}))
    (ask,) = request.asks
    assert (ask.action, ask.tool) == ("mcp.call", "get_forecast")
    assert ask.args == {"days": 7, "place": {"city": "Kiel"}}
    assert request.request_id == b'"a:1"'


def test_the_bytes_of_params_are_kept() -> None:
    params = '{"name":"t","arguments":{"x":1.50,"n":null,"e":"\\u00e9"},"_meta":%s}'
    params %= json.dumps(META)
    body = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":%b}' % params.encode()
    assert parsed(body, headers_of("tools/call", "t")).params == params.encode()


def test_a_pretty_printed_body_becomes_one_line() -> None:
    body = json.dumps(json.loads(body_of("tools/list")), indent=2).encode()
    assert b"\n" not in parsed(body, headers_of("tools/list")).params


METHODS: dict[str, tuple[str, dict[str, object], str | None, list[str]]] = {
    "discovery is a list": ("server/discover", {}, None, ["mcp.list"]),
    "tools are a list": ("tools/list", {}, None, ["mcp.list"]),
    "templates are a list": ("resources/templates/list", {}, None, ["mcp.list"]),
    "reading is a read": ("resources/read", {"uri": "file:///a"}, "file:///a", ["mcp.read"]),
    "a prompt is a prompt": ("prompts/get", {"name": "p"}, "p", ["mcp.prompt"]),
    "completion for a prompt reveals the prompt": (
        "completion/complete",
        {"ref": {"type": "ref/prompt", "name": "p"}},
        None,
        ["mcp.prompt"],
    ),
    "completion for a resource reveals the resource": (
        "completion/complete",
        {"ref": {"type": "ref/resource", "uri": "file:///{x}"}},
        None,
        ["mcp.read"],
    ),
    "listening to lists is a list": (
        "subscriptions/listen",
        {"notifications": {"toolsListChanged": True}},
        None,
        ["mcp.list"],
    ),
    "listening to resources asks for each": (
        "subscriptions/listen",
        {"notifications": {"resourceSubscriptions": ["file:///a", "file:///b"]}},
        None,
        ["mcp.list", "mcp.read", "mcp.read"],
    ),
}


@pytest.mark.parametrize("case", METHODS)
def test_each_method_stands_for_an_action(case: str) -> None:
    method, params, name, actions = METHODS[case]
    request = parsed(body_of(method, **params), headers_of(method, name))
    assert [ask.action for ask in request.asks] == actions


def raw(text: str) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    return text.encode(), headers_of("tools/call", "t")


META_JSON = json.dumps(META)
CALL = f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"_meta":{META_JSON},'
BAD_VERSION = {**META, "io.modelcontextprotocol/protocolVersion": "2099-01-01"}
NO_CAPABILITIES = {"io.modelcontextprotocol/protocolVersion": VERSION}
TWO_METHODS = (*headers_of("tools/list"), ("mcp-method", "tools/list"))

REFUSED: dict[str, tuple[tuple[bytes, tuple[tuple[str, str], ...]], int, int]] = {
    "an empty body": ((b"", ()), 400, -32700),
    "what is not JSON": ((b"{", ()), 400, -32700),
    "bytes that are not UTF-8": ((b'{"method":"\xff"}', ()), 400, -32700),
    "UTF-16, which a lenient decoder would guess": (
        (body_of("tools/list").decode().encode("utf-16"), headers_of("tools/list")),
        400,
        -32700,
    ),
    "nesting without end": ((b"[" * 200_000, ()), 400, -32700),
    "NaN": (raw(CALL + '"name":"t","arguments":{"x":NaN}}}'), 400, -32600),
    "an integer of 5000 digits": (
        raw(CALL + '"name":"t","arguments":{"x":' + "9" * 5000 + "}}}"),
        400,
        -32700,
    ),
    "a batch": ((b"[" + body_of("tools/list") + b"]", headers_of("tools/list")), 400, -32600),
    "a response": ((b'{"jsonrpc":"2.0","id":1,"result":{}}', ()), 400, -32600),
    "a request that is also a response": (
        raw(CALL + '"name":"t"},"result":{}}'),
        400,
        -32600,
    ),
    "JSON-RPC 1.0": (
        (b'{"jsonrpc":"1.0","id":1,"method":"tools/list"}', ()),
        400,
        -32600,
    ),
    "an id that is null": ((body_of("tools/list", None), headers_of("tools/list")), 400, -32600),
    "an id that is true": ((body_of("tools/list", True), headers_of("tools/list")), 400, -32600),
    "an id that is a fraction": (
        (body_of("tools/list", 1.5), headers_of("tools/list")),
        400,
        -32600,
    ),
    "an id of a kilobyte": (
        (body_of("tools/list", "x" * 1024), headers_of("tools/list")),
        400,
        -32600,
    ),
    "two methods in the body": (
        raw('{"method":"tools/list",' + CALL[1:] + '"name":"t"}}'),
        400,
        -32600,
    ),
    "two tool names": (raw(CALL + '"name":"t","name":"u"}}'), 400, -32600),
    "an argument given twice": (
        raw(CALL + '"name":"t","arguments":{"days":1,"days":99}}}'),
        400,
        -32600,
    ),
    "a second name in other letters": (raw(CALL + '"name":"t","Name":"u"}}'), 400, -32600),
    "a second method in other letters": (
        raw('{"METHOD":"x",' + CALL[1:] + '"name":"t"}}'),
        400,
        -32600,
    ),
    "params that are a list": (
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":[]}', headers_of("tools/list")),
        400,
        -32602,
    ),
    "no _meta": (
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}', headers_of("tools/list")),
        400,
        -32602,
    ),
    "no capabilities": (
        (body_of("tools/list", _meta=NO_CAPABILITIES), headers_of("tools/list")),
        400,
        -32602,
    ),
    "a call without a tool": ((body_of("tools/call"), headers_of("tools/call")), 400, -32602),
    "a tool whose name is half a surrogate pair": (
        (
            (CALL + '"name":"\\ud800"}}').encode(),
            headers_of("tools/call", "\ud800"),
        ),
        400,
        -32600,
    ),
    "arguments that are a list": (
        raw(CALL + '"name":"t","arguments":[]}}'),
        400,
        -32602,
    ),
    "arguments nested 100 deep": (
        raw(CALL + '"name":"t","arguments":{"a":' + "[" * 100 + "]" * 100 + "}}}"),
        400,
        -32602,
    ),
    "a hundred thousand argument values": (
        raw(CALL + '"name":"t","arguments":{"a":[' + "0," * 100_000 + "0]}}}"),
        400,
        -32602,
    ),
    "a hundred thousand objects": (
        raw(CALL + '"name":"t","arguments":{"a":[' + "{}," * 100_000 + "0]}}}"),
        400,
        -32600,
    ),
    "a method header that lies": (
        (body_of("tools/call", name="t"), headers_of("tools/list", "t")),
        400,
        -32020,
    ),
    "a name header that lies": (
        (body_of("tools/call", name="t"), headers_of("tools/call", "harmless")),
        400,
        -32020,
    ),
    "no name header": ((body_of("tools/call", name="t"), headers_of("tools/call")), 400, -32020),
    "no headers": ((body_of("tools/list"), ()), 400, -32020),
    "a method header given twice": ((body_of("tools/list"), TWO_METHODS), 400, -32020),
    "a name header of broken base64": (
        (body_of("tools/call", name="t"), headers_of("tools/call", "=?base64?!?=")),
        400,
        -32020,
    ),
    "another version in header and body": (
        (
            body_of("tools/list", _meta=BAD_VERSION),
            (("mcp-protocol-version", "2099-01-01"), ("mcp-method", "tools/list")),
        ),
        400,
        -32022,
    ),
    "another version in the body only": (
        (body_of("tools/list", _meta=BAD_VERSION), headers_of("tools/list")),
        400,
        -32020,
    ),
    "a method nobody knows": ((body_of("tasks/get"), headers_of("tasks/get")), 404, -32601),
    "a progress token that is an object": (
        (body_of("tools/list", _meta={**META, "progressToken": {}}), headers_of("tools/list")),
        400,
        -32602,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_with_the_code_of_the_revision(case: str) -> None:
    (body, headers), status, code = REFUSED[case]
    with pytest.raises(MessageError) as refused:
        parse_body_untrusted(body, headers)
    assert (refused.value.status, refused.value.code) == (status, code)
    assert json.loads(refused.value.encode())["error"]["code"] == code


def test_a_refusal_carries_the_id_and_the_versions_that_are_served() -> None:
    headers = (("mcp-protocol-version", "2099-01-01"), ("mcp-method", "tools/list"))
    with pytest.raises(MessageError) as refused:
        parse_body_untrusted(body_of("tools/list", "q", _meta=BAD_VERSION), headers)
    answer = json.loads(refused.value.encode())
    assert answer["id"] == "q"
    assert answer["error"]["data"] == {"supported": [VERSION], "requested": "2099-01-01"}


def test_a_name_that_no_header_can_hold_arrives_in_base64() -> None:
    name = "prévision ☂"
    encoded = f"=?base64?{base64.b64encode(name.encode()).decode()}?="
    request = parsed(body_of("tools/call", name=name), headers_of("tools/call", encoded))
    assert request.asks[0].tool == name


def test_a_notification_is_no_request() -> None:
    body = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}'
    message = parse_body_untrusted(body, ())
    assert isinstance(message, McpNotification)


@given(st.binary(max_size=300))
def test_no_body_raises_anything_else(body: bytes) -> None:
    try:
        parse_body_untrusted(body, headers_of("tools/call", "t"))
    except MessageError as error:
        json.loads(error.encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from(["_meta", "name", "arguments", "uri", "ref"]), JSON),
    st.sampled_from(["tools/call", "initialize", "subscriptions/listen", "completion/complete"]),
    JSON,
)
def test_no_json_raises_anything_else(params: dict[str, object], method: str, rpc: object) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": rpc, "method": method, "params": params})
    try:
        parse_body_untrusted(body.encode(), headers_of(method, "t"))
    except MessageError as error:
        json.loads(error.encode())


@given(JSON)
def test_one_line_is_the_same_json(value: object) -> None:
    text = json.dumps(value, indent=1).encode()
    assert b"\n" not in one_line(text)
    assert json.dumps(json.loads(one_line(text))) == json.dumps(value)
