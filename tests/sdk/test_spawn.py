"""Children of an agent, as its program sees them: spawned, spawned again, and over."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import sidelink

from identity import Code
from sidecar.local_port import failure
from tests.sdk.fakes import WAIT_S, FakeRouter, local_api, uri
from tests.sidecar.local_clients import until


async def test_a_child_is_an_agent_below_its_parent(
    mesh: sidelink.Mesh, router: FakeRouter
) -> None:
    planner = await mesh.agent("finance/planner", attributes={"role": "planner"})

    child = await planner.spawn("child", attributes={"role": "planner"}, ttl=3600)

    assert child.uri == uri("finance/planner/child")
    assert child.name == "finance/planner/child"
    assert child.attributes == {"role": "planner"}
    assert router.spawned == [("finance/planner", "child", 3600)]


async def test_a_child_talks_and_has_children_of_its_own(
    mesh: sidelink.Mesh, router: FakeRouter
) -> None:
    planner = await mesh.agent("planner")
    child = await planner.spawn("child")
    grandchild = await child.spawn("x")

    await grandchild.tell(uri("planner/child"), "hello")
    message = await anext(child.inbox())

    assert message.sender == uri("planner/child/x")
    assert router.spawned == [("planner", "child", 0), ("planner/child", "x", 0)]


async def test_a_child_is_spawned_again_with_the_rest_of_its_time(
    path: Path, soon_back: None
) -> None:
    router, later = FakeRouter(), FakeRouter()
    async with asyncio.timeout(WAIT_S):
        async with local_api(path, router):
            connecting = sidelink.connect(path)
            mesh = await connecting.__aenter__()
            child = await (await mesh.agent("planner")).spawn("child", ttl=100)
        async with local_api(path, later):
            await until(lambda: not child.connected)
            await child.wait_connected()
            await child.tell(uri("planner"), "back")
            await mesh.__aexit__(None, None, None)

    ((_, _, again_s),) = later.spawned
    assert router.spawned == [("planner", "child", 100)]
    assert 0 < again_s <= 100


async def test_a_child_whose_time_passes_while_the_sidecar_is_away_is_over(
    path: Path, soon_back: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidelink.mesh.SPAWN_SLACK_S", -0.9)
    later = FakeRouter()
    async with asyncio.timeout(WAIT_S):
        async with local_api(path, FakeRouter()):
            mesh = await sidelink.connect(path).__aenter__()
            planner = await mesh.agent("planner")
            child = await planner.spawn("child", ttl=2)
        await asyncio.sleep(0.15)
        async with local_api(path, later):
            with pytest.raises(sidelink.LocalError) as caught:
                await anext(child.inbox())
            await planner.wait_connected()
            await mesh.__aexit__(None, None, None)

    assert caught.value.code == "local.agent_expired"
    assert later.spawned == []


@pytest.mark.parametrize("code", [Code.LOCAL_AGENT_EXPIRED, Code.LOCAL_AGENT_REVOKED])
async def test_an_agent_that_the_sidecar_ends_is_over_and_others_go_on(
    code: Code, mesh: sidelink.Mesh, router: FakeRouter
) -> None:
    planner = await mesh.agent("planner")
    child = await planner.spawn("child", ttl=60)
    reading = asyncio.create_task(anext(child.inbox()))
    await child.flush()
    ended = next(agent for agent in router.agents.values() if agent.name == "planner/child")

    ended.session.agent_gone(failure(0, code, "over", agent=ended.number))

    with pytest.raises(sidelink.LocalError) as read:
        await reading
    with pytest.raises(sidelink.LocalError) as told:
        await child.tell(uri("planner"), 1)
    assert read.value.code == told.value.code == code.text
    assert not child.connected
    await planner.tell(uri("planner"), "still here")


async def test_a_refused_child_raises_and_leaves_nothing(
    mesh: sidelink.Mesh, router: FakeRouter
) -> None:
    router.refused_names["planner/child"] = Code.LOCAL_DELEGATION_DENIED
    planner = await mesh.agent("planner")

    with pytest.raises(sidelink.LocalError) as caught:
        await planner.spawn("child", attributes={"role": "admin"})

    assert caught.value.code == "local.delegation_denied"
    assert caught.value.remedy == Code.LOCAL_DELEGATION_DENIED.remedy
    await planner.tell(uri("planner"), "still here")


WRONG: dict[str, dict[str, Any]] = {
    "no time": {"ttl": 0},
    "less than a second": {"ttl": 0.5},
    "time without end": {"ttl": float("inf")},
    "no number": {"ttl": float("nan")},
    "attributes that are none": {"attributes": {"a": 1.5}},
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_no_sidecar_would_take_is_not_sent(
    case: str, mesh: sidelink.Mesh, router: FakeRouter
) -> None:
    planner = await mesh.agent("planner")

    with pytest.raises(sidelink.LocalError) as caught:
        await planner.spawn("child", **WRONG[case])

    assert caught.value.code == "local.bad_request"
    assert router.spawned == []
