"""Takes the ticket from where the settings say: a value, a file, or standard input."""

import sys
from pathlib import Path
from typing import Final

from identity import Code, Ticket
from node.errors import ConfigError
from node.settings import EnrolledSettings

TICKET_CHARACTERS_MAX: Final = 8_192
STANDARD_INPUT: Final = Path("-")


def load_ticket(settings: EnrolledSettings) -> Ticket | None:
    """The ticket, or None when the settings name none.

    Raises IdentityError (ENROL_TICKET_MALFORMED) for what is no ticket, ConfigError for a file
    that cannot be read.
    """
    text = _ticket_text(settings)
    return None if text is None else Ticket.parse_untrusted(text.strip())


def _ticket_text(settings: EnrolledSettings) -> str | None:
    if settings.ticket is not None:
        return settings.ticket.get_secret_value()
    path = settings.ticket_file
    if path is None:
        return None
    try:
        if path == STANDARD_INPUT:
            return sys.stdin.read(TICKET_CHARACTERS_MAX)
        with path.expanduser().open(encoding="ascii", errors="replace") as file:
            return file.read(TICKET_CHARACTERS_MAX)
    except OSError as error:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"ticket_file: {path}: cannot be read: {error.strerror}",
            remedy="Ask for a new ticket: sidelink ticket create.",
        ) from None
