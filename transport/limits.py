"""Every number of the transport. A setting may narrow some of them; nothing widens one."""

from typing import Final

from link.limits import FRAME_BODY_BYTES_MAX

ALPN: Final = "sidelink/1"
QUIC_VERSION: Final = 0x00000001  # RFC 9000; the only one spoken.

# --- datagrams -------------------------------------------------------------------------------
CONNECTION_ID_BYTES: Final = 8
INITIAL_DATAGRAM_BYTES_MIN: Final = 1_200  # RFC 9000, section 14.1.
DATAGRAM_BYTES_MIN: Final = 1_200
# aioquic writes the length of a long header in two bytes: no datagram beyond 16,383.
DATAGRAM_BYTES_MAX: Final = 16_000
# What a path over Ethernet carries, IPv6 and a tunnel's header allowed for.
DATAGRAM_BYTES: Final = 1_452
# On loopback the path is known: its MTU is 65,536. Four of these make one send; larger ones gain
# nothing (measured with qh3, both ends: 4.7 us per KiB at 1,452, 1.8 at 8,900, 1.6 at 16,000).
LOOPBACK_DATAGRAM_BYTES: Final = 14720
# How long an address is dialled with the smallest datagrams after larger ones got lost.
SMALL_PATH_S: Final = 3_600.0
STALL_S: Final = 8.0  # How long an open hop may carry nothing but small packets.
RECEIVE_BYTES: Final = 65_536  # UDP_GRO never hands over more at once.
SOCKET_BUFFER_BYTES: Final = 4 << 20
# Linux takes 64 segments; 40 of 1,452 bytes stay below its 64 KiB limit with room for headers.
SEGMENTS_PER_SEND_MAX: Final = 40
BYTES_PER_SEND_MAX: Final = 60_000
# A socket that can be read again so soon has more to read than one datagram.
BUSY_S: Final = 0.0001
# One readable socket may take this many reads before the loop has its turn again.
READS_PER_TURN_MAX: Final = 32
SEND_RETRIES_MAX: Final = 2_048  # Datagrams kept while the socket is full; beyond, QUIC recovers.

# --- flow: an engine's window bounds what is on the way, and so what a peer that sends with gaps
# makes us hold. What is said is bounded by credits.
CONNECTION_WINDOW_BYTES: Final = 8 << 20
STREAM_WINDOW_BYTES: Final = 8 << 20
GAPS_MAX: Final = 1_024  # Holes in what a peer said, on one connection; aioquic only.

# What an engine is handed ahead of its network, if it does not say how much that takes.
SEND_QUEUE_BYTES: Final = 1 << 20
# One readable socket takes this much before what came is answered: about a millisecond of work.
READ_BYTES_PER_TURN_MAX: Final = 256 << 10

# --- before a peer is accepted -----------------------------------------------------------------
PRE_AUTH_BYTES_MAX: Final = 128 << 10
# A first flight of qh3 with a hybrid key share has 1,877 bytes, if it may.
PRE_AUTH_DATAGRAM_BYTES_MAX: Final = 2_048
HANDSHAKE_TIMEOUT_S: Final = 5.0
# What a peer may send behind its HOP_ACCEPT before that arrives: streams overtake each other.
HELD_BYTES_MAX: Final = 1 << 20
HELD_EVENT_BYTES: Final = 256  # What one held event costs beside its bytes.
HALF_OPEN_MAX: Final = 256
HALF_OPEN_PER_SOURCE_MAX: Final = 32
# Who stands still for so long in a handshake makes room when the places are taken.
HANDSHAKE_IDLE_S: Final = 1.0
# A handshake costs some five milliseconds, so these take a quarter of one core.
HANDSHAKES_PER_S: Final = 50.0
HANDSHAKES_BURST: Final = 128
HANDSHAKES_PER_SOURCE_PER_S: Final = 25.0
HANDSHAKES_PER_SOURCE_BURST: Final = 64
HANDSHAKE_WAITING_BYTES_MAX: Final = 16 << 10  # Of one; a flight of it has less.
# Datagrams that belong to no connection and may be answered: some fifteen microseconds each.
STRANGERS_PER_S: Final = 10_000.0
STRANGERS_BURST: Final = 1_024
STRANGERS_WAITING_MAX: Final = 256
# What strangers and handshakes get of a turn before open hops are served again. A single step of a
# handshake may take longer; there is one of those in a turn then.
STRANGERS_TURN_S: Final = 0.0005
# And of all time, while open hops speak: one that spoke so long ago may speak again.
STRANGERS_SHARE: Final = 0.2
STRANGERS_SHARE_BEHIND: Final = 0.05  # More comes than is read, and open hops wait behind it.
SERVED_S: Final = 0.05
CONNECTIONS_MAX: Final = 16_384

# --- while it lives ----------------------------------------------------------------------------
IDLE_TIMEOUT_S: Final = 5.0
KEEPALIVE_S: Final = 1.5
# AES-GCM is good for 2^23 packets (RFC 9001, section 6.6). By time as well, so that keys which leak
# later open an hour of frames, and not all that a hop ever carried.
KEY_UPDATE_PACKETS: Final = 1 << 22
KEY_UPDATE_S: Final = 3_600.0
RETRY_LIFETIME_S: Final = 30.0

# --- after it ----------------------------------------------------------------------------------
FAILURE_LOG_INTERVAL_S: Final = 10.0
LINGER_S: Final = 1.0
LAST_WORDS_BYTES_MAX: Final = 1 << 20  # Of lanes and streams; what an ending hop still hands down.
CLOSE_FLUSH_S: Final = 0.25  # How long a hop that has ended waits for what it said before.
CLOSE_DRAIN_S: Final = 0.5  # How long a closing endpoint waits for its hops and a full socket.
LINGERING_MAX: Final = 1_024
LINGER_REPLIES_MAX: Final = 8

assert PRE_AUTH_BYTES_MAX > FRAME_BODY_BYTES_MAX, "a handshake message must fit"
assert HALF_OPEN_PER_SOURCE_MAX < HALF_OPEN_MAX, "one source must leave room for others"
assert HANDSHAKES_PER_SOURCE_PER_S < HANDSHAKES_PER_S
assert HANDSHAKES_PER_SOURCE_BURST < HANDSHAKES_BURST
assert HANDSHAKE_IDLE_S < HANDSHAKE_TIMEOUT_S
assert KEEPALIVE_S * 3 < IDLE_TIMEOUT_S, "two lost PINGs must not cost a hop"
assert KEY_UPDATE_PACKETS * 2 <= 1 << 23, "an update that must wait for the last one still has time"
assert SEGMENTS_PER_SEND_MAX <= 64
assert CLOSE_FLUSH_S < CLOSE_DRAIN_S
