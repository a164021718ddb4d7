"""Processes that speak the local API frame by frame, well or badly."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
from sidelink import wire
from sidelink.wire import (
    Hello,
    OpenAgent,
    Opened,
    Send,
    Welcome,
    encode_batches,
    server_frame_reader,
)


class Client:
    """Speaks frames and bytes, well or badly."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._batches = server_frame_reader()
        self._frames: list[wire.ServerFrame] = []

    def send(self, *frames: wire.ClientFrame) -> None:
        for batch in encode_batches(frames):
            self.writer.write(batch)

    async def next(self) -> wire.ServerFrame | None:
        """The next frame, or None at the end."""
        while not self._frames:
            try:
                data = await self.reader.read(65_536)
            except ConnectionError:
                return None
            if not data:
                return None
            self._frames += self._batches.feed_untrusted(data)
        return self._frames.pop(0)

    async def last(self) -> wire.ServerFrame | None:
        """The last frame before the end."""
        frame = None
        while (following := await self.next()) is not None:
            frame = following
        return frame

    async def greet(self) -> Welcome:
        self.send(Hello(1))
        welcome = await self.next()
        assert isinstance(welcome, Welcome)
        return welcome

    async def open(self, name: str, request: int = 1) -> int:
        self.send(OpenAgent(request, name, {}))
        opened = await self.next()
        assert isinstance(opened, Opened), opened
        return opened.agent

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return


class Clients:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: list[Client] = []

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_unix_connection(self._path))
        self._open.append(client)
        return client

    async def greeted(self) -> Client:
        client = await self.connect()
        await client.greet()
        return client

    async def close(self) -> None:
        for client in self._open:
            await client.close()


def tell(agent: int, to: str = "agent://acme/sink", *, request: int = 0, body: bytes = b"") -> Send:
    return Send(request, agent, to, wire.TELL, body, "a/b", 0)


def prefixed(value: object) -> bytes:
    body = value if isinstance(value, bytes) else msgspec.msgpack.encode(value)
    return len(body).to_bytes(4, "big") + body


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)
