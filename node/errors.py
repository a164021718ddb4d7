"""What can go wrong before a program runs: its configuration, its folder, its ports."""

from typing import Final

from identity import Code, SidelinkError

EXIT_FAILED: Final = 1
EXIT_CONFIGURATION: Final = 2

_CONFIGURATION_CODES: Final = range(900, 1_000)


class ConfigError(SidelinkError):
    """A person has to change something. The detail names what, where, and the way out.

    ``remedy`` replaces the registry's general remedy when more is known here.
    """

    def __init__(self, code: Code, detail: str, *, remedy: str | None = None) -> None:
        super().__init__(code, detail)
        self.remedy = remedy


def exit_code(error: SidelinkError) -> int:
    """2 when a person has to change the configuration, 1 for everything else."""
    return EXIT_CONFIGURATION if int(error.code) in _CONFIGURATION_CODES else EXIT_FAILED


def error_paragraph(error: SidelinkError) -> str:
    """One paragraph for a person: the code, what is wrong and where, and what to do."""
    return f"sidelink: {error_text(error)}"


def error_text(error: SidelinkError) -> str:
    """The same where it is plain who speaks.

    Whatever a file or a peer put into the detail stays on one line and cannot move the cursor.
    """
    remedy = getattr(error, "remedy", None) or error.code.remedy
    text = str(error)
    if not text.endswith(remedy):
        text = f"{text}{'' if text.endswith(('.', '?')) else '.'} {remedy}"
    return printable(text)


def printable(text: str) -> str:
    """``text`` on one line, with what a terminal would obey replaced by a mark."""
    one_line = " ".join(text.split())
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in one_line)
