"""``sidelink send``, ``ask`` and ``listen``: a person at the keyboard as an agent."""

import asyncio
import base64
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from cli.options import json_option, parse_attributes, state_option

if TYPE_CHECKING:
    import sidelink

BODY_BYTES_MAX: Final = 1 << 20
NOBODY_REPLIES: Final = "whoever listens here only reads; start listen with --reply"

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_AGENT_OPTIONS: Final = (
    click.option("--as", "name", required=True, metavar="NAME", help="The agent to act as."),
    click.option(
        "--attribute",
        "attributes",
        metavar="NAME=VALUE",
        multiple=True,
        help="An attribute of that agent. Repeatable.",
    ),
    click.option(
        "--socket", metavar="FILE", help="The sidecar's socket for agents, or tcp://127.0.0.1:PORT."
    ),
    state_option,
    json_option,
)


def agent_options(command: FunctionT) -> FunctionT:
    for option in reversed(_AGENT_OPTIONS):
        command = option(command)
    return command


body_json_option = click.option(
    "--body-json", is_flag=True, help="BODY is JSON and is sent as data, not as text."
)
timeout_option = click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0.001, 86_400), default=30.0, show_default=True
)


@click.command()
@click.argument("to")
@click.argument("body")
@body_json_option
@timeout_option
@agent_options
def send(
    to: str, body: str, body_json: bool, timeout_s: float, as_json: bool, **options: Any
) -> None:
    """Send BODY to the agent TO and wait until this sidecar has accepted it.

    BODY of - is read from standard input.
    """
    value = _body(body, body_json=body_json)

    async def talk(agent: "sidelink.Agent") -> None:
        await agent.tell(to, value, timeout=timeout_s)

    _run_as_agent(talk, **options)
    if as_json:
        click.echo(json.dumps({"accepted": True, "to": to}))
    else:
        click.echo(f"sidelink: accepted for {to}", err=True)


@click.command()
@click.argument("to")
@click.argument("body")
@body_json_option
@timeout_option
@agent_options
def ask(
    to: str, body: str, body_json: bool, timeout_s: float, as_json: bool, **options: Any
) -> None:
    """Send BODY to the agent TO and print its reply.

    BODY of - is read from standard input.
    """
    value = _body(body, body_json=body_json)

    async def talk(agent: "sidelink.Agent") -> None:
        reply = await agent.ask(to, value, timeout=timeout_s)
        click.echo(json.dumps(_fields(reply)) if as_json else _text(reply.body))

    _run_as_agent(talk, **options)


@click.command()
@click.option("--count", type=click.IntRange(1), help="Stop after so many messages.")
@click.option("--reply", "reply_text", metavar="TEXT", help="Answer every ask with this text.")
@agent_options
def listen(count: int | None, reply_text: str | None, as_json: bool, **options: Any) -> None:
    """Print the messages that arrive, one a line. An ask is refused unless --reply is given."""

    async def talk(agent: "sidelink.Agent") -> None:
        click.echo(f"sidelink: listening as {agent.uri}", err=True)
        seen = 0
        async for message in agent.inbox():
            click.echo(
                json.dumps({"kind": message.kind} | _fields(message))
                if as_json
                else f"{message.sender} {message.kind}: {_text(message.body)}"
            )
            sys.stdout.flush()
            if message.kind == "ask":
                if reply_text is None:
                    await message.reject(NOBODY_REPLIES)
                else:
                    await message.reply(reply_text)
            seen += 1
            if seen == count:
                await agent.flush()
                return

    _run_as_agent(talk, **options)


def _run_as_agent(
    talk: Callable[["sidelink.Agent"], Any],
    *,
    name: str,
    attributes: tuple[str, ...],
    socket: str | None,
    state: str | None,
) -> None:
    """Open the agent, do one thing, and let go of it. Raises the SDK's errors."""
    import sidelink

    from cli.options import state_base
    from node.state_folder import StatePaths

    path = socket
    if path is None and state is not None:
        path = str(StatePaths(state_base(state) / "sidecar").agent_socket)
    typed = parse_attributes(attributes)

    async def run() -> None:
        async with sidelink.connect(path) as mesh:
            await talk(await mesh.agent(name, attributes=typed))

    asyncio.run(run())


def _body(given: str, *, body_json: bool) -> object:
    text = sys.stdin.read(BODY_BYTES_MAX + 1) if given == "-" else given
    if not body_json:
        return text
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"BODY is not JSON: {error}") from None
    return value


def _fields(message: "sidelink.Message | sidelink.Reply") -> dict[str, Any]:
    return {
        "sender": message.sender,
        "sender_identifier": message.sender_identifier,
        "attributes": dict(message.attributes),
        "content_type": message.content_type,
        "body": _plain(message.body),
    }


def _plain(value: object) -> Any:
    """What JSON can hold; bytes become ``{"base64": …}``."""
    match value:
        case bytes():
            return {"base64": base64.b64encode(value).decode()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case dict():
            return {str(name): _plain(inner) for name, inner in value.items()}
        case _:
            return value


def _text(body: object) -> str:
    """A body for people: its text on one line, or its data as JSON. Never a terminal's command."""
    from node.errors import printable

    return printable(body) if isinstance(body, str) else json.dumps(_plain(body))
