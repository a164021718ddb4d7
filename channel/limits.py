"""Every number of the channel. Nothing else in the tree spells one of them again."""

import math
from dataclasses import dataclass
from typing import Final

from identity import PROOF_BYTES_MAX

NOISE_MESSAGE_BYTES_MAX: Final = 65_535  # Noise revision 34, section 3.
DH_BYTES: Final = 32
HASH_BYTES: Final = 32
PSK_BYTES: Final = 32
AEAD_TAG_BYTES: Final = 16
NONCE_BYTES: Final = 16

KEM_PUBLIC_BYTES: Final = 1_184  # FIPS 203, table 3, ML-KEM-768.
KEM_CIPHERTEXT_BYTES: Final = 1_088

# e, then the encapsulation key under a key that everybody can compute.
HANDSHAKE_1_BYTES: Final = DH_BYTES + KEM_PUBLIC_BYTES + AEAD_TAG_BYTES
# e, s, then the KEM ciphertext and the responder's proof.
HANDSHAKE_2_BYTES_MIN: Final = 2 * DH_BYTES + 2 * AEAD_TAG_BYTES + KEM_CIPHERTEXT_BYTES
HANDSHAKE_2_BYTES_MAX: Final = HANDSHAKE_2_BYTES_MIN + PROOF_BYTES_MAX
# s, then the initiator's proof.
HANDSHAKE_3_BYTES_MIN: Final = DH_BYTES + 2 * AEAD_TAG_BYTES
HANDSHAKE_3_BYTES_MAX: Final = HANDSHAKE_3_BYTES_MIN + PROOF_BYTES_MAX

# Three messages and a decision. Who needs longer is gone, or holds our memory on purpose.
HANDSHAKE_S_MAX: Final = 10.0

TARGET_BYTES_MAX: Final = 255
PROLOGUE_EXTRA_MAX: Final = 8
PROLOGUE_EXTRA_BYTES_MAX: Final = 256
VERSIONS_MAX: Final = 8

FRAME_BODY_BYTES_MAX: Final = 65_535  # What one frame of a link carries.
RECORD_HEADER_BYTES: Final = 14
RECORD_OVERHEAD_BYTES: Final = RECORD_HEADER_BYTES + AEAD_TAG_BYTES
RECORD_PLAINTEXT_BYTES_MAX: Final = FRAME_BODY_BYTES_MAX - RECORD_OVERHEAD_BYTES
EPOCH_MAX: Final = (1 << 32) - 1
SEQUENCE_MAX: Final = (1 << 64) - 2  # Noise keeps the last nonce for rekeying.

MESSAGE_BYTES_MAX: Final = (1 << 20) + (64 << 10)
# A fragment that continues must be worth its record, or a million of one byte each would make a
# megabyte cost fifty.
FRAGMENT_BYTES_MIN: Final = 16 << 10

STREAM_OPEN_BYTES_MAX: Final = 16 << 10
# What the initiator may send behind message 3 while the responder still asks its policy, counted
# in bytes of records; equal to the first window of a link.
EARLY_BYTES_MAX: Final = 256 << 10
# Messages that wait in the initiator for the first window to end.
UNSENT_BYTES_MAX: Final = 4 << 20

# A session that goes on over another link.
SESSION_ID_BYTES: Final = 16
MOVE_KEY_BYTES: Final = 32
MAC_BYTES: Final = 32
MOVE_BYTES: Final = SESSION_ID_BYTES + 8 + 8 + MAC_BYTES
MOVED_BYTES: Final = 8 + MAC_BYTES
MOVE_ATTEMPTS_MAX: Final = (1 << 32) - 1
# An acknowledgement is due after so much, and at the latest after so long; it costs the sender
# what it keeps, and the receiver one small record.
ACK_BYTES: Final = 128 << 10
ACK_RECORDS: Final = 64
ACK_DELAY_S: Final = 0.25
# What is sent on a link and not acknowledged: beyond it the sender waits, whatever was granted.
UNACKNOWLEDGED_BYTES_MAX: Final = 2 << 20

