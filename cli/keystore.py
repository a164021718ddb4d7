"""``sidelink keystore``: the keys that a program keeps."""

import os
from dataclasses import asdict

import click

from cli.options import json_option, program_option, state_option


@click.group()
def keystore() -> None:
    """The private keys that a program keeps, and the master key that seals them."""


@keystore.command("rotate-key")
@program_option
@state_option
@json_option
def keystore_rotate_key(program: str, state: str | None, as_json: bool) -> int:
    """Put every private key under a new master key, while the program is stopped.

    A key in the state folder is replaced there. Where SIDELINK_MASTER_KEY gives it, give the new
    one in SIDELINK_MASTER_KEY_NEW (or either in a file, by the same name and _FILE), and start the
    program with that afterwards.
    """
    from cli.options import existing_state
    from cli.output import print_json
    from node.folder_keys import rotate_master_key
    from node.state_folder import StateFolder

    with StateFolder.open(existing_state(program, state)) as folder:
        resealed = rotate_master_key(folder, os.environ)
    if as_json:
        print_json(asdict(resealed))
    else:
        click.echo(f"{resealed.rows} identities are sealed under the new master key")
    if resealed.damaged:
        names = ", ".join(resealed.damaged_names)
        click.echo(f"sidelink: {resealed.damaged} damaged ones stay as they are: {names}", err=True)
    return 1 if resealed.damaged else 0
