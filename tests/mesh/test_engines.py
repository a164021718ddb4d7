"""The same mesh on both QUIC engines, and with a different one on each side of every hop."""

import asyncio
from collections.abc import Iterator

import pytest
import sidelink

from tests.mesh.meshes import Mesh
from tests.mesh.programs import WAIT_S

pytestmark = pytest.mark.mesh

HOP_SECONDS_MAX = 0.25

# Engines of the gateway (and its authority), of the first sidecar and of the second.
MESHES = {
    "qh3 everywhere": ("qh3", "qh3", "qh3"),
    "aioquic everywhere": ("aioquic", "aioquic", "aioquic"),
    "another engine on each side of every hop": ("qh3", "aioquic", "aioquic"),
    "the same the other way round": ("aioquic", "qh3", "qh3"),
}


@pytest.fixture(scope="module", params=MESHES.values(), ids=list(MESHES))
def engines_mesh(request: pytest.FixtureRequest) -> Iterator[Mesh]:
    with Mesh(engines=request.param) as mesh:
        yield mesh.up()


async def test_an_ask_is_answered_on_these_engines(engines_mesh: Mesh) -> None:
    async with (
        asyncio.timeout(WAIT_S),
        sidelink.connect(engines_mesh.a.agent_socket) as mesh_a,
        sidelink.connect(engines_mesh.b.agent_socket) as mesh_b,
    ):
        asker = await mesh_a.agent("finance/planner", attributes={"role": "planner"})
        answerer = await mesh_b.agent("billing/main")
        asking = asyncio.create_task(asker.ask(answerer.uri, bytes(200_000), timeout=20))
        message = await anext(answerer.inbox())
        await message.reply(message.body)
        reply = await asking

    assert reply.body == bytes(200_000)
    assert dict(message.attributes) == {"role": "planner"}


def test_a_hop_is_set_up_within_a_quarter_of_a_second(engines_mesh: Mesh) -> None:
    gateway = engines_mesh.gateway.status()
    dialled = {program.name: program.status() for program in (engines_mesh.a, engines_mesh.b)}

    hops = {hop["name"]: hop for hop in gateway["hops"] if hop["role"] == "sidecar"}
    assert set(hops) == {"agent://acme/node/a", "agent://acme/node/b"}
    for name, status in dialled.items():
        engines = (gateway["engine"], status["engine"])
        assert engines == expected_engines(engines_mesh, name)
        assert hops[f"agent://acme/node/{name}"]["opened_in_s"] < HOP_SECONDS_MAX, engines


def expected_engines(mesh: Mesh, name: str) -> tuple[str, str]:
    """As the flags say, which the programs were started with."""
    gateway = mesh.gateway.flags[mesh.gateway.flags.index("--quic-engine") + 1]
    sidecar = mesh.a if name == "a" else mesh.b
    return gateway, sidecar.flags[sidecar.flags.index("--quic-engine") + 1]
