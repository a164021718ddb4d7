"""What a gateway holds of others: no private key and no plaintext, on disk or in memory."""

import asyncio
import os
from collections.abc import Mapping

import pytest
import sidelink

from identity import load_master_key
from tests.mesh.meshes import Mesh
from tests.mesh.programs import WAIT_S, Program
from tests.mesh.secret_search import files, memory, private_keys, search

pytestmark = pytest.mark.mesh

CANARY_BYTES = 32
A_AGENT = "finance/keeper"
B_AGENT = "billing/keeper"


@pytest.fixture
async def canaries(shared_mesh: Mesh) -> Mapping[str, bytes]:
    """Two agents have just exchanged these; the connections are still warm."""
    question, answer = os.urandom(CANARY_BYTES), os.urandom(CANARY_BYTES)
    async with (
        asyncio.timeout(WAIT_S),
        sidelink.connect(shared_mesh.a.agent_socket) as mesh_a,
        sidelink.connect(shared_mesh.b.agent_socket) as mesh_b,
    ):
        asker = await mesh_a.agent(A_AGENT)
        answerer = await mesh_b.agent(B_AGENT)
        asking = asyncio.create_task(asker.ask(answerer.uri, question, timeout=20))
        message = await anext(answerer.inbox())
        assert message.body == question
        await message.reply(answer)
        assert (await asking).body == answer
    return {"the question": question, "the answer": answer}


def others_keys(mesh: Mesh) -> dict[str, bytes]:
    return {
        **private_keys(mesh.authority),
        **private_keys(mesh.a, agent=A_AGENT),
        **private_keys(mesh.b, agent=B_AGENT),
    }


def master_key(program: Program) -> bytes:
    return load_master_key(program.paths.master_key, environment={}).raw


def test_the_gateways_folder_holds_no_private_key_of_others_and_no_plaintext(
    shared_mesh: Mesh, canaries: Mapping[str, bytes]
) -> None:
    gateway = shared_mesh.gateway
    own = {"its own master key": master_key(gateway)}
    wanted = others_keys(shared_mesh) | dict(canaries)
    assert {"auth .node signing", "a finance/keeper signing", "b billing/keeper channel"} <= set(
        wanted
    )

    found = search(files(gateway.base), wanted | own)

    assert found == set(own), "and its own master key is there, so the search works"


def test_the_gateways_memory_holds_no_private_key_of_others_and_no_plaintext(
    shared_mesh: Mesh, canaries: Mapping[str, bytes]
) -> None:
    gateway = shared_mesh.gateway
    own = private_keys(gateway)
    wanted = others_keys(shared_mesh) | dict(canaries)

    found = search(memory(gateway.pid), wanted | dict(own))

    assert found & set(wanted) == set()
    assert {"gw .node signing", "gw .node hop"} <= found, "its own are there: the search works"


def test_the_same_search_finds_an_agents_keys_in_its_own_sidecar(
    shared_mesh: Mesh, canaries: Mapping[str, bytes]
) -> None:
    """So the searches above could fail."""
    keys = private_keys(shared_mesh.b, agent=B_AGENT)

    found = search(memory(shared_mesh.b.pid), keys)

    assert "b billing/keeper channel" in found


def test_no_private_key_and_no_plaintext_lies_open_in_any_folder(
    shared_mesh: Mesh, canaries: Mapping[str, bytes]
) -> None:
    wanted = {**others_keys(shared_mesh), **private_keys(shared_mesh.gateway), **canaries}
    for program in (shared_mesh.authority, shared_mesh.gateway, shared_mesh.a, shared_mesh.b):
        assert search(files(program.base), wanted) == set()


def test_no_log_holds_a_secret(shared_mesh: Mesh, canaries: Mapping[str, bytes]) -> None:
    programs = (shared_mesh.authority, shared_mesh.gateway, shared_mesh.a, shared_mesh.b)
    logs = iter([program.log_text().encode() for program in programs])
    keys = others_keys(shared_mesh) | dict(private_keys(shared_mesh.gateway))

    assert search(logs, keys | dict(canaries)) == set()
