"""StreamSession: the seal of one byte stream, made from a secret that a channel carried.

Noise_NNpsk0_25519_AESGCM_SHA256. On the QUIC stream each side writes chunks: u16 length, body. A
side's first chunk is its Noise message, whose payload is a type, DATA, and possibly data; each
later chunk is one record. Only a sealed FIN is an end-of-file.

    out = session.write(data)                 # everything that should go out now
    events = session.feed_untrusted(data)     # the peer wrote something
    out = session.take_output()               # after each feed, always
    event = session.quic_ended()              # the stream below is over, however that came
"""

import os
from typing import Final

from channel._noise import NN_PSK0, NoiseHandshake, Role
from channel.errors import ChannelError, ChannelStateError
from channel.events import StreamData, StreamEvent, StreamFinished, StreamReset
from channel.limits import (
    CHUNK_BYTES_MAX,
    CHUNK_LENGTH_BYTES,
    PSK_BYTES,
    STREAM_FIRST_DATA_BYTES_MAX,
    STREAM_REKEY_LIMITS,
    STREAM_UNSENT_BYTES_MAX,
    RekeyLimits,
)
from channel.messages import fragments_of
from channel.records import RecordReader, RecordWriter
from channel.state import STREAM_TRANSITIONS, StreamInput, StreamState, next_state
from channel.wire import (
    RecordType,
    decode_code_untrusted,
    encode_code,
    encode_stream_prologue,
)
from identity import Code

_FIRST_PAYLOAD: Final = bytes([RecordType.DATA])
# Keys of a stream are counted, not aged: a stream is told no time.
_NO_TIME_S: Final = 0.0


