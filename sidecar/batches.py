"""How envelopes are gathered into batches: by size, so that each batch fits one record."""

from typing import Final

from sidelink.wire import BODY_OVERHEAD_BYTES, bodies_bytes

from sidecar.envelope import (
    BODY_BYTES_MAX,
    CONTENT_TYPE_BYTES_MAX,
    ENVELOPE_OVERHEAD_BYTES_MAX,
    REASON_BYTES_MAX,
    RULE_BYTES_MAX,
    Envelope,
    Reject,
    TellRun,
)

# A batch is cut so that it fits one record: larger ones would only be fragmented.
BATCH_BYTES_MAX: Final = 60 << 10

# What an envelope adds to its body and its texts, about.
ENVELOPE_BYTES: Final = 48

# The bodies of one run: with its head they make a batch.
RUN_BYTES_MAX: Final = BATCH_BYTES_MAX - ENVELOPE_BYTES - CONTENT_TYPE_BYTES_MAX

assert BATCH_BYTES_MAX + ENVELOPE_OVERHEAD_BYTES_MAX < 65_505, "a batch fits one record"
assert BATCH_BYTES_MAX < BODY_BYTES_MAX
# Texts are counted in characters, which may be four bytes each: then a batch is fragmented.
assert ENVELOPE_BYTES + RULE_BYTES_MAX + REASON_BYTES_MAX < BATCH_BYTES_MAX
assert 4 * BATCH_BYTES_MAX < BODY_BYTES_MAX


def size_of(envelope: Envelope) -> int:
    if isinstance(envelope, TellRun):
        return bodies_bytes(envelope.bodies) + len(envelope.content_type) + ENVELOPE_BYTES
    if isinstance(envelope, Reject):
        return len(envelope.rule) + len(envelope.reason) + ENVELOPE_BYTES
    return len(envelope.body) + len(envelope.content_type) + ENVELOPE_BYTES


def runs_of(bodies: list[bytes]) -> list[list[bytes]]:
    """Cut a run so that each part fits a record, or is a single message that does not."""
    if bodies_bytes(bodies) <= RUN_BYTES_MAX:
        return [bodies]
    runs: list[list[bytes]] = []
    room = 0
    for body in bodies:
        size = len(body) + BODY_OVERHEAD_BYTES
        if size > room:
            runs.append([])
            room = RUN_BYTES_MAX
        runs[-1].append(body)
        room -= size
    return runs


def pieces_of(batch: list[Envelope]) -> list[list[Envelope]]:
    """Cut a batch so that each piece fits a record, or is a single message that does not."""
    pieces: list[list[Envelope]] = []
    room = 0
    for envelope in batch:
        size = size_of(envelope)
        if size > room:
            pieces.append([])
            room = BATCH_BYTES_MAX
        pieces[-1].append(envelope)
        room -= size
    return pieces
