"""``sidelink authority``, ``sidelink gateway`` and ``sidelink up``: running the three programs."""

from typing import Any

import click

from cli.options import json_option, program_options, state_option, ticket_options


@click.group()
def authority() -> None:
    """The program that issues credentials."""


@authority.command("up")
@program_options
@click.option("--trust-domain", metavar="NAME", help="First word of its names. [default: local]")
@click.option(
    "--gateways", metavar="HOST:PORT,…", help="Where its gateways listen, as nodes reach them."
)
@click.option("--node-credential-ttl-s", metavar="SECONDS", help="Life of a node's credential.")
def authority_up(**flags: Any) -> int:
    """Run the authority until it is stopped."""
    from authority.program import main
    from node.program import run
    from node.settings import AuthoritySettings
    from node.settings_load import load_settings

    return run(main, load_settings(AuthoritySettings, flags))


@authority.command("status")
@state_option
@json_option
def authority_status(state: str | None, as_json: bool) -> int:
    """What the running authority says about itself."""
    from cli.status import show_status

    return show_status(("authority",), state, as_json=as_json, check=False)


@click.group()
def gateway() -> None:
    """The program that admits and relays."""


@gateway.command("up")
@program_options
@ticket_options
@click.option("--listen", metavar="HOST:PORT", help="UDP. [default: 0.0.0.0:7440]")
@click.option("--hops-max", metavar="COUNT", help="Nodes connected at once.")
def gateway_up(**flags: Any) -> int:
    """Run the gateway until it is stopped."""
    from gateway.program import main
    from node.program import run
    from node.settings import GatewaySettings
    from node.settings_load import load_settings

    return run(main, load_settings(GatewaySettings, flags))


@gateway.command("status")
@state_option
@json_option
def gateway_status(state: str | None, as_json: bool) -> int:
    """What the running gateway says about itself."""
    from cli.status import show_status

    return show_status(("gateway",), state, as_json=as_json, check=False)


@click.command()
@program_options
@ticket_options
@click.option("--token-file", metavar="FILE", help="A workload token, for an invitation.")
@click.option("--listen", metavar="HOST:PORT", help="UDP. [default: 0.0.0.0:0, any port]")
@click.option("--agent-socket", metavar="FILE", help="Where agents connect.")
@click.option("--agent-port", metavar="PORT", help="Where they connect by TCP, with a token.")
@click.option("--mcp-host", metavar="HOST", help="MCP clients. [default: 127.0.0.1]")
@click.option("--mcp-port", metavar="PORT", help="MCP clients. [default: 7451; 0 takes any]")
def up(**flags: Any) -> int:
    """Run the sidecar, the program beside your agents, until it is stopped."""
    from node.program import run
    from node.settings import SidecarSettings
    from node.settings_load import load_settings
    from sidecar.program import main

    return run(main, load_settings(SidecarSettings, flags))
