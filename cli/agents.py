"""``sidelink agent``: the agents of a sidecar."""

from collections.abc import Iterator
from typing import Any

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
