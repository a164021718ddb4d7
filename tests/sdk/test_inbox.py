"""An agent's inbox: in order, whole, and held back while nobody reads it."""

import asyncio
from pathlib import Path

import pytest
import sidelink
from sidelink import wire
from sidelink.inbox import INBOX_MESSAGES_HARD, INBOX_MESSAGES_HIGH, INBOX_MESSAGES_LOW

from tests.sdk.fakes import IDENTIFIER, FakeRouter, answer_all, uri
from tests.sdk.scripted import one_agent


async def test_breaking_off_an_inbox_loses_no_message(mesh: sidelink.Mesh) -> None:
    planner, billing = await mesh.agent("planner"), await mesh.agent("billing")
    for i in range(10):
        planner.tell_nowait(uri("billing"), i)

    seen = []
    for _ in range(5):
        async for message in billing.inbox():
            seen.append(message.body)
            if len(seen) % 2 == 0:
                break

    assert seen == list(range(10))


async def test_the_messages_of_a_run_come_in_order_among_others(path: Path) -> None:
    async with one_agent(path) as (sidecar, _, billing):
        inbox, number = billing.inbox(), billing._outbox.number
        sidecar.connections[0].answer(
            wire.DeliverRun(number, uri("a"), IDENTIFIER, {}, "a/b", [b"0", b"1", b"2"]),
            wire.Deliver(number, 7, wire.ASK, uri("b"), IDENTIFIER, {}, b"3", "a/b", 1000),
            wire.Deliver(number, 8, wire.TELL, uri("a"), IDENTIFIER, {}, b"4", "a/b", 0),
            wire.DeliverRun(number, uri("a"), IDENTIFIER, {}, "a/b", [b"5"]),
        )

        messages = [await anext(inbox) for _ in range(6)]

    assert [message.body for message in messages] == [b"%d" % i for i in range(6)]
    assert [message.kind for message in messages] == ["tell"] * 3 + ["ask"] + ["tell"] * 2
    assert [message.sender for message in messages] == [uri("a")] * 3 + [uri("b")] + [uri("a")] * 2
    assert messages[3].deadline_s is not None
    assert not any(message.deadline_s for message in messages if message.kind == "tell")


async def test_a_long_run_that_is_read_slowly_is_held_back_and_goes_on_at_the_low_mark(
    path: Path,
) -> None:
    async with one_agent(path) as (sidecar, _, billing):
        inbox, number = billing.inbox(), billing._outbox.number
        bodies = [b"%d" % i for i in range(INBOX_MESSAGES_HIGH + 1)]
        sidecar.connections[0].answer(
            wire.DeliverRun(number, uri("a"), IDENTIFIER, {}, "a/b", bodies)
        )
        seen = [await anext(inbox) for _ in range(INBOX_MESSAGES_HIGH - INBOX_MESSAGES_LOW)]
        await billing.flush()
        assert sidecar.listens == [True, False]

        seen += [await anext(inbox) for _ in range(2)]
        await billing.flush()

        assert sidecar.listens == [True, False, True]
        assert [message.body for message in seen] == bodies[: len(seen)]


async def test_an_inbox_that_nobody_reads_is_held_back_and_loses_nothing(
    mesh: sidelink.Mesh, router: FakeRouter
) -> None:
    planner, billing = await mesh.agent("planner"), await mesh.agent("billing")
    inbox = billing.inbox()
    await planner.tell(uri("billing"), -1)
    assert (await anext(inbox)).body == -1

    count = 4 * INBOX_MESSAGES_HIGH
    for i in range(count):
        planner.tell_nowait(uri("billing"), i)
        if i % 64 == 0:
            await planner.flush()
    await planner.flush()

    assert len(billing._seat.inbox) < 2 * INBOX_MESSAGES_HIGH
    assert [(await anext(inbox)).body for _ in range(count)] == list(range(count))


async def test_a_handler_may_ask_while_its_inbox_is_held_back(mesh: sidelink.Mesh) -> None:
    planner, billing = await mesh.agent("planner"), await mesh.agent("billing")
    helper = await mesh.agent("helper")
    helping = asyncio.create_task(answer_all(helper))
    inbox = billing.inbox()
    for i in range(3 * INBOX_MESSAGES_HIGH):
        planner.tell_nowait(uri("billing"), i)
    await planner.flush()
    await anext(inbox)
    assert billing._seat.inbox._held_back

    reply = await billing.ask(uri("helper"), "help")

    assert reply.body == {"you said": "help"}
    helping.cancel()


async def test_beyond_the_hard_mark_nothing_more_is_read_until_the_inbox_drains(
    mesh: sidelink.Mesh, router: FakeRouter
) -> None:
    planner, billing = await mesh.agent("planner"), await mesh.agent("billing")
    inbox = billing.inbox()
    await planner.tell(uri("billing"), "first")
    await anext(inbox)
    connection = billing._outbox.direct
    assert connection is not None
    frame = wire.Deliver(
        billing._outbox.number,
        1,
        wire.TELL,
        uri("x"),
        IDENTIFIER,
        {},
        b"\x01",
        "application/msgpack",
        0,
    )

    # A sidecar that does not heed Listen.
    for _ in range(INBOX_MESSAGES_HARD):
        billing._seat.delivered(connection, frame)
    assert connection._holders == {billing._seat.inbox}
    for _ in range(INBOX_MESSAGES_HARD):
        await anext(inbox)

    assert connection._holders == set()
    await planner.tell(uri("billing"), "last")
    assert (await anext(inbox)).body == "last"


async def test_a_sender_waits_for_a_sidecar_that_reads_slowly(
    mesh: sidelink.Mesh, router: FakeRouter
) -> None:
    planner, _ = await mesh.agent("planner"), await mesh.agent("billing")
    [session] = {agent.session for agent in router.agents.values()}
    session.pause()
    body = b"x" * 1024 * 1024

    while planner.writable:
        planner.tell_nowait(uri("billing"), body, content_type="a/b")
    waiting = asyncio.create_task(planner.wait_writable())
    await asyncio.sleep(0)
    assert not waiting.done()
    with pytest.raises(sidelink.MailboxFull) as caught:  # noqa: PT012
        while True:
            planner.tell_nowait(uri("billing"), body, content_type="a/b")
    assert caught.value.code == "message.queue_full"
    with pytest.raises(sidelink.MailboxFull):
        await planner.tell(uri("billing"), 1, timeout=0.01)

    session.resume()
    await waiting
    await planner.flush()
