"""``sidelink credential``: what one company's authority says of another company's agent."""

import click

from cli.options import admin_socket, json_option, parse_attributes, state_option
from cli.tickets import parse_lifetime

_agent_option = click.option("--agent", metavar="PATH", required=True, help="The agent.")


@click.group()
def credential() -> None:
    """Further credentials: what other authorities say of an agent of yours.

    Its operator prints the agent's card, the operator of the other authority issues a voucher for
    it, and the first gives that to the agent. Policies read it as subject.from["sl1…"].role.
    """


@credential.command("card")
@_agent_option
@state_option
def credential_card(agent: str, state: str | None) -> None:
    """Print an agent's card: who it is, for an authority that is to vouch for it. Not secret."""
    from node.admin_client import admin_request

    body = {"agent": agent}
    answer = admin_request(admin_socket("sidecar", state), "POST", "/v1/agents/identity", body)
    click.echo(answer["card"])


@credential.command("issue")
@click.argument("card", metavar="CARD")
@click.option("--name", metavar="PATH", required=True, help="What it is called in this domain.")
@click.option(
    "--attribute",
    "attributes",
    metavar="NAME=VALUE",
    multiple=True,
    help="What this authority says of it. Repeatable.",
)
@click.option("--expires", default="30d", show_default=True, metavar="TIME", help="2h, 7d, 30d.")
@state_option
@json_option
def credential_issue(
    card: str,
    name: str,
    attributes: tuple[str, ...],
    expires: str,
    state: str | None,
    as_json: bool,
) -> None:
    """Vouch for the agent of CARD, and print the voucher. Ask on the machine of the authority.

    Whoever trusts this authority believes it of that agent until it expires or is revoked.
    """
    from cli.output import print_json
    from node.admin_client import admin_request

    body = {
        "card": card,
        "name": name,
        "attributes": parse_attributes(attributes),
        "expires_in_s": parse_lifetime(expires),
    }
    answer = admin_request(admin_socket("authority", state), "POST", "/v1/vouchers", body)
    if as_json:
        print_json(answer)
    else:
        click.echo(answer["voucher"])


@credential.command("add")
@click.argument("voucher", metavar="VOUCHER")
@_agent_option
@state_option
@json_option
def credential_add(voucher: str, agent: str, state: str | None, as_json: bool) -> None:
    """Give an agent a voucher. It replaces what the same issuer said before."""
    _change("/v1/agents/vouchers", {"agent": agent, "voucher": voucher}, state, as_json)


@credential.command("remove")
@click.argument("issuer", metavar="IDENTIFIER")
@_agent_option
@state_option
@json_option
def credential_remove(issuer: str, agent: str, state: str | None, as_json: bool) -> None:
    """Show no longer what an issuer says of an agent."""
    _change("/v1/agents/vouchers/remove", {"agent": agent, "issuer": issuer}, state, as_json)


def _change(path: str, body: dict[str, str], state: str | None, as_json: bool) -> None:
    from cli.output import print_json, print_rows
    from node.admin_client import admin_request

    answer = admin_request(admin_socket("sidecar", state), "POST", path, body)
    if as_json:
        print_json(answer)
    else:
        print_rows(("issuer", "name", "expires_unix_s"), answer["further"])
