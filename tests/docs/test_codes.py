"""docs/codes.md is the registry of codes, word for word. Run as a module it writes the page."""

import sys
from itertools import groupby

from identity import Code
from tests.docs.markdown import DOCS

PAGE = DOCS / "codes.md"
HEAD = """\
# Codes

Every way in which something can be refused or fail, in any program. The number crosses the wire
between nodes; the text stands in logs, in `status`, in the local API and in MCP errors. Neither
ever changes its meaning. What to do stands beside it. Hundreds are groups: 1 hop, 2 enrol,
3 channel, 4 route, 5 policy, 6 message, 7 stream, 8 local, 9 config.

This page is made from `identity/codes.py` by `.venv/bin/python -m tests.docs.test_codes`, and a
test holds the two together.
"""


def page() -> str:
    """The whole page, as the registry says."""
    parts = [HEAD]
    for group, codes in groupby(Code, key=lambda code: code.group):
        rows = "".join(f"| {int(code)} | `{code.text}` | {code.remedy} |\n" for code in codes)
        parts.append(f"\n## {group}\n\n| number | text | what to do |\n| --- | --- | --- |\n{rows}")
    return "".join(parts)


def test_the_page_of_codes_is_what_the_registry_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


if __name__ == "__main__":
    sys.exit(0 if PAGE.write_text(page(), encoding="utf-8") else 1)
