"""Tell, ask and reply between agents of two sidecars, through a gateway, as the SDK shows them."""

import asyncio
import json
import os
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import sidelink
from sidelink.agent import INBOX_MESSAGES_HIGH

from tests.mesh.meshes import Mesh
from tests.mesh.programs import SIDELINK, WAIT_S, run_sidelink

pytestmark = pytest.mark.mesh

MIB = 1 << 20


@pytest.fixture(autouse=True)
async def deadline() -> AsyncIterator[None]:
    async with asyncio.timeout(WAIT_S):
        yield


@asynccontextmanager
async def answering(agent: sidelink.Agent, answer: Any = None) -> AsyncIterator[list[Any]]:
    """The agent replies to every ask with what ``answer`` makes of it; yields what it has got."""
    seen: list[sidelink.Message] = []
    listening = asyncio.Event()

    async def serve() -> None:
        inbox = agent.inbox()
        listening.set()
        async for message in inbox:
            seen.append(message)
            if message.kind == "ask":
                await message.reply({"ok": True} if answer is None else answer(message))

    task = asyncio.create_task(serve())
    await listening.wait()
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_ask_is_answered_and_both_sides_see_who_the_other_is_proved_to_be(
    mesh_a: sidelink.Mesh, mesh_b: sidelink.Mesh
) -> None:
    attributes = {"role": "planner", "clearance": 2, "teams": ("red", "blue")}
    planner = await mesh_a.agent("finance/planner", attributes=attributes)
    main = await mesh_b.agent("billing/main", attributes={"role": "clerk"})

    async with answering(main) as seen:
        reply = await planner.ask("agent://acme/billing/main", {"invoice": 7}, timeout=10)

    assert reply.body == {"ok": True}
    assert (reply.sender, reply.sender_identifier) == ("agent://acme/billing/main", main.identifier)
    assert dict(reply.attributes) == {"role": "clerk"}
    (ask,) = seen
    assert (ask.kind, ask.body) == ("ask", {"invoice": 7})
    assert (ask.sender, ask.sender_identifier) == (
        "agent://acme/finance/planner",
        planner.identifier,
    )
    assert dict(ask.attributes) == attributes
    assert planner.identifier.startswith("sl1")


async def test_a_tell_arrives_with_its_sender(mesh_a: sidelink.Mesh, mesh_b: sidelink.Mesh) -> None:
    teller = await mesh_a.agent("finance/teller", attributes={"role": "teller"})
    told = await mesh_b.agent("billing/told")

    await teller.tell(told.uri, "hello")
    message = await anext(told.inbox())

    assert (message.kind, message.body, message.sender) == ("tell", "hello", teller.uri)
    assert dict(message.attributes) == {"role": "teller"}


async def test_a_handler_may_ask_back_while_it_answers(
    mesh_a: sidelink.Mesh, mesh_b: sidelink.Mesh
) -> None:
    first = await mesh_a.agent("finance/first")
    second = await mesh_b.agent("billing/second")

    async def answer_by_asking() -> None:
        async for message in second.inbox():
            back = await second.ask(message.sender, "who are you", timeout=10)
            await message.reply(back.body)

    async with answering(first, lambda message: f"I am {message.agent.name}"):
        task = asyncio.create_task(answer_by_asking())
        reply = await first.ask(second.uri, "ask me", timeout=10)
        task.cancel()

    assert reply.body == "I am finance/first"


async def test_agents_of_one_sidecar_talk_without_the_gateway(
    shared_mesh: Mesh, mesh_a: sidelink.Mesh
) -> None:
    left = await mesh_a.agent("finance/left", attributes={"role": "left"})
    right = await mesh_a.agent("finance/right")
    relayed = await asyncio.to_thread(settled_frames, shared_mesh)

    async with answering(right) as seen:
        reply = await left.ask(right.uri, "near", timeout=10)

    assert (reply.body, reply.sender) == ({"ok": True}, right.uri)
    assert dict(seen[0].attributes) == {"role": "left"}
    assert await asyncio.to_thread(settled_frames, shared_mesh) == relayed


