"""``sidelink demo``: a whole mesh on this machine, and a table of what it proved.

Nothing here is part of a program that serves anybody: the tap at the gateway and the codec that
does not seal exist in this package only.
"""

import signal

import click

from cli.options import json_option


@click.command()
@json_option
def demo(as_json: bool) -> int:
    """Run a whole mesh on this machine and print what was proved.

    Exits 0 only if every step was proved. Leaves nothing behind but the virtual environments of
    its agents, which make the next run quick.
    """
    # The imports take a moment, and one of them may swallow a KeyboardInterrupt. Until the demo
    # minds signals itself there is nothing to tidy up, so that they may simply end it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from cli.demo.run import run

    return run(as_json=as_json)
