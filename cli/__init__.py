"""The command ``sidelink``: what a person types. It reaches programs through their admin socket."""

from cli.main import main

__all__ = ["main"]
