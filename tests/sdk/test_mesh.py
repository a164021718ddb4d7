"""What an agent's program sees: asks, tells, its inbox, and a sidecar that comes and goes."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import sidelink
import uvloop

from identity import Code
from tests.sdk.fakes import IDENTIFIER, WAIT_S, FakeRouter, answer_all, local_api, uri

# The example of the design, and what it promises.


async def the_example(path: Path) -> None:
    os.environ["SIDELINK_AGENT_SOCKET"] = str(path)
    async with local_api(path, FakeRouter()), asyncio.timeout(WAIT_S):
        async with sidelink.connect() as mesh:
            billing = await mesh.agent("billing/main")
            serving = asyncio.create_task(answer_all(billing))

            planner = await mesh.agent("finance/planner", attributes={"role": "planner"})
            reply = await planner.ask("agent://acme/billing/main", {"invoice": 7}, timeout=30)

            assert reply.body == {"you said": {"invoice": 7}}
            asking = asyncio.create_task(billing.ask("agent://acme/finance/planner", 1))
            async for message in planner.inbox():
                await message.reply({"ok": True})
                break
            assert (await asking).body == {"ok": True}
        await serving


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_example_works_as_written_on_either_loop(
    new_loop: Callable[[], asyncio.AbstractEventLoop], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDELINK_AGENT_SOCKET", "")
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(the_example(path))


async def test_a_handler_sees_who_sent_the_message(mesh: sidelink.Mesh) -> None:
    planner = await mesh.agent("planner", attributes={"role": "planner", "tags": ["a", "b"]})
    billing = await mesh.agent("billing")

    await planner.tell(uri("billing"), "hello", content_type="text/plain")
    message = await anext(billing.inbox())

    assert message.kind == "tell"
    assert message.body == "hello"
    assert message.sender == "agent://acme/planner"
    assert message.sender_identifier == IDENTIFIER
    assert message.attributes == {"role": "planner", "tags": ("a", "b")}
    assert message.agent is billing
    assert message.deadline_s is None


async def test_an_agent_knows_what_its_credential_says(mesh: sidelink.Mesh) -> None:
    agent = await mesh.agent("planner", attributes={"n": 1})

    assert (mesh.trust_domain, mesh.node) == ("acme", IDENTIFIER)
    assert (agent.name, agent.uri, agent.identifier) == ("planner", uri("planner"), IDENTIFIER)
    assert agent.attributes == {"n": 1}


async def test_a_deadline_reaches_the_handler(mesh: sidelink.Mesh) -> None:
    planner, billing = await mesh.agent("planner"), await mesh.agent("billing")
    asking = asyncio.create_task(planner.ask(uri("billing"), 1, timeout=5))

    message = await anext(billing.inbox())

    now_s = asyncio.get_running_loop().time()
    assert message.deadline_s is not None
    assert now_s < message.deadline_s <= now_s + 5
    await message.reply(2)
    assert (await asking).body == 2


async def test_messages_arrive_in_the_order_they_were_sent(mesh: sidelink.Mesh) -> None:
    planner, billing = await mesh.agent("planner"), await mesh.agent("billing")
    await asyncio.gather(*(planner.tell(uri("billing"), i) for i in range(300)))
    for i in range(300, 600):
        planner.tell_nowait(uri("billing"), i)
    await planner.flush()

    inbox = billing.inbox()

    assert [(await anext(inbox)).body for _ in range(600)] == list(range(600))


async def test_tells_of_one_loop_turn_share_a_batch(
    mesh: sidelink.Mesh, router: FakeRouter
) -> None:
    planner, _ = await mesh.agent("planner"), await mesh.agent("billing")

    await asyncio.gather(*(planner.tell(uri("billing"), i) for i in range(100)))

    assert router.batches == [100]


# Refusals.


async def test_a_denied_message_names_the_rule(mesh: sidelink.Mesh) -> None:
    planner = await mesh.agent("planner")

    for call in (planner.ask, planner.tell):
        with pytest.raises(sidelink.PolicyDenied) as caught:
            await call(uri("denied"), 1)
        assert (caught.value.code, caught.value.rule) == ("policy.denied", "r1")
        assert caught.value.remedy == Code.POLICY_DENIED.remedy
        assert not caught.value.outcome_unknown


async def test_a_rejected_ask_carries_the_reason(mesh: sidelink.Mesh) -> None:
    planner, billing = await mesh.agent("planner"), await mesh.agent("billing")
    asking = asyncio.create_task(planner.ask(uri("billing"), 1))

    message = await anext(billing.inbox())
    await message.reject("too busy \ud800" + "x" * 1000)

    with pytest.raises(sidelink.Rejected) as caught:
        await asking
    assert caught.value.message.startswith("too busy ?xxx")


async def test_an_unknown_agent_is_unreachable(mesh: sidelink.Mesh) -> None:
    planner = await mesh.agent("planner")

    with pytest.raises(sidelink.Unreachable):
        await planner.ask(uri("nobody"), 1)


async def test_an_ask_without_an_answer_times_out_with_unknown_outcome(mesh: sidelink.Mesh) -> None:
    planner = await mesh.agent("planner")

    with pytest.raises(sidelink.AskTimeout) as caught:
        await planner.ask(uri("silent"), 1, timeout=0.02)

    assert caught.value.outcome_unknown


async def test_flush_raises_what_nobody_waited_for_and_then_forgets_it(mesh: sidelink.Mesh) -> None:
    planner, other = await mesh.agent("planner"), await mesh.agent("other")
    for _ in range(3):
        planner.tell_nowait(uri("denied"), 1)
    other.tell_nowait(uri("planner"), 1)

    with pytest.raises(sidelink.PolicyDenied) as caught:
        await planner.flush()

    assert caught.value.__notes__ == ["and 2 further failures since the last flush"]
    await planner.flush()
    await other.flush()


async def test_a_name_that_is_refused_raises(mesh: sidelink.Mesh) -> None:
    with pytest.raises(sidelink.LocalError) as caught:
        await mesh.agent("busy")

    assert caught.value.code == "local.agent_busy"


MISUSE: dict[str, Callable[[sidelink.Mesh, sidelink.Agent], object]] = {
    "a URI that is too long": lambda mesh, agent: agent.tell("a" * 256, 1),
    "a URI that is not text": lambda mesh, agent: agent.tell(7, 1),  # type: ignore[arg-type]
    "a URI that is not ASCII": lambda mesh, agent: agent.tell("agent://acmé/x", 1),
    "no time at all": lambda mesh, agent: agent.ask(uri("x"), 1, timeout=0),
    "more time than a week": lambda mesh, agent: agent.ask(uri("x"), 1, timeout=1e9),
    "a body that holds this package's own objects": lambda mesh, agent: agent.tell(
        uri("x"), [agent]
    ),
    "a body that is no plain value": lambda mesh, agent: agent.tell(uri("x"), object()),
    "an attribute that is a float": lambda mesh, agent: mesh.agent("a", attributes={"a": 1.5}),  # type: ignore[dict-item]
    "a name that is not text": lambda mesh, agent: mesh.agent(7),  # type: ignore[arg-type]
    "a name that is no Unicode": lambda mesh, agent: mesh.agent("\ud800"),
    "a name that is too long": lambda mesh, agent: mesh.agent("a" * 256),
}


@pytest.mark.parametrize("misuse", MISUSE.values(), ids=MISUSE.keys())
async def test_misuse_is_refused_here_and_costs_nothing_else(
    mesh: sidelink.Mesh, misuse: Callable[[sidelink.Mesh, sidelink.Agent], object]
) -> None:
    planner, _ = await mesh.agent("planner"), await mesh.agent("billing")

    with pytest.raises((sidelink.LocalError, sidelink.BodyError)):
        await misuse(mesh, planner)  # type: ignore[misc]

    await planner.tell(uri("billing"), 1)


async def test_a_message_is_shown_by_its_sender_and_is_no_body(mesh: sidelink.Mesh) -> None:
    planner, billing = await mesh.agent("planner"), await mesh.agent("billing")
    await planner.tell(uri("billing"), 1)
    message = await anext(billing.inbox())

    assert repr(message) == "<Message from agent://acme/planner, 1 bytes>"
    with pytest.raises(sidelink.BodyError):
        await billing.tell(uri("planner"), message)


async def test_a_tell_has_no_reply_and_an_ask_has_one(mesh: sidelink.Mesh) -> None:
    planner, billing = await mesh.agent("planner"), await mesh.agent("billing")
    inbox = billing.inbox()
    await planner.tell(uri("billing"), 1)
    tell = await anext(inbox)
    asking = asyncio.create_task(planner.ask(uri("billing"), 1))
    ask = await anext(inbox)

    with pytest.raises(sidelink.LocalError) as caught:
        await tell.reply(1)
    assert caught.value.code == "message.not_an_ask"
    await ask.reply("first")
    with pytest.raises(sidelink.LocalError):
        await ask.reply("second")
    with pytest.raises(sidelink.LocalError):
        await ask.reject("third")
    assert (await asking).body == "first"


async def test_a_body_that_is_not_msgpack_costs_its_reader_only(mesh: sidelink.Mesh) -> None:
    planner, billing = await mesh.agent("planner"), await mesh.agent("billing")
    await planner.tell(uri("billing"), b"\xc1", content_type="application/msgpack")
    await planner.tell(uri("billing"), "next")
    inbox = billing.inbox()

    message = await anext(inbox)
    with pytest.raises(sidelink.BodyError):
        _ = message.body
    assert message.raw_body == b"\xc1"
    assert (await anext(inbox)).body == "next"


# Cancellation and closing.


async def test_a_cancelled_ask_leaves_nothing_behind_and_its_answer_is_dropped(
    mesh: sidelink.Mesh, router: FakeRouter
) -> None:
    planner, billing = await mesh.agent("planner"), await mesh.agent("billing")
    asking = asyncio.create_task(planner.ask(uri("billing"), 1))
    message = await anext(billing.inbox())

    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await message.reply("too late")

    await planner.flush()
    connection = planner._outbox.direct
    assert connection is not None
    assert connection._calls == {}
    await planner.tell(uri("billing"), "still here")


async def test_a_cancelled_opening_is_undone_at_the_sidecar(
    mesh: sidelink.Mesh, router: FakeRouter
) -> None:
    opening = asyncio.create_task(mesh.agent("planner"))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening

    other = await mesh.agent("other")
    await other.flush()

    assert [agent.name for agent in router.agents.values()] == ["other"]


async def test_closing_an_agent_ends_its_inbox_and_its_calls(
    mesh: sidelink.Mesh, router: FakeRouter
) -> None:
    await mesh.agent("planner")
    billing = await mesh.agent("billing")
    reading = asyncio.create_task(answer_all(billing))
    await asyncio.sleep(0)

    await billing.close()
    await billing.close()

    await reading
    assert not billing.connected
    assert [agent.name for agent in router.agents.values()] == ["planner"]
    for refused in (billing.tell(uri("planner"), 1), billing.ask(uri("planner"), 1)):
        with pytest.raises(sidelink.LocalError):
            await refused


async def test_leaving_the_mesh_sends_what_is_queued(path: Path, router: FakeRouter) -> None:
    async with local_api(path, router), asyncio.timeout(WAIT_S):
        async with sidelink.connect(path) as mesh:
            planner = await mesh.agent("planner")
            for i in range(1000):
                planner.tell_nowait(uri("sink"), i)
        async with sidelink.connect(path) as later:
            await (await later.agent("sink")).flush()

    assert sum(router.batches) == 1000
    with pytest.raises(sidelink.LocalError):
        await mesh.agent("planner")


async def test_an_ask_whose_answer_was_cancelled_may_be_answered_later(
    mesh: sidelink.Mesh, router: FakeRouter
) -> None:
    planner, billing = await mesh.agent("planner"), await mesh.agent("billing")
    asking = asyncio.create_task(planner.ask(uri("billing"), 1))
    message = await anext(billing.inbox())
    connection = planner._outbox.direct
    assert connection is not None
    connection.pause_writing()
    answering = asyncio.create_task(message.reply("first"))
    await asyncio.sleep(0)
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    connection.resume_writing()

    await message.reply("second")

    assert (await asking).body == "second"


# Where it is found, and what it needs.


PATHS = {
    "the socket is named": (
        {"SIDELINK_AGENT_SOCKET": "/x/a.sock", "SIDELINK_STATE": "/s"},
        "/x/a.sock",
    ),
    "the state folder is named": (
        {"SIDELINK_STATE": "/s", "XDG_STATE_HOME": "/xdg"},
        "/s/sidecar/run/agent.sock",
    ),
    "the state home is named": (
        {"XDG_STATE_HOME": "/xdg"},
        "/xdg/sidelink/sidecar/run/agent.sock",
    ),
    "nothing is named": (
        {},
        str(Path.home() / ".local/state/sidelink/sidecar/run/agent.sock"),
    ),
}


@pytest.mark.parametrize(("environment", "expected"), PATHS.values(), ids=PATHS.keys())
def test_the_socket_is_found_when(environment: dict[str, str], expected: str) -> None:
    assert sidelink.default_socket_path(environment) == Path(expected)


def test_the_sdk_runs_with_nothing_but_msgspec(tmp_path: Path) -> None:
    for package in (sidelink, msgspec):
        assert package.__file__ is not None
        source = Path(package.__file__).parent
        (tmp_path / source.name).symlink_to(source)
    script = (
        "import sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import sidelink\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} - set(sys.stdlib_module_names)))\n"
    )

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "['__main__', 'msgspec', 'sidelink']"
