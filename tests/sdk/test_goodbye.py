"""How connections end: what was under way is finished, repeated, or told of; never done twice."""

import asyncio
from pathlib import Path

import pytest
import sidelink
from sidelink import connection as connection_module
from sidelink.wire import ASK, TELL, Deliver, Draining, Failed, Goodbye, encode_batch

from tests.sdk.fakes import IDENTIFIER, WAIT_S, FakeRouter, local_api, uri
from tests.sdk.scripted import Ending, ScriptedSidecar, Visit, one_agent, scripted, until

pytestmark = pytest.mark.usefixtures("soon_back")

BILLING = uri("billing")
RAW = "application/octet-stream"


def tell(agent: sidelink.Agent, number: int) -> "asyncio.Future[None]":
    return asyncio.ensure_future(agent.tell(BILLING, b"%d" % number, content_type=RAW))


def ask(agent: sidelink.Agent, number: int) -> "asyncio.Future[sidelink.Reply]":
    return asyncio.ensure_future(agent.ask(BILLING, b"%d" % number, content_type=RAW))


def numbers(*wanted: int) -> list[bytes]:
    return [b"%d" % number for number in wanted]


# At every point of a batch.

POINTS = range(8)


async def send_in_three_ways(planner: sidelink.Agent) -> list[object]:
    """Six messages to one receiver in one batch; returns what became of the four calls."""
    calls: list[asyncio.Future[None] | asyncio.Future[sidelink.Reply]] = []
    for i in (0, 3):
        planner.tell_nowait(BILLING, b"%d" % i, content_type=RAW)
        calls += [tell(planner, i + 1), ask(planner, i + 2)]
        await asyncio.sleep(0)
    return await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.parametrize("after", POINTS)
async def test_a_sidecar_that_stops_in_good_order_at_any_point_of_a_batch_costs_no_error(
    path: Path, after: int
) -> None:
    visits = Visit(Ending.DRAINS, after), Visit(Ending.DRAINS, 1)
    async with one_agent(path, *visits) as (sidecar, _, planner):
        ends = await send_in_three_ways(planner)
        await planner.flush()
        ends += await send_in_three_ways(planner)
        await planner.flush()

    assert [end for end in ends if isinstance(end, BaseException)] == []
    assert sidecar.taken_for(BILLING) == 2 * numbers(*range(6))


@pytest.mark.parametrize("ending", Ending, ids=lambda ending: ending.value)
@pytest.mark.parametrize("after", POINTS)
async def test_a_sidecar_that_ends_at_any_point_of_a_batch_loses_nothing_in_silence(
    path: Path, ending: Ending, after: int
) -> None:
    async with one_agent(path, Visit(ending, after)) as (sidecar, _, planner):
        ends = await send_in_three_ways(planner)
        flushed = True
        try:
            await planner.flush()
        except sidelink.SidelinkError:
            flushed = False
        await planner.flush()

    taken = sidecar.taken_for(BILLING)
    assert taken == sorted(set(taken))
    for number, end in zip((1, 2, 4, 5), ends, strict=True):
        if not isinstance(end, BaseException):
            assert b"%d" % number in taken
        else:
            assert isinstance(end, sidelink.SidelinkError)
            assert end.outcome_unknown or b"%d" % number not in taken
    assert not flushed or {b"0", b"3"} <= set(taken)


async def test_a_sidecar_that_goes_again_while_the_line_is_sent_gets_the_rest_later(
    path: Path,
) -> None:
    visits = [Visit(Ending.DRAINS, after) for after in (0, 1000, 2000)]
    async with one_agent(path, *visits) as (sidecar, _, planner):
        for i in range(5000):
            planner.tell_nowait(BILLING, b"%05d" % i + bytes(1000), content_type=RAW)
        await planner.flush()

    assert [int(body[:5]) for body in sidecar.taken_for(BILLING)] == list(range(5000))
    assert len(sidecar.connections) > 2


# What had not left yet.


@pytest.mark.parametrize(
    "last_words", [encode_batch([Goodbye("local.draining")]), b"\0\0\0\0"], ids=["goodbye", "junk"]
)
async def test_what_has_not_left_when_the_connection_ends_goes_in_order_on_the_next(
    path: Path, last_words: bytes
) -> None:
    async with one_agent(path) as (sidecar, _, planner):
        connection = planner._outbox.direct
        assert connection is not None
        telling = tell(planner, 0)
        await asyncio.sleep(0)
        planner.tell_nowait(uri("other"), b"1", content_type=RAW)
        planner.tell_nowait(BILLING, b"2", content_type=RAW)
        flushing = asyncio.ensure_future(planner.flush())
        planner.tell_nowait(uri("other"), b"3", content_type=RAW)
        # In the loop turn in which all this was posted.
        connection.data_received(last_words)

        await telling
        await flushing

    assert sidecar.taken_for(BILLING) == numbers(0, 2)
    assert sidecar.taken_for(uri("other")) == numbers(1, 3)


