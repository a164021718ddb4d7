"""The local API's wire format, between an agent and its sidecar. All of it, and nothing but it.

A batch is a u32 (big-endian) count of bytes and that many bytes of one msgpack array; each of its
elements is a frame: an array that begins with the frame's tag, followed by the fields of the class
below in their order. A batch holds 1 to BATCH_FRAMES_MAX frames and at most BATCH_BYTES_MAX bytes.

The client speaks first (Hello) and is answered by Welcome or Goodbye. Numbers named `request` are
chosen by the client and never used twice on a connection; 0 means that no receipt is wanted.
`agent` and `delivery` are chosen by the sidecar and mean something on their connection only.
Requests are carried out in the order in which they are sent; answers come in any order.

Functions that touch bytes from the other side end in ``_untrusted`` and raise WireError only.
"""

from collections.abc import Sequence
from typing import Annotated, Final, Generic, Literal, TypeVar

import msgspec

from sidelink.errors import WireError

LOCAL_API_VERSION: Final = 1
TELL: Final = 0
ASK: Final = 1

BATCH_BYTES_MAX: Final = 4 * 1024 * 1024
BATCH_FRAMES_MAX: Final = 16_384
MESSAGE_BYTES_MAX: Final = 1024 * 1024
ATTRIBUTES_MAX: Final = 64
ATTRIBUTE_NAME_CHARACTERS_MAX: Final = 63
ATTRIBUTE_TEXT_CHARACTERS_MAX: Final = 1024
BODY_OVERHEAD_BYTES: Final = 5
"""What a body adds to a run beside itself, at most: the header of a msgpack bin."""
URI_CHARACTERS_MAX: Final = 255
CONTENT_TYPE_CHARACTERS_MAX: Final = 128
REASON_CHARACTERS_MAX: Final = 512
TEXT_CHARACTERS_MAX: Final = 4096
TIMEOUT_MS_MAX: Final = 7 * 24 * 3600 * 1000
TTL_S_MAX: Final = 366 * 24 * 3600

_LENGTH_BYTES: Final = 4
# A whole message with everything around it must fit in a batch of its own.
assert MESSAGE_BYTES_MAX + 512 * 1024 <= BATCH_BYTES_MAX

Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=TIMEOUT_MS_MAX)]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=TTL_S_MAX)]
Uri = Annotated[str, msgspec.Meta(max_length=URI_CHARACTERS_MAX)]
ContentType = Annotated[str, msgspec.Meta(max_length=CONTENT_TYPE_CHARACTERS_MAX)]
Reason = Annotated[str, msgspec.Meta(max_length=REASON_CHARACTERS_MAX)]
Text = Annotated[str, msgspec.Meta(max_length=TEXT_CHARACTERS_MAX)]
_AttributeName = Annotated[str, msgspec.Meta(max_length=ATTRIBUTE_NAME_CHARACTERS_MAX)]
_AttributeText = Annotated[str, msgspec.Meta(max_length=ATTRIBUTE_TEXT_CHARACTERS_MAX)]
_AttributeInteger = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_AttributeList = tuple[_AttributeText, ...]
AttributeValue = bool | _AttributeInteger | _AttributeText | _AttributeList
Attributes = Annotated[
    dict[_AttributeName, AttributeValue], msgspec.Meta(max_length=ATTRIBUTES_MAX)
]
MessageKind = Literal[0, 1]
Bodies = Annotated[list[bytes], msgspec.Meta(min_length=1, max_length=BATCH_FRAMES_MAX)]


# gc=False: frames hold plain data and never a cycle; it keeps batches out of the collector's way.
class _Frame(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False, frozen=True):
    pass


def bodies_bytes(bodies: Sequence[bytes]) -> int:
    """What the bodies of a run take on the wire, at most."""
    return sum(map(len, bodies)) + BODY_OVERHEAD_BYTES * len(bodies)


# From the client.


class Hello(_Frame, frozen=True, tag=1):
    """The first frame of a connection. The token is for listeners that cannot see who connects."""

    version: Number
    token: Text | None = None


class OpenAgent(_Frame, frozen=True, tag=2):
    """Answered by Opened or Failed. The name is the path of an agent URI: ``finance/planner``."""

    request: Number
    name: Uri
    attributes: Attributes


