"""Targets of node/backup: the header of a backup, and its table of contents."""

import hashlib
from typing import Final

from node.backup import Manifest, decode_manifest_untrusted
from node.backup_format import (
    MAGIC,
    SCRYPT_LOG_N_MAX,
    SCRYPT_P,
    SCRYPT_R,
    decode_header_untrusted,
)
from node.errors import ConfigError
from tests.fuzz.decoders import decoder, tree_of
from tests.fuzz.target import Target

_HEADER_CHECK_BYTES: Final = 64


def run_header(data: bytes) -> None:
    """What is accepted costs no more than the limits say."""
    parameters = decode_header_untrusted(data)
    log_n, r, p = parameters[len(MAGIC) : len(MAGIC) + 3]
    assert log_n <= SCRYPT_LOG_N_MAX
    assert (r, p) == (SCRYPT_R, SCRYPT_P)
    assert len(data) - len(parameters) == _HEADER_CHECK_BYTES


def _header() -> bytes:
    parameters = MAGIC + bytes((17, SCRYPT_R, SCRYPT_P)) + bytes(16)
    return parameters + hashlib.sha256(parameters).digest() + bytes(32)


_CONTENTS: Final = decoder(
    "node.backup_contents",
    "what a backup says that it holds",
    decode_manifest_untrusted,
    lambda: [Manifest("sidecar", 1_900_000_000, {"master.key": 45, "state.db": 8_192}).encode()],
    error=ConfigError,
    encode=Manifest.encode,
)

TARGETS: Final[list[Target]] = [
    Target(
        "node.backup_header",
        "the header of a backup",
        run_header,
        lambda: [_header()],
        ConfigError,
        bytes_max=256,
    ),
    _CONTENTS,
    tree_of(_CONTENTS),
]
