"""Finds byte strings in the files and in the memory of a process. Linux only, like ``/proc``."""

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from identity import Keystore, load_master_key
from node.own_node import NODE_KEY
from tests.mesh.programs import Program

_PIECE_BYTES = 16 << 20
_OVERLAP_BYTES = 256


def private_keys(program: Program, *, agent: str | None = None) -> Mapping[str, bytes]:
    """The private keys of the node and of one agent in the program's keystore, named."""
    keystore = Keystore.open(
        program.paths.database, load_master_key(program.paths.master_key, environment={})
    )
    found: dict[str, bytes] = {}
    try:
        for name in filter(None, (NODE_KEY, agent)):
            own = keystore.load(name)
            assert own is not None
            found[f"{program.name} {name} signing"] = own.signing_key.private_bytes()
            for purpose, key in own.purpose_keys.items():
                found[f"{program.name} {name} {purpose}"] = key.key.private_bytes()
    finally:
        keystore.close()
    return found


def spellings(secret: bytes) -> tuple[bytes, ...]:
    """The secret as it is and as text may hold it."""
    return (
        secret,
        secret.hex().encode(),
        base64.b64encode(secret).rstrip(b"="),
        base64.urlsafe_b64encode(secret).rstrip(b"="),
    )


def search(pieces: Iterator[bytes], secrets: Mapping[str, bytes]) -> set[str]:
    """The names of the secrets that occur, in any spelling."""
    found: set[str] = set()
    for piece in pieces:
        for name, secret in secrets.items():
            if name not in found and any(text in piece for text in spellings(secret)):
                found.add(name)
    return found


def files(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.read_bytes()


def memory(pid: int) -> Iterator[bytes]:
    """All of its memory that the process has ever been able to write, piece by piece."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb") as file:
        for line in maps:
            extent, mode, _offset, _device, inode, *_ = line.split(maxsplit=5)
            # A file that is mapped and was never writable holds what was on the disk, no secret.
            if "r" not in mode or ("w" not in mode and inode != "0") or "[v" in line:
                continue
            start, end = (int(number, 16) for number in extent.split("-"))
            yield from _extent(file, start, end)


def _extent(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    at = start
    while at < end:
        try:
            file.seek(at)
            piece = file.read(min(_PIECE_BYTES, end - at))
        except OSError:
            return  # Beyond the end of a mapped file.
        if not piece:
            return
        yield piece
        if at + len(piece) >= end:
            return
        at += max(len(piece) - _OVERLAP_BYTES, 1)
