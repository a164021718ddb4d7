"""Tokens for the local API: how one is written, and where a program finds its own.

A token is ``slk1`` and, in base64url, 32 secret bytes with four of their SHA-256 behind them. The
four guard against slips of the mouse, not against forgery.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from sidelink.errors import LocalError

PREFIX: Final = "slk1"
SECRET_BYTES: Final = 32
CHECKSUM_BYTES: Final = 4
CHARACTERS_MAX: Final = 128

ReadToken = Callable[[], str | None]
"""Asked before each connection, since a file may hold another token by then. Raises LocalError."""


def token_of(secret: bytes) -> str:
    """The text of a token."""
    assert len(secret) == SECRET_BYTES
    data = secret + hashlib.sha256(secret).digest()[:CHECKSUM_BYTES]
    return PREFIX + base64.urlsafe_b64encode(data).decode()


def check_token(text: str, where: str) -> str:
    """The token without white space round it. Raises LocalError if it is none, or a part of one."""
    text = text.strip()
    if text.startswith(PREFIX) and len(text) <= CHARACTERS_MAX:
        try:
            data = base64.b64decode(text[len(PREFIX) :], altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            data = b""
        if len(data) == SECRET_BYTES + CHECKSUM_BYTES and token_of(data[:SECRET_BYTES]) == text:
            return text
    # What was given is not repeated: it may be a secret all the same.
    raise LocalError(
        "config.invalid",
        f"{where} is no token, or part of it is missing",
        remedy=f"Copy the whole token again, from `{PREFIX}` to its last character.",
    )


def no_token() -> str | None:
    """The reader of a program that has none."""
    return None


def token_reader(given: str | None, environment: Mapping[str, str] | None = None) -> ReadToken:
    """Reads the token given, or that of SIDELINK_AGENT_TOKEN, or of the file
    SIDELINK_AGENT_TOKEN_FILE."""
    environment = os.environ if environment is None else environment
    text, where = given, "the token given"
    if text is None and (text := environment.get("SIDELINK_AGENT_TOKEN") or None):
        where = "SIDELINK_AGENT_TOKEN"
    if text is not None:
        token = check_token(text, where)
        return lambda: token
    if file := environment.get("SIDELINK_AGENT_TOKEN_FILE"):
        return lambda: _read_file(Path(file))
    return no_token


def _read_file(path: Path) -> str:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            text = file.read(CHARACTERS_MAX + 1)
    except OSError as error:
        raise LocalError(
            "config.invalid",
            f"SIDELINK_AGENT_TOKEN_FILE: {path} cannot be read: {error.strerror}",
            remedy="Write a token there, or correct the path.",
        ) from error
    return check_token(text, f"SIDELINK_AGENT_TOKEN_FILE: what {path} holds")
