"""The command ``sidelink``: finds the subcommand, and turns every failure into one paragraph.

Subcommands are imported when they are used, so that ``sidelink --help`` stays instant.
"""

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it.

# Command, where it is, and its line of the help page (so that the page imports none of them).
COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "agent": ("cli.agents:agent", "The agents of this sidecar."),
    "ask": ("cli.messages:ask", "Send a message to an agent and print its reply."),
    "audit": ("cli.audit:audit", "What policy decided: verified, searched, followed."),
    "authority": ("cli.programs:authority", "The program that issues credentials."),
    "backup": ("cli.backup:backup", "Write the state of a program into a sealed file."),
    "credential": ("cli.credentials:credential", "What other authorities say of an agent."),
    "demo": ("cli.demo:demo", "Run a whole mesh on this machine and print what was proved."),
    "gateway": ("cli.programs:gateway", "The program that admits and relays."),
    "identity": ("cli.identities:identity", "Who a program or an agent is; rotating its key."),
    "keystore": ("cli.keystore:keystore", "The private keys that a program keeps."),
    "listen": ("cli.messages:listen", "Print the messages that arrive for an agent."),
    "policy": ("cli.policies:policy", "Check, test, explain and compare policies."),
    "restore": ("cli.backup:restore", "Make the state of a program from such a file."),
    "revoke": ("cli.revocations:revoke", "Shut an identity out of the trust domain, for good."),
    "send": ("cli.messages:send", "Send a message to an agent."),
    "status": ("cli.status:status", "What runs from this state folder, and what it waits for."),
    "ticket": ("cli.tickets:ticket", "Tickets, with which nodes enrol."),
    "trust": ("cli.trusts:trust", "The authorities that a node trusts."),
    "up": ("cli.programs:up", "Run the sidecar, the program beside your agents."),
}


class LazyGroup(click.Group):
    """Knows its commands by name and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module_name, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module_name), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sidelink-node", prog_name="sidelink")
def sidelink() -> None:
    """A private mesh for AI agents.

    Start with `sidelink authority up`, `sidelink gateway up` and `sidelink up`, each with its own
    ticket from `sidelink ticket create`. Data goes to standard output, talk to standard error.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 for a failure, 2 for wrong use."""
    try:
        result: Any = sidelink.main(
            args=None if arguments is None else list(arguments),
            prog_name="sidelink",
            standalone_mode=False,
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter must not complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        return _report(error)
    return result if isinstance(result, int) else 0


def _report(error: Exception) -> int:
    """One paragraph for what we foresaw; anything else is our own mistake and keeps its trace."""
    import sidelink as sdk

    from identity import SidelinkError
    from node.errors import error_paragraph, exit_code, printable

    if isinstance(error, SidelinkError):
        click.echo(error_paragraph(error), err=True)
        return exit_code(error)
    if isinstance(error, sdk.SidelinkError):
        rule = f" (rule: {error.rule})" if error.rule else ""
        click.echo(printable(f"sidelink: {error}{rule}. {error.remedy}"), err=True)
        return EXIT_FAILED
    raise error


if __name__ == "__main__":
    sys.exit(main())
