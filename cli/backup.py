"""``sidelink backup`` and ``sidelink restore``: the state of a program in one sealed file."""

import os
import sys
from pathlib import Path
from typing import Final

import click

from cli.options import program_option, state_option

PASSPHRASE_BYTES_MAX: Final = 4_096

_passphrase_option = click.option(
    "--passphrase-file",
    metavar="FILE",
    required=True,
    help="Its first line is the passphrase; - reads standard input.",
)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@program_option
@_passphrase_option
@state_option
def backup(file: Path, program: str, passphrase_file: str, state: str | None) -> None:
    """Write FILE: the state of a program, sealed under a passphrase. The program may run.

    In it are identities, credentials, settings and policy, and the master key if that lies in the
    state folder; the audit log is not.
    """
    from cli.options import existing_state
    from node.backup import write_backup
    from node.clocks import SystemClock
    from node.state_folder import StatePaths

    manifest = write_backup(
        StatePaths(existing_state(program, state)),
        program,
        file,
        read_passphrase(passphrase_file),
        os.environ,
        unix_s=SystemClock().unix_s(),
    )
    click.echo(f"{file}: {', '.join(manifest.files)}", err=True)
    if "master.key" not in manifest.files:
        click.echo("The master key comes from the environment: it is not in there.", err=True)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@program_option
@_passphrase_option
@state_option
def restore(file: Path, program: str, passphrase_file: str, state: str | None) -> None:
    """Make the state folder of a program from FILE, where there is none or an empty one.

    The tickets of a restored authority are void. Never run two programs of one identity: be sure
    that the one that was backed up is gone.
    """
    from cli.options import state_base
    from node.backup import restore_backup
    from node.clocks import SystemClock

    folder = (state_base(state) / program).absolute()
    manifest = restore_backup(
        file,
        program,
        folder,
        read_passphrase(passphrase_file),
        unix_s=SystemClock().unix_s(),
    )
    click.echo(f"{folder}: {', '.join(manifest.files)}", err=True)


def read_passphrase(name: str) -> bytes:
    """The first line of a file, or of standard input. Raises ConfigError."""
    from identity import Code
    from node.errors import ConfigError

    try:
        with sys.stdin.buffer if name == "-" else Path(name).open("rb") as file:
            line = file.readline(PASSPHRASE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(
            Code.CONFIG_BACKUP_PASSPHRASE, f"{name}: cannot be read: {error.strerror}"
        ) from None
    passphrase = line.rstrip(b"\r\n")
    if not passphrase or len(line) > PASSPHRASE_BYTES_MAX:
        raise ConfigError(
            Code.CONFIG_BACKUP_PASSPHRASE,
            f"{name}: its first line is empty, or longer than {PASSPHRASE_BYTES_MAX} bytes",
        )
    return passphrase