async def test_a_body_of_the_largest_size_makes_the_round_trip(
    mesh_a: sidelink.Mesh, mesh_b: sidelink.Mesh
) -> None:
    body, content_type = os.urandom(MIB), "application/octet-stream"
    sender = await mesh_a.agent("finance/large")
    echo = await mesh_b.agent("billing/echo")

    async def answer() -> None:
        message = await anext(echo.inbox())
        await message.reply(message.body, content_type=content_type)

    answering = asyncio.create_task(answer())
    reply = await sender.ask(echo.uri, body, timeout=20, content_type=content_type)
    await answering

    assert reply.body == body


async def test_a_body_beyond_the_largest_size_is_refused_before_it_leaves(
    mesh_a: sidelink.Mesh,
) -> None:
    sender = await mesh_a.agent("finance/too-large")

    with pytest.raises(sidelink.BodyError) as refused:
        await sender.tell("agent://acme/billing/echo", bytes(MIB + 1))

    assert refused.value.code == "message.too_large"


async def test_two_thousand_tells_arrive_in_their_order(
    mesh_a: sidelink.Mesh, mesh_b: sidelink.Mesh
) -> None:
    count = 2_000
    sender = await mesh_a.agent("finance/counter")
    reader = await mesh_b.agent("billing/counter")
    inbox = reader.inbox()
    await sender.tell(reader.uri, "first")
    assert (await anext(inbox)).body == "first"

    for number in range(count):
        sender.tell_nowait(reader.uri, number)
    await sender.flush()
    got = [(await anext(inbox)).body for _ in range(count)]

    assert got == list(range(count))


@pytest.mark.parametrize(("count", "body_bytes"), [(2_000, 32 << 10), (40_000, 100)])
async def test_a_slow_reader_stops_its_sender_and_loses_nothing(
    count: int, body_bytes: int, mesh_a: sidelink.Mesh, mesh_b: sidelink.Mesh
) -> None:
    """More than mailbox, windows and sockets hold together, in large messages and in small ones."""
    sender = await mesh_a.agent("finance/fast")
    reader = await mesh_b.agent(f"billing/slow-{body_bytes}")
    inbox = reader.inbox()
    await sender.tell(reader.uri, "first")
    assert (await anext(inbox)).body == "first"
    sent = 0

    async def send() -> None:
        nonlocal sent
        for number in range(count):
            if not sender.writable:
                await sender.wait_writable()
            sender.tell_nowait(reader.uri, [number, bytes(body_bytes)])
            sent += 1
            if number % 16 == 0:
                await asyncio.sleep(0)
        await sender.flush()

    sending = asyncio.create_task(send())
    held_at = await settled(lambda: sent)
    assert held_at < count, "nothing stopped the sender"
    got = [(await anext(inbox)).body[0] for _ in range(count)]
    await sending

    assert got == list(range(count))


async def test_asks_that_wait_for_a_slow_reader_are_answered_and_not_rejected(
    mesh_a: sidelink.Mesh, mesh_b: sidelink.Mesh
) -> None:
    """More than an inbox takes before it is held back."""
    count = INBOX_MESSAGES_HIGH + 500
    sender = await mesh_a.agent("finance/many")
    reader = await mesh_b.agent("billing/busy")
    asks = [asyncio.create_task(sender.ask(reader.uri, i, timeout=20)) for i in range(count)]
    inbox = reader.inbox()
    messages = [await anext(inbox)]
    await asyncio.sleep(0.5)

    while len(messages) < count:
        messages.append(await anext(inbox))
    for message in messages:
        await message.reply(message.body)
    replies = await asyncio.gather(*asks)

    assert [reply.body for reply in replies] == list(range(count))


async def settled(read: Any, quiet_s: float = 1.0) -> int:
    """The value of ``read`` once it has not changed for a while."""
    while True:
        before = read()
        await asyncio.sleep(quiet_s)
        if read() == before:
            return int(before)


async def test_a_full_mailbox_of_a_sleeping_agent_refuses_and_says_so(
    mesh_a: sidelink.Mesh, mesh_b: sidelink.Mesh
) -> None:
    sender = await mesh_a.agent("finance/flooder")
    sleeper = await mesh_b.agent("billing/sleeper")
    for number in range(1_000):
        sender.tell_nowait(sleeper.uri, number)
    await sender.flush()
    sender.tell_nowait(sleeper.uri, "too many")

    with pytest.raises(sidelink.MailboxFull) as refused:
        await sender.ask(sleeper.uri, "one more", timeout=10)

    assert refused.value.code == "message.mailbox_full"
    assert refused.value.remedy
    with pytest.raises(sidelink.MailboxFull):
        await sender.flush()


