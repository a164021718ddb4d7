"""``sidelink policy``: policies, checked before a program uses them."""


import click


@click.group()
def policy() -> None:
    """Check policies before they are used."""
