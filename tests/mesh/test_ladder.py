"""Two agents through networks that get worse: what was accepted arrives once and in order."""

from collections.abc import Iterator

import pytest

from tests.impairment.ladder import climb
from tests.impairment.rungs import RUNGS
from tests.mesh.meshes import Mesh

# Each rung takes as long as it sends, and at its worst as long again until all is heard.
pytestmark = [pytest.mark.mesh, pytest.mark.prove, pytest.mark.timeout(150)]


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with Mesh() as mesh:
        yield mesh.up().put_proxies_between()


@pytest.mark.parametrize("name", RUNGS)
async def test_what_was_accepted_arrives_once_and_in_order_through(name: str, mesh: Mesh) -> None:
    rung = RUNGS[name]

    report = await climb(mesh, name, rung)

    assert report.broken == [], report.text()
    for node in ("a", "b"):
        carried = report.proxies[node]
        assert min(carried["up"]["delivered"], carried["down"]["delivered"]) > rung.seconds


def test_each_sidecar_reaches_the_gateway_through_a_proxy_of_its_own(mesh: Mesh) -> None:
    mesh.proxies["a"].blackhole()
    mesh.a.wait_status(lambda status: not status["ready"], "its hop lost")
    other = mesh.b.status()
    mesh.proxies["a"].heal()
    mesh.a.wait_ready()

    assert other["ready"]
