"""Prints data: tables for people, one JSON document for programs. Always on standard output."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click

CELL_SEPARATOR: Final = "  "


def print_json(value: object) -> None:
    """In ASCII: what is printed may be a stranger's, and some terminals obey what is beyond it."""
    click.echo(json.dumps(value, indent=2))


def print_json_array(name: str, items: Iterable[object]) -> None:
    """One JSON document with one array in it, an item a line, printed while they come; in ASCII."""
    before = f"{{{json.dumps(name)}: ["
    for item in items:
        click.echo(f"{before}\n  {json.dumps(item)}", nl=False)
        before = ","
    click.echo("\n]}" if before == "," else f"{before}]}}")


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns of plain text: readable in a terminal and by ``cut``, without colour or frames."""
    print_table_pages(headings, (rows,))


def print_table_pages(headings: Sequence[str], pages: Iterable[Iterable[Sequence[object]]]) -> None:
    """The same, printed page by page: a column grows where a page needs it."""
    heading = [tuple(headings)]
    widths = [len(text) for text in headings]
    for page in pages:
        table = heading + [tuple(cell_text(cell) for cell in row) for row in page]
        heading = []
        for row in table:
            widths = [max(width, len(cell)) for width, cell in zip(widths, row, strict=True)]
        for row in table:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            click.echo(CELL_SEPARATOR.join(cells).rstrip())


def print_fields(fields: Mapping[str, Any]) -> None:
    """One field a line: its name, then its value. Lists of objects follow, each as a table."""
    tables = {name: value for name, value in fields.items() if _is_table(value)}
    lines = {name: value for name, value in fields.items() if name not in tables}
    width = max((len(_heading(name)) for name in lines), default=0)
    for name, value in lines.items():
        text = _field_text(name, value)
        click.echo(f"{_heading(name).ljust(width)}{CELL_SEPARATOR}{text}".rstrip())
    for name, rows in tables.items():
        click.echo(f"\n{name}:")
        print_rows(list(dict.fromkeys(key for row in rows for key in row)), rows)


def print_rows(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Objects as a table, with a column for each of these fields."""
    cells = [[_field_text(key, row.get(key)) for key in names] for row in rows]
    print_table([_heading(key) for key in names], cells)


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)


def _heading(name: str) -> str:
    return name.removesuffix("_unix_s")


def _field_text(name: str, value: object) -> str:
    """Times are said as a person says them; programs read seconds with --json."""
    if name.endswith("_unix_s") and isinstance(value, int):
        return time_text(value)
    return cell_text(value)


def time_text(unix_s: int | None) -> str:
    """A time as a person reads it; a dash for none."""
    if unix_s is None:
        return cell_text(None)
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def print_text(text: str) -> None:
    """A text of several lines, with nothing in it that a terminal would obey."""
    lines = text.replace("\r\n", "\n").split("\n")
    click.echo("\n".join("\t".join(map(_seen, line.split("\t"))) for line in lines))


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


def _seen(text: str) -> str:
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
