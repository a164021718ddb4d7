"""``sidelink status``: what runs from a state folder, whether it is ready, what it waits for."""

from collections.abc import Sequence
from typing import Any

import click

from cli.options import PROGRAM_NAMES, admin_socket, json_option, state_option


@click.command()
@click.argument("program", required=False, type=click.Choice(PROGRAM_NAMES))
@state_option
@click.option("--check", is_flag=True, help="Exit 1 unless every program shown is ready.")
@json_option
def status(program: str | None, state: str | None, check: bool, as_json: bool) -> int:
    """What runs from this state folder, and what it waits for.

    Without PROGRAM, every program that has a folder there is shown.
    """
    programs = PROGRAM_NAMES if program is None else (program,)
    return show_status(programs, state, as_json=as_json, check=check)


def show_status(programs: Sequence[str], state: str | None, *, as_json: bool, check: bool) -> int:
    """Print the status of ``programs``. A program that has no folder is left out, unless named."""
    from cli.output import print_fields, print_json

    found = [
        program_status(program, state)
        for program in programs
        if len(programs) == 1 or admin_socket(program, state).parent.parent.is_dir()
    ]
    if as_json:
        print_json({"programs": found})
    elif not found:
        click.echo("sidelink: no program has a folder there; start one or give --state.", err=True)
    else:
        for number, fields in enumerate(found):
            if number:
                click.echo()
            print_fields(fields)
    is_ready = bool(found) and all(fields.get("ready") is True for fields in found)
    is_running = any(fields["running"] for fields in found)
    return 0 if (is_ready if check else is_running) else 1


def program_status(program: str, state: str | None) -> dict[str, Any]:
    """What the program answers, or that it does not run."""
    from identity import SidelinkError
    from node.admin_client import admin_request

    head: dict[str, Any] = {"program": program}
    try:
        answer = admin_request(admin_socket(program, state), "GET", "/v1/status")
    except SidelinkError as error:
        return head | {"running": False, "ready": False, "fault": str(error)}
    return head | {"running": True} | answer