async def test_an_answer_that_is_ready_when_the_sidecar_says_that_it_stops_still_goes(
    path: Path,
) -> None:
    async with one_agent(path) as (sidecar, _, planner):
        connection = planner._outbox.direct
        assert connection is not None
        number = planner._outbox.number
        inbox = planner.inbox()
        sidecar.connections[0].answer(
            Deliver(number, 7, ASK, BILLING, IDENTIFIER, {}, b"question", RAW, 1000)
        )
        message = await anext(inbox)
        sidecar.stays = True
        connection.data_received(encode_batch([Draining(0)]))
        await message.reply(b"answer", content_type=RAW)
        await until(lambda: sidecar.answers == [b"answer"])
        await until(lambda: not planner._outbox.unconfirmed)
        sidecar.connections[0].goodbye()
        await planner.flush()

    assert len(sidecar.connections) == 2


async def test_a_call_that_is_cancelled_as_its_turn_comes_is_not_sent(path: Path) -> None:
    async with one_agent(path) as (sidecar, _, planner):
        connection = planner._outbox.direct
        assert connection is not None
        connection.pause_writing()
        telling = tell(planner, 0)
        await asyncio.sleep(0)
        telling.cancel()
        connection.resume_writing()

        with pytest.raises(asyncio.CancelledError):
            await telling
        await planner.flush()

    assert sidecar.taken == []


# What was sent and had no answer.


async def test_a_flush_confirms_what_was_sent_before_it_and_no_more(path: Path) -> None:
    async with one_agent(path, Visit(Ending.CUTS, 2)) as (sidecar, _, planner):
        planner.tell_nowait(BILLING, b"before", content_type=RAW)
        flushing = asyncio.ensure_future(planner.flush())
        await asyncio.sleep(0)
        planner.tell_nowait(BILLING, b"behind", content_type=RAW)

        await flushing
        with pytest.raises(sidelink.Unreachable) as lost:
            await planner.flush()

    assert lost.value.outcome_unknown
    assert sidecar.taken_for(BILLING) == [b"before"]


async def test_a_flush_whose_connection_is_lost_tells_at_once_of_what_may_be_lost(
    path: Path,
) -> None:
    async with one_agent(path, Visit(Ending.CUTS, 1)) as (sidecar, _, planner):
        sidecar.refused_names["planner"] = "local.agent_busy"
        planner.tell_nowait(BILLING, 1)

        with pytest.raises(sidelink.Unreachable) as lost:
            await planner.flush(timeout=WAIT_S)

        assert not planner.connected
    assert lost.value.outcome_unknown


async def test_a_flush_that_has_nothing_to_confirm_survives_the_loss_of_its_connection(
    path: Path,
) -> None:
    async with one_agent(path, Visit(Ending.CUTS, 2)) as (sidecar, _, planner):
        planner.tell_nowait(BILLING, 1)
        await planner.flush()

        await planner.flush()

    assert len(sidecar.connections) == 2


async def test_an_answer_that_may_be_lost_is_told_of_by_flush(
    path: Path, router: FakeRouter
) -> None:
    async with (
        asyncio.timeout(WAIT_S),
        local_api(path, router) as api,
        sidelink.connect(path) as mesh,
    ):
        planner, billing = await mesh.agent("planner"), await mesh.agent("billing")
        asking = asyncio.ensure_future(planner.ask(BILLING, 1))
        message = await anext(billing.inbox())
        await message.reply(2)
        for session in api.sessions:
            assert session._transport is not None
            session._transport.abort()

        with pytest.raises(sidelink.Unreachable) as lost:
            await billing.flush()
        with pytest.raises(sidelink.Unreachable):
            await asking

    assert lost.value.outcome_unknown


async def test_an_opening_whose_connection_is_lost_is_tried_on_the_next(path: Path) -> None:
    async with one_agent(path) as (sidecar, mesh, _):
        opening = asyncio.ensure_future(mesh.agent("billing"))
        await asyncio.sleep(0)
        sidecar.connections[0].cut()

        await (await opening).tell(BILLING, 1)

    assert len(sidecar.connections) == 2


# A sidecar that refuses what is new before it says Goodbye.


@pytest.mark.parametrize("after", range(6))
async def test_calls_that_a_stopping_sidecar_refuses_go_first_on_the_next_connection(
    path: Path, after: int
) -> None:
    async with one_agent(path, Visit(Ending.REFUSES, after)) as (sidecar, _, planner):
        calls = [tell(planner, i) if i % 2 else ask(planner, i) for i in range(6)]
        await until(lambda: not planner.connected)
        planner.tell_nowait(BILLING, b"6", content_type=RAW)

        await asyncio.gather(*calls)
        await planner.flush()

    assert sidecar.taken_for(BILLING) == numbers(*range(7))


async def test_an_opening_that_a_stopping_sidecar_refuses_is_repeated_on_the_next_connection(
    path: Path,
) -> None:
    async with one_agent(path) as (sidecar, mesh, _):
        sidecar.refused_names["billing"] = "local.draining"
        opening = asyncio.ensure_future(mesh.agent("billing"))
        await until(lambda: not mesh.connected)
        del sidecar.refused_names["billing"]
        sidecar.connections[0].goodbye()

        await (await opening).tell(BILLING, 1)

    assert len(sidecar.connections) == 2


