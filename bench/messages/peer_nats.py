"""NATS: one nats-server with TLS, agents with nats-py. Both ends show certificates."""

import json
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from bench.children import Child, Children
from bench.errors import BenchError
from bench.messages.ruler import Inbox, Window
from bench.messages.systems import Place
from bench.messages.throwaway_ca import SERVER_NAME, TlsFiles, make_tls_files

TELLS: Final = "bench.tells"
ASKS: Final = "bench.asks"
ASK_S_MAX: Final = 30.0
READY_S_MAX: Final = 15.0
POLL_S: Final = 0.02

# The window of the ruler fits into what the server keeps for a slow subscriber (64 MiB) and what
# nats-py does (128 MiB), so nothing has to be raised for nothing to be dropped.
CONFIG: Final = """\
listen: "127.0.0.1:-1"
ports_file_dir: "{folder}"
tls {{
  cert_file: "{tls.server}"
  key_file: "{tls.server_key}"
  ca_file: "{tls.authority}"
  verify: true
}}
"""


class NatsPrograms:
    """One server."""

    def __init__(self, server: Child, url: str, tls: TlsFiles) -> None:
        self.pids = {"nats-server": server.pid}
        self.place = {"url": url, **tls.as_place()}

    def check(self) -> None:
        """A client that reached the port spoke TLS: the server takes nothing else."""


@contextmanager
def run_programs(_variant: str, folder: Path, children: Children) -> Iterator[NatsPrograms]:
    tls = make_tls_files(folder)
    config = folder / "nats.conf"
    config.write_text(CONFIG.format(folder=folder, tls=tls), encoding="utf-8")
    binary = Path(sys.executable).with_name("nats-server")
    server = children.start("nats-server", [binary, "--config", config])
    ports = folder / f"nats-server_{server.pid}.ports"
    deadline_s = time.monotonic() + READY_S_MAX
    while not ports.exists():
        if not server.is_running or time.monotonic() > deadline_s:
            raise BenchError(f"not ready: {server.last_words()}")
        time.sleep(POLL_S)
    port = json.loads(ports.read_text())["nats"][0].rpartition(":")[2]
    yield NatsPrograms(server, f"tls://{SERVER_NAME}:{port}", tls)


class NatsSender:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def send(self, window: Window) -> None:
        publish = self._client.publish
        async for burst in window.bursts():
            for body in burst:
                await publish(TELLS, body)
        await self._client.flush()

    async def ask(self, body: bytes) -> bytes:
        reply = await self._client.request(ASKS, body, timeout=ASK_S_MAX)
        data: bytes = reply.data
        return data


@asynccontextmanager
async def open_sender(place: Place) -> AsyncIterator[NatsSender]:
    client = await _connect(place)
    try:
        yield NatsSender(client)
    finally:
        await client.close()


@asynccontextmanager
async def open_receiver(place: Place, inbox: Inbox) -> AsyncIterator[Place]:
    async def told(message: Msg) -> None:
        inbox.take(message.data)

    async def asked(message: Msg) -> None:
        await message.respond(message.data)

    client = await _connect(place)
    try:
        await client.subscribe(TELLS, cb=told)
        await client.subscribe(ASKS, cb=asked)
        await client.flush()
        yield {}
    finally:
        await client.close()


async def _connect(place: Place) -> Client:
    context = ssl.create_default_context(cafile=place["authority"])
    context.load_cert_chain(place["client"], place["client_key"])
    return await nats.connect(place["url"], tls=context, allow_reconnect=False)
