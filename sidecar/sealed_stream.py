"""One end of a byte stream over the mesh: sealed pieces, windows, and how it ends.

The asyncio side of ``channel.StreamSession``. Whoever uses a stream sees only ``MeshStream``.
"""

import asyncio
from collections import deque
from typing import Final, Protocol

from channel import (
    Role,
    StreamData,
    StreamEvent,
    StreamFinished,
    StreamReset,
    StreamSession,
)
from channel.limits import CHUNK_BYTES_MAX, CHUNK_LENGTH_BYTES
from identity import Code, VerifiedIdentity
from link import (
    Credit,
    CreditError,
    FrameKind,
    HopPort,
    LinkEnd,
    ReceiveWindow,
    SendWindow,
)
from link.limits import INITIAL_WINDOW_BYTES, STREAM_WINDOW_BYTES
from link.messages import encode_credit
from sidecar.mesh_stream import StreamError
from sidecar.slot import ChannelSlot

OPEN_SECONDS_MAX: Final = 10.0

# Sealed at once. Larger pieces only make the reader wait longer for the first byte.
PIECE_BYTES_MAX: Final = 32 << 10
# What a seal adds to a piece, at most: length, header, tag, and the type in a first chunk.
PIECE_OVERHEAD_BYTES_MAX: Final = 128
# A chunk of which not all is here. It is held, so it counts against the window.
PART_BYTES_MAX: Final = CHUNK_LENGTH_BYTES + CHUNK_BYTES_MAX

assert PART_BYTES_MAX < INITIAL_WINDOW_BYTES // 2, "the rest of a chunk always fits the window"


class StreamHome(Protocol):
    """Who keeps all streams: ``sidecar.streams``."""

    def ask_policy(self, stream: "SealedStream") -> None:
        """Before something is sent. Resets a stream that may not go on any more."""
        ...

    def forget(self, stream: "SealedStream") -> None: ...


