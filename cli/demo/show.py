"""The demo's table: for a person who watches, and as JSON for a program."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.demo.proofs import Step

# Wide enough for every line of detail where nobody says how wide the paper is.
WIDTH = 118


def steps_as_json(steps: Sequence[Step]) -> str:
    rows = [{**asdict(step), "seconds": round(step.seconds, 4)} for step in steps]
    return json.dumps({"steps": rows}, indent=2, ensure_ascii=False)


def table(steps: Sequence[Step]) -> Table:
    shown = Table(
        title="Sidelink: a private mesh for AI agents, on this machine",
        title_style="bold",
        box=box.ROUNDED,
        show_lines=True,
        pad_edge=True,
    )
    shown.add_column("", justify="center")
    shown.add_column("step", style="bold", no_wrap=True)
    shown.add_column("what was proved")
    shown.add_column("time", justify="right", no_wrap=True)
    for step in steps:
        mark = Text("✓", "bold green") if step.proved else Text("✗", "bold red")
        style = "" if step.proved else "red"
        seconds = duration(step.seconds) if step.proved else ""
        # Text, so that brackets in it are no markup.
        shown.add_row(mark, step.name, Text(step.detail, style), seconds)
    return shown


def console() -> Console:
    """Standard output; where it is no terminal, wide enough for the table."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=WIDTH)


def duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
