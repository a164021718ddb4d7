"""Every number of the frame layer. Nothing else in the tree spells one of them again."""

from typing import Final

FRAME_HEADER_BYTES: Final = 8
FRAME_BODY_BYTES_MAX: Final = 65_535  # The header carries the length in two bytes.

LANES: Final = 4

# The dialler of a hop counts its links up from 1; the acceptor sets this bit in its own.
ACCEPTOR_LINK_BIT: Final = 1 << 31
LINK_ID_MAX: Final = (1 << 32) - 1

# What a receiver allows in flight on one link, and on one byte stream, before it must say more.
LINK_WINDOW_BYTES: Final = 1 << 20
STREAM_WINDOW_BYTES: Final = 1 << 20
WINDOW_BYTES_MAX: Final = 1 << 30
CREDIT_MAX: Final = (1 << 63) - 1

LINKS_PER_HOP_MAX: Final = 65_536
STREAMS_PER_HOP_MAX: Final = 4_096
PREFIXES_PER_NODE_MAX: Final = 64
PREFIXES_MAX: Final = 65_536

RESTART_DELAY_MS_MAX: Final = 600_000
URI_TEXT_BYTES_MAX: Final = 255
LINK_NONCE_BYTES: Final = 16

# A link takes at most this much of its lane before the next link has its turn (deficit round
# robin). One full record, so that a record is never split between turns.
QUANTUM_BYTES: Final = FRAME_HEADER_BYTES + FRAME_BODY_BYTES_MAX

STREAM_PREAMBLE_BYTES: Final = 13

assert FRAME_BODY_BYTES_MAX < 1 << 16
assert LINK_WINDOW_BYTES >= 4 * QUANTUM_BYTES, "a window must hold several records"
assert LINK_WINDOW_BYTES <= WINDOW_BYTES_MAX
assert LINKS_PER_HOP_MAX < ACCEPTOR_LINK_BIT
assert LANES & (LANES - 1) == 0, "lane = link mod LANES keeps to the low bits"
