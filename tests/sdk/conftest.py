"""A sidecar without a mesh, and a program that is connected to it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sidelink
from sidelink import mesh as mesh_module

from tests.sdk.fakes import WAIT_S, FakeRouter, local_api


@pytest.fixture
def router() -> FakeRouter:
    return FakeRouter()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "agent.sock"


@pytest.fixture
def soon_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost sidecar is looked for again almost at once."""
    monkeypatch.setattr(mesh_module, "RETRY_DELAY_S_MIN", 0.002)


@pytest.fixture
async def mesh(router: FakeRouter, path: Path) -> AsyncIterator[sidelink.Mesh]:
    async with local_api(path, router), asyncio.timeout(WAIT_S), sidelink.connect(path) as mesh:
        yield mesh
