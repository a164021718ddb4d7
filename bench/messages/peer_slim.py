"""SLIM with MLS: one node, agents with slim-bindings, one point-to-point session for each use.

Sessions are sealed by MLS from end to end. The node's own transport is left plain, as in SLIM's
examples, which spares it TLS.
"""

import asyncio
import datetime
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import slim_bindings

from bench.background import in_background
from bench.children import Child, Children
from bench.errors import BenchError
from bench.messages.ruler import Inbox, Window
from bench.messages.systems import Place
from bench.worker import serve

RECEIVER: Final = "bench/agents/receiver"
SENDER: Final = "bench/agents/sender"
TELLS, ASKS = "tells", "asks"
NUMBER_BYTES: Final = 8
# As in SLIM's example of a point-to-point session.
RETRIES: Final = 5
RETRY_INTERVAL: Final = datetime.timedelta(seconds=5)


class SlimPrograms:
    """One node."""

    def __init__(self, node: Child, place: Place) -> None:
        self.pids = {"slim node": node.pid}
        self.place = place

    def check(self) -> None:
        """Whether sessions are sealed, the sender has asked when it opened them."""


@contextmanager
def run_programs(_variant: str, folder: Path, children: Children) -> Iterator[SlimPrograms]:
    node = children.start_worker("slim node", "bench.messages.peer_slim")
    address = f"127.0.0.1:{_free_tcp_port()}"
    node.call("listen", address=address)
    place = {"endpoint": f"http://{address}", "secret": secrets.token_hex(32)}
    yield SlimPrograms(node, place)


class SlimSender:
    def __init__(self, tells: Any, asks: Any) -> None:
        self._tells = tells
        self._asks = asks
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}
        self._last = 0

    async def send(self, window: Window) -> None:
        publish = self._tells.publish_async
        async for burst in window.bursts():
            for body in burst:
                await publish(body, None, None)

    async def ask(self, body: bytes) -> bytes:
        self._last += 1
        number = self._last.to_bytes(NUMBER_BYTES)
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = reply
        await self._asks.publish_async(number + body, None, None)
        return await reply

    async def read_replies(self) -> None:
        while True:
            message = await self._asks.get_message_async(None)
            payload = message.payload
            self._waiting.pop(payload[:NUMBER_BYTES]).set_result(payload[NUMBER_BYTES:])


@asynccontextmanager
async def open_sender(place: Place) -> AsyncIterator[SlimSender]:
    app, connection = await _connect(place, SENDER)
    receiver = slim_bindings.Name.from_string(RECEIVER)
    await app.set_route_async(receiver, connection)
    sessions = []
    for use in (TELLS, ASKS):
        config = slim_bindings.SessionConfig(
            session_type=slim_bindings.SessionType.POINT_TO_POINT,
            max_retries=RETRIES,
            interval=RETRY_INTERVAL,
            metadata={"use": use},
            mls_settings=slim_bindings.MlsSettings(
                header_integrity_validation_percent=100, max_seen_control_message_ids_size=None
            ),
        )
        opened = await app.create_session_async(config, receiver)
        await opened.completion.wait_async()
        if opened.session.config().mls_settings is None:
            raise BenchError("SLIM opened a session without MLS")
        sessions.append(opened.session)
    sender = SlimSender(*sessions)
    async with in_background(sender.read_replies()):
        yield sender


@asynccontextmanager
async def open_receiver(place: Place, inbox: Inbox) -> AsyncIterator[Place]:
    app, _ = await _connect(place, RECEIVER)
    async with in_background(_serve_sessions(app, inbox)):
        yield {}


async def _serve_sessions(app: Any, inbox: Inbox) -> None:
    async with asyncio.TaskGroup() as group:
        while True:
            session = await app.listen_for_session_async(None)
            if session.metadata()["use"] == TELLS:
                group.create_task(_read_tells(session, inbox))
            else:
                group.create_task(_answer_asks(session))


async def _read_tells(session: Any, inbox: Inbox) -> None:
    while True:
        message = await session.get_message_async(None)
        inbox.take(message.payload)


async def _answer_asks(session: Any) -> None:
    while True:
        message = await session.get_message_async(None)
        await session.publish_async(message.payload, None, None)


async def _connect(place: Place, name: str) -> tuple[Any, int]:
    slim_bindings.initialize_with_defaults()
    service = slim_bindings.get_global_service()
    connection = await service.connect_async(
        slim_bindings.new_insecure_client_config(place["endpoint"])
    )
    own = slim_bindings.Name.from_string(name)
    app = service.create_app_with_secret(own, place["secret"])
    await app.subscribe_async(own, connection)
    return app, connection


def _free_tcp_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _main() -> None:
    async def listen(wishes: Any) -> None:
        slim_bindings.initialize_with_defaults()
        service = slim_bindings.get_global_service()
        await service.run_server_async(slim_bindings.new_insecure_server_config(wishes["address"]))

    await serve({"listen": listen})


if __name__ == "__main__":
    asyncio.run(_main())
