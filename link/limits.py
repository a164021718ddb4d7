"""Every number of the frame layer. Nothing else in the tree spells one of them again."""

from typing import Final

FRAME_HEADER_BYTES: Final = 8
FRAME_BODY_BYTES_MAX: Final = 65_535  # The header carries the length in two bytes.

# The least a RECORD can be: the header of a record. Bytes are what windows count, so frames of
# nothing would pass every window.
RECORD_BODY_BYTES_MIN: Final = 14
# Message 1 of a handshake, of any version to come; so that what a relay adds still fits a frame.
NOISE_1_BYTES_MAX: Final = 16 << 10
# What asks to go on with a channel on another link, in any version to come.
MOVE_BYTES_MAX: Final = 256

LANES: Final = 4

# The dialler of a hop counts its links up from 1; the acceptor sets this bit in its own.
ACCEPTOR_LINK_BIT: Final = 1 << 31
LINK_ID_MAX: Final = (1 << 32) - 1

# What may be in flight on one link, or on one byte stream, before the receiver has said more. Part
# of the protocol: a relay and both ends must agree on it without a word.
INITIAL_WINDOW_BYTES: Final = 256 << 10
# What our own receivers then keep open. Theirs to choose; a node short of memory keeps less.
LINK_WINDOW_BYTES: Final = 1 << 20
STREAM_WINDOW_BYTES: Final = 1 << 20
# What a receiver may come to hold beyond its windows, by messages larger than one and by links that
# were changed before it was read. Beyond, the peer does it on purpose.
HELD_BYTES_MAX: Final = 8 << 20
# A relay passes this many grants of a window, and one more for so many bytes that were sent on it.
GRANTS_UNEARNED_MAX: Final = 64
GRANT_BYTES_MIN: Final = 4 << 10
# The last of a window is not for messages: what acknowledges the other direction must always pass,
# or two that write much and read little would wait for each other.
WINDOW_RESERVE_BYTES: Final = 2 * GRANT_BYTES_MIN
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
assert MOVE_BYTES_MAX <= NOISE_1_BYTES_MAX
assert NOISE_1_BYTES_MAX + 4 * URI_TEXT_BYTES_MAX < FRAME_BODY_BYTES_MAX
assert INITIAL_WINDOW_BYTES <= LINK_WINDOW_BYTES
assert HELD_BYTES_MAX >= 4 * LINK_WINDOW_BYTES
assert min(LINK_WINDOW_BYTES, STREAM_WINDOW_BYTES) >= 16 * GRANT_BYTES_MIN, "ours are well earned"
assert INITIAL_WINDOW_BYTES <= STREAM_WINDOW_BYTES
assert INITIAL_WINDOW_BYTES >= 2 * QUANTUM_BYTES + WINDOW_RESERVE_BYTES
assert LINK_WINDOW_BYTES >= 4 * QUANTUM_BYTES, "a window must hold several records"
assert LINKS_PER_HOP_MAX < ACCEPTOR_LINK_BIT
assert LANES & (LANES - 1) == 0, "lane = link mod LANES keeps to the low bits"
