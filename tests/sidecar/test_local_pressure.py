"""The local API's server side: limits, batches, pressure both ways, and the end."""

import asyncio
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from sidelink import wire
from sidelink.wire import (
    MESSAGE_BYTES_MAX,
    Answer,
    CloseAgent,
    Deliver,
    Draining,
    Failed,
    Flush,
    Goodbye,
    Leave,
    Listen,
    OpenAgent,
    Opened,
    Receipt,
    Reply,
    encode_batch,
    server_frame_reader,
)

from identity import Code
from sidecar import local_session as module
from sidecar.local_api import DEFAULT_LIMITS, LocalApi
from sidecar.local_port import LocalApiError, failure
from sidecar.peer_credentials import read_peer_credentials
from tests.sdk.fakes import FakeRouter, local_api, uri
from tests.sidecar.local_clients import Clients, prefixed, tell, until

pytestmark = pytest.mark.usefixtures("deadline")


# Agents of others, and limits.


async def test_an_agent_of_another_connection_cannot_be_used(
    api: LocalApi, router: FakeRouter, clients: Clients
) -> None:
    victim, thief = await clients.greeted(), await clients.greeted()
    agent = await victim.open("planner")
    own = await thief.open("mallory")
    unknown = Failed(0, "local.agent_unknown", "", None, Code.LOCAL_AGENT_UNKNOWN.remedy, agent)

    thief.send(
        tell(agent, request=7),
        Listen(agent, True),
        wire.Answer(agent, 1, b"", ""),
        wire.Refuse(agent, 1, ""),
        CloseAgent(8, agent),
        Flush(9, agent),
        tell(own, request=10),
    )

    requests = [7, 0, 0, 0, 8, 9]
    assert [await thief.next() for _ in requests] == [
        msgspec.structs.replace(unknown, request=request) for request in requests
    ]
    assert router.batches == [1]
    assert not router.agents[agent].listening


async def test_a_closed_agent_cannot_be_used(api: LocalApi, clients: Clients) -> None:
    client = await clients.greeted()
    agent = await client.open("planner")

    client.send(CloseAgent(2, agent), tell(agent, request=3))

    assert await client.next() == Receipt(2)
    failed = await client.next()
    assert isinstance(failed, Failed)
    assert (failed.request, failed.code) == (3, "local.agent_unknown")


async def test_too_large_a_body_fails_alone(
    api: LocalApi, router: FakeRouter, clients: Clients
) -> None:
    client = await clients.greeted()
    agent = await client.open("planner")

    body = b"x" * (MESSAGE_BYTES_MAX + 1)
    client.send(tell(agent), tell(agent, request=7, body=body), tell(agent))
    client.send(wire.Answer(agent, 1, body, ""))

    failures = [await client.next() for _ in range(4)]
    too_large = [f for f in failures if isinstance(f, Failed) and f.code == "message.too_large"]
    assert [(f.request, f.agent) for f in too_large] == [(7, agent), (0, agent)]
    assert router.batches == [2]


async def test_too_many_agents_on_a_connection_are_refused_and_may_be_given_up(
    path: Path, router: FakeRouter, clients: Clients
) -> None:
    limits = replace(DEFAULT_LIMITS, agents_per_connection_max=2)
    async with local_api(path, router, limits=limits):
        client = await clients.greeted()
        first, _ = await client.open("a"), await client.open("b", 2)

        client.send(OpenAgent(3, "c", {}))
        failed = await client.next()
        assert isinstance(failed, Failed)
        assert (failed.request, failed.code) == (3, "local.limit")

        client.send(CloseAgent(4, first))
        assert await client.next() == Receipt(4)
        await client.open("c", 5)
        await clients.close()


async def test_openings_under_way_count_as_agents_and_have_requests_of_their_own(
    path: Path, router: FakeRouter, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router, "open_agent", lambda *_arguments: None)
    limits = replace(DEFAULT_LIMITS, agents_per_connection_max=2)
    async with local_api(path, router, limits=limits):
        client = await clients.greeted()
        client.send(*(OpenAgent(i, "a", {}) for i in (1, 2, 3)))
        failed = await client.next()
        assert isinstance(failed, Failed)
        assert (failed.request, failed.code) == (3, "local.limit")

        client.send(OpenAgent(1, "a", {}))

        assert await client.last() == Goodbye("local.bad_request", 0)
        await clients.close()


async def test_a_refused_opening_counts_no_longer(
    path: Path, router: FakeRouter, clients: Clients
) -> None:
    limits = replace(DEFAULT_LIMITS, agents_per_connection_max=1)
    async with local_api(path, router, limits=limits):
        client = await clients.greeted()
        client.send(OpenAgent(1, "busy", {}))
        assert isinstance(await client.next(), Failed)

        await client.open("planner", 2)
        await clients.close()


