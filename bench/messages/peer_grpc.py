"""grpc.aio with mutual TLS, from process to process: nothing stands between the agents.

Messages are bytes without a codec, which spares gRPC the cost of protobuf. One-way messages go up
one bidirectional stream, which HTTP/2's windows hold back; asks are unary calls.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from bench.children import Children
from bench.messages.ruler import Inbox, Window
from bench.messages.systems import Place
from bench.messages.throwaway_ca import SERVER_NAME, make_tls_files

SERVICE: Final = "bench.Agent"
ASK_S_MAX: Final = 30.0


class GrpcPrograms:
    """None: only certificates."""

    def __init__(self, place: Place) -> None:
        self.pids: Mapping[str, int] = {}
        self.place = place

    def check(self) -> None:
        """The port takes nobody without a certificate of the run's authority."""


@contextmanager
def run_programs(_variant: str, folder: Path, children: Children) -> Iterator[GrpcPrograms]:
    yield GrpcPrograms(make_tls_files(folder).as_place())


class GrpcSender:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._tell = channel.stream_stream(f"/{SERVICE}/Tell")
        self._ask = channel.unary_unary(f"/{SERVICE}/Ask")

    async def send(self, window: Window) -> None:
        call = self._tell()
        async for burst in window.bursts():
            for body in burst:
                await call.write(body)
        await call.done_writing()
        # The other side closes the stream when it has read to its end.
        assert await call.read() is grpc.aio.EOF

    async def ask(self, body: bytes) -> bytes:
        reply: bytes = await self._ask(body, timeout=ASK_S_MAX)
        return reply


@asynccontextmanager
async def open_sender(place: Place) -> AsyncIterator[GrpcSender]:
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_read(place["authority"]),
        private_key=_read(place["client_key"]),
        certificate_chain=_read(place["client"]),
    )
    address = f"{SERVER_NAME}:{place['port']}"
    async with grpc.aio.secure_channel(address, credentials) as channel:
        yield GrpcSender(channel)


@asynccontextmanager
async def open_receiver(place: Place, inbox: Inbox) -> AsyncIterator[Place]:
    async def tell(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        async for body in requests:
            inbox.take(body)
        return
        yield  # Nothing: but it makes this the generator that gRPC wants.

    async def ask(body: bytes, _context: Any) -> bytes:
        return body

    credentials = grpc.ssl_server_credentials(
        [(_read(place["server_key"]), _read(place["server"]))],
        root_certificates=_read(place["authority"]),
        require_client_auth=True,
    )
    server = grpc.aio.server()
    handlers = {
        "Tell": grpc.stream_stream_rpc_method_handler(tell),
        "Ask": grpc.unary_unary_rpc_method_handler(ask),
    }
    server.add_registered_method_handlers(SERVICE, handlers)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield {"port": port}
    finally:
        await server.stop(None)


def _read(path: str) -> bytes:
    return Path(path).read_bytes()
