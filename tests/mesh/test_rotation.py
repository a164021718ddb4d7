"""Keys that are replaced while messages flow: none is lost, and no hop has to enrol again."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import sidelink

from node.admin_client import admin_request
from tests.mesh.meshes import Mesh
from tests.mesh.programs import WAIT_S, Program

pytestmark = pytest.mark.mesh

ANNOUNCE_S = 1
_numbers = itertools.count()


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with Mesh() as started:
        yield started.up()


@pytest.fixture(autouse=True)
async def deadline() -> AsyncIterator[None]:
    async with asyncio.timeout(WAIT_S):
        yield


class Flow:
    """Numbered messages from an agent of one sidecar to one of the other, and answers back."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self.sent = 0
        self.received: list[int] = []
        self.answered = 0
        self._talks = True
        self._progress = asyncio.Event()

    async def __aenter__(self) -> "Flow":
        number = next(_numbers)
        self._a = sidelink.connect(self._mesh.a.agent_socket)
        self._b = sidelink.connect(self._mesh.b.agent_socket)
        self.sender = await (await self._a.__aenter__()).agent(f"finance/rotating-{number}")
        self.receiver = await (await self._b.__aenter__()).agent(f"billing/listening-{number}")
        self._tasks = [asyncio.create_task(task) for task in (self._listen(), self._talk())]
        await self.until(lambda: self.answered >= 3)
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connected in (self._a, self._b):
            await connected.__aexit__(None, None, None)

    async def finish(self) -> None:
        """Stop talking; wait until all that was sent has arrived."""
        self._talks = False
        await self._tasks[1]
        await self.until(lambda: len(self.received) >= self.sent)

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait until something that was sent, received or answered makes this true."""
        while not reached():
            self._progress.clear()
            await self._progress.wait()

    async def _talk(self) -> None:
        while self._talks:
            await self.sender.tell(self.receiver.uri, self.sent)
            self.sent += 1
            self._progress.set()
            if self.sent % 10 == 0:
                reply = await self.sender.ask(self.receiver.uri, "well?", timeout=10)
                assert reply.body == "well"
                self.answered += 1
                self._progress.set()
            await asyncio.sleep(0.005)

    async def _listen(self) -> None:
        async for message in self.receiver.inbox():
            if message.body == "well?":
                await message.reply("well")
            else:
                self.received.append(message.body)
                self._progress.set()


def identity_of(program: Program, agent: str | None = None) -> dict[str, Any]:
    socket = program.paths.admin_socket
    if agent is None:
        return admin_request(socket, "GET", "/v1/identity")
    return admin_request(socket, "POST", "/v1/agents/identity", {"agent": agent})


def rotate(program: Program, agent: str | None = None) -> dict[str, Any]:
    socket = program.paths.admin_socket
    wishes: dict[str, Any] = {"announce_s": ANNOUNCE_S, "overlap_s": 7_200}
    if agent is None:
        return admin_request(socket, "POST", "/v1/identity/rotate", wishes)
    return admin_request(socket, "POST", "/v1/agents/rotate", {"agent": agent, **wishes})


async def rotated(program: Program, agent: str | None = None) -> tuple[Any, Any]:
    """Rotate, and wait until the announced key signs. Returns the identity before and after."""
    before = await asyncio.to_thread(identity_of, program, agent)
    announced = await asyncio.to_thread(rotate, program, agent)
    assert announced["key"] != before["key"]
    while True:
        after = await asyncio.to_thread(identity_of, program, agent)
        if after["announced_key"] is None and after["key"] == announced["key"]:
            return before, after
        await asyncio.sleep(0.05)


def hops_of(mesh: Mesh) -> tuple[Any, ...]:
    """What would show that somebody came again: hops that ended, and tickets that were used."""
    gateway = mesh.gateway.status()
    nodes = {node["name"]: node["identifier"] for node in mesh.authority.status()["nodes"]}
    return gateway["hops_closed"], sorted(hop["peer"] for hop in gateway["hops"]), nodes


@pytest.mark.parametrize("which", ["authority", "gateway", "sidecar", "far sidecar", "agent"])
async def test_a_key_is_replaced_while_messages_flow_and_none_is_lost(
    mesh: Mesh, which: str
) -> None:
    programs = {
        "authority": mesh.authority,
        "gateway": mesh.gateway,
        "sidecar": mesh.a,
        "far sidecar": mesh.b,
        "agent": mesh.a,
    }
    async with Flow(mesh) as flow:
        agent = flow.sender.uri.split("/", 3)[3] if which == "agent" else None
        hops_before = await asyncio.to_thread(hops_of, mesh)
        before, after = await rotated(programs[which], agent)
        sent_at_rotation = flow.sent
        await flow.until(lambda: flow.sent >= sent_at_rotation + 100)
        await flow.finish()
        hops_after = await asyncio.to_thread(hops_of, mesh)

    assert flow.received == list(range(flow.sent))
    assert after["identifier"] == before["identifier"]
    assert len(after["changes"]) == len(before["changes"]) + 1
    assert hops_after == hops_before
