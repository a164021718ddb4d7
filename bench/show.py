"""A report as tables for a person: one for each metric, systems down, cases across."""

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.report import Machine, Report, Row, Target
from bench.svg import format_value

# More than this would not fit across a page, and go down it instead.
CASES_ACROSS_MAX: Final = 9


def show(console: Console, report: Report, notes: Sequence[str]) -> None:
    """All of it, ready to be read from top to bottom."""
    console.print(Text(f"Sidelink benchmark: {report.name}", "bold"))
    console.print(Text(machine_line(report.machine)), soft_wrap=True)
    for metric in dict.fromkeys(row.metric for row in report.rows):
        _show_metric(console, [row for row in report.rows if row.metric == metric])
    if report.targets:
        _show_table(console, "targets", _target_table(report.targets))
    console.print()
    for note in notes:
        console.print(Text(note))


def machine_line(machine: Machine) -> str:
    load = ", ".join(f"{value:.2f}" for value in machine.load)
    return (
        f"{machine.cpu}, {machine.cores} cores; {machine.kernel}; {machine.python};"
        f" load before {load}"
    )


def _show_metric(console: Console, rows: Sequence[Row]) -> None:
    """Rows of one metric."""
    units = list(dict.fromkeys(row.unit for row in rows))
    cases = list(dict.fromkeys(row.case for row in rows))
    one_unit = len(units) == 1
    title = f"{rows[0].metric}, {units[0]}" if one_unit and units[0] else rows[0].metric
    table = _new_table()
    if len(cases) > CASES_ACROSS_MAX:
        table.add_column("case")
        table.add_column("value", justify="right")
        for row in rows:
            table.add_row(Text(row.system), Text(row.case), _cell(row, one_unit=one_unit))
        _show_table(console, title, table)
        return
    for case in cases:
        table.add_column(Text(case), justify="right")
    for system in dict.fromkeys(row.system for row in rows):
        cells = []
        for case in cases:
            found = [row for row in rows if (row.system, row.case) == (system, case)]
            cells.append(_cell(found[0], one_unit=one_unit) if found else "")
        table.add_row(Text(system), *cells)
    _show_table(console, title, table)


def _show_table(console: Console, title: str, table: Table) -> None:
    console.print()
    console.print(Text(title, "bold"))
    console.print(table)


def _new_table() -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("")
    return table


def _cell(row: Row, *, one_unit: bool) -> str:
    return format_value(row.value) if one_unit else f"{format_value(row.value)} {row.unit}"


def _target_table(targets: Sequence[Target]) -> Table:
    table = _new_table()
    for heading in ("target", "this run", ""):
        table.add_column(heading, justify="right")
    for target in targets:
        reached = "not measured" if target.value is None else format_value(target.value)
        met = "met" if target.met else "not met"
        table.add_row(Text(target.name), format_value(target.target), reached, met)
    return table
