"""Prints data: tables for people, one JSON document for programs. Always on standard output."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import click

CELL_SEPARATOR: Final = "  "


def print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns of plain text: readable in a terminal and by ``cut``, without colour or frames."""
    table = [tuple(headings), *(tuple(cell_text(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(headings))]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(CELL_SEPARATOR.join(cells).rstrip())


def print_fields(fields: Mapping[str, Any]) -> None:
    """One field a line: its name, then its value."""
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        click.echo(f"{name.ljust(width)}{CELL_SEPARATOR}{cell_text(value)}".rstrip())


def cell_text(value: object) -> str:
    """A value as people read it, on one line, with nothing in it that a terminal would obey."""
    from node.errors import printable

    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case Mapping():
            return ", ".join(f"{name}={cell_text(inner)}" for name, inner in value.items()) or "-"
        case list() | tuple():
            return ", ".join(cell_text(inner) for inner in value) or "-"
        case _:
            return printable(str(value))
