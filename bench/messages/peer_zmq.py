"""pyzmq with CURVE, from process to process: nothing stands between the agents.

Both ends prove themselves by their keys. Messages go by PUSH and PULL, asks by DEALER and ROUTER,
which, unlike REQ and REP, may have many in flight.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from zmq import DEALER, PULL, PUSH, ROUTER
from zmq.asyncio import Context, Socket
from zmq.auth import create_certificates, load_certificate
from zmq.auth.asyncio import AsyncioAuthenticator

from bench.background import in_background
from bench.children import Children
from bench.messages.ruler import Inbox, Window
from bench.messages.systems import Place

NUMBER_BYTES: Final = 8
# No limit of its own: the ruler's window is the bound, so that neither end drops or blocks.
HIGH_WATER_MARK: Final = 0


class ZmqPrograms:
    """None: only a folder of keys."""

    def __init__(self, place: Place) -> None:
        self.pids: Mapping[str, int] = {}
        self.place = place

    def check(self) -> None:
        """A socket with CURVE keys speaks to nobody without."""


@contextmanager
def run_programs(_variant: str, folder: Path, children: Children) -> Iterator[ZmqPrograms]:
    clients = folder / "clients"
    clients.mkdir()
    _, server = create_certificates(folder, "server")
    client_public, client = create_certificates(folder, "client")
    shutil.copy(client_public, clients)
    yield ZmqPrograms({"server": server, "client": client, "clients": str(clients)})


class ZmqSender:
    """One task reads replies; each goes to the ask of its number."""

    def __init__(self, tells: Socket, asks: Socket) -> None:
        self._tells = tells
        self._asks = asks
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}
        self._last = 0

    async def send(self, window: Window) -> None:
        send = self._tells.send
        async for burst in window.bursts():
            for body in burst:
                await send(body)

    async def ask(self, body: bytes) -> bytes:
        self._last += 1
        number = self._last.to_bytes(NUMBER_BYTES)
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = reply
        await self._asks.send_multipart((number, body))
        return await reply

    async def read_replies(self) -> None:
        while True:
            number, body = await self._asks.recv_multipart()
            self._waiting.pop(number).set_result(body)


@asynccontextmanager
async def open_sender(place: Place) -> AsyncIterator[ZmqSender]:
    server_public, _ = load_certificate(place["server"])
    with Context() as context:
        sockets = []
        for kind, address in ((PUSH, place["tells"]), (DEALER, place["asks"])):
            socket = _socket(context, kind, place["client"])
            socket.curve_serverkey = server_public
            socket.connect(address)
            sockets.append(socket)
        sender = ZmqSender(*sockets)
        try:
            async with in_background(sender.read_replies()):
                yield sender
        finally:
            context.destroy(linger=0)


@asynccontextmanager
async def open_receiver(place: Place, inbox: Inbox) -> AsyncIterator[Place]:
    with Context() as context:
        authenticator = AsyncioAuthenticator(context)
        authenticator.start()
        authenticator.configure_curve(domain="*", location=place["clients"])
        sockets = []
        for kind in (PULL, ROUTER):
            socket = _socket(context, kind, place["server"])
            socket.curve_server = True
            socket.bind("tcp://127.0.0.1:*")
            sockets.append(socket)
        tells, asks = sockets
        try:
            async with in_background(_read_tells(tells, inbox), _answer_asks(asks)):
                yield {
                    "tells": tells.last_endpoint.decode(),
                    "asks": asks.last_endpoint.decode(),
                }
        finally:
            authenticator.stop()
            context.destroy(linger=0)


async def _read_tells(tells: Socket, inbox: Inbox) -> None:
    while True:
        body = await tells.recv()
        inbox.take(body)


async def _answer_asks(asks: Socket) -> None:
    while True:
        await asks.send_multipart(await asks.recv_multipart())


def _socket(context: Context, kind: int, certificate: str) -> Socket:
    public, secret = load_certificate(certificate)
    socket: Socket = context.socket(kind)
    socket.set_hwm(HIGH_WATER_MARK)
    socket.curve_publickey = public
    socket.curve_secretkey = secret
    return socket
