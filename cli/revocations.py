"""``sidelink revoke``: identities that the authority no longer vouches for."""

from typing import Final

import click

from cli.options import admin_socket, json_option, state_option

_FIELDS: Final = ("identifier", "revoked_unix_s", "reason")


@click.command()
@click.argument("who", metavar="[IDENTIFIER|NAME]", required=False)
@click.option("--reason", metavar="TEXT", default="", help="For those who read the list later.")
@click.option("--list", "as_list", is_flag=True, help="Show who is revoked.")
@state_option
@json_option
def revoke(who: str | None, reason: str, as_list: bool, state: str | None, as_json: bool) -> None:
    """Shut an identity out of the trust domain, for good, with all that it has delegated to.

    A node is named by its path, URI or identifier; an agent by its identifier. Ask on the machine
    of the authority, as the user that runs it.
    """
    from cli.output import print_json, print_rows
    from node.admin_client import admin_request

    socket = admin_socket("authority", state)
    if as_list == (who is not None):
        raise click.UsageError("give an identifier or a name, or --list")
    if as_list:
        answer = admin_request(socket, "GET", "/v1/revocations")
        if as_json:
            print_json(answer)
        else:
            print_rows(_FIELDS, answer["revocations"])
        return
    answer = admin_request(socket, "POST", "/v1/revocations", {"who": who, "reason": reason})
    if as_json:
        print_json(answer)
    else:
        again = " (it was before)" if answer["revoked_before"] else ""
        click.echo(f"sidelink: {answer['identifier']} is revoked{again}", err=True)
