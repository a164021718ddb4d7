"""What an agent's program sees of a sidecar that restarts: calls that take longer, and no error."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import sidelink
from sidelink import outbox as outbox_module

from tests.sdk.fakes import WAIT_S, FakeRouter, answer_all, local_api, uri
from tests.sdk.scripted import ScriptedSidecar, one_agent, scripted, until

pytestmark = pytest.mark.usefixtures("soon_back")

BILLING = uri("billing")
RAW = "application/octet-stream"


@contextlib.asynccontextmanager
async def away(path: Path) -> AsyncIterator[tuple[sidelink.Mesh, sidelink.Agent]]:
    """A mesh with one agent, whose sidecar has just gone."""
    async with asyncio.timeout(WAIT_S), contextlib.AsyncExitStack() as stack:
        async with scripted(path, ScriptedSidecar()) as sidecar:
            mesh = await stack.enter_async_context(sidelink.connect(path))
            planner = await mesh.agent("planner")
            await planner.flush()
            sidecar.connections[0].goodbye()
            await until(lambda: not planner.connected)
        yield mesh, planner


CALLS: dict[str, Callable[[sidelink.Agent, float], Awaitable[object]]] = {
    "an ask": lambda agent, timeout_s: agent.ask(BILLING, b"1", timeout=timeout_s),
    "a tell": lambda agent, timeout_s: agent.tell(BILLING, b"1", timeout=timeout_s),
    "a flush": lambda agent, timeout_s: agent.flush(timeout=timeout_s),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


@each_call
async def test_a_call_made_while_the_sidecar_is_away_waits_for_it(
    path: Path, call: Callable[[sidelink.Agent, float], Awaitable[object]]
) -> None:
    async with away(path) as (_, planner):
        calling = asyncio.ensure_future(call(planner, 5.0))
        await asyncio.sleep(0)
        async with scripted(path, ScriptedSidecar()):
            await calling


@each_call
async def test_a_call_that_waits_in_vain_was_certainly_not_sent(
    path: Path, call: Callable[[sidelink.Agent, float], Awaitable[object]]
) -> None:
    async with away(path) as (_, planner):
        with pytest.raises(sidelink.Unreachable) as caught:
            await call(planner, 0.01)

        async with scripted(path, ScriptedSidecar()) as sidecar:
            await planner.flush()

    assert not caught.value.outcome_unknown
    assert "not sent" in caught.value.message
    assert "sidelink up" in caught.value.remedy
    assert sidecar.taken == []


@each_call
async def test_a_cancelled_call_leaves_nothing_in_line(
    path: Path, call: Callable[[sidelink.Agent, float], Awaitable[object]]
) -> None:
    async with away(path) as (mesh, planner):
        calling = asyncio.ensure_future(call(planner, 5.0))
        await asyncio.sleep(0)
        assert len(planner._outbox._line) == mesh._backlog.calls == 1
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling

        assert len(planner._outbox._line) == mesh._backlog.calls == 0
        async with scripted(path, ScriptedSidecar()) as sidecar:
            await planner.flush()

    assert sidecar.taken == []


async def test_what_is_sent_while_away_goes_in_order_and_before_anything_newer(path: Path) -> None:
    async with away(path) as (_, planner):
        calls: list[asyncio.Future[object]] = []
        for i in range(0, 30, 3):
            planner.tell_nowait(BILLING, b"%d" % i, content_type=RAW)
            calls.append(
                asyncio.ensure_future(planner.tell(BILLING, b"%d" % (i + 1), content_type=RAW))
            )
            calls.append(
                asyncio.ensure_future(planner.ask(BILLING, b"%d" % (i + 2), content_type=RAW))
            )
            await asyncio.sleep(0)
        async with scripted(path, ScriptedSidecar()) as sidecar:
            await planner.wait_connected()
            planner.tell_nowait(BILLING, b"30", content_type=RAW)
            await asyncio.gather(*calls)
            await planner.flush()

    assert sidecar.taken_for(BILLING) == [b"%d" % i for i in range(31)]


async def test_a_flush_while_away_confirms_what_was_queued_before_it(path: Path) -> None:
    async with away(path) as (_, planner):
        for i in range(100):
            planner.tell_nowait(uri(f"r{i % 3}"), i)
        flushing = asyncio.ensure_future(planner.flush())
        await asyncio.sleep(0)
        async with scripted(path, ScriptedSidecar()) as sidecar:
            await flushing

            assert len(sidecar.taken) == 100


async def test_the_time_in_line_is_taken_from_the_time_of_an_ask(path: Path) -> None:
    async with away(path) as (_, planner):
        asking = asyncio.ensure_future(planner.ask(BILLING, 1, timeout=5))
        await asyncio.sleep(0.02)
        async with scripted(path, ScriptedSidecar()) as sidecar:
            await asking

    assert 0 < sidecar.timeouts_ms[0] <= 4980


async def test_what_waits_is_bounded_for_all_agents_together_and_has_room_again_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "UNSENT_BYTES_MAX", 10_000)
    async with asyncio.timeout(WAIT_S), contextlib.AsyncExitStack() as stack:
        async with scripted(path, ScriptedSidecar()) as sidecar:
            mesh = await stack.enter_async_context(sidelink.connect(path))
            agents = [await mesh.agent("a"), await mesh.agent("b")]
            sidecar.connections[0].goodbye()
            await until(lambda: not mesh.connected)

        counts = []
        for agent in agents:
            sent = 0
            with contextlib.suppress(sidelink.MailboxFull):
                while True:
                    agent.tell_nowait(
                        BILLING, b"x" * (4000 if agent is agents[0] else 1), content_type=RAW
                    )
                    sent += 1
            counts.append(sent)
        assert counts[0] == 2
        assert 10 < counts[1] < 200

        async with scripted(path, ScriptedSidecar()) as sidecar:
            await agents[0].flush()
            await agents[1].flush()
            assert mesh._backlog.unsent_bytes == 0
            agents[1].tell_nowait(BILLING, b"")

    assert len(sidecar.taken) >= sum(counts)


async def test_a_producer_that_heeds_writable_waits_for_the_sidecar(path: Path) -> None:
    async def produce(agent: sidelink.Agent) -> None:
        for i in range(10):
            agent.tell_nowait(BILLING, b"%d" % i, content_type=RAW)
            if not agent.writable:
                await agent.wait_writable()

    async with away(path) as (mesh, planner):
        producing = asyncio.ensure_future(produce(planner))
        await asyncio.sleep(0)
        assert not producing.done()
        assert mesh._backlog.unsent_bytes < 100
        async with scripted(path, ScriptedSidecar()) as sidecar:
            await producing
            await planner.flush()

    assert sidecar.taken_for(BILLING) == [b"%d" % i for i in range(10)]


async def test_an_agent_that_is_opened_while_the_sidecar_is_away_waits_for_it(path: Path) -> None:
    async with away(path) as (mesh, _):
        opening = asyncio.ensure_future(mesh.agent("billing"))
        await asyncio.sleep(0)
        async with scripted(path, ScriptedSidecar()) as sidecar:
            billing = await opening
            await billing.tell(uri("planner"), b"hello", content_type=RAW)

    assert sidecar.taken == [(uri("planner"), b"hello")]


async def test_an_opening_that_waits_in_vain_or_is_cancelled_leaves_nothing(path: Path) -> None:
    async with away(path) as (mesh, planner):
        with pytest.raises(sidelink.Unreachable) as caught:
            await mesh.agent("late", timeout=0.01)
        opening = asyncio.ensure_future(mesh.agent("cancelled"))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

        router = FakeRouter()
        async with local_api(path, router):
            await planner.flush()
            assert [agent.name for agent in router.agents.values()] == ["planner"]

    assert "sidelink up" in caught.value.remedy


async def test_nothing_that_waits_has_a_task_of_its_own(path: Path) -> None:
    async with away(path) as (_, planner):
        before = len(asyncio.all_tasks())
        for i in range(1000):
            planner.tell_nowait(BILLING, i)
        assert len(asyncio.all_tasks()) == before

        async with scripted(path, ScriptedSidecar()):
            await planner.flush()


async def test_an_inbox_keeps_what_it_has_and_goes_on(path: Path) -> None:
    async with asyncio.timeout(WAIT_S), contextlib.AsyncExitStack() as stack:
        async with local_api(path, FakeRouter()):
            mesh = await stack.enter_async_context(sidelink.connect(path))
            # In this order, for the fake keeps no mailbox for an agent that is not open yet.
            billing, planner = await mesh.agent("billing"), await mesh.agent("planner")
            inbox = billing.inbox()
            for i in range(10):
                planner.tell_nowait(BILLING, i)
            await planner.flush()
            seen = [(await anext(inbox)).body for _ in range(3)]
        for i in range(10, 20):
            planner.tell_nowait(BILLING, i)
        async with local_api(path, FakeRouter()):
            seen += [(await anext(inbox)).body for _ in range(17)]

    assert seen == list(range(20))


# It ends.


async def test_when_the_sidecar_stays_away_what_waited_is_told_of_as_not_sent(path: Path) -> None:
    async with asyncio.timeout(WAIT_S):
        async with scripted(path, ScriptedSidecar()):
            mesh = await sidelink.connect(path, reconnect_s_max=0.05).__aenter__()
            planner = await mesh.agent("planner")
        await until(lambda: not planner.connected)
        waiting = [
            asyncio.ensure_future(waits)
            for waits in (
                answer_all(planner),
                planner.ask(BILLING, 1),
                planner.tell(BILLING, 1),
                planner.wait_writable(),
                planner.wait_connected(),
                mesh.agent("other"),
            )
        ]
        for i in range(5):
            planner.tell_nowait(uri(f"r{i % 2}"), i)

        with pytest.raises(sidelink.Unreachable) as not_sent:
            await planner.flush()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        for over in (planner.flush(), planner.tell(BILLING, 1), mesh.agent("another")):
            with pytest.raises(sidelink.Unreachable):
                await over
        with pytest.raises(sidelink.Unreachable):
            planner.tell_nowait(BILLING, 1)
        await mesh.__aexit__(None, None, None)

    assert [type(end) for end in ends] == [sidelink.Unreachable] * 6
    assert "not sent" in not_sent.value.message
    assert not not_sent.value.outcome_unknown
    assert not_sent.value.__notes__ == ["and 4 further failures since the last flush"]
    assert mesh._backlog.unsent_bytes == mesh._backlog.calls == 0


async def test_when_an_agent_may_not_come_back_what_waited_ends_with_it(path: Path) -> None:
    async with away(path) as (mesh, planner):
        planner.tell_nowait(BILLING, 1)
        telling = asyncio.ensure_future(planner.tell(BILLING, 2))
        await asyncio.sleep(0)
        sidecar = ScriptedSidecar()
        sidecar.refused_names["planner"] = "local.name_outside_prefix"
        async with scripted(path, sidecar):
            with pytest.raises(sidelink.LocalError) as refused:
                await telling
            with pytest.raises(sidelink.Unreachable) as not_sent:
                await planner.flush()
            with pytest.raises(sidelink.LocalError):
                await planner.flush()

    assert refused.value.code == "local.name_outside_prefix"
    assert "not sent" in not_sent.value.message
    assert sidecar.taken == []
    assert mesh._backlog.unsent_bytes == 0


async def test_closing_an_agent_while_the_sidecar_is_away_ends_what_waits(path: Path) -> None:
    async with away(path) as (mesh, planner):
        planner.tell_nowait(BILLING, 1)
        telling = asyncio.ensure_future(planner.tell(BILLING, 2))
        await asyncio.sleep(0)

        await planner.close()

        with pytest.raises(sidelink.LocalError) as closed:
            await telling
        with pytest.raises(sidelink.Unreachable) as not_sent:
            await planner.flush()

    assert closed.value.code == "local.agent_unknown"
    assert "not sent" in not_sent.value.message
    assert mesh._backlog.unsent_bytes == 0


async def test_a_sidecar_that_goes_while_an_agent_is_closed_is_no_error(path: Path) -> None:
    async with one_agent(path) as (sidecar, _, planner):
        closing = asyncio.ensure_future(planner.close())
        await asyncio.sleep(0)
        sidecar.connections[0].cut()

        await closing


async def test_closing_an_agent_sends_what_waits_for_a_slow_sidecar(path: Path) -> None:
    async with one_agent(path) as (sidecar, _, planner):
        connection = planner._outbox.direct
        assert connection is not None
        connection.pause_writing()
        planner.tell_nowait(BILLING, b"0", content_type=RAW)
        assert sidecar.taken == []

        await planner.close()

    assert sidecar.taken_for(BILLING) == [b"0"]


async def test_calls_that_wait_are_bounded_for_all_agents_together(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "CALLS_MAX", 2)
    async with one_agent(path) as (_, mesh, planner):
        other = await mesh.agent("other")
        calls = [asyncio.ensure_future(agent.tell(BILLING, 1)) for agent in (planner, other)]
        await asyncio.sleep(0)
        with pytest.raises(sidelink.MailboxFull) as full:
            await planner.tell(BILLING, 1)

        await asyncio.gather(*calls)
        await planner.tell(BILLING, 1)

    assert full.value.code == "message.queue_full"
