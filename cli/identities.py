"""``sidelink identity``: what a program's identity is, and rotating its key."""

from typing import Any

import click

from cli.options import PROGRAM_NAMES, admin_socket, json_option, state_option
from cli.tickets import parse_lifetime

_program_option = click.option(
    "--program",
    type=click.Choice(PROGRAM_NAMES),
    default="sidecar",
    show_default=True,
    help="Whose identity.",
)
_agent_option = click.option("--agent", metavar="PATH", help="One of the sidecar's agents.")


@click.group()
def identity() -> None:
    """Identities: who a program or an agent is, and rotating their keys."""


@identity.command("show")
@_program_option
@_agent_option
@state_option
@json_option
def identity_show(program: str, agent: str | None, state: str | None, as_json: bool) -> None:
    """Print an identity: its identifier, its name, its key as did:key, and when that ends.

    PATH may also be an identifier or a did:key; then it is looked for among the agents awake.
    """
    from cli.output import print_fields, print_json
    from node.admin_client import admin_request

    socket = admin_socket(program, state)
    if agent is None:
        answer = admin_request(socket, "GET", "/v1/identity")
    else:
        answer = admin_request(socket, "POST", "/v1/agents/identity", {"agent": agent})
    if as_json:
        print_json(answer)
    else:
        print_fields(answer)


@identity.command("rotate")
@_program_option
@_agent_option
@click.option(
    "--announce",
    metavar="TIME",
    help="How long peers are shown the new key before it signs. [default: 30s; authority: 1h]",
)
@click.option(
    "--overlap",
    metavar="TIME",
    help="How long the old key still verifies. [default: 1d; authority: 30d]",
)
@state_option
@json_option
def identity_rotate(
    program: str,
    agent: str | None,
    announce: str | None,
    overlap: str | None,
    state: str | None,
    as_json: bool,
) -> None:
    """Give an identity a new key. Its identifier and its channels stay."""
    from cli.output import print_fields, print_json
    from node.admin_client import admin_request

    wishes: dict[str, Any] = {}
    if announce is not None:
        wishes["announce_s"] = parse_lifetime(announce, least=0)
    if overlap is not None:
        wishes["overlap_s"] = parse_lifetime(overlap, least=0)
    path = "/v1/identity/rotate"
    if agent is not None:
        wishes["agent"] = agent
        path = "/v1/agents/rotate"
    answer = admin_request(admin_socket(program, state), "POST", path, wishes)
    if as_json:
        print_json(answer)
    else:
        print_fields(answer)
