"""A sidecar is killed at each of its writes while it rotates and renews, and comes back whole."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import pytest
import sidelink

from identity import Identifier, SidelinkError
from node.admin_client import admin_request
from tests.mesh.meshes import Mesh
from tests.mesh.programs import SIDELINK, WAIT_S, Program, wait_until

pytestmark = pytest.mark.mesh

AGENT: Final = "finance/often-killed"
# More commits than a rotation of a node and of an agent, with the renewal behind it, ever took.
POINTS_MAX: Final = 40
# So long nothing is written before it counts as over. All of it takes a part of a second.
QUIET_S: Final = 3.0


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with Mesh() as started:
        yield started.up()


@pytest.fixture
async def listener(mesh: Mesh) -> AsyncIterator[sidelink.Agent]:
    """An agent of the other sidecar, which answers."""
    async with sidelink.connect(mesh.b.agent_socket) as connected:
        agent = await connected.agent("billing/listener")

        async def serve() -> None:
            async for message in agent.inbox():
                await message.reply(message.body)

        task = asyncio.create_task(serve())
        yield agent
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Killed:
    """The first sidecar of a mesh, under the knife."""

    def __init__(self, mesh: Mesh, listener: sidelink.Agent) -> None:
        self.mesh = mesh
        self.program: Program = mesh.a
        self.listener = listener
        self._armed = mesh.folder / "armed"

    async def once(self, when: str, at: int, act: Callable[[], None] | None = None) -> bool:
        """Kill it at this write of a rotation, or of what ``act`` brings about, and see that it
        comes back. False if there is no such write."""
        node, agent = self.program, AGENT
        before = await self._talk()
        await asyncio.to_thread(self._stop)
        self._armed.unlink(missing_ok=True)
        node.executable = (
            *(sys.executable, "-m", "tests.mesh.killed_sidecar"),
            *(when, str(at), str(self._armed)),
        )
        node.command = ()
        await asyncio.to_thread(self._start)
        async with sidelink.connect(node.agent_socket) as connected:
            await connected.agent(agent)
            self._armed.touch()
            await asyncio.to_thread(act or self._rotate)
            was_killed = await asyncio.to_thread(self._is_killed)
        if not was_killed:
            await asyncio.to_thread(self._stop)
        node.executable, node.command = (SIDELINK,), ("up",)
        self._armed.unlink(missing_ok=True)
        await asyncio.to_thread(self._start)
        after = await self._talk()
        await asyncio.to_thread(self._wait_settled)
        assert after == before, f"killed {when} write {at}"
        return was_killed

    def _stop(self) -> None:
        assert self.program.stop() == 0, self.program.log_tail()

    def _start(self) -> None:
        self.program.start()
        self.program.wait_ready()

    def _rotate(self) -> None:
        """Ask for both rotations; the second may find nobody."""
        wishes: dict[str, Any] = {"announce_s": 0, "overlap_s": 3_600}
        for path, more in (
            ("/v1/identity/rotate", {}),
            ("/v1/agents/rotate", {"agent": AGENT}),
        ):
            with contextlib.suppress(SidelinkError):
                admin_request(self.program.paths.admin_socket, "POST", path, wishes | more)

    def _is_killed(self) -> bool:
        try:
            return self.program.wait_end(QUIET_S) != 0
        except Exception:
            return False

    async def _talk(self) -> tuple[str, ...]:
        """A message in each direction. Returns who they were from, and who this node is."""
        async with (
            asyncio.timeout(WAIT_S),
            sidelink.connect(self.program.agent_socket) as connected,
        ):
            agent = await connected.agent(AGENT)
            there = await agent.ask(self.listener.uri, "there", timeout=10)
            async with asyncio.TaskGroup() as group:
                back = group.create_task(self.listener.ask(agent.uri, "back", timeout=10))
                async for message in agent.inbox():
                    await message.reply(message.body)
                    break
            assert (there.body, back.result().body) == ("there", "back")
            status = await asyncio.to_thread(self.program.status)
            return agent.identifier, status["identifier"], status["name"]

    def _wait_settled(self) -> None:
        """Nothing stays announced, and the authority has vouched for the newest key."""

        def settled() -> bool:
            shown = admin_request(self.program.paths.admin_socket, "GET", "/v1/identity")
            return (
                shown["announced_key"] is None
                and shown["pinned_change"] == len(shown["changes"]) - 1
            )

        wait_until(settled, "the rotation to be over")


@pytest.mark.parametrize(("when", "at"), [("before", 2), ("after", 2), ("after", 3)])
async def test_a_sidecar_that_is_killed_while_it_rotates_comes_back_whole(
    mesh: Mesh, listener: sidelink.Agent, when: str, at: int
) -> None:
    assert await Killed(mesh, listener).once(when, at)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_sidecar_that_is_killed_while_it_takes_a_list_has_it_when_it_is_back(
    mesh: Mesh, listener: sidelink.Agent, when: str
) -> None:
    gone = Identifier(os.urandom(32))

    def revoke() -> None:
        socket = mesh.authority.paths.admin_socket
        admin_request(socket, "POST", "/v1/revocations", {"who": str(gone), "reason": "a test"})

    was_killed = await Killed(mesh, listener).once(when, 1, revoke)
    numbers = {program.name: _list_number(program) for program in (mesh.gateway, mesh.a)}

    assert was_killed
    assert numbers["a"] == numbers[mesh.gateway.name]


def _list_number(program: Program) -> int:
    [own] = admin_request(program.paths.admin_socket, "GET", "/v1/trust")["authorities"]
    number: int = own["revocations"]["number"]
    return number


@pytest.mark.prove
@pytest.mark.timeout(400)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_sidecar_may_be_killed_at_every_write_of_rotation_and_renewal(
    when: str,
) -> None:
    with Mesh() as mesh:
        mesh.up()
        async with sidelink.connect(mesh.b.agent_socket) as connected:
            agent = await connected.agent("billing/listener")

            async def serve() -> None:
                async for message in agent.inbox():
                    await message.reply(message.body)

            task = asyncio.create_task(serve())
            killed = Killed(mesh, agent)
            points = 0
            for at in range(1, POINTS_MAX):
                if not await killed.once(when, at):
                    break
                points = at
            task.cancel()
    # The time, the node's key announced and used, the agent's likewise, and the new credential.
    assert 6 <= points < POINTS_MAX - 1
