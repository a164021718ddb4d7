"""A byte stream between two agents of one sidecar: nothing to seal, the same contract."""

import asyncio
from collections import deque
from typing import Final

from identity import Code, VerifiedIdentity
from sidecar.mesh_stream import StreamError

BUFFER_BYTES_MAX: Final = 256 << 10


class _Pipe:
    """One direction."""

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()
        self.held_bytes = 0
        self.finished = False
        self.fault: Code | None = None
        self.changed = asyncio.Event()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class LocalStream:
    """One end. Fits MeshStream."""

    def __init__(self, peer: VerifiedIdentity, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._peer = peer
        self._incoming = incoming
        self._outgoing = outgoing

    @property
    def peer(self) -> VerifiedIdentity:
        return self._peer

    async def read(self, bytes_max: int) -> bytes:
        pipe = self._incoming
        while not pipe.chunks:
            if pipe.fault is not None:
                raise StreamError(pipe.fault, "the stream was reset")
            if pipe.finished:
                return b""
            await pipe.changed.wait()
        data = pipe.chunks.popleft()
        if len(data) > bytes_max:
            pipe.chunks.appendleft(data[bytes_max:])
            data = data[:bytes_max]
        pipe.held_bytes -= len(data)
        pipe.wake()
        return data

    async def write(self, data: bytes) -> None:
        pipe = self._outgoing
        while pipe.held_bytes >= BUFFER_BYTES_MAX and pipe.fault is None:
            await pipe.changed.wait()
        if pipe.fault is not None:
            raise StreamError(pipe.fault, "the stream was reset")
        if data:
            pipe.chunks.append(data)
            pipe.held_bytes += len(data)
            pipe.wake()

    async def finish(self) -> None:
        self._outgoing.finished = True
        self._outgoing.wake()

    def reset(self, code: Code) -> None:
        if self._incoming.finished and self._outgoing.finished:
            return
        for pipe in (self._incoming, self._outgoing):
            pipe.fault = pipe.fault or code
            pipe.wake()


def local_stream_pair(
    opener: VerifiedIdentity, target: VerifiedIdentity
) -> tuple[LocalStream, LocalStream]:
    """The opener's end and the target's end."""
    there, back = _Pipe(), _Pipe()
    return LocalStream(target, back, there), LocalStream(opener, there, back)