class CloseAgent(_Frame, frozen=True, tag=3):
    """Answered by Receipt or Failed."""

    request: Number
    agent: Number


class Send(_Frame, frozen=True, tag=4):
    """A tell is answered by Receipt or Failed, with request 0 only by Failed; an ask by Reply or
    Failed, and its request is never 0."""

    request: Number
    agent: Number
    to: Uri
    kind: MessageKind
    body: bytes
    content_type: ContentType
    timeout_ms: Milliseconds


class Listen(_Frame, frozen=True, tag=5):
    """Messages for the agent are delivered while this is on; until then the mailbox keeps them.

    Turned off it holds them back, and their senders with them. The connection is still the one
    that listens, until it closes the agent or ends.
    """

    agent: Number
    on: bool


class Answer(_Frame, frozen=True, tag=6):
    """The reply to a delivered ask. Only failure is answered: Failed with request 0."""

    agent: Number
    delivery: Number
    body: bytes
    content_type: ContentType


class Refuse(_Frame, frozen=True, tag=7):
    """The rejection of a delivered ask. Only failure is answered: Failed with request 0."""

    agent: Number
    delivery: Number
    reason: Reason


class Flush(_Frame, frozen=True, tag=8):
    """Answered by Receipt once all that the agent sent before is accepted or has Failed."""

    request: Number
    agent: Number


class TellRun(_Frame, frozen=True, tag=9):
    """Consecutive tells to one receiver, each as if it were a Send of its own with request 0.

    It is what makes a small message cheap: one frame, one decision about the largest, one array.
    """

    agent: Number
    to: Uri
    content_type: ContentType
    bodies: Bodies


class Leave(_Frame, frozen=True, tag=10):
    """The answer to Draining: nothing new follows, only answers to asks that were delivered."""


class SpawnAgent(_Frame, frozen=True, tag=11):
    """Answered by Opened or Failed. Parent is the path of an agent, name one more segment.

    The agent below it has these attributes, of those that its parent has, and ends after ttl_s;
    with 0 it lives as long as its parent. One that is there already is from now on what this says.
    """

    request: Number
    parent: Uri
    name: Uri
    attributes: Attributes
    ttl_s: Seconds


# From the sidecar.


class Welcome(_Frame, frozen=True, tag=32):
    version: Number
    trust_domain: Uri
    node: Uri


class Opened(_Frame, frozen=True, tag=33):
    request: Number
    agent: Number
    uri: Uri
    identifier: Uri
    attributes: Attributes


class Receipt(_Frame, frozen=True, tag=34):
    """The sidecar has accepted the request, or (ok false) will not carry it out: it is draining."""

    request: Number
    ok: bool = True


class Failed(_Frame, frozen=True, tag=35):
    """Request 0: something that wanted no receipt failed; `agent` says for whom, if it is known."""

    request: Number
    code: Text
    message: Text = ""
    rule: Text | None = None
    remedy: Text = ""
    agent: Number = 0


class Reply(_Frame, frozen=True, tag=36):
    request: Number
    body: bytes
    content_type: ContentType
    sender: Uri
    sender_identifier: Uri
    attributes: Attributes


class Deliver(_Frame, frozen=True, tag=37):
    """deadline_ms: what is left of an ask's time; 0 for a tell, which has none."""

    agent: Number
    delivery: Number
    kind: MessageKind
    sender: Uri
    sender_identifier: Uri
    attributes: Attributes
    body: bytes
    content_type: ContentType
    deadline_ms: Milliseconds


class DeliverRun(_Frame, frozen=True, tag=39):
    """Consecutive tells of one sender. They have no delivery number: nothing answers a tell."""

    agent: Number
    sender: Uri
    sender_identifier: Uri
    attributes: Attributes
    content_type: ContentType
    bodies: Bodies


class Draining(_Frame, frozen=True, tag=40):
    """The sidecar stops soon, for about delay_ms: keep what is new, answer what was asked.

    What is under way is finished, and Goodbye follows. Leave says that nothing new follows.
    """

    delay_ms: Milliseconds


