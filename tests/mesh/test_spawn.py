"""Agents that spawn others, in a real mesh: who they are to far agents, and how long."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import sidelink

from tests.mesh.meshes import Mesh
from tests.mesh.programs import WAIT_S

pytestmark = pytest.mark.mesh


@pytest.fixture(autouse=True)
async def deadline() -> AsyncIterator[None]:
    async with asyncio.timeout(WAIT_S):
        yield


async def answer_with_sender(agent: sidelink.Agent) -> None:
    async for message in agent.inbox():
        await message.reply({"sender": message.sender, **message.attributes})


async def test_a_child_is_asked_for_by_its_chain_and_ends_with_its_time(
    mesh_a: sidelink.Mesh, mesh_b: sidelink.Mesh, shared_mesh: Mesh
) -> None:
    clerk = await mesh_b.agent("billing/spawn-clerk")
    serving = asyncio.create_task(answer_with_sender(clerk))
    planner = await mesh_a.agent("finance/spawner", attributes={"role": "planner"})

    child = await planner.spawn("child", attributes={"role": "planner"}, ttl=4)
    reply = await child.ask(clerk.uri, "who am I?")
    grandchild = await child.spawn("deeper")
    deeper = await grandchild.ask(clerk.uri, "who am I?")

    assert reply.body == {"sender": "agent://acme/finance/spawner/child", "role": "planner"}
    assert deeper.body == {"sender": "agent://acme/finance/spawner/child/deeper"}
    with pytest.raises(sidelink.LocalError) as ended:
        await anext(child.inbox())
    assert ended.value.code == "local.agent_expired"
    assert (await planner.ask(clerk.uri, "who am I?")).body == {
        "sender": "agent://acme/finance/spawner",
        "role": "planner",
    }
    serving.cancel()


@pytest.mark.parametrize(
    ("attributes", "ttl"), [({"role": "admin"}, None), ({"clearance": 3}, None), ({}, 30 * 86_400)]
)
async def test_a_parent_cannot_give_what_it_has_not(
    attributes: dict[str, str | int], ttl: int | None, mesh_a: sidelink.Mesh
) -> None:
    planner = await mesh_a.agent("finance/poor-spawner", attributes={"role": "planner"})

    with pytest.raises(sidelink.LocalError) as caught:
        await planner.spawn("child", attributes=attributes, ttl=ttl)

    assert caught.value.code == "local.delegation_denied"


async def test_a_child_is_the_same_after_its_sidecar_was_killed() -> None:
    with Mesh() as mesh:
        await asyncio.to_thread(mesh.up)
        async with (
            sidelink.connect(mesh.a.agent_socket) as near,
            sidelink.connect(mesh.b.agent_socket) as far,
        ):
            clerk = await far.agent("billing/main")
            serving = asyncio.create_task(answer_with_sender(clerk))
            child = await (await near.agent("finance/planner")).spawn("child", ttl=3600)
            await child.ask(clerk.uri, 1)
            before = child.identifier

            await asyncio.to_thread(mesh.a.kill)
            await asyncio.to_thread(mesh.a.start)
            await child.wait_connected()
            reply = await child.ask(clerk.uri, 2)
            serving.cancel()

    assert child.identifier == before
    assert reply.body == {"sender": "agent://acme/finance/planner/child"}
