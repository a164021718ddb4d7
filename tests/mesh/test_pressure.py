"""One peer sins as hard as it can; honest agents are served meanwhile, in bounded memory.

How late they are served is measured by ``./dev bench hostile``, not here.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import sidelink

from bench import proc
from tests.mesh.honest import honest_pair, told_much
from tests.mesh.meshes import Mesh
from tests.mesh.programs import wait_until
from tests.mesh.sins import SIDECAR, SINS, Sin, Sinner, count, hostile_sidecar, shown
from transport import limits

pytestmark = pytest.mark.mesh

ASKS_PER_S: Final = 50
ASKS: Final = 60
"""Once the sin has been counted for the first time."""
ASK_S_MAX: Final = 20.0
COUNTED_S_MAX: Final = 30.0
BODY: Final = bytes(1_024)

# What is configured, and what the transport takes by itself: its queue of reads, and handshakes.
QUEUE_BYTES_MAX: Final = 16 << 20
GROWTH_BYTES_MAX: Final = (
    QUEUE_BYTES_MAX
    + limits.HOPS_WAITING_BYTES_MAX
    + limits.HALF_OPEN_MAX * limits.PRE_AUTH_BYTES_MAX
)


class Pressed:
    """A mesh, its sinner, and how large its programs were before the first sin."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.sinner = Sinner(mesh)
        self.programs = (mesh.gateway, mesh.a, mesh.b)
        self.pids = [program.pid for program in self.programs]
        self.sizes = [proc.resident_bytes(pid) for pid in self.pids]

    def forget_peaks(self) -> None:
        """From now on the peaks are those of what follows: see proc(5), clear_refs."""
        for pid in self.pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def growth_bytes(self) -> list[int]:
        """The most that each was larger than in the beginning."""
        peaks = [proc.peak_resident_bytes(pid) for pid in self.pids]
        return [peak - size for peak, size in zip(peaks, self.sizes, strict=True)]


@pytest.fixture(scope="module")
def pressed() -> Iterator[Pressed]:
    """One after the other sins against the same programs, so that what one leaves is seen."""
    with Mesh() as mesh:
        mesh.gateway.write_state_file("config.yaml", f"hop_queue_bytes_max: {QUEUE_BYTES_MAX}\n")
        for sidecar in (mesh.a, mesh.b):
            sidecar.write_state_file("config.yaml", f"mailboxes_bytes_max: {QUEUE_BYTES_MAX}\n")
        mesh.up()
        pressed = Pressed(mesh)
        pressed.sinner.enrol()
        yield pressed


@pytest.fixture
async def honest(pressed: Pressed) -> AsyncIterator[tuple[sidelink.Agent, sidelink.Agent]]:
    async with honest_pair(pressed.mesh.a.agent_socket, pressed.mesh.b.agent_socket) as pair:
        yield pair


async def ask_much(asker: sidelink.Agent, to: str, counted: "asyncio.Future[None]") -> int:
    """Ask at a steady pace until the sin is counted, and so often again. Raises what goes wrong."""
    async with asyncio.TaskGroup() as group:
        asks = []
        last = 0
        while not counted.done() or len(asks) < last + ASKS:
            last = last if counted.done() else len(asks)
            asks.append(group.create_task(asker.ask(to, BODY, timeout=ASK_S_MAX)))
            await asyncio.sleep(1 / ASKS_PER_S)
    return sum(ask.result().body == BODY for ask in asks) - last


@asynccontextmanager
async def committed(sin: Sin, pressed: Pressed) -> AsyncIterator[None]:
    if sin.module == SIDECAR:
        with hostile_sidecar(pressed.mesh, sin, "deaf") as deaf:
            async with told_much(pressed.mesh.a.agent_socket, deaf.agent_socket):
                yield
    else:
        with pressed.sinner.at_work(sin):
            yield


def wait_counted(mesh: Mesh, sin: Sin, before: float) -> None:
    wait_until(lambda: count(mesh, sin.counted) > before, f"{sin.counted} to rise", COUNTED_S_MAX)


@pytest.mark.parametrize("title", SINS)
async def test_honest_agents_are_served_in_bounded_memory_while(
    title: str, pressed: Pressed, honest: tuple[sidelink.Agent, sidelink.Agent]
) -> None:
    sin, mesh = SINS[title], pressed.mesh
    asker, answerer = honest
    before = count(mesh, sin.counted)
    shown_before = shown(mesh, sin.counted)
    pressed.forget_peaks()

    async with committed(sin, pressed):
        counted = asyncio.ensure_future(asyncio.to_thread(wait_counted, mesh, sin, before))
        answered = await ask_much(asker, answerer.uri, counted)
        await counted

    assert answered == ASKS
    assert [program.pid for program in pressed.programs if program.is_running] == pressed.pids
    assert max(pressed.growth_bytes()) < GROWTH_BYTES_MAX
    assert shown(mesh, sin.counted) > shown_before
