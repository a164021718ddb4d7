"""``sidelink ticket``: tickets, with which nodes enrol."""

import re
from typing import Any, Final

import click

from cli.options import admin_socket, json_option, parse_attributes, state_option

_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_TICKET_FIELDS: Final = (
    "id",
    "role",
    "name",
    "uses_left",
    "created_unix_s",
    "expires_unix_s",
    "state",
)
_LIFETIME: Final = re.compile(r"(0|[1-9][0-9]{0,8})([smhd]?)")


@click.group()
def ticket() -> None:
    """Tickets, with which nodes enrol."""


@ticket.command("create")
@click.option(
    "--role",
    type=click.Choice(["sidecar", "gateway"]),
    default="sidecar",
    show_default=True,
    help="What the node will be.",
)
@click.option("--name", metavar="PATH", help="The node's name within the trust domain.")
@click.option(
    "--name-prefix",
    metavar="PATH",
    help="Each node gets a name of its own below this one, and may name agents below its own.",
)
@click.option("--uses", type=int, default=1, show_default=True, help="How many nodes may use it.")
@click.option(
    "--replace",
    is_flag=True,
    help="Take the name from the node that holds it, which is then not renewed.",
)
@click.option(
    "--prefix",
    "prefixes",
    metavar="PATH",
    multiple=True,
    help="Its agents' names begin so. Repeatable. [default: the node's name]",
)
@click.option(
    "--attribute",
    "attributes",
    metavar="NAME=VALUE",
    multiple=True,
    help="The node's own attribute. Repeatable.",
)
@click.option(
    "--allow",
    "allowed",
    metavar="NAME[=VALUE,…]",
    multiple=True,
    help="An attribute that its agents may have, with these values or any. Repeatable.",
)
@click.option(
    "--expires", default="1h", show_default=True, metavar="TIME", help="90s, 15m, 2h, 7d."
)
@state_option
@json_option
def ticket_create(
    role: str,
    name: str | None,
    name_prefix: str | None,
    uses: int,
    replace: bool,
    prefixes: tuple[str, ...],
    attributes: tuple[str, ...],
    allowed: tuple[str, ...],
    expires: str,
    state: str | None,
    as_json: bool,
) -> None:
    """Print a new ticket. It works once, unless --uses says more; whoever holds it can use it.

    Ask on the machine of the authority, as the user that runs it.
    """
    from cli.output import print_json
    from node.admin_client import admin_request

    request: dict[str, Any] = {
        "role": role,
        "name": name,
        "name_prefix": name_prefix,
        "uses": uses,
        "replace": replace,
        "prefixes": list(prefixes),
        "attributes": parse_attributes(attributes),
        "allowed_attributes": parse_allowed(allowed),
        "expires_in_s": parse_lifetime(expires),
    }
    answer = admin_request(admin_socket("authority", state), "POST", "/v1/tickets", request)
    if as_json:
        print_json(answer)
    else:
        click.echo(answer["ticket"])
    if answer.get("held_by"):
        click.echo(
            f"sidelink: {answer['held_by']} holds this name, and only it can use this ticket. "
            "To give the name to another node, ask for a ticket with --replace.",
            err=True,
        )


@ticket.command("list")
@state_option
@json_option
def ticket_list(state: str | None, as_json: bool) -> None:
    """The tickets of the last month, the newest first. Nobody can enrol with what is shown."""
    from cli.output import print_json, print_rows
    from node.admin_client import admin_request

    answer = admin_request(admin_socket("authority", state), "GET", "/v1/tickets")
    if as_json:
        print_json(answer)
    else:
        print_rows(_TICKET_FIELDS, answer["tickets"])


@ticket.command("revoke")
@click.argument("ticket_id", metavar="ID")
@state_option
@json_option
def ticket_revoke(ticket_id: str, state: str | None, as_json: bool) -> None:
    """Withdraw the ticket that `ticket list` shows as ID.

    Nodes that have enrolled with it stay; `sidelink revoke` shuts a node out.
    """
    from cli.output import print_json
    from node.admin_client import admin_request

    answer = admin_request(
        admin_socket("authority", state), "POST", "/v1/tickets/revoke", {"id": ticket_id}
    )
    if as_json:
        print_json(answer)
    else:
        click.echo(
            f"sidelink: {ticket_id} is withdrawn; nodes that enrolled with it: {answer['used']}",
            err=True,
        )


@ticket.command("invitation")
@state_option
@json_option
def ticket_invitation(state: str | None, as_json: bool) -> None:
    """Print where this authority is and who it is, for nodes that enrol by workload token.

    It is no secret: it lets nobody in.
    """
    from cli.output import print_json
    from node.admin_client import admin_request

    answer = admin_request(admin_socket("authority", state), "GET", "/v1/invitation")
    if as_json:
        print_json(answer)
    else:
        click.echo(answer["invitation"])


def parse_lifetime(text: str, *, least: int = 1) -> int:
    """``90s``, ``15m``, ``2h``, ``7d`` or a number of seconds."""
    match = _LIFETIME.fullmatch(text)
    if match is None or int(match[1]) < least:
        raise click.BadParameter(f"{text!r} is not a time like 90s, 15m, 2h or 7d")
    return int(match[1]) * _SECONDS[match[2] or "s"]


def parse_allowed(given: tuple[str, ...]) -> dict[str, list[Any] | None]:
    """``role=planner,clerk`` allows two values, ``role`` alone any."""
    allowed: dict[str, list[Any] | None] = {}
    for text in given:
        name, equals, values = text.partition("=")
        pairs = tuple(f"v={value}" for value in values.split(","))
        allowed[name] = [parse_attributes((pair,))["v"] for pair in pairs] if equals else None
    return allowed
