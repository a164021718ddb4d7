"""Targets of sidecar/ and of the SDK: batches of messages, MCP's heads and bodies, local frames."""

import ipaddress
import json
from collections.abc import Callable
from typing import Any, Final

import msgspec
from sidelink import wire
from sidelink.bodies import MSGPACK, decode_body_untrusted, encode_body
from sidelink.errors import BodyError, WireError

from channel.limits import ADDRESSES_MAX
from policy import Denial, Party, Request
from sidecar.addresses import AddressRules, usable_untrusted
from sidecar.batches import BATCH_BYTES_MAX, pieces_of, runs_of, size_of
from sidecar.envelope import (
    Ask,
    Envelope,
    EnvelopeError,
    Reject,
    Reply,
    Tell,
    TellRun,
    decode_batch_untrusted,
    encode_batch,
)
from sidecar.mcp_answers import denied, filter_list, response_of, wants_both
from sidecar.mcp_message import (
    META_CAPABILITIES,
    META_VERSION,
    PROTOCOL_VERSION,
    McpRequest,
    MessageError,
    parse_body_untrusted,
)
from sidecar.mcp_stdio import Answer, StdioServer
from sidecar.mcp_wire import (
    Headers,
    RequestHead,
    ResponseHead,
    decode_request_head_untrusted,
    decode_response_head_untrusted,
    encode_request_head,
    encode_response_head,
    end_to_end,
)
from sidecar.mcp_wire import (
    WireError as McpWireError,
)
from tests.fuzz.decoders import decoder, tree_of
from tests.fuzz.program import Program, pieces, text_of
from tests.fuzz.target import Target
from tests.simulation.people import START_UNIX_S, engine, node
from transport.udp import normalise_address

LENGTH_BYTES: Final = 4
MCP_POLICY: Final = """\
apiVersion: sidelink/v1
kind: Policy
metadata: {name: mcp}
rules:
  - name: few days
    effect: allow
    actions: [mcp.call, mcp.prompt]
    when: args.days <= 7 && (args.city == 'x' || args.list.exists(one, one == 'x'))
  - name: reading
    effect: allow
    actions: [mcp.read]
"""


def run_envelopes(data: bytes) -> None:
    """Read, written and read again it is the same; and it can be cut as our own batches are."""
    batch = decode_batch_untrusted(data)
    assert decode_batch_untrusted(encode_batch(batch)) == batch
    cut = [envelope for piece in pieces_of(batch) for envelope in piece]
    assert cut == batch
    for piece in pieces_of(batch):
        assert len(piece) == 1 or sum(map(size_of, piece)) <= BATCH_BYTES_MAX
    for envelope in batch:
        if isinstance(envelope, TellRun):
            joined = [body for run in runs_of(envelope.bodies) for body in run]
            assert joined == envelope.bodies


def _batches() -> list[bytes]:
    batch: list[Envelope] = [
        Tell(2, b"hello", "text/plain"),
        Ask(3, b"?", "application/json", 30_000),
        Reply(5, b"!", ""),
        Reject(7, 601, "a rule", "a reason"),
        TellRun(8, [b"a", b"bc"], "text/plain"),
    ]
    return [encode_batch(batch), *(encode_batch([envelope]) for envelope in batch)]


def _check_headers(headers: Headers) -> None:
    """Nothing in a header may begin another one, or change what follows it."""
    for name, value in headers:
        assert name == name.lower().strip()
        assert name
        encoded = value.encode("latin-1")
        assert not set(encoded) & set(b"\r\n\0")
    assert set(end_to_end(headers)) <= set(headers)
    wants_both(headers)


def _encode_request_head(head: RequestHead) -> bytes:
    _check_headers(head.headers)
    return encode_request_head(head)[LENGTH_BYTES:]


def _encode_response_head(head: ResponseHead) -> bytes:
    _check_headers(head.headers)
    return encode_response_head(head)[LENGTH_BYTES:]