class Goodbye(_Frame, frozen=True, tag=38):
    """The last frame of a connection. delay_ms: when it may be worth coming back."""

    code: Text
    delay_ms: Milliseconds = 0


ClientFrame = (
    Hello
    | OpenAgent
    | SpawnAgent
    | CloseAgent
    | Send
    | TellRun
    | Listen
    | Answer
    | Refuse
    | Flush
    | Leave
)
ServerFrame = (
    Welcome | Opened | Receipt | Failed | Reply | Deliver | DeliverRun | Draining | Goodbye
)
_F = TypeVar("_F")
_BATCH: Final = msgspec.Meta(min_length=1, max_length=BATCH_FRAMES_MAX)

_encoder: Final = msgspec.msgpack.Encoder()
_client_decoder: Final = msgspec.msgpack.Decoder(Annotated[list[ClientFrame], _BATCH])
_server_decoder: Final = msgspec.msgpack.Decoder(Annotated[list[ServerFrame], _BATCH])


def encode_batches(frames: Sequence[ClientFrame | ServerFrame]) -> list[bytes]:
    """The frames in as few batches as the limits allow: one, unless they are very many or large.

    A single frame beyond the limit is the caller's mistake; it raises WireError.
    """
    if not frames:
        return []
    if len(frames) <= BATCH_FRAMES_MAX:
        body = _encoder.encode(frames)
        if len(body) <= BATCH_BYTES_MAX:
            return [len(body).to_bytes(_LENGTH_BYTES, "big") + body]
    if len(frames) == 1:
        raise WireError("local.limit", "a single frame is larger than a batch may be")
    half = len(frames) // 2
    return encode_batches(frames[:half]) + encode_batches(frames[half:])


def encode_batch(frames: Sequence[ClientFrame | ServerFrame]) -> bytes:
    """The frames as one batch, or WireError when they do not fit in one."""
    batches = encode_batches(frames)
    if len(batches) != 1:
        raise WireError("local.limit", "the frames do not fit in one batch")
    return batches[0]


class BatchReader(Generic[_F]):
    """Cuts a stream of bytes into batches and decodes them. After a WireError it is of no use."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[list[_F]]) -> None:
        self._decoder = decoder
        self._buffer = bytearray()
        self._wanted_bytes = _LENGTH_BYTES

    @property
    def buffered_bytes(self) -> int:
        return len(self._buffer)

    def feed_untrusted(self, data: bytes | bytearray | memoryview) -> list[_F]:
        """The frames of all batches that `data` completes. Raises WireError only."""
        buffer = self._buffer
        if buffer:
            buffer += data
            if len(buffer) < self._wanted_bytes:
                return []
        frames: list[_F] = []
        # Decoded where they are: a copy of each batch was a quarter of what reading it cost.
        view = memoryview(buffer or data)
        start = 0
        while True:
            rest_bytes = len(view) - start
            self._wanted_bytes = _LENGTH_BYTES
            if rest_bytes < _LENGTH_BYTES:
                break
            body_bytes = int.from_bytes(view[start : start + _LENGTH_BYTES], "big")
            if not 0 < body_bytes <= BATCH_BYTES_MAX:
                raise WireError("local.limit", f"a batch of {body_bytes} bytes")
            self._wanted_bytes = _LENGTH_BYTES + body_bytes
            if rest_bytes < self._wanted_bytes:
                break
            end = start + self._wanted_bytes
            batch = self._decode_untrusted(view[start + _LENGTH_BYTES : end])
            if frames:
                frames += batch
            else:
                frames = batch
            start = end
        if buffer:
            view.release()
            del buffer[:start]
        elif rest_bytes:
            buffer += view[start:]
        return frames

    def _decode_untrusted(self, body: memoryview) -> list[_F]:
        try:
            return self._decoder.decode(body)
        except (msgspec.DecodeError, RecursionError, ValueError, OverflowError) as error:
            raise WireError("local.bad_request", f"not a batch: {error}") from error


def client_frame_reader() -> BatchReader[ClientFrame]:
    """For a sidecar: reads what clients send."""
    return BatchReader(_client_decoder)


def server_frame_reader() -> BatchReader[ServerFrame]:
    """For a client: reads what the sidecar sends."""
    return BatchReader(_server_decoder)
