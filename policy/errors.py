"""What is wrong with a file a person wrote: where it is, what it is, and what to do about it."""

from typing import Final

from identity import Code, SidelinkError

SHOWN_CHARS_MAX: Final = 64


class LocatedError(SidelinkError):
    """A fault at a place of a file. Lines and columns count from 1."""

    def __init__(
        self, code: Code, file: str, line: int, column: int, problem: str, remedy: str
    ) -> None:
        super().__init__(code, f"{file}:{line}:{column}: {problem} {remedy}")
        self.file = file
        self.line = line
        self.column = column
        self.problem = problem
        self.remedy = remedy


class YamlError(LocatedError):
    """The text is not the strict YAML that our files are written in."""

    def __init__(self, file: str, line: int, column: int, problem: str, remedy: str) -> None:
        super().__init__(Code.CONFIG_INVALID, file, line, column, problem, remedy)


class PolicyError(LocatedError):
    """The file is YAML, but not a policy."""

    def __init__(self, file: str, line: int, column: int, problem: str, remedy: str) -> None:
        super().__init__(Code.CONFIG_POLICY_INVALID, file, line, column, problem, remedy)


def quoted(text: str) -> str:
    """In quotes, not too long, and without what a terminal would act on."""
    shown = text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}…"
    if not shown.isprintable():
        shown = "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in shown)
    return f'"{shown}"'