_HEADERS: Final = (("accept", "application/json, text/event-stream"), ("connection", "x-y, te"))
_REQUEST_HEAD: Final = decoder(
    "sidecar.request_head",
    "the head of an MCP exchange",
    decode_request_head_untrusted,
    lambda: [encode_request_head(RequestHead("POST", "", _HEADERS, 12))[LENGTH_BYTES:]],
    error=McpWireError,
    encode=_encode_request_head,
)
_RESPONSE_HEAD: Final = decoder(
    "sidecar.response_head",
    "the head of its answer",
    decode_response_head_untrusted,
    lambda: [encode_response_head(ResponseHead(200, _HEADERS))[LENGTH_BYTES:]],
    error=McpWireError,
    encode=_encode_response_head,
)


def run_mcp_body(data: bytes) -> None:
    """Headers, one a line, then an empty line, then the body."""
    head, _, body = data.partition(b"\n\n")
    headers = tuple(
        (name.decode("latin-1").lower(), value.decode("latin-1"))
        for name, _, value in (line.partition(b":") for line in head.split(b"\n"))
    )
    try:
        message = parse_body_untrusted(body, headers)
    except MessageError as error:
        _check_error(error)
        raise
    if isinstance(message, McpRequest):
        assert message.asks, "a request that nobody asks policy about"
        _check_decided(message)
        _check_one_line(message)


def _check_decided(message: McpRequest) -> None:
    """Policy has an answer to whatever was asked, and a denial can be sent."""
    caller = Party.from_verified(node("alpha").identity)
    for ask in message.asks:
        request = Request(
            ask.action, caller, caller, service="weather", tool=ask.tool, args=ask.args
        )
        decided = engine(MCP_POLICY).decide(request, START_UNIX_S)
        if isinstance(decided, Denial):
            assert "could not be judged" not in decided.reason
            _check_json_line(denied(message.request_id, decided).body)


def _check_error(error: MessageError) -> None:
    """It is answered: that must work whatever was in the body, and be one message of JSON."""
    assert msgspec.json.decode(error.encode())["error"]["code"] == error.code
    assert 400 <= error.status < 500


def _check_one_line(message: McpRequest) -> None:
    """What is passed on is one line for a stdio server, and says what policy has read."""
    written = StdioChild()
    server = StdioServer(written)  # type: ignore[arg-type]
    server.begin(message)
    line = bytes(written.written)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    sent = json.loads(line)
    assert sent["method"] == message.method
    assert json.loads(message.request_id) is not None
    for ask in message.asks:
        if ask.tool is not None:
            assert sent["params"]["name"] == ask.tool
            assert repr(sent["params"].get("arguments") or {}) == repr(ask.args)


def _mcp(method: str, params: dict[str, Any], *named: str) -> bytes:
    meta = {META_VERSION: PROTOCOL_VERSION, META_CAPABILITIES: {}, "progressToken": "t"}
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": method,
        "params": {"_meta": meta, **params},
    }
    headers = [f"mcp-protocol-version:{PROTOCOL_VERSION}", f"mcp-method:{method}"]
    headers += [f"mcp-name:{name}" for name in named]
    return ("\n".join(headers) + "\n\n" + json.dumps(body)).encode()


