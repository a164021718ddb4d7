"""A policy that a whole trust domain obeys: published once, in force everywhere, never widened."""

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import sidelink

from tests.mesh.meshes import Mesh
from tests.mesh.programs import WAIT_S, Program, run_sidelink
from tests.mesh.test_policy_reload import NEW_WITHIN_S, NO_TELLS, Talk, add, wait_loaded

pytestmark = pytest.mark.mesh

TOP = "apiVersion: sidelink/v1\nkind: Policy\nmetadata: {name: domain}\nrules:\n"
EVERYTHING = (
    f"{TOP}  - {{name: all messages, effect: allow, actions: [message.ask, message.tell]}}\n"
)
NO_HOPS = "  - {name: no hops, effect: deny, actions: [hop.admit]}\n"
ONLY_ASKS = f"{TOP}  - {{name: only asks, effect: allow, actions: [message.ask]}}\n"


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with Mesh() as mesh:
        yield mesh.up()


@pytest.fixture(autouse=True)
async def deadline() -> AsyncIterator[None]:
    async with asyncio.timeout(WAIT_S):
        yield


@pytest.fixture(autouse=True)
def nothing_more(mesh: Mesh) -> Iterator[None]:
    """Whatever a test has published, the next begins without."""
    yield
    number = said(mesh.authority, "withdraw")["number"]
    for program in (mesh.gateway, mesh.a, mesh.b):
        for path in program.paths.policy_folder.glob("*"):
            path.unlink()
        wait_for(program, number)
        wait_loaded(program, lambda policy: len(policy["files"]) == 1)


def ran(program: Program, *words: str) -> subprocess.CompletedProcess[str]:
    """`sidelink policy …` for this program's folder."""
    named = () if words[0] == "signers" else ("--program", program.program)
    return run_sidelink("policy", *words, *named, "--state", str(program.base), "--json")


