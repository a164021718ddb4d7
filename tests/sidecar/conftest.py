"""The local API in front of a router that knows its agents only, and processes to connect."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.local_api import LocalApi
from tests.sdk.fakes import WAIT_S, FakeRouter, local_api
from tests.sidecar.local_clients import Clients


@pytest.fixture
async def deadline() -> AsyncIterator[None]:
    async with asyncio.timeout(WAIT_S):
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "agent.sock"


@pytest.fixture
def router() -> FakeRouter:
    return FakeRouter()


@pytest.fixture
async def clients(path: Path) -> AsyncIterator[Clients]:
    clients = Clients(path)
    yield clients
    await clients.close()


@pytest.fixture
async def api(path: Path, router: FakeRouter, clients: Clients) -> AsyncIterator[LocalApi]:
    async with local_api(path, router) as api:
        yield api
        await clients.close()