def _mcp_bodies() -> list[bytes]:
    return [
        _mcp("tools/call", {"name": "forecast", "arguments": {"days": 3}}, "forecast"),
        _mcp("tools/list", {}),
        _mcp("resources/read", {"uri": "file:///a"}, "file:///a"),
        _mcp("prompts/get", {"name": "p", "arguments": {"a": "b"}}, "p"),
        _mcp("completion/complete", {"ref": {"type": "ref/prompt", "name": "p"}}),
        _mcp("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["file:///a"]}}),
        b'\n\n{"jsonrpc":"2.0","id":"x","method":"initialize","params":{"protocolVersion":"1"}}',
        b'\n\n{"jsonrpc":"2.0","method":"notifications/cancelled"}',
    ]


class StdioChild:
    """Stands for a child's pipes: what is written to it is kept."""

    pid = 0

    def __init__(self) -> None:
        self.stdin = self.transport = self
        self.written = bytearray()

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def write(self, data: bytes) -> None:
        self.written += data


_CALL: Final = McpRequest("tools/call", b'"mine"', b'{"_meta":{"progressToken":"t"}}', b'"t"', ())
_LISTEN: Final = McpRequest("subscriptions/listen", b"7", b"{}", None, ())
_TOOLS: Final = McpRequest("tools/list", b"8", b"{}", None, ())


def run_stdio_lines(data: bytes) -> None:
    """What a stdio server writes, while a call, a subscription and a list wait for it."""
    child = StdioChild()
    server = StdioServer(child)  # type: ignore[arg-type]
    calls = [server.begin(request) for request in (_CALL, _LISTEN, _TOOLS)]
    for line in data.split(b"\n"):
        server._take_line_untrusted(line + b"\n")
    for call in calls:
        for notification in call._notifications:
            _check_json_line(notification)
        if call._answer is not None:
            _check_answer(call.request, call._answer)
        server.end(call)
    assert server.in_flight == 0
    for line in bytes(child.written).splitlines():
        json.loads(line)


def _check_answer(request: McpRequest, answer: Answer) -> None:
    """An answer can be filtered and sent, and is still one message with the client's own id."""
    for may in (True, False):
        filtered = filter_list(request.method, answer, lambda ask, may=may: may)
        body = response_of(filtered, request.request_id).body
        _check_json_line(body)
        assert json.loads(body)["id"] == json.loads(request.request_id)
    assert answer.error_code is None or isinstance(answer.error_code, int)


def _check_json_line(message: bytes) -> None:
    assert b"\n" not in message
    assert b"\r" not in message
    json.loads(message)


def _stdio_lines() -> list[bytes]:
    progress = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1}}'
    tools = b'{"jsonrpc":"2.0","id":3,"result":{"tools":[{"name":"a"},{"name":"b"}]}}'
    return [
        b'{"jsonrpc":"2.0","id":1,"result":{"content":[]}}',
        b'{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no"}}',
        progress + b"\n" + tools,
        b'{"jsonrpc":"2.0","id":2,"result":{"_meta":{"io.modelcontextprotocol/subscriptionId":2}}}',
        b'{"jsonrpc":"2.0","id":"s","method":"sampling/createMessage","params":{}}',
        b'{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"x"}}',
    ]


def run_addresses(data: bytes) -> None:
    """A peer's addresses, one a line with its port behind a blank: which of them may be dialled."""
    lines = (line.partition(" ") for line in text_of(data).split("\n"))
    told = [(host, int(port[:6]) % 65_535 + 1) for host, _, port in lines if port.isdecimal()]
    for is_v6, allow_loopback in ((True, True), (True, False), (False, False)):
        rules = AddressRules(is_v6=is_v6, allow_loopback=allow_loopback)
        found = usable_untrusted(told, rules)
        assert len(found) <= ADDRESSES_MAX
        assert len(found) == len(set(found))
        for host, _ in found:
            ip = ipaddress.ip_address(host)
            assert not ip.is_multicast
            assert not ip.is_unspecified
            assert allow_loopback or not (ip.is_loopback or ip.is_link_local)
            normalise_address(host, 1, is_v6=is_v6)


def _reader_target(
    name: str, feeds: str, make: Callable[[], Any], seeds: Callable[[], list[bytes]]
) -> Target:
    """The first byte is the length of a piece. Pieces and the whole must read alike."""

    def run(data: bytes) -> None:
        body = data[1:]
        whole, whole_fault = _read(make(), [body])
        cut, cut_fault = _read(make(), pieces(body, data[0] if data else 0))
        assert (whole_fault is None) == (cut_fault is None), "only some pieces are refused"
        if whole_fault is not None:
            raise whole_fault
        assert cut == whole, "the same bytes in pieces are other frames"
        if whole:
            encoded = b"".join(wire.encode_batches(whole))
            assert _read(make(), [encoded]) == (whole, None)

    return Target(name, feeds, run, seeds, WireError, bytes_max=8_192)


def _read(reader: Any, parts: list[bytes]) -> tuple[list[Any], WireError | None]:
    frames: list[Any] = []
    for part in parts:
        try:
            frames += reader.feed_untrusted(part)
        except WireError as error:
            return [], error
        assert reader.buffered_bytes < LENGTH_BYTES + wire.BATCH_BYTES_MAX
    return frames, None


