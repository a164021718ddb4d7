"""``sidelink trust``: the authorities that a node trusts, its own and those of others."""

import click

from cli.options import PROGRAM_NAMES, admin_socket, json_option, state_option

_program_option = click.option(
    "--program",
    type=click.Choice([name for name in PROGRAM_NAMES if name != "authority"]),
    default="sidecar",
    show_default=True,
    help="The node that trusts.",
)


@click.group()
def trust() -> None:
    """Authorities that a node trusts: its own, and those of other companies."""


@trust.command("add")
@click.argument("authority", metavar="IDENTIFIER")
@click.argument("trust_domain", metavar="TRUST_DOMAIN")
@_program_option
@state_option
@json_option
def trust_add(
    authority: str, trust_domain: str, program: str, state: str | None, as_json: bool
) -> None:
    """Trust another authority, for its one trust domain.

    Get IDENTIFIER from its operator by a way that you trust: `sidelink authority status` prints it
    there. What its members may do, policy says.
    """
    from cli.output import print_fields, print_json
    from node.admin_client import admin_request

    body = {"authority": authority, "trust_domain": trust_domain}
    answer = admin_request(admin_socket(program, state), "POST", "/v1/trust", body)
    if as_json:
        print_json(answer)
    else:
        print_fields(answer)


@trust.command("list")
@_program_option
@state_option
@json_option
def trust_list(program: str, state: str | None, as_json: bool) -> None:
    """Every authority that the node trusts, and its newest revocation list."""
    from cli.output import print_json, print_table
    from node.admin_client import admin_request

    answer = admin_request(admin_socket(program, state), "GET", "/v1/trust")
    if as_json:
        print_json(answer)
        return
    rows = []
    for one in answer.get("authorities", []):
        newest = one.get("revocations") or {}
        rows.append(
            [
                one.get("trust_domain"),
                one.get("authority"),
                one.get("own"),
                newest.get("number"),
                newest.get("revoked"),
            ]
        )
    print_table(["TRUST DOMAIN", "AUTHORITY", "OWN", "LIST", "REVOKED"], rows)


@trust.command("remove")
@click.argument("authority", metavar="IDENTIFIER")
@_program_option
@state_option
@json_option
def trust_remove(authority: str, program: str, state: str | None, as_json: bool) -> None:
    """Trust an authority no longer. Hops and channels with its members end at once."""
    from cli.output import print_fields, print_json
    from node.admin_client import admin_request

    body = {"authority": authority}
    answer = admin_request(admin_socket(program, state), "POST", "/v1/trust/remove", body)
    if as_json:
        print_json(answer)
    else:
        print_fields(answer)
