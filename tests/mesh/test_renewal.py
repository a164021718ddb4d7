"""Credentials of a minute: renewed at half-life under running channels, which end with the last one
when the authority is away."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest

from node.renewal import JITTER
from tests.mesh.meshes import Mesh
from tests.mesh.programs import Program, wait_until
from tests.mesh.test_revocation import Stream

pytestmark = [pytest.mark.mesh, pytest.mark.prove, pytest.mark.timeout(240)]

TTL_S: Final = 60
# Renewals look at the clock once in this time; hops and channels are judged once a second.
LATE_S: Final = 3.0


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with Mesh() as started:
        started.authority.write_state_file("config.yaml", f"node_credential_ttl_s: {TTL_S}\n")
        yield started.up()


@pytest.fixture(autouse=True)
async def deadline() -> AsyncIterator[None]:
    async with asyncio.timeout(200):
        yield


def renewals(program: Program, result: str) -> float:
    """How many of them came to this."""
    name = f'sidelink_credential_renewals_total{{result="{result}"}}'
    found = [line.split()[1] for line in program.metrics().splitlines() if line.startswith(name)]
    return sum(map(float, found))


def ended(mesh: Mesh) -> tuple[Any, ...]:
    """What was closed, anywhere, and why."""
    gateway = mesh.gateway.status()["hops_closed"]
    return gateway, *(program.status()["channels_closed"] for program in (mesh.a, mesh.b))


def expiries(mesh: Mesh) -> dict[str, int]:
    nodes = (mesh.a, mesh.b, mesh.gateway)
    return {node.name: node.status()["credential_expires_unix_s"] for node in nodes}


def wait_renewed(mesh: Mesh) -> None:
    for node in (mesh.a, mesh.b, mesh.gateway):
        wait_until(lambda node=node: renewals(node, "ok") >= 1, "a renewal", TTL_S)  # type: ignore[misc]


async def test_channels_outlive_renewals_and_end_with_the_last_credential(mesh: Mesh) -> None:
    begun = await asyncio.to_thread(expiries, mesh)
    async with Stream(mesh) as stream:
        before = await asyncio.to_thread(ended, mesh)
        await asyncio.to_thread(wait_renewed, mesh)
        renewed_unix_s = time.time()
        flowing = len(stream.received)
        await asyncio.sleep(LATE_S)
        after = await asyncio.to_thread(ended, mesh)
        refused_while_renewed, flowed = list(stream.refused), len(stream.received) - flowing

        assert await asyncio.to_thread(mesh.authority.stop) == 0
        last = await asyncio.to_thread(expiries, mesh)
        end_unix_s = min(last.values())
        await asyncio.sleep(end_unix_s + LATE_S - time.time())
        arrived = len(stream.received)
        silent_unix_s = time.time() - (time.monotonic() - stream.received[-1])
        failed = [await asyncio.to_thread(renewals, node, "failed") for node in (mesh.a, mesh.b)]
        renewal = (await asyncio.to_thread(mesh.a.status))["renewal"]
        closed = (await asyncio.to_thread(mesh.gateway.status))["hops_closed"]
        await asyncio.sleep(LATE_S)
        arrived_late = len(stream.received) - arrived

    # In time, and nothing noticed it.
    latest_s = TTL_S * (0.5 + JITTER / 2) + LATE_S
    assert renewed_unix_s < max(begun.values()) - TTL_S + latest_s
    assert after == before
    assert refused_while_renewed == []
    assert flowed > 0
    # Until the end, and not longer.
    assert min(failed) >= 1
    assert "enrol.authority_unreachable" in renewal["fault"]
    assert end_unix_s - LATE_S <= silent_unix_s <= end_unix_s + LATE_S
    assert arrived_late == 0
    assert closed["hop.credential_expired"] >= 1
