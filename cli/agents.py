"""``sidelink agent``: the agents of a sidecar, and tokens for processes that act as them."""

from collections.abc import Iterator
from typing import Any, Final

import click

from cli.options import admin_socket, json_option, state_option
from cli.tickets import parse_lifetime

TOKENS: Final = "/v1/agents/tokens"
REVOKE: Final = "/v1/agents/tokens/revoke"


@click.group()
def agent() -> None:
    """The agents of this sidecar."""


@agent.command("list")
@state_option
@json_option
def agent_list(state: str | None, as_json: bool) -> None:
    """Every agent that the sidecar keeps, and whether it is awake."""
    from cli.output import print_json_array, print_table_pages

    pages = _pages(state)
    if as_json:
        print_json_array("agents", (entry for page in pages for entry in page))
        return
    columns = ("uri", "identifier", "awake", "listening", "waiting")
    tables = ([[entry.get(column) for column in columns] for entry in page] for page in pages)
    print_table_pages([column.upper() for column in columns], tables)


def _pages(state: str | None) -> Iterator[list[dict[str, Any]]]:
    """Page by page: a sidecar may keep more than anybody wants in memory."""
    from node.admin_client import admin_request

    after: str | None = ""
    while after is not None:
        answer = admin_request(
            admin_socket("sidecar", state), "GET", "/v1/agents", {"after": after}
        )
        yield answer["agents"]
        after = answer["next"]


@agent.group("token")
def token() -> None:
    """Tokens, with which processes act as agents."""


@token.command("create")
@click.option(
    "--agent",
    "agents",
    metavar="NAME",
    multiple=True,
    required=True,
    help="It may act as this agent and those below it. Repeatable.",
)
@click.option(
    "--expires", default="30d", show_default=True, metavar="TIME", help="15m, 2h, 7d; up to 366d."
)
@state_option
@json_option
def token_create(agents: tuple[str, ...], expires: str, state: str | None, as_json: bool) -> None:
    """Print a new token, which is shown this once. Whoever holds it can use it.

    A process shows it by SIDELINK_AGENT_TOKEN, SIDELINK_AGENT_TOKEN_FILE or
    sidelink.connect(token=…).
    """
    from cli.output import print_json
    from node.admin_client import admin_request

    request = {"agents": list(agents), "expires_in_s": parse_lifetime(expires)}
    answer = admin_request(admin_socket("sidecar", state), "POST", TOKENS, request)
    if as_json:
        print_json(answer)
    else:
        click.echo(answer["token"])
        click.echo(f"sidelink: token {answer['id']}, for {', '.join(answer['agents'])}", err=True)


@token.command("list")
@state_option
@json_option
def token_list(state: str | None, as_json: bool) -> None:
    """Every token of this sidecar, without the tokens themselves."""
    from cli.output import print_json, print_table, time_text
    from node.admin_client import admin_request

    answer = admin_request(admin_socket("sidecar", state), "GET", TOKENS)
    if as_json:
        print_json(answer)
        return
    print_table(
        ("ID", "AGENTS", "CREATED", "EXPIRES", "LAST USED"),
        (
            (
                entry["id"],
                entry["agents"],
                time_text(entry["created_unix_s"]),
                "expired" if entry["expired"] else time_text(entry["expires_unix_s"]),
                time_text(entry["last_used_unix_s"]),
            )
            for entry in answer.get("tokens", [])
        ),
    )


@token.command("revoke")
@click.argument("number", metavar="ID", type=click.IntRange(1))
@state_option
@json_option
def token_revoke(number: int, state: str | None, as_json: bool) -> None:
    """End a token, and every connection that came with it."""
    from cli.output import print_json
    from node.admin_client import admin_request

    answer = admin_request(admin_socket("sidecar", state), "POST", REVOKE, {"id": number})
    if as_json:
        print_json(answer)
    else:
        click.echo(f"sidelink: token {number} is revoked", err=True)