# Where a node may be reached without a gateway.
ADDRESSES_MAX: Final = 8
HOST_BYTES_MAX: Final = 253
ADDRESSES_BODY_BYTES_MAX: Final = 16 + ADDRESSES_MAX * (HOST_BYTES_MAX + 8)

DENY_RULE_BYTES_MAX: Final = 256
DENY_REASON_BYTES_MAX: Final = 1_024
DENY_BODY_BYTES_MAX: Final = DENY_RULE_BYTES_MAX + DENY_REASON_BYTES_MAX + 16

# One byte stream: u16 length, then a chunk.
CHUNK_LENGTH_BYTES: Final = 2
CHUNK_BYTES_MAX: Final = 65_535
STREAM_HANDSHAKE_BYTES_MIN: Final = DH_BYTES + AEAD_TAG_BYTES
STREAM_FIRST_DATA_BYTES_MAX: Final = CHUNK_BYTES_MAX - STREAM_HANDSHAKE_BYTES_MIN - 1
# What the opener may write behind its first chunk while the answer is on its way.
STREAM_UNSENT_BYTES_MAX: Final = 1 << 20
SERVICE_BYTES_MAX: Final = 255
STREAM_ID_MAX: Final = (1 << 62) - 1  # QUIC stream ids end there (RFC 9000, section 2.1).


@dataclass(frozen=True, slots=True)
class RekeyLimits:
    """How long one key of one direction lives. Records and bytes are part of the protocol:
    a receiver refuses what goes beyond them. Seconds are kept by the sender alone."""

    records_max: int = 1 << 20
    bytes_max: int = 1 << 36
    age_s_max: float = 3_600.0

    def __post_init__(self) -> None:
        if self.records_max < 2:
            raise ValueError("a key must be worth one record and its REKEY")
        if self.bytes_max < RECORD_PLAINTEXT_BYTES_MAX:
            raise ValueError("a key must be worth one full record")
        if self.age_s_max <= HANDSHAKE_S_MAX:
            raise ValueError("a key must outlive its handshake: ACCEPT comes before any REKEY")


REKEY_LIMITS: Final = RekeyLimits()
# Keys of a stream are counted and not aged: a stream is told no time, and ends with its service.
STREAM_REKEY_LIMITS: Final = RekeyLimits(age_s_max=math.inf)

assert HANDSHAKE_2_BYTES_MAX <= NOISE_MESSAGE_BYTES_MAX
assert HANDSHAKE_3_BYTES_MAX <= NOISE_MESSAGE_BYTES_MAX
assert RECORD_PLAINTEXT_BYTES_MAX == 65_505
assert RECORD_PLAINTEXT_BYTES_MAX <= NOISE_MESSAGE_BYTES_MAX - AEAD_TAG_BYTES
assert FRAGMENT_BYTES_MIN <= RECORD_PLAINTEXT_BYTES_MAX
assert STREAM_OPEN_BYTES_MAX <= RECORD_PLAINTEXT_BYTES_MAX
assert DENY_BODY_BYTES_MAX <= RECORD_PLAINTEXT_BYTES_MAX
assert EARLY_BYTES_MAX > FRAME_BODY_BYTES_MAX, "the first flight holds at least one full record"
assert UNSENT_BYTES_MAX >= MESSAGE_BYTES_MAX
assert UNACKNOWLEDGED_BYTES_MAX >= 8 * ACK_BYTES, (
    "acknowledgements come well before they are missed"
)
assert ACK_DELAY_S < HANDSHAKE_S_MAX
assert ADDRESSES_BODY_BYTES_MAX <= RECORD_PLAINTEXT_BYTES_MAX
assert CHUNK_BYTES_MAX < 1 << (8 * CHUNK_LENGTH_BYTES)
assert CHUNK_BYTES_MAX <= NOISE_MESSAGE_BYTES_MAX
