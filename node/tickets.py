"""Takes the ticket, the invitation or the token from where the settings say."""

import sys
from pathlib import Path
from typing import Final

from identity import Code, Invitation, Ticket
from identity.ticket import INVITATION_PREFIX
from node.enrolment_wire import TOKEN_CHARACTERS_MAX
from node.errors import ConfigError
from node.settings import EnrolledSettings, SidecarSettings

TICKET_CHARACTERS_MAX: Final = 8_192
STANDARD_INPUT: Final = Path("-")


def load_ticket(settings: EnrolledSettings) -> Ticket | None:
    """The ticket, or None when the settings name none.

    Raises IdentityError (ENROL_TICKET_MALFORMED) for what is no ticket, ConfigError for a file
    that cannot be read.
    """
    text = _ticket_text(settings)
    return None if text is None else Ticket.parse_untrusted(text)


def load_entry(settings: SidecarSettings) -> Ticket | Invitation | None:
    """What a sidecar was given: a ticket, or an invitation with a token beside it.

    Raises also ConfigError for one of the two without the other.
    """
    text = _ticket_text(settings)
    if text is None:
        return None
    if not text.strip().startswith(INVITATION_PREFIX):
        if settings.token_file is not None:
            raise ConfigError(
                Code.CONFIG_INVALID,
                "token_file: goes with an invitation, and this is a ticket",
                remedy="Give the invitation that `sidelink ticket invitation` prints, "
                "or remove token_file.",
            )
        return Ticket.parse_untrusted(text)
    if settings.token_file is None:
        raise ConfigError(
            Code.CONFIG_INVALID,
            "ticket: an invitation lets nobody in by itself",
            remedy="Say where the workload's token is with token_file, or use a ticket.",
        )
    return Invitation.parse_untrusted(text)


def read_token(settings: SidecarSettings) -> str:
    """The workload's token as it is now. Raises ConfigError for a file that holds none."""
    path = settings.token_file
    assert path is not None, "an invitation comes with a token"
    text = _read_file("token_file", path, TOKEN_CHARACTERS_MAX + 1).strip()
    if not text or len(text) > TOKEN_CHARACTERS_MAX:
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"token_file: {path}: holds no token of 1 to {TOKEN_CHARACTERS_MAX} characters",
            remedy="Name the file that the platform keeps the workload's token in.",
        )
    return text


def _ticket_text(settings: EnrolledSettings) -> str | None:
    if settings.ticket is not None:
        return settings.ticket.get_secret_value()
    path = settings.ticket_file
    if path is None:
        return None
    if path == STANDARD_INPUT:
        return sys.stdin.read(TICKET_CHARACTERS_MAX)
    return _read_file("ticket_file", path.expanduser(), TICKET_CHARACTERS_MAX)


def _read_file(setting: str, path: Path, characters_max: int) -> str:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return file.read(characters_max)
    except OSError as error:
        remedies = {"ticket_file": "Ask for a new ticket: sidelink ticket create."}
        raise ConfigError(
            Code.CONFIG_INVALID,
            f"{setting}: {path}: cannot be read: {error.strerror}",
            remedy=remedies.get(setting, "Name a file that this program may read."),
        ) from None
