"""What a decision vector is made of: a bundle, a request, and the answer written down by hand."""

from dataclasses import dataclass, replace
from typing import Any, Final

from identity import AgentUri, Identifier, NamePrefix
from policy import Action, Party, Request
from tests.policy.helpers import BILLING, PLANNER, agent, identifier

UNIX_S: Final = 1_800_000_000.0
HEAD: Final = """\
apiVersion: sidelink/v1
kind: Policy
attributes: {role: text, clearance: int, human: bool, teams: list}
"""


@dataclass(frozen=True, slots=True)
class Case:
    """``expect`` is `allow RULE`, `deny RULE` or, where no rule allows, `deny`.

    ``asked_before`` is how often the same was asked, and answered, at the same time.
    """

    what: str
    bundle: str
    request: Request
    expect: str
    unix_s: float = UNIX_S
    expires_unix_s: float | None = None
    asked_before: int = 0


def bundle(*rules: str) -> str:
    """Rules in YAML's flow style, without their braces. Each begins with its name."""
    return HEAD + "rules:\n" + "".join(f"  - {{{rule}}}\n" for rule in rules)


def asks(to: Party = BILLING, size: int | None = 10, **attributes: Any) -> Request:
    """An agent with these attributes asks."""
    who = agent("agent://acme/finance/planner", **attributes)
    return Request(Action.MESSAGE_ASK, who, to, message_bytes=size)


def asks_name(name: str) -> Request:
    return asks(agent(name))


def calls(args: Any = None, tool: str = "get_forecast", service: str = "weather") -> Request:
    given = {} if args is None else args
    return Request(Action.MCP_CALL, PLANNER, BILLING, service=service, tool=tool, args=given)


def reads(uri: str) -> Request:
    return Request(Action.MCP_READ, PLANNER, BILLING, service="docs", args={"uri": uri}, uri=uri)


def prompts(prompt: str, args: Any = None) -> Request:
    given = {} if args is None else args
    return Request(Action.MCP_PROMPT, PLANNER, BILLING, service="docs", tool=prompt, args=given)


def results(result: Any, args: Any = None) -> Request:
    return replace(calls(args), action=Action.MCP_RESULT, result=result)


def registers(prefix: str, **attributes: Any) -> Request:
    who = replace(agent("agent://acme/nodes/one", **attributes), kind="node")
    to = replace(agent("agent://acme/nodes/gateway"), kind="node", role_of_node="gateway")
    return Request(Action.ROUTE_REGISTER, who, to, prefix=NamePrefix.parse(prefix))


def named(text: str) -> Identifier:
    """The identifier of somebody made up."""
    return identifier(text)


def without_name(party: Party) -> Party:
    return replace(party, name=None, trust_domain=None)


def uri(text: str) -> AgentUri:
    return AgentUri.parse(text)