class StreamSecret:
    """32 secret bytes that make one session and no second."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != PSK_BYTES:
            raise ChannelError(Code.STREAM_SECRET_INVALID, f"a secret is {PSK_BYTES} bytes")
        self._secret: bytes | None = secret

    @classmethod
    def generate(cls) -> tuple["StreamSecret", bytes]:
        """Return the secret, for our own session, and its bytes, for STREAM_OPEN."""
        secret = os.urandom(PSK_BYTES)
        return cls(secret), secret

    def take(self) -> bytes:
        secret, self._secret = self._secret, None
        if secret is None:
            raise ChannelError(Code.STREAM_SECRET_INVALID, "a stream's secret was used before")
        return secret

    def __repr__(self) -> str:
        return "StreamSecret(used)" if self._secret is None else "StreamSecret(…)"


class StreamSession:
    """One side of one byte stream. ``role`` says who opened the stream, ``opened_by_initiator``
    whether that was the initiator of the channel: both sides have streams of their own."""

    def __init__(
        self,
        role: Role,
        secret: StreamSecret,
        *,
        channel_hash: bytes,
        stream: int,
        service: str,
        opened_by_initiator: bool,
        limits: RekeyLimits = STREAM_REKEY_LIMITS,
    ) -> None:
        """The secret is spent here, before a byte is decrypted. Raises ChannelError if it was."""
        prologue = encode_stream_prologue(channel_hash, stream, service, opened_by_initiator)
        self._noise: NoiseHandshake | None = NoiseHandshake(
            NN_PSK0, role, prologue, psk=secret.take()
        )
        self._role = role
        self._limits = limits
        self._sending = StreamState.STARTING
        self._receiving = StreamState.STARTING
        self._writer: RecordWriter | None = None
        self._reader: RecordReader | None = None
        self._incoming = bytearray()
        self._output: list[bytes] = []
        # What the opener writes behind its first chunk, before the answer.
        self._unsent: list[tuple[RecordType, bytes]] = []
        self._unsent_bytes = 0

    @property
    def sending(self) -> StreamState:
        return self._sending

    @property
    def receiving(self) -> StreamState:
        return self._receiving

    @property
    def established(self) -> bool:
        """Both handshake messages have passed: the peer has the secret too."""
        return self._writer is not None

    def write(self, data: bytes) -> bytes:
        """Seal data; return what should go out now.

        The opener's first write, even of nothing, makes the first chunk; what exceeds it waits
        for the answer. The other side may write once it was fed the first chunk. Raises
        ChannelStateError otherwise, and after finish, reset or a fault.
        """
        if self._writer is None and self._unsent_bytes + len(data) > STREAM_UNSENT_BYTES_MAX:
            raise ChannelStateError(Code.STREAM_LIMIT, "too much waits for the peer's answer")
        if self._sending is StreamState.STARTING:
            self._send_first_chunk(data[:STREAM_FIRST_DATA_BYTES_MAX])
            data = data[STREAM_FIRST_DATA_BYTES_MAX:]
        self._sending = next_state(STREAM_TRANSITIONS, self._sending, StreamInput.DATA)
        if data:
            self._send(RecordType.DATA, data)
        return self.take_output()

    def finish(self) -> bytes:
        """Say, under the seal, that nothing follows."""
        if self._sending is StreamState.STARTING:
            self._send_first_chunk(b"")
        self._sending = next_state(STREAM_TRANSITIONS, self._sending, StreamInput.FIN)
        self._send(RecordType.FIN, b"")
        return self.take_output()

    def reset(self, code: Code) -> bytes:
        """Break both directions, under the seal where there is one yet. What waited is dropped;
        the caller resets the QUIC stream behind these bytes. Idempotent."""
        if self._sending is StreamState.BROKEN:
            return b""
        if self._writer is not None:
            self._seal(RecordType.RESET, encode_code(code))
        self._break()
        return self.take_output()

    def feed_untrusted(self, data: bytes) -> list[StreamEvent]:
        """Take what the peer wrote, in pieces of any size. Nothing that it writes makes this
        raise: the last event is then StreamReset(sealed=False)."""
        if self._receiving is StreamState.BROKEN:
            return []
        self._incoming += data
        events: list[StreamEvent] = []
        try:
            self._take_chunks_untrusted(events)
        except ChannelError as exc:
            self._break()
            events.append(StreamReset(exc.code, sealed=False))
        return events

    def quic_ended(self) -> StreamReset | None:
        """The stream below is over. Without a sealed FIN that is no end-of-file: nobody knows
        what is missing. None where FIN, or a reset, has passed."""
        if self._receiving in (StreamState.FINISHED, StreamState.BROKEN):
            return None
        self._break()
        return StreamReset(Code.CHANNEL_UNSEALED_END, sealed=False)

    def take_output(self) -> bytes:
        taken = b"".join(self._output)
        self._output.clear()
        return taken

    def _take_chunks_untrusted(self, events: list[StreamEvent]) -> None:
        taken = 0
        while len(self._incoming) - taken >= CHUNK_LENGTH_BYTES:
            begin = taken + CHUNK_LENGTH_BYTES
            end = begin + int.from_bytes(self._incoming[taken:begin], "big")
            if len(self._incoming) < end:
                break
            events += self._receive_chunk_untrusted(bytes(memoryview(self._incoming)[begin:end]))
            if self._receiving is StreamState.BROKEN:
                return
            taken = end
        # Once for each feed: what is left is less than one chunk.
        del self._incoming[:taken]

    def _receive_chunk_untrusted(self, chunk: bytes) -> list[StreamEvent]:
        if self._reader is None:
            return self._receive_first_chunk_untrusted(chunk)
        header, body = self._reader.open_untrusted(chunk)
        if header.flags:
            raise ChannelError(Code.CHANNEL_BAD_RECORD, "a stream's records have no flags")
        match header.type:
            case RecordType.DATA if body:
                self._receive(StreamInput.DATA)
                return [StreamData(body)]
            case RecordType.FIN if not body:
                self._receive(StreamInput.FIN)
                return [StreamFinished()]
            case RecordType.RESET:
                code = decode_code_untrusted(body)
                self._receive(StreamInput.RESET)
                self._break()
                return [StreamReset(code, sealed=True)]
            case RecordType.REKEY:
                self._receive(StreamInput.DATA)
                return []
            case _:
                raise ChannelError(
                    Code.CHANNEL_BAD_RECORD, f"{header.type.name} of {len(body)} bytes"
                )

    def _receive_first_chunk_untrusted(self, chunk: bytes) -> list[StreamEvent]:
        assert self._noise is not None
        try:
            payload = self._noise.read_message_untrusted(chunk)
        except ChannelError as exc:
            raise ChannelError(Code.STREAM_SECRET_INVALID, exc.detail) from exc
        if payload[:1] != _FIRST_PAYLOAD:
            raise ChannelError(Code.CHANNEL_BAD_RECORD, "a first chunk that is not DATA")
        self._receive(StreamInput.HANDSHAKE)
        if self._role is Role.RESPONDER:
            self._send_first_chunk(b"")
        self._begin_session()
        return [StreamData(payload[1:])] if len(payload) > 1 else []

    def _begin_session(self) -> None:
        assert self._noise is not None
        send, receive, _ = self._noise.take_ciphers()
        self._noise = None
        self._writer = RecordWriter(send, self._limits, _NO_TIME_S)
        self._reader = RecordReader(receive, self._limits)
        unsent, self._unsent, self._unsent_bytes = self._unsent, [], 0
        for type_, data in unsent:
            self._seal(type_, data)

    def _send_first_chunk(self, data: bytes) -> None:
        if self._role is Role.RESPONDER and self._receiving is StreamState.STARTING:
            raise ChannelStateError(Code.LOCAL_INTERNAL, "the opener's first chunk is not here yet")
        assert self._noise is not None
        self._put(self._noise.write_message(_FIRST_PAYLOAD + data))
        self._sending = next_state(STREAM_TRANSITIONS, self._sending, StreamInput.HANDSHAKE)

    def _send(self, type_: RecordType, data: bytes) -> None:
        if self._writer is None:
            self._unsent.append((type_, data))
            self._unsent_bytes += len(data)
        else:
            self._seal(type_, data)

    def _seal(self, type_: RecordType, data: bytes) -> None:
        assert self._writer is not None
        # A stream has no messages, so its pieces carry no MORE.
        for piece, _ in fragments_of(data):
            for record in self._writer.seal(type_, piece, _NO_TIME_S):
                self._put(record)

    def _put(self, chunk: bytes) -> None:
        assert len(chunk) <= CHUNK_BYTES_MAX
        self._output.append(len(chunk).to_bytes(CHUNK_LENGTH_BYTES, "big"))
        self._output.append(chunk)

    def _receive(self, input_: StreamInput) -> None:
        try:
            self._receiving = next_state(STREAM_TRANSITIONS, self._receiving, input_)
        except ChannelStateError as exc:
            raise ChannelError(Code.CHANNEL_BAD_RECORD, exc.detail) from exc

    def _break(self) -> None:
        """Keys and what they opened do not outlive the stream."""
        self._sending = next_state(STREAM_TRANSITIONS, self._sending, StreamInput.FAIL)
        self._receiving = next_state(STREAM_TRANSITIONS, self._receiving, StreamInput.FAIL)
        self._noise = self._writer = self._reader = None
        self._incoming.clear()
        self._unsent, self._unsent_bytes = [], 0