def said(program: Program, *words: str) -> Any:
    """The document that it prints."""
    done = ran(program, *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def publish(program: Program, text: str) -> tuple[int, float]:
    """The number, and when the command had returned."""
    path = program.base / "domain.yaml"
    path.write_text(text)
    number: int = said(program, "publish", str(path))["number"]
    return number, time.monotonic()


def wait_for(program: Program, number: int) -> dict[str, Any]:
    status = program.wait_status(
        lambda status: (status["mandatory_policy"]["number"] or 0) >= number,
        f"policy {number}",
    )
    found: dict[str, Any] = status["mandatory_policy"]
    return found


async def test_what_is_published_decides_on_a_live_channel_within_a_second_whatever_files_say(
    mesh: Mesh,
) -> None:
    async with Talk(mesh) as talk:
        number, returned_s = await asyncio.to_thread(publish, mesh.authority, ONLY_ASKS)
        refused = await talk.refusal()
        first_s = talk.refused[0][0]
        # Their own files allow it still, and a file that allows it again changes nothing.
        await asyncio.to_thread(add, mesh.a, EVERYTHING)
        await asyncio.to_thread(wait_loaded, mesh.a, lambda policy: len(policy["files"]) == 2)
        again = await talk.refusal()
        held = [await asyncio.to_thread(wait_for, one, number) for one in (mesh.gateway, mesh.b)]

    assert refused.code == again.code == "policy.no_rule"
    assert first_s - returned_s < NEW_WITHIN_S
    assert talk.received[-1] - returned_s < NEW_WITHIN_S
    assert [one["number"] for one in held] == [number, number]
    assert [one["files"] for one in held] == [["domain.yaml"]] * 2


async def test_what_is_published_can_be_narrowed_by_a_file(mesh: Mesh) -> None:
    number, _ = await asyncio.to_thread(publish, mesh.authority, EVERYTHING)
    await asyncio.to_thread(wait_for, mesh.a, number)
    async with Talk(mesh) as talk:
        await asyncio.to_thread(add, mesh.a, NO_TELLS)
        refused = await talk.refusal()

    assert (refused.code, getattr(refused, "rule", None)) == ("policy.denied", "no tells")


async def test_one_can_go_back_to_what_was_published_before(mesh: Mesh) -> None:
    first, _ = await asyncio.to_thread(publish, mesh.authority, EVERYTHING)
    await asyncio.to_thread(wait_for, mesh.a, first)
    async with Talk(mesh) as talk:
        second, _ = await asyncio.to_thread(publish, mesh.authority, ONLY_ASKS)
        await talk.refusal()
        third = (await asyncio.to_thread(said, mesh.authority, "rollback", str(first)))["number"]
        returned_s = time.monotonic()
        await talk.word_after(returned_s)

    assert first < second < third
    assert talk.received[-1] - returned_s < NEW_WITHIN_S
    listed = said(mesh.authority, "published")["policies"]
    assert [one["number"] for one in listed[:3]] == [third, second, first]
    for number in (first, third):
        shown = said(mesh.authority, "published", str(number))
        assert shown["files"] == [{"name": "domain.yaml", "text": EVERYTHING}]


async def test_it_is_obeyed_by_a_sidecar_that_starts_while_no_gateway_is_there(mesh: Mesh) -> None:
    number, _ = await asyncio.to_thread(publish, mesh.authority, ONLY_ASKS)
    await asyncio.to_thread(wait_for, mesh.a, number)
    await asyncio.to_thread(mesh.gateway.stop)
    await asyncio.to_thread(mesh.a.kill)
    await asyncio.to_thread(mesh.a.start)
    held = await asyncio.to_thread(wait_for, mesh.a, number)
    async with sidelink.connect(mesh.a.agent_socket) as connected:
        sender = await connected.agent("finance/sender")
        with pytest.raises(sidelink.SidelinkError) as caught:
            await sender.tell("agent://acme/billing/nobody", "word")
    await asyncio.to_thread(mesh.gateway.start)
    await asyncio.to_thread(mesh.a.wait_ready)

    assert held["number"] == number
    assert caught.value.code == "policy.no_rule"


async def test_a_node_that_is_named_publishes_and_the_authority_signs_it_anew(mesh: Mesh) -> None:
    identifier = mesh.a.status()["identifier"]
    await asyncio.to_thread(publish, mesh.authority, EVERYTHING)
    signers = await asyncio.to_thread(said, mesh.authority, "signers", "--add", identifier)
    await asyncio.to_thread(
        mesh.a.wait_status,
        lambda status: status["mandatory_policy"]["may_publish"],
        "the right to publish",
    )
    number, _ = await asyncio.to_thread(publish, mesh.a, ONLY_ASKS)
    adopted = await asyncio.to_thread(wait_for, mesh.b, number + 1)
    removed = await asyncio.to_thread(said, mesh.authority, "signers", "--remove", identifier)

    assert signers == {"signers": [identifier]}
    assert adopted["signer"] == mesh.authority.status()["identifier"]
    assert adopted["files"] == ["domain.yaml"]
    assert removed == {"signers": []}


async def test_a_node_that_is_not_named_is_told_what_to_do(mesh: Mesh, tmp_path: Path) -> None:
    path = tmp_path / "domain.yaml"
    path.write_text(EVERYTHING)
    done = await asyncio.to_thread(ran, mesh.b, "publish", str(path))

    assert done.returncode == 1
    assert "policy.signer_denied" in done.stderr
    assert "sidelink policy signers --add" in done.stderr


async def test_a_policy_with_a_fault_or_a_failing_test_is_not_published(
    mesh: Mesh, tmp_path: Path
) -> None:
    failing = f"{EVERYTHING}tests:\n  - {{name: never, action: message.ask, expect: deny}}\n"
    held = mesh.a.status()["mandatory_policy"]["number"]
    for text, exit_code, expected in (
        (EVERYTHING.replace("effect", "effct"), 2, "domain.yaml:5:26: unknown key"),
        (failing, 1, "tests of the policy fail: 'never'"),
        (f"{EVERYTHING}{NO_HOPS}", 1, "no later policy would reach the nodes that obey this one"),
    ):
        path = tmp_path / "domain.yaml"
        path.write_text(text)
        done = await asyncio.to_thread(ran, mesh.authority, "publish", str(path))
        assert done.returncode == exit_code
        assert expected in done.stderr

    assert mesh.a.status()["mandatory_policy"]["number"] == held


async def test_explain_shows_the_rules_of_both(mesh: Mesh) -> None:
    number, _ = await asyncio.to_thread(publish, mesh.authority, ONLY_ASKS)
    await asyncio.to_thread(wait_for, mesh.a, number)
    parties = ("--from", "name=agent://acme/finance/a", "--to", "name=agent://acme/billing/b")
    asked = ("explain", "--action", "message.tell", *parties)
    done = await asyncio.to_thread(ran, mesh.a, *asked)

    explained = json.loads(done.stdout)
    assert done.returncode == 1
    assert explained["reason"].endswith("So says the mandatory policy of the trust domain.")
    names = [rule["name"] for rule in explained["rules"]]
    assert "agents of the trust domain may write to each other" in names
    assert explained["policy_version"] == mesh.a.status()["policy"]["version"]
