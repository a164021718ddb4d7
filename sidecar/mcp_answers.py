"""The answers a sidecar gives to MCP itself: denials, failures, lists without what is denied.

Pure. One table maps what went wrong to a status; the code that is stable is in `data.code`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from identity import Code, SidelinkError
from policy import REDACTED, Action, Denial, Obligations, redact
from sidecar.mcp_message import HTTP_STATUS, McpAsk, RpcCode, encode_error
from sidecar.mcp_stdio import Answer
from sidecar.mcp_wire import Headers


@dataclass(frozen=True, slots=True)
class McpAnswer:
    status: int
    body: bytes
    headers: Headers = ()


_FAILED_STATUS: Final[Mapping[Code, int]] = {
    Code.STREAM_LIMIT: 503,
    Code.STREAM_TIMEOUT: 504,
    Code.STREAM_SERVICE_UNKNOWN: 404,
}
_DENIED_CODES: Final = frozenset(
    {
        Code.POLICY_DENIED,
        Code.POLICY_NO_RULE,
        Code.POLICY_NOT_READY,
        Code.POLICY_LIMITED,
        Code.ROUTE_DENIED,
        Code.HOP_DENIED,
    }
)


def denied(request_id: bytes, denial: Denial) -> McpAnswer:
    """200, as an MCP error is an answer: clients hide the body of an HTTP error."""
    return McpAnswer(200, withheld(denial).encode(request_id))


def withheld(denial: Denial) -> Answer:
    """What a caller gets in the place of a result that policy denies."""
    rule, reason = denial.told(colleague=True)
    data = {
        "code": denial.code.text,
        "rule": rule or None,
        "reason": reason,
        "decision": denial.decision_id,
    }
    message = f"denied by policy: {reason or denial.code.text}"
    error = {"code": int(RpcCode.POLICY_DENIED), "message": message, "data": data}
    return Answer(b"", msgspec.json.encode(error))


def failed(request_id: bytes | None, error: SidelinkError) -> McpAnswer:
    """The mesh or the server did not answer. A refusal by the far side is a denial here too."""
    data = {"code": error.code.text, "reason": error.code.remedy}
    if error.code in _DENIED_CODES:
        message = f"denied by the other side: {error.code.text}"
        return McpAnswer(200, encode_error(request_id, RpcCode.POLICY_DENIED, message, data))
    status = _FAILED_STATUS.get(error.code, 502)
    body = encode_error(request_id, RpcCode.MESH_FAILED, f"no answer: {error.code.text}", data)
    return McpAnswer(status, body)


def response_of(answer: Answer, request_id: bytes) -> McpAnswer:
    """A stdio server's final response with the status that this revision gives to its error."""
    code = answer.error_code
    status = 200 if code is None else HTTP_STATUS.get(code, 200)
    return McpAnswer(status, answer.encode(request_id))


def sse_event(message: bytes) -> bytes:
    return b"event: message\r\ndata: %b\r\n\r\n" % message


def wants_both(headers: Headers) -> bool:
    """The client must take JSON and events: which it will be is not known yet."""
    offered = {
        part.partition(";")[0].strip().lower()
        for name, value in headers
        if name == "accept"
        for part in value.split(",")
    }
    if "*/*" in offered:
        return True
    json = bool({"application/json", "application/*"} & offered)
    return json and bool({"text/event-stream", "text/*"} & offered)


def fulfilled(answer: Answer, obligations: Obligations) -> Answer:
    """The answer as the permits of its call let it out. What cannot be looked through stays in."""
    most = obligations.max_bytes
    if most is not None and len(answer.result) + len(answer.error) > most:
        return _withheld(RpcCode.POLICY_DENIED, f"the result has more than {most} bytes")
    if not obligations.redact:
        return answer
    if answer.error:
        return _withheld(answer.error_code or RpcCode.INTERNAL, REDACTED)
    result = result_of(answer)
    if result is None:
        return _withheld(RpcCode.POLICY_DENIED, "the result could not be redacted")
    return Answer(msgspec.json.encode(redact(result, obligations.redact)), b"")


def result_of(answer: Answer) -> dict[str, Any] | None:
    """The result for policy to judge; None if there is none, or none that can be read."""
    try:
        return _ANY_RESULT.decode(answer.result) if answer.result else None
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None


def _withheld(code: int, message: str) -> Answer:
    return Answer(b"", msgspec.json.encode({"code": int(code), "message": message}))


class _Item(msgspec.Struct):
    name: str = ""
    uri: str = ""


_LISTED: Final[Mapping[str, tuple[str, Callable[[_Item], McpAsk]]]] = {
    "tools/list": ("tools", lambda item: McpAsk(Action.MCP_CALL, "tools/call", tool=item.name)),
    "prompts/list": (
        "prompts",
        lambda item: McpAsk(Action.MCP_PROMPT, "prompts/get", prompt=item.name),
    ),
    "resources/list": (
        "resources",
        lambda item: McpAsk(Action.MCP_READ, "resources/read", uri=item.uri),
    ),
    # What a template will name is open, so those are kept for whoever may read anything.
    "resources/templates/list": (
        "resourceTemplates",
        lambda _: McpAsk(Action.MCP_READ, "resources/read"),
    ),
}
_ANY_RESULT: Final = msgspec.json.Decoder(dict[str, Any])
_RESULT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ITEM: Final = msgspec.json.Decoder(_Item)


def filter_list(method: str, answer: Answer, may_offer: Callable[[McpAsk], bool]) -> Answer:
    """Leave out what the caller could not use anyway. A list we cannot read is not passed on."""
    listed = _LISTED.get(method)
    if listed is None or not answer.result:
        return answer
    key, ask_of = listed
    try:
        result = _RESULT.decode(answer.result)
        items = _ITEMS.decode(result.get(key, msgspec.Raw(b"[]")))
        kept = [item for item in items if may_offer(ask_of(_ITEM.decode(item)))]
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        broken = {"code": int(RpcCode.INTERNAL), "message": f"the list of {key} is malformed"}
        return Answer(b"", msgspec.json.encode(broken))
    result[key] = msgspec.Raw(msgspec.json.encode(kept))
    return Answer(msgspec.json.encode(result), b"")
