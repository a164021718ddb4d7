"""Messages as they travel inside a channel, from sidecar to sidecar. The wire format, and only it.

The data of one channel message is a msgpack array of envelopes; each envelope is a msgpack array
that begins with its tag. Sender and receiver are not in it: the channel has proved them.
Fields may be appended in later versions; a receiver ignores what it does not know.
"""

from typing import Final

import msgspec

from identity import Code, SidelinkError

BODY_BYTES_MAX: Final = 1 << 20
CONTENT_TYPE_BYTES_MAX: Final = 128
REASON_BYTES_MAX: Final = 512
RULE_BYTES_MAX: Final = 128
ENVELOPES_PER_BATCH_MAX: Final = 8_192
REMAINING_MS_MAX: Final = 7 * 24 * 3600 * 1000

# What an envelope may add to its body, so that a body of the largest size still fits a message.
ENVELOPE_OVERHEAD_BYTES_MAX: Final = 1_024


class EnvelopeError(SidelinkError):
    """The peer sent data that is not a batch of envelopes. Close the channel."""

    def __init__(self, detail: str) -> None:
        super().__init__(Code.CHANNEL_BAD_RECORD, detail)


class Tell(msgspec.Struct, array_like=True, tag=0, frozen=True, gc=False):
    id: int
    body: bytes
    content_type: str


class Ask(msgspec.Struct, array_like=True, tag=1, frozen=True, gc=False):
    id: int
    body: bytes
    content_type: str
    remaining_ms: int
    """How long the asker still waits; each hop in time makes it smaller."""


class Reply(msgspec.Struct, array_like=True, tag=2, frozen=True, gc=False):
    in_reply_to: int
    body: bytes
    content_type: str


class Reject(msgspec.Struct, array_like=True, tag=3, frozen=True, gc=False):
    """A tell or ask that was not handed over, or that the agent refused."""

    in_reply_to: int
    code: int
    rule: str
    reason: str


class TellRun(msgspec.Struct, array_like=True, tag=4, frozen=True, gc=False):
    """Tells that follow each other: their numbers are first_id, first_id + 2, and so on."""

    first_id: int
    bodies: list[bytes]
    content_type: str


Envelope = Tell | Ask | Reply | Reject | TellRun

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(list[Envelope])


def encode_batch(envelopes: list[Envelope]) -> bytes:
    return _ENCODER.encode(envelopes)


def decode_batch_untrusted(data: bytes) -> list[Envelope]:
    """Read a batch. Raises EnvelopeError; every limit above has been checked afterwards."""
    try:
        batch = _DECODER.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise EnvelopeError(f"not a batch of envelopes: {exc}") from exc
    messages = len(batch)
    for envelope in batch:
        _check_untrusted(envelope)
        if isinstance(envelope, TellRun):
            messages += len(envelope.bodies)
    if messages > ENVELOPES_PER_BATCH_MAX:
        raise EnvelopeError(f"more than {ENVELOPES_PER_BATCH_MAX} messages in a batch")
    return batch


def _check_untrusted(envelope: Envelope) -> None:
    if isinstance(envelope, (Tell, Ask, Reply)):
        if len(envelope.body) > BODY_BYTES_MAX:
            raise EnvelopeError(f"a body of more than {BODY_BYTES_MAX} bytes")
        if len(envelope.content_type) > CONTENT_TYPE_BYTES_MAX:
            raise EnvelopeError("a content type that is too long")
        if isinstance(envelope, Ask) and not 0 <= envelope.remaining_ms <= REMAINING_MS_MAX:
            raise EnvelopeError("an ask that waits longer than a week, or less than nothing")
    elif isinstance(envelope, TellRun):
        if not envelope.bodies or max(map(len, envelope.bodies)) > BODY_BYTES_MAX:
            raise EnvelopeError(f"a run of no body, or a body of more than {BODY_BYTES_MAX} bytes")
        if len(envelope.content_type) > CONTENT_TYPE_BYTES_MAX:
            raise EnvelopeError("a content type that is too long")
    elif len(envelope.rule) > RULE_BYTES_MAX or len(envelope.reason) > REASON_BYTES_MAX:
        raise EnvelopeError("a rejection that is too long")