async def test_a_refused_call_that_is_cancelled_is_not_repeated(path: Path) -> None:
    async with one_agent(path, Visit(Ending.REFUSES, 0)) as (sidecar, _, planner):
        telling = tell(planner, 0)
        await until(lambda: not planner.connected)
        telling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await telling

        assert planner._outbox._refused == {}
        await planner.flush()

    assert sidecar.taken == []


async def test_a_refused_call_of_an_agent_that_is_closed_meanwhile_ends_with_it(
    path: Path,
) -> None:
    async with one_agent(path, Visit(Ending.REFUSES, 0)) as (_, _, planner):
        telling = tell(planner, 0)
        await asyncio.sleep(0)
        await planner.close()

        with pytest.raises(sidelink.LocalError) as closed:
            await telling

    assert closed.value.code == "local.agent_unknown"


async def test_one_refused_message_holds_those_that_follow(path: Path) -> None:
    async with one_agent(path, Visit(Ending.REFUSES, 0)) as (sidecar, _, planner):
        sidecar.refuses_s = WAIT_S
        planner.tell_nowait(BILLING, b"0", content_type=RAW)
        await until(lambda: not planner.writable)
        planner.tell_nowait(BILLING, b"1", content_type=RAW)
        sidecar.connections[0].goodbye()

        with pytest.raises(sidelink.Unreachable) as refused:
            await planner.flush()

    assert refused.value.code == "local.draining"
    assert sidecar.taken_for(BILLING) == [b"1"]


# When the next connection is made.


async def test_a_sidecar_is_given_the_time_that_it_announced(path: Path) -> None:
    async with one_agent(path) as (sidecar, _, planner):
        begun_s = asyncio.get_running_loop().time()
        sidecar.connections[0].goodbye(delay_ms=100)
        await until(lambda: not planner.connected)

        await planner.wait_connected()

        assert asyncio.get_running_loop().time() - begun_s >= 0.1


@pytest.mark.parametrize("ending", [Ending.DRAINS, Ending.REFUSES], ids=lambda e: e.value)
async def test_the_next_connection_waits_for_the_end_of_the_one_before(
    path: Path, ending: Ending
) -> None:
    visits = Visit(Ending.CUTS, 0), Visit(ending, 0)
    async with one_agent(path, *visits) as (sidecar, mesh, planner):
        await mesh.agent("billing")
        sidecar.stays, sidecar.refuses_s = True, WAIT_S
        # One agent is not back yet, so the mesh goes on trying.
        sidecar.refused_names["billing"] = "local.agent_busy"
        sidecar.connections[0].cut()
        await until(lambda: not planner.connected)
        telling = tell(planner, 0)
        await until(lambda: len(sidecar.connections) == 2)
        await until(lambda: sidecar.connections[1].is_ending)
        opened = len(sidecar.opened)
        tried_s = asyncio.get_running_loop().time() + 0.05
        await until(lambda: asyncio.get_running_loop().time() > tried_s)
        assert len(sidecar.opened) == opened
        assert len(sidecar.connections) == 2

        sidecar.connections[1].cut()
        await telling
        await planner.wait_connected()

        assert len(sidecar.connections) == 3


async def test_a_sidecar_that_refuses_everything_and_stays_is_left(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "DRAIN_WAIT_S", 0.02)
    async with one_agent(path, Visit(Ending.REFUSES, 0)) as (sidecar, _, planner):
        sidecar.refuses_s = WAIT_S

        await planner.tell(BILLING, 1)

    assert len(sidecar.connections) == 2
    assert len(sidecar.taken) == 1


async def test_a_sidecar_that_goes_right_behind_its_welcome_is_looked_for_again(path: Path) -> None:
    async with asyncio.timeout(WAIT_S), scripted(path, ScriptedSidecar()) as sidecar:
        welcome = sidecar.greeting[0]
        sidecar.greeting = [welcome, Goodbye("local.internal")]
        async with sidelink.connect(path) as mesh:
            sidecar.greeting = [welcome]
            planner = await mesh.agent("planner")
            await planner.tell(BILLING, 1)

    assert len(sidecar.connections) == 2


# What comes at the end.


async def test_what_stands_behind_a_goodbye_for_good_is_not_heeded(path: Path) -> None:
    async with one_agent(path) as (sidecar, _, planner):
        sidecar.connections[0].answer(
            Goodbye("local.internal"), Failed(0, "policy.denied", agent=planner._outbox.number)
        )
        await until(lambda: not planner.connected)

        await planner.tell(BILLING, 1)
        await planner.flush()

    assert len(sidecar.connections) == 2


async def test_what_is_delivered_while_a_sidecar_drains_is_read(path: Path) -> None:
    async with one_agent(path) as (sidecar, _, planner):
        sidecar.stays = True
        sidecar.connections[0].answer(Draining(0))
        reading = asyncio.ensure_future(anext(planner.inbox()))
        await until(lambda: not planner.connected)
        sidecar.connections[0].answer(
            Deliver(planner._outbox.number, 1, TELL, BILLING, IDENTIFIER, {}, b"last", RAW, 0)
        )

        assert (await reading).body == b"last"