class SealedStream:
    """One end of a stream over the mesh. Fits MeshStream."""

    def __init__(
        self,
        hop: HopPort,
        end: LinkEnd,
        slot: ChannelSlot,
        number: int,
        quic_stream: int,
        service: str,
        session: StreamSession,
        role: Role,
        home: StreamHome,
    ) -> None:
        self.hop = hop
        self.end = end
        """The link that it was opened on, and stays on."""
        self.slot = slot
        self.number = number
        self.quic_stream = quic_stream
        self.service = service
        self.is_ours = role is Role.INITIATOR
        """Whether our agent opened it."""
        self._session = session
        self._home = home
        self._send_window = SendWindow()
        self._receive_window = ReceiveWindow(STREAM_WINDOW_BYTES)
        self._received: deque[tuple[bytes, int]] = deque()
        self._owed_bytes = 0
        """What was received and is neither consumed nor in ``_received``."""
        self._finished = False
        self._sent_end = False
        self._ended_below = False
        self._fault: Code | None = None
        self._readable = asyncio.Event()
        self._creditable = asyncio.Event()
        self._established = asyncio.Event()
        # The side that was spoken to first may always write; the opener has to begin.
        self._spoken = role is Role.RESPONDER

    @property
    def peer(self) -> VerifiedIdentity:
        return self.slot.peer.identity

    @property
    def is_over(self) -> bool:
        """Nothing more can come from below: the peer has ended it there, or it was reset."""
        return self._ended_below or self._fault is not None

    async def read(self, bytes_max: int) -> bytes:
        while not self._received:
            if self._fault is not None:
                raise StreamError(self._fault, "the stream broke")
            if self._finished:
                return b""
            if not self._spoken:
                self._speak()
            self._readable.clear()
            await self._readable.wait()
        data, owed_bytes = self._received.popleft()
        if len(data) > bytes_max:
            self._received.appendleft((data[bytes_max:], owed_bytes))
            return data[:bytes_max]
        self._consume(owed_bytes)
        return data

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(view), PIECE_BYTES_MAX):
            piece = bytes(view[start : start + PIECE_BYTES_MAX])
            # The first piece goes with the handshake; the others wait for the answer to it.
            if self._spoken:
                await self._wait_established()
            self._spoken = True
            await self._wait_for_credit(len(piece) + PIECE_OVERHEAD_BYTES_MAX)
            self._send(self._session.write(piece))

    async def finish(self) -> None:
        if not self._spoken:
            self._speak()
        await self._wait_established()
        await self._wait_for_credit(2 * PIECE_OVERHEAD_BYTES_MAX)
        self._sent_end = True
        self._send(self._session.finish(), end=True)
        self._done_if_both()

    def reset(self, code: Code) -> None:
        if self._fault is None and not (self._finished and self._sent_end):
            self._send(self._session.reset(code))
            self.hop.reset_stream(self.quic_stream, int(code))
            self._break(code)

    def _speak(self) -> None:
        """The opener's handshake, when it has nothing to say with it."""
        self._spoken = True
        self._send(self._session.write(b""))

    def received_untrusted(self, data: bytes, ended: bool) -> None:
        """Bytes of the QUIC stream. Whatever they are, they cost this stream at most."""
        if self._fault is not None:
            return
        try:
            self._receive_window.receive_untrusted(len(data))
        except CreditError as exc:
            self.reset(exc.code)
            return
        events: list[StreamEvent] = list(self._session.feed_untrusted(data))
        self._send(self._session.take_output())
        self._owed_bytes += len(data)
        for event in events:
            match event:
                case StreamData():
                    # Its own bytes may have come before, a part at a time.
                    self._received.append((event.data, self._owed_bytes))
                    self._owed_bytes = 0
                case StreamFinished():
                    self._finished = True
                case StreamReset():
                    self._end_with(event.code)
        if self._owed_bytes > PART_BYTES_MAX:
            self._consume(self._owed_bytes)  # More than one chunk, and nothing to read in it.
            self._owed_bytes = 0
        if ended:
            self._ended_below = True
            broken = self._session.quic_ended()
            if broken is not None:
                self._end_with(Code.STREAM_TRUNCATED)
        self._readable.set()
        if self._session.established:
            self._established.set()
        self._done_if_both()

    def quic_reset(self, code: Code) -> None:
        """The stream below is gone. Nobody sealed that, so it is no ending; and what we have not
        said yet will not be heard."""
        if self._session.quic_ended() is not None or not self._sent_end:
            self._end_with(code)

    def credit(self, limit: int) -> None:
        if self._send_window.grant_untrusted(limit):
            self._creditable.set()

    def _end_with(self, code: Code) -> None:
        if self._fault is None:
            self.hop.reset_stream(self.quic_stream, int(code))
            self._break(code)

    def _break(self, code: Code) -> None:
        self._fault = code
        self._readable.set()
        self._creditable.set()
        self._established.set()
        self._home.forget(self)

    def _done_if_both(self) -> None:
        if self._finished and self._sent_end:
            self._home.forget(self)

    async def _wait_established(self) -> None:
        if self._session.established:
            return
        try:
            async with asyncio.timeout(OPEN_SECONDS_MAX):
                await self._established.wait()
        except TimeoutError:
            self.reset(Code.STREAM_TIMEOUT)
        if self._fault is not None:
            raise StreamError(self._fault, "the far side did not take the stream")

    async def _wait_for_credit(self, count_bytes: int) -> None:
        """Returns when so much may be sent, by the peer and by policy."""
        while True:
            self._home.ask_policy(self)
            if self._fault is not None:
                raise StreamError(self._fault, "the stream broke")
            if self._send_window.available_bytes >= count_bytes:
                return
            self._creditable.clear()
            await self._creditable.wait()

    def _send(self, data: bytes, *, end: bool = False) -> None:
        if data or end:
            self._send_window.spend(min(len(data), self._send_window.available_bytes))
            self.hop.send_stream(self.quic_stream, data, end=end)

    def _consume(self, count_bytes: int) -> None:
        limit = self._receive_window.consume(count_bytes)
        if limit is not None and self._fault is None:
            body = encode_credit(Credit(self.number, limit))
            self.hop.send_frame(self.end.link, FrameKind.CREDIT, body)
