"""Bytes as one word that people can paste: a prefix, URL-safe base64, and a checksum."""

import base64
import binascii
import hashlib
from typing import Final

from identity.fields import Reader

_CHECKSUM_BYTES: Final = 4


def to_text(prefix: str, body: bytes) -> str:
    return prefix + _to_base64(body + _checksum(body))


def from_text(prefix: str, text: str, *, read: Reader, what: str, chars_max: int) -> bytes:
    """The body inside a text whose checksum is right. White space round it is allowed: it comes
    from files and clipboards. Raises CborError with the code of ``read``."""
    if type(text) is not str or len(text) > chars_max:
        raise read.error(f"{what} is a text of at most {chars_max} characters")
    text = text.strip(" \t\r\n")
    if not text.startswith(prefix):
        raise read.error(f"it does not start with {prefix}")
    encoded = text[len(prefix) :]
    try:
        data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars="-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise read.error(f"{what} holds characters that do not belong") from error
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if _to_base64(data) != encoded or checksum != _checksum(body):
        raise read.error(f"the checksum of {what} is wrong: part of it is missing")
    return body


def _checksum(body: bytes) -> bytes:
    # Against slips of the mouse, not against forgery: what is inside sees to that.
    return hashlib.sha256(body).digest()[:_CHECKSUM_BYTES]


def _to_base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
