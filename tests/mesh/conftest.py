"""One mesh for the tests that leave it as it was, and the programs' logs beside a failed test."""

from collections.abc import AsyncIterator, Generator, Iterator

import pytest
import sidelink

from tests.mesh.meshes import Mesh


@pytest.fixture(scope="session")
def shared_mesh() -> Iterator[Mesh]:
    """For tests that stop nothing and have agents of their own names. One for a test process."""
    with Mesh() as mesh:
        yield mesh.up()


@pytest.fixture
async def mesh_a(shared_mesh: Mesh) -> AsyncIterator[sidelink.Mesh]:
    """A program beside the first sidecar."""
    async with sidelink.connect(shared_mesh.a.agent_socket) as connected:
        yield connected


@pytest.fixture
async def mesh_b(shared_mesh: Mesh) -> AsyncIterator[sidelink.Mesh]:
    """A program beside the second."""
    async with sidelink.connect(shared_mesh.b.agent_socket) as connected:
        yield connected


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and report.when == "call":
        for mesh in getattr(item, "funcargs", {}).values():
            if isinstance(mesh, Mesh):
                report.sections.append(("programs", mesh.logs()))
    return report