# Batches and pressure.


async def test_consecutive_messages_reach_the_router_together_and_in_order(
    api: LocalApi, router: FakeRouter, clients: Clients
) -> None:
    client = await clients.greeted()
    agent = await client.open("planner")

    client.send(*[tell(agent)] * 5, Flush(2, agent), *[tell(agent)] * 3, Flush(3, agent))

    frames = [await client.next() for _ in range(10)]
    receipts = [i for i, frame in enumerate(frames) if isinstance(frame, Receipt)]
    assert receipts == [5, 9]  # Behind the failures of what was sent before them.
    assert router.batches == [5, 3]


async def test_answers_of_one_loop_turn_share_a_batch(
    api: LocalApi, router: FakeRouter, clients: Clients
) -> None:
    client = await clients.greeted()
    agent = await client.open("sink")

    client.send(*(tell(agent, request=i) for i in range(1, 101)))
    length = int.from_bytes(await client.reader.readexactly(4), "big")
    frames = server_frame_reader().feed_untrusted(
        length.to_bytes(4, "big") + await client.reader.readexactly(length)
    )

    assert frames == [Receipt(i) for i in range(1, 101)]


async def test_a_paused_connection_is_not_read_until_it_is_resumed(
    api: LocalApi, router: FakeRouter, clients: Clients
) -> None:
    client = await clients.greeted()
    agent = await client.open("planner")
    session = router.agents[agent].session
    session.pause()
    session.pause()

    client.send(Flush(2, agent))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await client.next()

    session.resume()
    assert await client.next() == Receipt(2)


async def test_a_slow_reader_is_not_written_to_and_loses_nothing(
    api: LocalApi, router: FakeRouter, clients: Clients
) -> None:
    slow, sender = await clients.greeted(), await clients.greeted()
    to = await slow.open("slow")
    agent = await sender.open("planner")
    slow.send(Listen(to, True), Flush(2, to))
    assert await slow.next() == Receipt(2)
    count, body = 200, b"x" * 100_000

    for _ in range(count):
        sender.send(tell(agent, uri("slow"), body=body))
    sender.send(Flush(3, agent))
    assert await sender.next() == Receipt(3)

    assert not router.agents[to].session.writable
    assert router.agents[to].mailbox
    received = [await slow.next() for _ in range(count)]
    deliveries = [frame.delivery for frame in received if isinstance(frame, Deliver)]
    assert len(deliveries) == count
    assert deliveries == sorted(deliveries)
    assert router.agents[to].session.writable


async def test_a_process_that_reads_no_answers_may_not_ask_for_more(
    path: Path, router: FakeRouter, clients: Clients
) -> None:
    limits = replace(DEFAULT_LIMITS, write_high_bytes=64 * 1024, write_low_bytes=16 * 1024)
    async with local_api(path, router, limits=limits):
        client = await clients.greeted()
        agent = await client.open("planner")
        session = router.agents[agent].session

        async def drain() -> None:
            while session.writable:
                client.send(*[tell(agent, request=1)] * 100)  # Each fails with a long text.
                await client.writer.drain()

        await drain()
        seen = len(router.batches)
        client.send(*[tell(agent, request=1)] * 100)
        await asyncio.sleep(0.02)
        assert len(router.batches) == seen

        while not session.writable or len(router.batches) == seen:
            assert isinstance(await client.next(), Failed)
        await clients.close()


async def test_a_router_that_overfills_a_slow_reader_loses_that_connection(
    path: Path, router: FakeRouter, clients: Clients
) -> None:
    async with local_api(path, router) as api:
        client = await clients.greeted()
        agent = await client.open("planner")
        session = router.agents[agent].session
        reply = Reply(1, b"x" * MESSAGE_BYTES_MAX, "", "", "", {})

        for _ in range(40):
            session.deliver([reply])

        assert api.goodbyes[Code.LOCAL_LIMIT] == 1
        assert not session.writable
        assert router.sessions_closed == 0  # It is told a turn later, not while it delivers.
        await until(lambda: router.sessions_closed == 1)
        assert router.agents == {}
        await clients.close()


async def test_more_than_a_batch_is_delivered_as_several(
    api: LocalApi, router: FakeRouter, clients: Clients
) -> None:
    client = await clients.greeted()
    agent = await client.open("planner")
    replies = [Reply(i, b"x" * MESSAGE_BYTES_MAX, "", "", "", {}) for i in range(1, 7)]

    router.agents[agent].session.deliver(replies)

    assert [await client.next() for _ in replies] == replies


