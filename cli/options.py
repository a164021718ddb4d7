"""Options that several commands take, and how they become settings."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

PROGRAM_NAMES: Final = ("authority", "gateway", "sidecar")

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
state_option = click.option(
    "--state",
    metavar="FOLDER",
    help="Holds a folder for each program. [default: $SIDELINK_STATE, "
    "$XDG_STATE_HOME/sidelink or ~/.local/state/sidelink]",
)

program_option = click.option(
    "--program", type=click.Choice(PROGRAM_NAMES), required=True, help="Whose state folder."
)

# Values stay text: the settings model checks them, so that a flag, a variable and a file are
# judged by the same rules and in the same words.
_PROGRAM_OPTIONS: Final = (
    click.option("--config", metavar="FILE", help="Settings file. [default: config.yaml there]"),
    click.option("--ops-host", metavar="HOST", help="Health and metrics. [default: 127.0.0.1]"),
    click.option("--ops-port", metavar="PORT", help="Health and metrics; 0 takes any."),
    click.option("--quic-engine", metavar="ENGINE", help="auto, qh3 or aioquic."),
    click.option("--datagram-bytes", metavar="BYTES", help="UDP payload that every path carries."),
    click.option("--log-format", metavar="FORMAT", help="auto, json or console."),
    click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error."),
    click.option("--stop-grace-s", metavar="SECONDS", help="Bound of a graceful stop."),
)
_TICKET_OPTIONS: Final = (
    click.option("--ticket-file", metavar="FILE", help="Holds the ticket; - reads standard input."),
    click.option("--ticket", metavar="TICKET", help="The ticket itself; others can see it."),
    click.option("--node-name", metavar="NAME", help="To be called so, below the ticket's prefix."),
)


def program_options(command: FunctionT) -> FunctionT:
    """The options that every program has."""
    for option in reversed((state_option, *_PROGRAM_OPTIONS)):
        command = option(command)
    return command


def ticket_options(command: FunctionT) -> FunctionT:
    for option in reversed(_TICKET_OPTIONS):
        command = option(command)
    return command


def state_base(state: str | None) -> Path:
    """The folder of folders: the flag, the variable, or the default."""
    import os

    from node.settings_source import default_state_base

    given = state or os.environ.get("SIDELINK_STATE")
    return Path(given).expanduser() if given else default_state_base()


def existing_state(program: str, state: str | None) -> Path:
    """The program's state folder. Raises ConfigError if no program ever started there."""
    from identity import Code
    from node.errors import ConfigError
    from node.state_folder import StatePaths

    paths = StatePaths((state_base(state) / program).absolute())
    if not paths.database.exists():
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"{paths.folder}: no {program} has kept anything there",
            remedy="Name the folder of folders with --state or SIDELINK_STATE.",
        )
    return paths.folder


def admin_socket(program: str, state: str | None) -> Path:
    """Where the program's admin server listens."""
    from node.state_folder import StatePaths

    return StatePaths((state_base(state) / program).absolute()).admin_socket


def parse_attributes(given: tuple[str, ...]) -> dict[str, str | int | bool | list[str]]:
    """``role=planner clearance=2 active=true tags=[a,b]`` as typed values.

    A value in double quotes is text whatever it looks like.
    """
    attributes: dict[str, str | int | bool | list[str]] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{pair!r} is not name=value")
        if name in attributes:
            raise click.BadParameter(f"{name} is given twice")
        attributes[name] = _typed(value)
    return attributes


def _typed(value: str) -> str | int | bool | list[str]:
    words: Mapping[str, bool] = {"true": True, "false": False}
    if value in words:
        return words[value]
    if value.removeprefix("-").isdecimal() and value.isascii():
        return int(value)
    if value.startswith("[") and value.endswith("]"):
        return [part.strip() for part in value[1:-1].split(",") if part.strip()]
    if len(value) >= 2 and value.startswith('"') and value.endswith('"'):
        return value[1:-1]
    return value
