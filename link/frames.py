"""Frames: the unit of a hop. All of the header format, and nothing but it.

    offset  bytes  field
    0       4      link     which link of this hop; 0 on the control stream
    4       1      kind     FrameKind
    5       1      flags    zero in version 1
    6       2      length   of the body
    8       length body

All integers are big endian. What the bodies hold is in ``link.messages``.
"""

import struct
from enum import IntEnum, unique
from typing import Final, NamedTuple

from link.errors import FrameError
from link.limits import FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES


@unique
class FrameKind(IntEnum):
    """Kinds below 0x10 travel on the link's lane; the others on the control stream."""

    LANE_OPEN = 0x00
    LINK_OPEN = 0x01
    LINK_ACCEPT = 0x02
    LINK_FINISH = 0x03
    RECORD = 0x04
    LINK_CLOSE = 0x05
    CREDIT = 0x10
    REGISTER = 0x20
    REGISTERED = 0x21
    DISPLACED = 0x22
    UNREGISTER = 0x23
    RENEW = 0x30
    LISTS_HELD = 0x32
    LIST = 0x33
    POLICY_HELD = 0x34
    POLICY = 0x35
    RESTARTING = 0x40
    HOP_HELLO = 0x70
    HOP_REPLY = 0x72
    HOP_FINISH = 0x73
    HOP_ACCEPT = 0x7E
    HOP_CLOSE = 0x7F


CONTROL_KIND_MIN: Final = 0x10
_KINDS: Final = frozenset(int(kind) for kind in FrameKind)
_HEADER: Final = struct.Struct(">IBBH")

assert _HEADER.size == FRAME_HEADER_BYTES


class Frame(NamedTuple):
    """One frame. ``kind`` is the plain number, so that a relay need not build an enum."""

    link: int
    kind: int
    body: bytes


def encode_frame(link: int, kind: int, body: bytes) -> bytes:
    """Return the frame's bytes. ``body`` is at most 65,535 bytes; more is a bug of ours."""
    assert len(body) <= FRAME_BODY_BYTES_MAX
    return _HEADER.pack(link, kind, 0, len(body)) + body


class FrameParser:
    """Cuts one stream of bytes into frames. Holds at most one unfinished frame."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    @property
    def held_bytes(self) -> int:
        return len(self._rest)

    def feed_untrusted(self, data: bytes) -> list[Frame]:
        """Take bytes in pieces of any size; return the frames they complete.

        Raises FrameError for an unknown kind or set flags. The parser is of no use afterwards.
        """
        buffer = self._rest + data if self._rest else data
        end = len(buffer)
        offset = 0
        frames: list[Frame] = []
        unpack = _HEADER.unpack_from
        while end - offset >= FRAME_HEADER_BYTES:
            link, kind, flags, length = unpack(buffer, offset)
            if flags:
                raise FrameError(f"flags {flags:#04x} are not defined")
            if kind not in _KINDS:
                raise FrameError(f"kind {kind:#04x} is not defined")
            body_at = offset + FRAME_HEADER_BYTES
            if end - body_at < length:
                break
            offset = body_at + length
            frames.append(Frame(link, kind, buffer[body_at:offset]))
        # Copied once, and only the tail: a frame is at most 64 KiB, so this stays bounded.
        self._rest = buffer[offset:]
        return frames