REFUSED_TARGETS = {
    "an agent that its sidecar does not know": ("agent://acme/billing/nobody", "route.unknown"),
    "a name that no node has registered": ("agent://acme/nowhere/x", "route.unknown"),
    "what is no agent URI": ("https://acme/billing", "local.bad_request"),
    "an agent of this sidecar that is not there": (
        "agent://acme/finance/nobody",
        "message.agent_unknown",
    ),
}


@pytest.mark.parametrize("case", REFUSED_TARGETS)
async def test_what_cannot_be_reached_is_a_typed_error(case: str, mesh_a: sidelink.Mesh) -> None:
    target, code = REFUSED_TARGETS[case]
    sender = await mesh_a.agent("finance/lost")

    # Longer than the ten seconds for which a name may still be registered after a gateway's start.
    with pytest.raises(sidelink.SidelinkError) as refused:
        await sender.ask(target, 1, timeout=25)

    assert type(refused.value) in (sidelink.Unreachable, sidelink.LocalError)
    assert refused.value.code == code
    assert refused.value.remedy


async def test_an_ask_that_nobody_answers_ends_at_its_own_time(
    mesh_a: sidelink.Mesh, mesh_b: sidelink.Mesh
) -> None:
    sender = await mesh_a.agent("finance/patient")
    silent = await mesh_b.agent("billing/silent")
    begun_s = asyncio.get_running_loop().time()

    with pytest.raises(sidelink.AskTimeout) as late:
        await sender.ask(silent.uri, "anyone", timeout=0.5)

    assert late.value.outcome_unknown
    assert asyncio.get_running_loop().time() - begun_s < 2


async def test_a_rejected_ask_carries_the_handlers_reason(
    mesh_a: sidelink.Mesh, mesh_b: sidelink.Mesh
) -> None:
    sender = await mesh_a.agent("finance/hopeful")
    strict = await mesh_b.agent("billing/strict")
    asking = asyncio.create_task(sender.ask(strict.uri, "please", timeout=10))
    await (await anext(strict.inbox())).reject("not on a Sunday")

    with pytest.raises(sidelink.Rejected) as refused:
        await asking

    assert refused.value.message == "not on a Sunday"


async def test_two_people_talk_by_the_command_line(shared_mesh: Mesh) -> None:
    """The agents, too, are processes of their own here."""
    listen = await asyncio.create_subprocess_exec(
        *(SIDELINK, "listen", "--as", "billing/desk", "--reply", "paid", "--count", "1", "--json"),
        *("--state", str(shared_mesh.b.base)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        said = await asyncio.to_thread(ask_until_someone_listens, shared_mesh)
        heard, _ = await listen.communicate()
    finally:
        if listen.returncode is None:
            listen.kill()
            await listen.wait()

    assert (said["body"], said["sender"]) == ("paid", "agent://acme/billing/desk")
    message = json.loads(heard)
    assert (message["sender"], message["attributes"]) == (
        "agent://acme/finance/person",
        {"role": "boss"},
    )
    assert listen.returncode == 0


def ask_until_someone_listens(mesh: Mesh) -> Any:
    for _ in range(20):
        asked = run_sidelink(
            *("ask", "agent://acme/billing/desk", "7", "--as", "finance/person", "--json"),
            *("--attribute", "role=boss", "--timeout", "10", "--state", str(mesh.a.base)),
        )
        if asked.returncode == 0:
            return json.loads(asked.stdout)
        assert "route.unknown" in asked.stderr, asked.stderr
    raise AssertionError(asked.stderr)


def settled_frames(mesh: Mesh) -> float:
    """The same once acknowledgements of earlier tests have passed."""
    before = relayed_frames(mesh)
    while (now := relayed_frames(mesh)) != before:
        before = now
    return now


def relayed_frames(mesh: Mesh) -> float:
    """From the gateway's own metrics, as a monitor reads them."""
    port = mesh.gateway.status()["ports"]["ops"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    found = [line for line in lines if "relayed_frames" in line and not line.startswith("#")]
    return float(found[0].split()[-1])
