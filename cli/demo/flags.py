"""The flags that the demo gives to the programs it composes itself, named as those of the CLI."""

import argparse
from collections.abc import Sequence


def program_flags(arguments: Sequence[str]) -> tuple[dict[str, str | None], list[str]]:
    """Settings by name, for ``load_settings``, and the words that are no flags."""
    parser = argparse.ArgumentParser()
    for name in ("state", "ticket-file", "listen", "ops-port", "mcp-port"):
        parser.add_argument(f"--{name}")
    parser.add_argument("words", nargs="*")
    given = vars(parser.parse_args(arguments))
    words: list[str] = given.pop("words")
    return {name: value for name, value in given.items() if value is not None}, words
