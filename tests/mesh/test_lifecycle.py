"""Programs that stop, are killed and come back, and what the others make of it."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import sidelink

from tests.mesh.meshes import Mesh
from tests.mesh.programs import WAIT_S, run_sidelink

pytestmark = pytest.mark.mesh

# The default grace. A program with nothing to finish needs a small part of it.
STOP_GRACE_S = 5.0

_numbers = itertools.count()


@pytest.fixture(scope="module")
def module_mesh() -> Iterator[Mesh]:
    with Mesh() as mesh:
        yield mesh.up()


@pytest.fixture
def mesh(module_mesh: Mesh) -> Mesh:
    """A whole one, whatever the test before has stopped."""
    module_mesh.heal()
    return module_mesh


@pytest.fixture(autouse=True)
async def deadline() -> AsyncIterator[None]:
    async with asyncio.timeout(WAIT_S):
        yield


class Pair:
    """Two agents that nobody else uses, and a task that answers for the second."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh

    async def __aenter__(self) -> "Pair":
        number = next(_numbers)
        self._a = sidelink.connect(self.mesh.a.agent_socket)
        self._b = sidelink.connect(self.mesh.b.agent_socket)
        self.asker = await (await self._a.__aenter__()).agent(f"finance/asker-{number}")
        self.answerer = await (await self._b.__aenter__()).agent(f"billing/answerer-{number}")
        self._task = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for connected in (self._a, self._b):
            await connected.__aexit__(None, None, None)

    async def _serve(self) -> None:
        async for message in self.answerer.inbox():
            if message.body != "no answer":
                await message.reply(message.body)

    async def ask(self, body: object = 1, timeout_s: float = 5.0) -> object:
        return (await self.asker.ask(self.answerer.uri, body, timeout=timeout_s)).body

    async def ask_until_answered(self) -> None:
        """As an agent would: again, until the mesh is whole."""
        while True:
            try:
                await self.ask()
            except sidelink.SidelinkError:
                await asyncio.sleep(0.1)
            else:
                return


@pytest.mark.parametrize("name", ["authority", "gateway", "a", "b"])
async def test_a_program_in_use_ends_by_sigterm_within_its_grace(name: str, mesh: Mesh) -> None:
    program = getattr(mesh, name)
    async with Pair(mesh) as pair:
        await pair.ask_until_answered()
        begun_s = time.monotonic()
        code = await asyncio.to_thread(program.stop)

    assert code == 0, program.log_tail()
    assert time.monotonic() - begun_s < STOP_GRACE_S
    assert not program.paths.admin_socket.exists()
    assert "Traceback" not in program.log_text()


async def test_asks_succeed_again_after_the_gateway_restarted(mesh: Mesh) -> None:
    async with Pair(mesh) as pair:
        await pair.ask_until_answered()
        assert await asyncio.to_thread(mesh.gateway.stop) == 0
        mesh.gateway.start()
        await pair.ask_until_answered()

        assert await pair.ask("again") == "again"
    assert mesh.a.status()["gateways"][0]["connected"]


async def test_asks_succeed_again_after_the_gateway_was_killed(mesh: Mesh) -> None:
    async with Pair(mesh) as pair:
        await pair.ask_until_answered()
        await asyncio.to_thread(mesh.gateway.kill)
        mesh.gateway.start()
        await pair.ask_until_answered()

        assert await pair.ask("again") == "again"


@pytest.mark.parametrize("comes_back", [True, False], ids=["comes back", "stays away"])
async def test_an_ask_in_flight_when_the_far_sidecar_is_killed_ends_with_a_typed_error(
    mesh: Mesh, comes_back: bool
) -> None:
    """Its channel is looked for as long as the far sidecar may only have lost its way."""
    async with Pair(mesh) as pair:
        await pair.ask_until_answered()
        asking = asyncio.create_task(pair.ask("no answer", timeout_s=25 if comes_back else 2))
        await asyncio.to_thread(
            mesh.a.wait_status, lambda status: status["channels"] > 0, "a channel"
        )
        await asyncio.to_thread(mesh.b.kill)
        if comes_back:
            await asyncio.to_thread(mesh.b.start)

        with pytest.raises(sidelink.SidelinkError) as failed:
            await asking

    expected = "message.outcome_unknown" if comes_back else "message.timeout"
    assert failed.value.code == expected
    assert failed.value.outcome_unknown
    assert failed.value.remedy


async def test_an_ask_in_flight_when_the_far_sidecar_stops_ends_with_a_typed_error(
    mesh: Mesh,
) -> None:
    async with Pair(mesh) as pair:
        await pair.ask_until_answered()
        asking = asyncio.create_task(pair.ask("no answer", timeout_s=25))
        await asyncio.sleep(0.2)
        assert await asyncio.to_thread(mesh.b.stop) == 0

        with pytest.raises((sidelink.Unreachable, sidelink.Rejected)) as failed:
            await asking

    assert failed.value.code in ("message.outcome_unknown", "message.rejected")


async def test_an_agent_keeps_its_identity_when_its_sidecar_restarts(mesh: Mesh) -> None:
    async with Pair(mesh) as pair:
        before = pair.asker.identifier
        assert await asyncio.to_thread(mesh.a.stop) == 0
        mesh.a.start()
        await pair.asker.wait_connected()
        await pair.ask_until_answered()

        assert pair.asker.identifier == before


async def test_a_second_program_on_one_state_folder_is_refused(mesh: Mesh) -> None:
    refused = await asyncio.to_thread(
        run_sidelink, "up", "--state", str(mesh.a.base), "--ops-port", "0"
    )

    assert refused.returncode == 2
    assert "config.state_locked" in refused.stderr
    assert str(mesh.a.pid) in refused.stderr
    assert mesh.a.status()["ready"]
