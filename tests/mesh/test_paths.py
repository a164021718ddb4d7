"""Channels that outlive their links, with real processes: gateways that are killed, stopped and
restarted under load, several gateways, and sidecars that meet directly."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import sidelink

from tests.mesh.meshes import Mesh
from tests.mesh.programs import Program, wait_until

pytestmark = pytest.mark.mesh

WAIT_S = 45.0
ALLOW_DIRECT = "direct: {allow_loopback: true}\n"

_numbers = itertools.count()


@pytest.fixture(autouse=True)
async def deadline() -> AsyncIterator[None]:
    async with asyncio.timeout(WAIT_S):
        yield


@pytest.fixture(scope="module")
def two_gateways() -> Iterator[Mesh]:
    with Mesh(gateways=2) as mesh:
        yield mesh.up()


@pytest.fixture(scope="module")
def direct_mesh() -> Iterator[Mesh]:
    with Mesh() as mesh:
        for sidecar in (mesh.a, mesh.b):
            sidecar.write_state_file("config.yaml", ALLOW_DIRECT)
        yield mesh.up()


class Traffic:
    """Numbered tells from one agent to another, and asks beside them, until told to stop."""

    def __init__(self, sender: sidelink.Agent, receiver: sidelink.Agent) -> None:
        self._sender = sender
        self._receiver = receiver
        self.accepted: list[int] = []
        self.received: list[int] = []
        self.answers = 0
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator["Traffic"]:
        async with asyncio.TaskGroup() as group:
            receiving = group.create_task(self._receive())
            sending = [group.create_task(work()) for work in (self._tell, self._ask)]
            await self.wait_for(10)
            yield self
            for task in sending:
                task.cancel()
            await asyncio.wait(sending)
            await self._until(lambda: len(self.received) >= len(self.accepted))
            receiving.cancel()

    async def wait_for(self, more: int) -> None:
        """Until so many further messages have been received, and an ask was answered."""
        wanted, answers = len(self.received) + more, self.answers
        await self._until(lambda: len(self.received) >= wanted and self.answers > answers)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def _tell(self) -> None:
        for number in itertools.count():
            await self._sender.tell(self._receiver.uri, number, timeout=WAIT_S)
            self.accepted.append(number)
            await asyncio.sleep(0.002)

    async def _ask(self) -> None:
        while True:
            reply = await self._sender.ask(self._receiver.uri, "?", timeout=WAIT_S)
            assert reply.body == "!"
            self.answers += 1
            self._changed.set()
            await asyncio.sleep(0.01)

    async def _receive(self) -> None:
        async for message in self._receiver.inbox():
            if message.kind == "ask":
                await message.reply("!")
            else:
                assert isinstance(message.body, int)
                self.received.append(message.body)
            self._changed.set()


@asynccontextmanager
async def traffic_of(mesh: Mesh) -> AsyncIterator[Traffic]:
    """Between two agents that nobody else uses. All that was accepted must have been received."""
    number = next(_numbers)
    async with (
        sidelink.connect(mesh.a.agent_socket) as beside_a,
        sidelink.connect(mesh.b.agent_socket) as beside_b,
    ):
        sender = await beside_a.agent(f"finance/sender-{number}")
        receiver = await beside_b.agent(f"billing/receiver-{number}")
        async with Traffic(sender, receiver).flowing() as traffic:
            yield traffic
        assert traffic.received[: len(traffic.accepted)] == traffic.accepted
        # One more may have been accepted while its sender was being stopped.
        assert len(traffic.received) - len(traffic.accepted) in (0, 1)


async def in_thread(call: object, *arguments: object) -> None:
    await asyncio.to_thread(call, *arguments)  # type: ignore[arg-type]


def used_gateway(mesh: Mesh) -> Program:
    """The one that relays a link now."""

    def look() -> Program | None:
        return next((one for one in mesh.gateways if one.find_status().get("links")), None)

    found: Program = wait_until(look, "a link at a gateway")
    return found


async def test_nothing_is_lost_when_the_gateway_is_killed_and_comes_back() -> None:
    with Mesh() as mesh:
        await in_thread(mesh.up)
        async with traffic_of(mesh) as traffic:
            await in_thread(mesh.gateway.kill)
            await in_thread(mesh.gateway.start)
            await traffic.wait_for(50)
        moved = (await asyncio.to_thread(mesh.a.status))["channels_without_link"]
        assert moved == 0


async def test_nothing_is_lost_when_one_gateway_of_two_is_killed(two_gateways: Mesh) -> None:
    await in_thread(two_gateways.heal)
    async with traffic_of(two_gateways) as traffic:
        gateway = await asyncio.to_thread(used_gateway, two_gateways)
        await in_thread(gateway.kill)
        await traffic.wait_for(50)


async def test_a_gateway_that_stops_in_good_order_is_left_without_a_pause(
    two_gateways: Mesh,
) -> None:
    await in_thread(two_gateways.heal)
    async with traffic_of(two_gateways) as traffic:
        gateway = await asyncio.to_thread(used_gateway, two_gateways)
        async with asyncio.timeout(3.0):  # No hop has to be missed before others are used.
            assert await asyncio.to_thread(gateway.stop) == 0
            await traffic.wait_for(50)


async def test_sidecars_that_may_meet_need_the_gateway_no_more(direct_mesh: Mesh) -> None:
    await in_thread(direct_mesh.heal)
    async with traffic_of(direct_mesh) as traffic:
        for sidecar in (direct_mesh.a, direct_mesh.b):
            met = "a direct hop"
            await in_thread(sidecar.wait_status, lambda status: status["direct_hops"] == 1, met)
        await traffic.wait_for(10)
        await in_thread(direct_mesh.gateway.kill)
        await traffic.wait_for(200)


async def test_sidecars_do_not_meet_where_settings_forbid_it_or_policy_does() -> None:
    with Mesh() as mesh:
        mesh.a.write_state_file("config.yaml", ALLOW_DIRECT)
        mesh.b.write_state_file("config.yaml", "direct: {enabled: false}\n")
        await in_thread(mesh.up)
        async with traffic_of(mesh) as traffic:
            await traffic.wait_for(100)
            for sidecar in (mesh.a, mesh.b):
                assert (await asyncio.to_thread(sidecar.status))["direct_hops"] == 0


@pytest.mark.parametrize("name", ["a", "b"])
async def test_a_sidecar_that_is_restarted_costs_its_agents_no_error(
    direct_mesh: Mesh, name: str
) -> None:
    await in_thread(direct_mesh.heal)
    sidecar: Program = getattr(direct_mesh, name)
    async with traffic_of(direct_mesh) as traffic:
        for _ in range(3):
            assert await asyncio.to_thread(sidecar.stop) == 0
            await in_thread(sidecar.start)
            await traffic.wait_for(20)
    assert "Traceback" not in sidecar.log_text()


async def test_an_answer_that_takes_its_time_is_waited_for(direct_mesh: Mesh) -> None:
    await in_thread(direct_mesh.heal)
    async with (
        sidelink.connect(direct_mesh.a.agent_socket) as beside_a,
        sidelink.connect(direct_mesh.b.agent_socket) as beside_b,
    ):
        asker = await beside_a.agent("finance/patient")
        thinker = await beside_b.agent("billing/thinker")
        asking = asyncio.create_task(asker.ask(thinker.uri, "think"))
        question = await anext(thinker.inbox())
        stopping = asyncio.create_task(asyncio.to_thread(direct_mesh.b.stop))
        await asyncio.sleep(1.0)
        await question.reply("thought")
        answer = await asking

        assert await stopping == 0
    assert answer.body == "thought"
