"""``sidelink agent``: the agents of a sidecar."""

import click

from cli.options import admin_socket, json_option, state_option


@click.group()
def agent() -> None:
    """The agents of this sidecar."""


@agent.command("list")
@state_option
@json_option
def agent_list(state: str | None, as_json: bool) -> None:
    """Every agent that the sidecar keeps, and whether it is awake."""
    from cli.output import print_json, print_table
    from node.admin_client import admin_request

    answer = admin_request(admin_socket("sidecar", state), "GET", "/v1/agents")
    if as_json:
        print_json(answer)
        return
    columns = ("uri", "identifier", "awake", "listening", "waiting")
    rows = ([entry.get(column) for column in columns] for entry in answer.get("agents", []))
    print_table([column.upper() for column in columns], rows)
