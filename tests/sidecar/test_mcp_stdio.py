"""A stdio server's lines: whatever it writes, the sidecar goes on and nobody else is answered."""

import asyncio
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.mcp_message import McpRequest
from sidecar.mcp_stdio import Answer, StdioServer

REQUEST = McpRequest("tools/call", b'"mine"', b'{"_meta":{"progressToken":"t"}}', b'"t"', ())
LISTEN = McpRequest("subscriptions/listen", b"7", b"{}", None, ())


class _Pipe:
    """Stands for a child: what is written to it, and what it says."""

    pid = 0

    def __init__(self, said: bytes) -> None:
        self.stdin = self.transport = self
        self.stdout = asyncio.StreamReader()
        self.stdout.feed_data(said)
        self.stdout.feed_eof()
        self.written = b""

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.written += data


def outcome_of(said: bytes) -> tuple[list[bytes | Answer | None], _Pipe]:
    """What a call got, and a subscription after it; None when nothing but the end."""

    async def serve() -> tuple[list[bytes | Answer | None], _Pipe]:
        child = _Pipe(said)
        server = StdioServer(child)  # type: ignore[arg-type]
        calls = [server.begin(REQUEST), server.begin(LISTEN)]
        await server.run()
        got: list[bytes | Answer | None] = []
        for call in calls:
            try:
                got.append(await call.next())
            except Exception:
                got.append(None)
        return got, child

    return asyncio.run(serve())


JSON = st.recursive(
    st.none() | st.integers(-1, 4) | st.sampled_from(["t", "mine", "1"]) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    "_meta",
                    "progressToken",
                    "io.modelcontextprotocol/subscriptionId",
                    "code",
                    "message",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
METHODS = st.sampled_from(
    ["notifications/progress", "notifications/message", "notifications/x", "roots/list"]
)
LINE = st.fixed_dictionaries(
    {},
    optional={"id": JSON, "method": METHODS | JSON, "params": JSON, "result": JSON, "error": JSON},
)


@given(st.lists(LINE.map(lambda line: json.dumps(line).encode()) | st.binary(), max_size=4))
@example([b'{"method":"notifications/progress","params":{"progressToken":1,"progressToken":2}}'])
@example([b"[" * 100_000])
def test_no_line_ends_the_sidecar(lines: list[bytes]) -> None:
    got, child = outcome_of(b"\n".join(lines) + b"\n")
    assert len(got) == 2
    for line in child.written.splitlines():
        json.loads(line)
    for said in got:
        if isinstance(said, Answer):
            assert json.loads(said.encode(b"1"))["id"] == 1
        elif said is not None:
            assert json.loads(said)["jsonrpc"] == "2.0"


@pytest.mark.parametrize(
    "line",
    [
        b'{"id":1,"result":{"text":"\xe5"}}',
        b'{"id":1,"error":{"code":1,"message":"x","data":"\xff"}}',
        b'{"method":"notifications/progress","params":{"progressToken":1,"message":"\xc3"}}',
    ],
)
def test_a_line_that_is_not_utf_8_is_not_passed_on(line: bytes) -> None:
    got, _ = outcome_of(line + b"\n")

    assert got == [None, None]


def test_an_answer_to_an_id_that_nobody_asked_with_is_nobodys() -> None:
    got, _ = outcome_of(b'{"jsonrpc":"2.0","id":99,"result":{}}\n')
    assert got == [None, None]


def test_the_clients_own_id_is_not_the_servers() -> None:
    got, child = outcome_of(b'{"jsonrpc":"2.0","id":"mine","result":{}}\n')
    assert got == [None, None]
    sent = [json.loads(line) for line in child.written.splitlines()]
    assert [one["id"] for one in sent] == [1, 2]
    assert sent[0]["params"] == {"_meta": {"progressToken": 1}}


def test_an_answer_that_is_both_result_and_error_is_an_error() -> None:
    got, _ = outcome_of(b'{"id":1,"result":{},"error":{"code":1,"message":"x"}}\n')
    assert isinstance(got[0], Answer)
    assert got[0].error_code == -32603


class _Log:
    """Stands for the module's log: whether that is cached depends on what ran before."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def warning(self, _event: str, *, so_far: int, **_: object) -> None:
        self.counts.append(so_far)


def test_a_server_that_writes_no_json_is_told_of_a_few_times_and_not_at_its_own_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = _Log()
    monkeypatch.setattr("sidecar.mcp_stdio._log", log)

    outcome_of(b"not json\n" * 1_000)

    assert log.counts == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