# The end.


async def test_a_stopping_sidecar_says_when_to_come_back(
    path: Path, router: FakeRouter, clients: Clients
) -> None:
    api = LocalApi(router)
    await api.start(path)
    client = await clients.greeted()
    await client.open("planner")

    closing = asyncio.create_task(api.close(Code.LOCAL_DRAINING, 1500))

    assert await client.last() == Goodbye("local.draining", 1500)
    await client.close()
    await closing
    assert router.sessions_closed == 1
    assert api.sessions == set()


async def test_a_sidecar_that_drains_knows_when_nothing_new_can_come(
    path: Path, router: FakeRouter, clients: Clients
) -> None:
    api = LocalApi(router)
    await api.start(path)
    client = await clients.greeted()
    await client.open("planner")
    api.drain(1500)
    assert await client.next() == Draining(1500)
    before = api.may_send
    client.send(Leave())
    await until(lambda: not api.may_send)
    closing = asyncio.create_task(api.close())

    assert before
    assert isinstance(await client.last(), Goodbye)
    await client.close()
    await closing


async def test_while_it_drains_answers_pass_and_nobody_else_comes_in(
    path: Path, router: FakeRouter, clients: Clients
) -> None:
    api = LocalApi(router)
    await api.start(path)
    client = await clients.greeted()
    agent = await client.open("planner")
    silent = await clients.connect()
    await until(lambda: len(api.sessions) == 2)
    api.drain(1500)
    client.send(Leave(), Answer(agent, 7, b"late", "text/plain"))
    heard = [await client.next() for _ in range(2)]

    # The router has seen the answer: it knows of no such ask.
    assert heard == [Draining(1500), failure(0, Code.MESSAGE_EXPIRED, agent=agent)]
    assert await silent.last() == Goodbye("local.draining", 1500)
    with pytest.raises(OSError, match="No such file"):
        await clients.connect()
    await client.close()
    await api.close()


async def test_a_process_that_does_not_go_is_cut(
    path: Path, router: FakeRouter, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_GRACE_S", 0.02)
    api = LocalApi(router)
    await api.start(path)
    client = await clients.greeted()

    await api.close()

    assert api.sessions == set()
    assert await client.last() == Goodbye("local.draining", 0)


async def test_a_process_in_mid_write_still_reads_the_goodbye(
    api: LocalApi, router: FakeRouter, clients: Clients
) -> None:
    client = await clients.greeted()
    await client.open("planner")

    client.writer.write(prefixed(b"\xc1") + b"\0" * 3_000_000)

    assert await client.last() == Goodbye("local.bad_request", 0)


async def test_the_router_is_told_once_when_a_process_goes(
    api: LocalApi, router: FakeRouter, clients: Clients
) -> None:
    client = await clients.greeted()
    agent = await client.open("planner")
    session = router.agents[agent].session

    await client.close()
    await until(lambda: not api.sessions)

    assert router.sessions_closed == 1
    assert not session.writable
    session.deliver([Receipt(1)])
    session.agent_opened(Opened(9, 9, "", "", {}))
    session.agent_refused(failure(9, Code.LOCAL_INTERNAL))
    session.pause()
    session.resume()
    session.close(Code.LOCAL_INTERNAL)
    assert router.sessions_closed == 1


async def test_what_is_queued_when_a_process_goes_is_still_carried_out(
    api: LocalApi, router: FakeRouter, clients: Clients
) -> None:
    client = await clients.greeted()
    agent = await client.open("planner")

    client.send(*[tell(agent)] * 1000)
    await client.close()
    await until(lambda: not api.sessions)

    assert sum(router.batches) == 1000


def test_a_failure_carries_its_remedy_and_fits_the_wire() -> None:
    failed = failure(1, Code.POLICY_DENIED, "\ud800" + "x" * 10_000, rule="r", agent=2)

    assert failed.remedy == Code.POLICY_DENIED.remedy
    assert server_frame_reader().feed_untrusted(encode_batch([failed])) == [failed]


@pytest.mark.parametrize("code", list(Code), ids=lambda code: code.text)
def test_every_failure_fits_the_wire(code: Code) -> None:
    failed = failure(1, code)

    assert server_frame_reader().feed_untrusted(encode_batch([failed])) == [failed]


def test_a_system_without_peer_credentials_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("socket.SO_PEERCRED")

    with pytest.raises(LocalApiError) as caught:
        read_peer_credentials(asyncio.BaseTransport())

    assert caught.value.code is Code.LOCAL_UNAUTHORIZED
