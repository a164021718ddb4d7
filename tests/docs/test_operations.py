"""The metrics in docs/operations.md are those that the programs have."""

import ast
from collections.abc import Iterator

from tests.docs.markdown import DOCS, ROOT, table_rows

OPERATIONS = DOCS / "operations.md"
PROGRAMS = ("authority", "gateway", "node", "sidecar")
MAKERS = {"counter", "counter_read", "gauge", "histogram", "info", "read"}


def test_every_metric_of_a_program_stands_in_the_table_and_no_other() -> None:
    rows = table_rows(OPERATIONS, "| metric | program | meaning |")
    written = {(row[1], row[0].strip("`")) for row in rows}

    assert written == {found for package in PROGRAMS for found in _metrics_of(package)}


def _metrics_of(package: str) -> Iterator[tuple[str, str]]:
    """Each call that makes a metric, as the source writes it: program and name."""
    for file in sorted((ROOT / package).glob("*.py")):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = _name_made(call)
            if name is not None:
                yield ("all" if package == "node" else package, f"sidelink_{name}")


def _name_made(call: ast.AST) -> str | None:
    if not isinstance(call, ast.Call) or len(call.args) < 2:
        return None
    maker = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    first, second = call.args[:2]
    texts = isinstance(first, ast.Constant) and isinstance(second, ast.Constant)
    if maker not in MAKERS or not texts:
        return None
    assert isinstance(first, ast.Constant)
    assert isinstance(first.value, str)
    return f"{first.value}_info" if maker == "info" else first.value
