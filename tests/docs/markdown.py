"""Reads what tests need out of a Markdown document: fenced blocks and tables."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs"

_FENCE: Final = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_REMARK: Final = re.compile(r"\s*#.*")


def fenced_blocks(document: Path) -> list[tuple[str, str]]:
    """Each fenced block's info string and text, in order."""
    return _FENCE.findall(document.read_text(encoding="utf-8"))


def named_blocks(document: Path, kind: str) -> dict[str, str]:
    """The blocks marked ``KIND NAME``, by name. A name that comes twice is an error."""
    found: dict[str, str] = {}
    for info, text in fenced_blocks(document):
        word, _, name = info.partition(" ")
        if word == kind and name:
            assert name not in found, f"{document.name}: two blocks {kind} {name}"
            found[name] = text
    return found


def hex_bytes(text: str) -> bytes:
    """The bytes of a hex block: remarks begin with #."""
    return bytes.fromhex("".join(_REMARK.sub("", line) for line in text.splitlines()))


def table_rows(document: Path, header: str) -> list[list[str]]:
    """The rows of the one table whose header line is given."""
    lines = document.read_text(encoding="utf-8").splitlines()
    begin = lines.index(header) + 2
    rows = []
    for line in lines[begin:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows
