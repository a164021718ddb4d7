"""A mesh stream pair in memory: the contract of sidecar.mesh_stream, without a mesh."""

import asyncio

from identity import AgentUri, Code, Identifier, VerifiedIdentity
from sidecar.mesh_stream import StreamError

WINDOW_BYTES = 64 * 1024


def identity_of(name: str, seed: int = 1) -> VerifiedIdentity:
    return VerifiedIdentity(
        identifier=Identifier(bytes([seed]) * 32),
        name=AgentUri.in_domain("acme", name),
        kind="agent",
        role_of_node=None,
        trust_domain="acme",
        issuer=None,
        attributes={"role": "planner"},
        delegable=None,
        expires_unix_s=2_000_000_000,
        ancestors=(),
    )


class _Pipe:
    """One direction, with credit for WINDOW_BYTES."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.is_finished = False
        self.changed = asyncio.Condition()
        self.tasks: set[asyncio.Task[None]] = set()

    async def announce(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    def announce_soon(self) -> None:
        task = asyncio.ensure_future(self.announce())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class _Shared:
    def __init__(self) -> None:
        self.reset_code: Code | None = None
        self.pipes = (_Pipe(), _Pipe())


class MemoryStream:
    """One end. `reset_code` tells a test how it ended."""

    def __init__(self, shared: _Shared, side: int, peer: VerifiedIdentity) -> None:
        self._shared = shared
        self._in = shared.pipes[side]
        self._out = shared.pipes[1 - side]
        self._peer = peer
        self.is_finished = False

    @property
    def peer(self) -> VerifiedIdentity:
        return self._peer

    @property
    def reset_code(self) -> Code | None:
        return self._shared.reset_code

    async def read(self, bytes_max: int) -> bytes:
        async with self._in.changed:
            while not self._in.data and not self._in.is_finished:
                self._check()
                await self._in.changed.wait()
            self._check()
            data = bytes(self._in.data[:bytes_max])
            del self._in.data[: len(data)]
            self._in.changed.notify_all()
            return data

    async def write(self, data: bytes) -> None:
        sent = 0
        while sent < len(data):
            async with self._out.changed:
                self._check()
                while (room := WINDOW_BYTES - len(self._out.data)) <= 0:
                    await self._out.changed.wait()
                    self._check()
                self._out.data += data[sent : sent + room]
                sent += room
                self._out.changed.notify_all()

    async def finish(self) -> None:
        self._check()
        self.is_finished = self._out.is_finished = True
        await self._out.announce()

    def reset(self, code: Code) -> None:
        if self._shared.reset_code is None and not all(
            pipe.is_finished for pipe in self._shared.pipes
        ):
            self._shared.reset_code = code
            for pipe in self._shared.pipes:
                pipe.announce_soon()

    def _check(self) -> None:
        if self._shared.reset_code is not None:
            raise StreamError(self._shared.reset_code, "reset")


def memory_stream_pair(
    caller: VerifiedIdentity, offerer: VerifiedIdentity
) -> tuple[MemoryStream, MemoryStream]:
    """(the end that the caller holds, the end that the offerer holds)."""
    shared = _Shared()
    return MemoryStream(shared, 0, offerer), MemoryStream(shared, 1, caller)
