"""The local API's server side: its socket, who may connect, and what hostile bytes cost."""

import asyncio
import os
import random
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop
from sidelink import wire
from sidelink.wire import (
    Flush,
    Goodbye,
    Hello,
    Listen,
    OpenAgent,
    Opened,
    Receipt,
    Send,
    Welcome,
    encode_batch,
)

from identity import Code
from sidecar import local_session as module
from sidecar.local_api import DEFAULT_LIMITS, LocalApi
from sidecar.local_port import LocalApiError, PeerCredentials
from tests.sdk.fakes import WAIT_S, FakeRouter, local_api
from tests.sidecar.local_clients import Client, Clients, prefixed, tell

pytestmark = pytest.mark.usefixtures("deadline")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def is_socket(path: Path) -> bool:
    return path.is_socket()


# The socket.


async def test_only_the_owner_can_reach_the_socket(api: LocalApi, path: Path) -> None:
    assert mode_of(path) == 0o600
    assert mode_of(path.parent) == 0o700


async def test_the_socket_is_gone_after_the_end(path: Path, router: FakeRouter) -> None:
    async with local_api(path, router):
        assert is_socket(path)

    assert not is_socket(path)


async def test_a_socket_left_by_a_crash_is_replaced_and_then_not_removed_by_its_maker(
    path: Path, router: FakeRouter, clients: Clients
) -> None:
    crashed, later = LocalApi(router), LocalApi(router)
    await crashed.start(path)

    await later.start(path)
    await crashed.close()

    await clients.greeted()
    assert len(later.sessions) == 1
    await clients.close()
    await later.close()
    assert not is_socket(path)


def make_open_folder(path: Path) -> Path:
    path.parent.mkdir(mode=0o755)
    path.parent.chmod(0o755)
    return path


def make_file_in_the_way(path: Path) -> Path:
    path.parent.mkdir(mode=0o700)
    path.write_text("precious")
    return path


def make_folder_of_another_user(path: Path) -> Path:
    path.parent.mkdir(mode=0o700)
    os.chown(path.parent, 12345, -1)
    return path


UNSAFE: dict[str, tuple[Callable[[Path], Path], Code]] = {
    "the folder is open to others": (make_open_folder, Code.CONFIG_STATE_UNSAFE),
    "a file is in the way": (make_file_in_the_way, Code.CONFIG_STATE_UNSAFE),
    "the path is too long": (lambda path: path.parent / ("x" * 107), Code.CONFIG_INVALID),
}
if os.geteuid() == 0:
    UNSAFE["the folder is another user's"] = (
        make_folder_of_another_user,
        Code.CONFIG_STATE_UNSAFE,
    )


@pytest.mark.parametrize(("make", "code"), UNSAFE.values(), ids=UNSAFE.keys())
async def test_it_refuses_to_listen_where(
    make: Callable[[Path], Path], code: Code, path: Path, router: FakeRouter
) -> None:
    unsafe = make(path)

    with pytest.raises(LocalApiError) as caught:
        await LocalApi(router).start(unsafe)

    assert caught.value.code is code
    assert not is_socket(unsafe)


# Who may connect.


async def test_the_kernel_says_who_connected(
    api: LocalApi, router: FakeRouter, clients: Clients
) -> None:
    client = await clients.greeted()
    number = await client.open("planner")

    assert router.agents[number].session.peer == PeerCredentials(
        os.getpid(), os.geteuid(), os.getegid()
    )


@pytest.mark.parametrize(
    ("user_id", "welcome"), [(os.geteuid(), True), (0, True), (os.geteuid() + 1, False)]
)
async def test_only_the_same_user_and_root_are_let_in(
    user_id: int, welcome: bool, path: Path, router: FakeRouter, clients: Clients
) -> None:
    def peer(_transport: asyncio.BaseTransport) -> PeerCredentials:
        return PeerCredentials(1, user_id, 0)

    async with local_api(path, router, peer_credentials=peer):
        client = await clients.connect()
        client.send(Hello(1))
        first = await client.next()

        if welcome:
            assert isinstance(first, Welcome)
        else:
            assert first == Goodbye("local.unauthorized", 0)
            assert await client.next() is None
        await clients.close()


async def test_nobody_is_let_in_where_the_kernel_does_not_say_who(
    path: Path, router: FakeRouter, clients: Clients
) -> None:
    def peer(_transport: asyncio.BaseTransport) -> PeerCredentials:
        raise LocalApiError(Code.LOCAL_UNAUTHORIZED, "this system has no SO_PEERCRED")

    async with local_api(path, router, peer_credentials=peer):
        client = await clients.connect()

        assert await client.last() == Goodbye("local.unauthorized", 0)
        await clients.close()


def test_credentials_are_read_under_uvloop_too(path: Path) -> None:
    async def connect() -> PeerCredentials:
        router = FakeRouter()
        async with asyncio.timeout(WAIT_S), local_api(path, router):
            client = Client(*await asyncio.open_unix_connection(path))
            await client.greet()
            number = await client.open("planner")
            peer = router.agents[number].session.peer
            await client.close()
            return peer

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(connect()).user_id == os.geteuid()


async def test_too_many_connections_are_turned_away(
    path: Path, router: FakeRouter, clients: Clients
) -> None:
    async with local_api(path, router, limits=replace(DEFAULT_LIMITS, connections_max=2)) as api:
        first, _ = await clients.greeted(), await clients.greeted()
        refused = await clients.connect()

        assert await refused.last() == Goodbye("local.limit", 0)
        assert api.goodbyes[Code.LOCAL_LIMIT] == 1
        first.send(OpenAgent(1, "planner", {}))
        assert isinstance(await first.next(), Opened)
        await clients.close()


