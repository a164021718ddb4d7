"""What the demo's agents report, in types; and everything that the steps are judged by."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from cli.demo.faults import DemoError
from cli.demo.mesh import NodeReport
from cli.demo.tap import Tapped


class Speaker(msgspec.Struct, frozen=True):
    """An agent's own view of itself."""

    uri: str
    identifier: str
    attributes: dict[str, Any]


class Refusal(msgspec.Struct, frozen=True):
    """An error of the SDK: its class, and what it carries."""

    kind: str
    code: str
    rule: str | None
    reason: str


class Answer(msgspec.Struct, frozen=True):
    """A reply, and who is proved to have given it."""

    sender: str
    sender_identifier: str
    attributes: dict[str, Any]
    body: Any


class Attempt(msgspec.Struct, frozen=True):
    """One thing that A tried. Neither reply nor refusal: a tell that was accepted."""

    seconds: float
    reply: Answer | None = None
    refusal: Refusal | None = None


class AskerReport(msgspec.Struct, frozen=True):
    agent: Speaker
    distributions: list[str]
    steps: dict[str, Attempt]


class Seen(msgspec.Struct, frozen=True):
    """A message as B's handler saw it."""

    to: str
    kind: str
    sender: str
    sender_identifier: str
    attributes: dict[str, Any]
    body: Any


class HandlerReport(msgspec.Struct, frozen=True):
    names: list[str]
    distributions: list[str]
    seen: list[Seen]


class Listed(msgspec.Struct, frozen=True):
    seconds: float
    tools: list[str]


class Called(msgspec.Struct, frozen=True):
    seconds: float
    answer: Any
    echo: str


class RpcError(msgspec.Struct, frozen=True):
    code: int
    message: str
    data: Any


class Refused(msgspec.Struct, frozen=True):
    seconds: float
    error: RpcError | None


class AssistantReport(msgspec.Struct, frozen=True):
    """What the MCP client saw."""

    without_token: int
    revision: str
    server: str | None
    list: Listed
    call: Called
    refused: Refused


@dataclass(frozen=True, slots=True)
class Talk:
    """What both agents say of the same conversation."""

    asker: AskerReport
    handler: HandlerReport


@dataclass(frozen=True, slots=True)
class Search:
    """What was found in what a gateway relayed."""

    tapped: Tapped
    found: frozenset[str]
    seconds: float
    elsewhere: tuple[str, ...] = ()
    """Logs and state files of programs that hold a canary, and should not."""


@dataclass(slots=True)
class Evidence:
    """Filled in as the demo goes on. What was not reached is the reason why."""

    canaries: Mapping[str, str]
    nodes: list[NodeReport] | DemoError = field(default_factory=lambda: not_reached())
    enrol_seconds: float = 0.0
    talk: Talk | DemoError = field(default_factory=lambda: not_reached())
    assistant: AssistantReport | DemoError = field(default_factory=lambda: not_reached())
    search: Search | DemoError = field(default_factory=lambda: not_reached())
    control: Search | DemoError = field(default_factory=lambda: not_reached())
    metrics: Mapping[str, str] | DemoError = field(default_factory=lambda: not_reached())
    metrics_seconds: float = 0.0


ReportT = TypeVar("ReportT")


def not_reached() -> DemoError:
    return DemoError("not reached")


def read_report(said: bytes, model: type[ReportT], who: str) -> ReportT:
    """Raises DemoError for anything but the one JSON document that was agreed on."""
    try:
        return msgspec.json.decode(said, type=model)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DemoError(f"{who}: no report: {error}") from None
