"""A sidecar that is not there, dies, comes back, stays away, or talks nonsense."""

import asyncio
from pathlib import Path

import pytest
import sidelink

from identity import Code
from sidecar.local_port import PeerCredentials
from tests.sdk.fakes import WAIT_S, FakeRouter, answer_all, local_api, uri


async def test_there_is_no_sidecar(path: Path) -> None:
    with pytest.raises(sidelink.Unreachable) as caught:
        async with sidelink.connect(path):
            pass

    assert caught.value.code == "local.unavailable"
    assert str(path) in caught.value.message
    assert "sidelink up" in caught.value.remedy


@pytest.mark.usefixtures("soon_back")
async def test_a_sidecar_that_starts_later_is_waited_for_if_asked(path: Path) -> None:
    async def connect() -> str:
        async with sidelink.connect(path, wait_s=WAIT_S) as mesh:
            return mesh.trust_domain

    async with asyncio.timeout(WAIT_S):
        connecting = asyncio.create_task(connect())
        await asyncio.sleep(0)
        async with local_api(path, FakeRouter()):
            assert await connecting == "acme"


async def test_a_sidecar_that_does_not_start_in_time_is_not_there(path: Path) -> None:
    begun_s = asyncio.get_running_loop().time()

    with pytest.raises(sidelink.Unreachable) as caught:
        async with sidelink.connect(path, wait_s=0.06):
            pass

    assert 0.06 <= asyncio.get_running_loop().time() - begun_s < WAIT_S
    assert "sidelink up" in caught.value.remedy


async def test_a_sidecar_that_turns_a_program_away_is_not_waited_for(path: Path) -> None:
    def someone_else(_transport: asyncio.BaseTransport) -> PeerCredentials:
        return PeerCredentials(1, 65_534, 65_534)

    async with (
        asyncio.timeout(WAIT_S),
        local_api(path, FakeRouter(), peer_credentials=someone_else),
    ):
        with pytest.raises(sidelink.LocalError) as caught:
            async with sidelink.connect(path, wait_s=2 * WAIT_S):
                pass

    assert caught.value.code == "local.unauthorized"


async def test_a_path_that_is_too_long_for_a_socket_is_explained() -> None:
    with pytest.raises(sidelink.LocalError) as caught:
        async with sidelink.connect("/" + "x" * 107):
            pass

    assert caught.value.code == "config.invalid"


async def test_calls_in_flight_fail_with_unknown_outcome_when_the_sidecar_dies(
    path: Path, router: FakeRouter
) -> None:
    async with asyncio.timeout(WAIT_S):
        async with local_api(path, router) as api, sidelink.connect(path) as mesh:
            planner = await mesh.agent("planner")
            asking = asyncio.create_task(planner.ask(uri("silent"), 1))
            await router.asked_event.wait()
            planner.tell_nowait(uri("silent"), 1)
            for session in api.sessions:
                assert session._transport is not None
                session._transport.abort()

            with pytest.raises(sidelink.Unreachable) as in_flight:
                await asking
            with pytest.raises(sidelink.Unreachable) as unconfirmed:
                await planner.flush()

    assert in_flight.value.outcome_unknown
    assert unconfirmed.value.outcome_unknown


async def test_agents_are_back_when_the_sidecar_is(path: Path) -> None:
    seen = asyncio.Queue[object]()

    async def read(agent: sidelink.Agent) -> None:
        async for message in agent.inbox():
            seen.put_nowait(message.body)

    async with asyncio.timeout(WAIT_S):
        first = FakeRouter()
        async with local_api(path, first):
            mesh = await sidelink.connect(path).__aenter__()
            planner = await mesh.agent("planner", attributes={"n": 1})
            billing = await mesh.agent("billing")
            reading = asyncio.create_task(read(billing))
            await planner.tell(uri("billing"), "before")
            assert await seen.get() == "before"
        between = asyncio.create_task(planner.tell(uri("billing"), "between"))

        second = FakeRouter()
        # The sidecar may take a moment to notice that the old connection is gone.
        second.refused_names["planner"] = Code.LOCAL_AGENT_BUSY
        async with local_api(path, second):
            await billing.wait_connected()
            del second.refused_names["planner"]
            await planner.wait_connected()
            await planner.tell(uri("billing"), "after")
            assert [await seen.get(), await seen.get()] == ["between", "after"]
            await between
            assert {a.name: a.attributes for a in second.agents.values()} == {
                "planner": {"n": 1},
                "billing": {},
            }
            await mesh.__aexit__(None, None, None)
            await reading


async def test_a_message_of_an_earlier_connection_cannot_be_answered_on_a_later_one(
    path: Path, router: FakeRouter
) -> None:
    async with (
        asyncio.timeout(WAIT_S),
        local_api(path, router) as api,
        sidelink.connect(path) as mesh,
    ):
        planner, billing = await mesh.agent("planner"), await mesh.agent("billing")
        asking = asyncio.create_task(planner.ask(uri("billing"), 1))
        message = await anext(billing.inbox())
        for session in api.sessions:
            session.close(Code.LOCAL_DRAINING)
        with pytest.raises(sidelink.Unreachable):
            await asking
        await billing.wait_connected()

        with pytest.raises(sidelink.AskTimeout) as caught:
            await message.reply(1)

    assert caught.value.code == "message.expired"


async def test_an_agent_that_may_not_come_back_ends_with_the_reason(
    path: Path, router: FakeRouter
) -> None:
    async with (
        asyncio.timeout(WAIT_S),
        local_api(path, router) as api,
        sidelink.connect(path) as mesh,
    ):
        planner, _ = await mesh.agent("planner"), await mesh.agent("billing")
        reading = asyncio.create_task(answer_all(planner))
        await asyncio.sleep(0)
        router.refused_names["planner"] = Code.LOCAL_NAME_OUTSIDE_PREFIX
        for session in api.sessions:
            session.close(Code.LOCAL_DRAINING)

        with pytest.raises(sidelink.LocalError) as caught:
            await reading

        assert caught.value.code == "local.name_outside_prefix"
        with pytest.raises(sidelink.LocalError):
            await planner.tell(uri("billing"), 1)


async def test_a_sidecar_that_stays_away_ends_the_waiting(path: Path, router: FakeRouter) -> None:
    async with asyncio.timeout(WAIT_S):
        async with local_api(path, router):
            mesh = await sidelink.connect(path, reconnect_s_max=0.1).__aenter__()
            planner = await mesh.agent("planner")
            reading = asyncio.create_task(answer_all(planner))
            await asyncio.sleep(0)

        with pytest.raises(sidelink.Unreachable):
            await reading
        with pytest.raises(sidelink.Unreachable):
            await planner.tell(uri("x"), 1)
        with pytest.raises(sidelink.Unreachable):
            await mesh.agent("other")
        await mesh.__aexit__(None, None, None)


async def test_a_sidecar_that_talks_nonsense_is_left(path: Path) -> None:
    class Nonsense(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        def connection_lost(self, _error: Exception | None) -> None:
            left.set()

    left = asyncio.Event()
    path.parent.mkdir()
    server = await asyncio.get_running_loop().create_unix_server(Nonsense, path)
    async with server, asyncio.timeout(WAIT_S):
        with pytest.raises(sidelink.LocalError):
            async with sidelink.connect(path):
                pass
        await left.wait()