# Hello.


BAD_FIRST_FRAMES: dict[str, tuple[list[wire.ClientFrame], Code]] = {
    "another version": ([Hello(2)], Code.LOCAL_VERSION_UNSUPPORTED),
    "a token that nothing here can check": ([Hello(1, "secret")], Code.LOCAL_UNAUTHORIZED),
    "an opening before Hello": ([OpenAgent(1, "a", {})], Code.LOCAL_BAD_REQUEST),
    "a message before Hello": ([tell(1)], Code.LOCAL_BAD_REQUEST),
    "a message and then Hello": ([tell(1), Hello(1)], Code.LOCAL_BAD_REQUEST),
    "Hello twice": ([Hello(1), Hello(1)], Code.LOCAL_BAD_REQUEST),
}


@pytest.mark.parametrize(("frames", "code"), BAD_FIRST_FRAMES.values(), ids=BAD_FIRST_FRAMES.keys())
async def test_a_connection_must_begin_with_one_hello_and_not_with(
    frames: list[wire.ClientFrame], code: Code, api: LocalApi, clients: Clients
) -> None:
    client = await clients.connect()

    client.send(*frames)

    assert await client.last() == Goodbye(code.text, 0)


async def test_a_silent_connection_is_closed(
    path: Path, router: FakeRouter, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HELLO_WAIT_S", 0.01)
    async with local_api(path, router):
        client = await clients.connect()

        assert await client.last() == Goodbye("local.bad_request", 0)
        assert router.sessions_closed == 0
        await clients.close()


async def test_a_greeted_connection_may_be_silent(
    path: Path, router: FakeRouter, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HELLO_WAIT_S", 0.01)
    async with local_api(path, router):
        client = await clients.greeted()
        await asyncio.sleep(0.03)

        await client.open("planner")
        await clients.close()


async def test_a_long_hello_is_cut_off_before_it_is_buffered(
    api: LocalApi, clients: Clients
) -> None:
    client = await clients.connect()

    client.writer.write((1024 * 1024).to_bytes(4, "big") + b"\x91" * 100_000)

    assert await client.last() == Goodbye("local.limit", 0)


# Hostile batches.


WHAT_A_HOSTILE_PROCESS_SENDS: dict[str, tuple[bytes, Code]] = {
    "a batch that is too long": (b"\xff\xff\xff\xff", Code.LOCAL_LIMIT),
    "garbage": (prefixed(b"\xc1\xc1"), Code.LOCAL_BAD_REQUEST),
    "nesting without end": (prefixed(b"\x91" * 200_000), Code.LOCAL_BAD_REQUEST),
    "an unknown frame": (prefixed([[99]]), Code.LOCAL_BAD_REQUEST),
    "a frame of the sidecar": (encode_batch([Receipt(1)]), Code.LOCAL_BAD_REQUEST),
    "an ask without a request": (
        encode_batch([Send(0, 1, "u", wire.ASK, b"", "", 1)]),
        Code.LOCAL_BAD_REQUEST,
    ),
    "an opening without a request": (encode_batch([OpenAgent(0, "a", {})]), Code.LOCAL_BAD_REQUEST),
}


@pytest.mark.parametrize(
    ("data", "code"),
    WHAT_A_HOSTILE_PROCESS_SENDS.values(),
    ids=WHAT_A_HOSTILE_PROCESS_SENDS.keys(),
)
async def test_hostile_bytes_cost_their_own_connection_only(
    data: bytes, code: Code, api: LocalApi, router: FakeRouter, clients: Clients
) -> None:
    good, bad = await clients.greeted(), await clients.greeted()
    agent = await good.open("planner")
    await bad.open("mallory")

    bad.writer.write(data)

    assert await bad.last() == Goodbye(code.text, 0)
    assert router.sessions_closed == 1
    assert [a.name for a in router.agents.values()] == ["planner"]
    good.send(Flush(5, agent))
    assert await good.next() == Receipt(5)
    assert api.goodbyes[code] == 1


async def test_random_bytes_never_harm_a_neighbour(api: LocalApi, clients: Clients) -> None:
    rng = random.Random(1)
    good = await clients.greeted()
    agent = await good.open("planner")

    for _ in range(30):
        bad = await clients.greeted()
        data = bytearray(encode_batch([tell(1), Flush(3, 1), OpenAgent(2, "x", {"a": 1})]))
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        bad.writer.write(data)
        bad.writer.write_eof()
        await bad.last()

    good.send(Flush(5, agent))
    assert await good.next() == Receipt(5)


async def test_what_came_before_the_bad_frame_is_done_and_what_follows_is_not(
    api: LocalApi, router: FakeRouter, clients: Clients
) -> None:
    client = await clients.greeted()
    agent = await client.open("planner")

    client.send(tell(agent), tell(agent), Hello(1), tell(agent), Flush(9, agent), tell(agent))

    assert await client.last() == Goodbye("local.bad_request", 0)
    assert router.batches == [2]


async def test_a_fault_of_the_router_costs_that_connection_and_is_reported(
    api: LocalApi, router: FakeRouter, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: reported.append(context["exception"])
    )
    monkeypatch.setattr(router, "listen", lambda *_arguments: 1 / 0)
    client = await clients.greeted()
    agent = await client.open("planner")

    client.send(Listen(agent, True))

    assert await client.last() == Goodbye("local.internal", 0)
    assert isinstance(reported[0], ZeroDivisionError)