def _client_bytes() -> list[bytes]:
    frames: list[wire.ClientFrame] = [
        wire.Hello(1),
        wire.OpenAgent(1, "finance/planner", {"role": "planner", "n": 1, "l": ("a",), "b": True}),
        wire.Send(2, 1, "agent://acme/b", wire.ASK, b"?", "text/plain", 1_000),
        wire.TellRun(1, "agent://acme/b", "", [b"a", b"b"]),
        wire.Listen(1, True),
        wire.Answer(1, 1, b"!", ""),
        wire.Refuse(1, 2, "no"),
        wire.Flush(3, 1),
        wire.CloseAgent(4, 1),
        wire.Leave(),
    ]
    whole = wire.encode_batch(frames)
    return [b"\0" + whole, b"\1" + whole, b"\5" + wire.encode_batch(frames[:1]) * 3]


def _server_bytes() -> list[bytes]:
    frames: list[wire.ServerFrame] = [
        wire.Welcome(1, "acme", "agent://acme/laptop"),
        wire.Opened(1, 1, "agent://acme/laptop/a", "sl1", {}),
        wire.Receipt(2),
        wire.Failed(3, "policy.denied", "no", "a rule", "ask"),
        wire.Reply(4, b"!", "", "agent://acme/b", "sl1", {"role": "clerk"}),
        wire.Deliver(1, 1, wire.TELL, "agent://acme/b", "sl1", {}, b"x", "", 0),
        wire.DeliverRun(1, "agent://acme/b", "sl1", {}, "", [b"x", b"y"]),
        wire.Draining(100),
        wire.Goodbye("local.draining", 100),
    ]
    whole = wire.encode_batch(frames)
    return [b"\0" + whole, b"\1" + whole]


def run_body(data: bytes) -> None:
    """A body and what it says that it is."""
    program = Program(data)
    content_type = program.choose((MSGPACK, "text/plain", "application/json", "text/"))
    body = program.rest()
    value = decode_body_untrusted(body, content_type)
    if content_type.startswith("text/"):
        assert encode_body(value, content_type) == (body, content_type)
    elif content_type != MSGPACK:
        assert value == body


def _bodies() -> list[bytes]:
    data, _ = encode_body({"invoice": 7, "items": [1.5, None, b"x", "é"]}, None)
    return [b"\0" + data, "\1é".encode(), b"\2\xff"]


TARGETS: Final[list[Target]] = [
    Target(
        "sidecar.envelopes",
        "a batch of messages from a peer",
        run_envelopes,
        _batches,
        EnvelopeError,
    ),
    _REQUEST_HEAD,
    tree_of(_REQUEST_HEAD),
    _RESPONSE_HEAD,
    tree_of(_RESPONSE_HEAD),
    Target(
        "sidecar.addresses",
        "where a peer's node may be reached, so it says",
        run_addresses,
        lambda: [
            b"10.0.0.1 7440\n::1 1\n::ffff:127.0.0.1 2\nfe80::1%eth0 3\nexample 4\n224.0.0.1 5"
        ],
        None,
        bytes_max=512,
    ),
    Target(
        "sidecar.mcp_body",
        "an MCP client's headers and JSON",
        run_mcp_body,
        _mcp_bodies,
        MessageError,
        bytes_max=2_048,
    ),
    Target(
        "sidecar.mcp_lines",
        "the lines of a stdio MCP server",
        run_stdio_lines,
        _stdio_lines,
        None,
        bytes_max=2_048,
    ),
    _reader_target(
        "sdk.client_frames",
        "what an agent's process writes to its sidecar, in pieces",
        wire.client_frame_reader,
        _client_bytes,
    ),
    _reader_target(
        "sdk.server_frames",
        "what a sidecar writes to an agent's process, in pieces",
        wire.server_frame_reader,
        _server_bytes,
    ),
    Target("sdk.body", "the body of a message", run_body, _bodies, BodyError),
]
