"""``sidelink policy publish`` and its like: the policy that a whole trust domain obeys."""

from pathlib import Path
from typing import Any, Final

import click

from cli.options import (
    PROGRAM_NAMES,
    admin_socket,
    json_option,
    program_option,
    state_option,
)

PUBLISH_SECONDS_MAX: Final = 60.0
"""Thousands of rules take seconds to compile and to test."""
_HEADINGS: Final = ("NUMBER", "ISSUED", "SIGNER", "FILES")

_publisher_option = click.option(
    "--program",
    type=click.Choice(PROGRAM_NAMES),
    default="authority",
    show_default=True,
    help="Who signs: the authority, or a node that it has named.",
)


@click.command("publish")
@click.argument("path", type=click.Path(path_type=Path))
@_publisher_option
@state_option
@json_option
def policy_publish(path: Path, program: str, state: str | None, as_json: bool) -> None:
    """Have all nodes of the trust domain obey PATH, beside and above their own files.

    PATH is a file, or a folder of files that are one policy. Its tests must pass. It takes the
    place of what was published before, on every node as soon as that hears of it.
    """
    from node.policy_files import read_bundle_at

    files = [
        {"name": Path(source.name).name, "text": source.text} for source in read_bundle_at(path)
    ]
    if not files:
        raise click.UsageError(f"{path} holds no policy; to ask for nothing, use withdraw")
    _say(_ask(program, state, "/v1/policies", {"files": files}), as_json=as_json)


@click.command("rollback")
@click.argument("number", type=int)
@_publisher_option
@state_option
@json_option
def policy_rollback(number: int, program: str, state: str | None, as_json: bool) -> None:
    """Publish again what had this NUMBER, under a new one: see `sidelink policy published`."""
    _say(_ask(program, state, "/v1/policies/rollback", {"number": number}), as_json=as_json)


@click.command("withdraw")
@_publisher_option
@state_option
@json_option
def policy_withdraw(program: str, state: str | None, as_json: bool) -> None:
    """Ask nothing of the nodes any more: each goes by its own files alone."""
    _say(_ask(program, state, "/v1/policies", {"files": []}), as_json=as_json)


@click.command("forget")
@program_option
@state_option
def policy_forget(program: str, state: str | None) -> None:
    """Have a stopped program forget the policy for the trust domain, and those before it.

    For a node that it has cut off, so that no later one comes: it goes by its own files until it
    hears again. Set mandatory_policy_required if it should allow nothing until then.
    """
    from cli.options import existing_state
    from node.state_folder import StateFolder
    from node.store import Store

    with (
        StateFolder.open(existing_state(program, state)) as folder,
        Store.open(folder.database) as store,
    ):
        numbers = sum(1 for _ in store.policies())
        store.forget_policies()
    click.echo(f"sidelink: {numbers} policies are forgotten", err=True)


@click.command("published")
@click.argument("number", type=int, required=False)
@_publisher_option
@state_option
@json_option
def policy_published(number: int | None, program: str, state: str | None, as_json: bool) -> None:
    """List what a program holds, the newest first; with NUMBER, print that one's files."""
    from cli.output import print_json, print_table, print_text
    from node.admin_client import admin_request
    from node.clocks import utc_text

    if number is not None:
        shown = _ask(program, state, "/v1/policies/show", {"number": number})
        if as_json:
            print_json(shown)
        for file in () if as_json else shown["files"]:
            print_text(f"# {file['name']}\n{file['text']}")
        return
    answer = admin_request(admin_socket(program, state), "GET", "/v1/policies")
    if as_json:
        print_json(answer)
    else:
        rows = [
            (
                one["number"],
                utc_text(one["issued_unix_s"]),
                "the authority" if one["by_authority"] else one["signer"],
                ", ".join(file["name"] for file in one["files"]) or "none",
            )
            for one in answer["policies"]
        ]
        print_table(_HEADINGS, rows)


@click.command("signers")
@click.option("--add", metavar="IDENTIFIER", multiple=True, help="Let it publish. Repeatable.")
@click.option("--remove", metavar="IDENTIFIER", multiple=True, help="No longer. Repeatable.")
@state_option
@json_option
def policy_signers(
    add: tuple[str, ...], remove: tuple[str, ...], state: str | None, as_json: bool
) -> None:
    """List, or change, the nodes that may publish beside the authority. Asked of the authority."""
    from cli.output import print_json
    from node.admin_client import admin_request

    if add or remove:
        wishes = {"add": list(add), "remove": list(remove)}
        answer = _ask("authority", state, "/v1/policies/signers", wishes)
    else:
        answer = admin_request(admin_socket("authority", state), "GET", "/v1/policies")
    if as_json:
        print_json({"signers": answer["signers"]})
    else:
        for signer in answer["signers"]:
            click.echo(signer)


def _ask(program: str, state: str | None, path: str, body: dict[str, Any]) -> dict[str, Any]:
    from node.admin_client import admin_request

    socket = admin_socket(program, state)
    return admin_request(socket, "POST", path, body, timeout_s=PUBLISH_SECONDS_MAX)


def _say(published: dict[str, Any], *, as_json: bool) -> None:
    from cli.output import print_json

    if as_json:
        print_json(published)
        return
    names = ", ".join(file["name"] for file in published["files"]) or "nothing any more"
    click.echo(f"sidelink: policy {published['number']} is published: {names}", err=True)
