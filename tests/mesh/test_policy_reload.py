"""Policies that change while everybody talks: the new one holds within a second, and as a whole."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sidelink

from policy import STARTER_POLICY
from tests.mesh.meshes import Mesh
from tests.mesh.programs import WAIT_S, Program, wait_until

pytestmark = pytest.mark.mesh

# What the issue promises, from the moment that the file is there.
NEW_WITHIN_S = 1.0
TOP = "apiVersion: sidelink/v1\nkind: Policy\nmetadata: {name: more}\nrules:\n"
NO_TELLS = f"{TOP}  - {{name: no tells, effect: deny, actions: [message.tell]}}\n"
NO_SENDER = (
    f"{TOP}  - name: no sender\n    effect: deny\n    actions: [channel.open]\n"
    '    from: {name: "agent://acme/finance/sender"}\n'
)
NO_STREAMS = f"{TOP}  - {{name: no streams, effect: deny, actions: [stream.open]}}\n"
NO_RELAY = f"{TOP}  - {{name: no links, effect: deny, actions: [link.relay]}}\n"
NO_NODE_A = (
    f"{TOP}  - {{name: not a, effect: deny, actions: [hop.admit], "
    'from: {name: "agent://acme/node/a"}}\n'
)
NO_PREFIX_OF_A = (
    f"{TOP}  - {{name: no prefix, effect: deny, actions: [route.register], "
    'from: {name: "agent://acme/node/a"}}\n'
)


@pytest.fixture(scope="module")
def whole_mesh() -> Iterator[Mesh]:
    with Mesh() as mesh:
        yield mesh.up()


@pytest.fixture
def mesh(whole_mesh: Mesh) -> Iterator[Mesh]:
    """As it was started, whatever the test before has put there."""
    yield whole_mesh
    programs = (whole_mesh.gateway, whole_mesh.a, whole_mesh.b)
    for program in programs:
        for path in program.paths.policy_folder.glob("*"):
            path.unlink()
        put(program.paths.policy, STARTER_POLICY)
    for program in programs:
        wait_loaded(program, lambda policy: len(policy["files"]) == 1 and not policy["fault"])
        program.wait_ready()


@pytest.fixture(autouse=True)
async def deadline() -> AsyncIterator[None]:
    async with asyncio.timeout(WAIT_S):
        yield


def put(path: Path, text: str) -> float:
    """Put a file in its place as people should: whole, or not at all. Returns when that was."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return time.monotonic()


def add(program: Program, text: str) -> float:
    """Another file of the program's policy."""
    return put(program.paths.policy_folder / "more.yaml", text)


def wait_loaded(program: Program, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    status = program.wait_status(lambda status: condition(status["policy"]), "another policy")
    found: dict[str, Any] = status["policy"]
    return found


def lines_of(program: Program) -> list[dict[str, Any]]:
    text = program.paths.audit.read_text(encoding="utf-8").rpartition("\n")[0]
    return [json.loads(line) for line in text.splitlines()]


class Talk:
    """Tells from an agent of the first sidecar to one of the second, without an end."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self.received: list[float] = []
        self.refused: list[tuple[float, sidelink.SidelinkError]] = []
        self._flows = asyncio.Event()
        self._moved = asyncio.Event()

    async def __aenter__(self) -> "Talk":
        self._a = sidelink.connect(self._mesh.a.agent_socket)
        self._b = sidelink.connect(self._mesh.b.agent_socket)
        self.sender = await (await self._a.__aenter__()).agent("finance/sender")
        self.receiver = await (await self._b.__aenter__()).agent("billing/receiver")
        self._tasks = [asyncio.create_task(task) for task in (self._listen(), self._say())]
        await self._flows.wait()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.be_silent()
        for connected in (self._a, self._b):
            await connected.__aexit__(None, None, None)

    async def be_silent(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def refusal(self) -> sidelink.SidelinkError:
        """The first from now on."""
        count = len(self.refused)
        async with asyncio.timeout(WAIT_S):
            while len(self.refused) == count:
                await self._something()
        return self.refused[count][1]

    async def word_after(self, moment_s: float) -> None:
        async with asyncio.timeout(WAIT_S):
            while self.received[-1] < moment_s:
                await self._something()

    async def _something(self) -> None:
        """Wait until a word has arrived, or was refused."""
        self._moved.clear()
        await self._moved.wait()

    async def _say(self) -> None:
        while True:
            try:
                await self.sender.tell(self.receiver.uri, "word")
            except sidelink.SidelinkError as exc:
                self.refused.append((time.monotonic(), exc))
                self._moved.set()
            await asyncio.sleep(0.005)

    async def _listen(self) -> None:
        async for _ in self.receiver.inbox():
            self.received.append(time.monotonic())
            self._moved.set()
            if len(self.received) == 20:
                self._flows.set()


async def test_a_live_channel_is_decided_by_the_new_policy_within_a_second_and_by_no_other(
    mesh: Mesh,
) -> None:
    async with Talk(mesh) as talk:
        before = mesh.a.status()
        put_s = await asyncio.to_thread(add, mesh.a, NO_TELLS)
        refused = await talk.refusal()
        first_s = talk.refused[0][0]
        await asyncio.sleep(0.5)
        await talk.be_silent()
        after = mesh.a.status()
    await asyncio.to_thread(
        mesh.a.wait_audit, lambda line: line.get("policy_version") == after["policy"]["version"]
    )
    versions = [line["policy_version"] for line in lines_of(mesh.a) if line.get("policy_version")]
    new = versions.index(after["policy"]["version"])

    assert (refused.code, getattr(refused, "rule", None)) == ("policy.denied", "no tells")
    assert first_s - put_s < NEW_WITHIN_S
    assert talk.received[-1] - put_s < NEW_WITHIN_S
    assert before["policy"]["version"] not in versions[new:]
    assert after["channels"] == before["channels"]
    assert after["policy"]["reloads"]["loaded"] >= 1


async def test_the_other_way_round_it_is_allowed_within_a_second(mesh: Mesh) -> None:
    async with Talk(mesh) as talk:
        await asyncio.to_thread(add, mesh.a, NO_TELLS)
        await talk.refusal()
        removed_s = time.monotonic()
        (mesh.a.paths.policy_folder / "more.yaml").unlink()
        await talk.word_after(removed_s)

    assert talk.received[-1] - removed_s < NEW_WITHIN_S


async def test_a_silent_channel_that_is_denied_now_is_cut_within_a_second(mesh: Mesh) -> None:
    async with Talk(mesh) as talk:
        await talk.be_silent()
        put_s = await asyncio.to_thread(add, mesh.b, NO_SENDER)
        await asyncio.to_thread(
            wait_until, lambda: mesh.b.status()["channels"] == 0, "the channel's end"
        )
        cut_s = time.monotonic()
        line = await asyncio.to_thread(
            mesh.b.wait_audit, lambda line: line["action"] == "channel.cut"
        )
        metrics = await asyncio.to_thread(mesh.b.metrics)

    assert cut_s - put_s < NEW_WITHIN_S
    assert (line["effect"], line["rule"]) == ("cut", "no sender")
    assert line["subject"] == "agent://acme/finance/sender"
    assert "policy.denied" in line["reason"]
    assert line["policy_version"] == mesh.b.status()["policy"]["version"]
    assert 'sidelink_cuts_total{code="policy.denied",what="channel"}' in metrics


async def test_a_bad_file_changes_nothing_and_its_place_is_told(mesh: Mesh) -> None:
    async with Talk(mesh) as talk:
        before = mesh.b.status()["policy"]
        put_s = await asyncio.to_thread(add, mesh.b, NO_TELLS.replace("effect: deny", "effct: no"))
        told = await asyncio.to_thread(wait_loaded, mesh.b, lambda policy: policy["fault"])
        refused = list(talk.refused)
        received = len(talk.received)
        await asyncio.sleep(0.5)
        metrics = await asyncio.to_thread(mesh.b.metrics)

    fault = told["fault"]
    assert fault["file"] == str(mesh.b.paths.policy_folder / "more.yaml")
    assert (fault["line"], fault["column"]) == (5, 29)
    assert told["version"] == before["version"]
    assert (refused, talk.refused) == ([], [])
    assert len(talk.received) > received
    assert talk.received[-1] > put_s
    assert "sidelink_policy_refused 1.0" in metrics
    assert f'sidelink_policy_info{{version="{before["version"]}"}} 1.0' in metrics
    log = mesh.b.log_text()
    assert "policy_refused" in log
    assert "more.yaml:5:29" in log


async def test_each_node_enforces_its_own(mesh: Mesh) -> None:
    """The sender's node allows what the receiver's denies, and each says so in its own log."""
    async with Talk(mesh):
        await asyncio.to_thread(add, mesh.b, NO_TELLS)
        denied = await asyncio.to_thread(
            mesh.b.wait_audit, lambda line: line["rule"] == "no tells" and line["effect"] == "deny"
        )
        versions = [program.status()["policy"]["version"] for program in (mesh.a, mesh.b)]
        at_a = [line for line in lines_of(mesh.a) if line["action"] == "message.tell"]

    assert versions[0] != versions[1]
    assert (denied["action"], denied["policy_version"]) == ("message.tell", versions[1])
    assert (at_a[-1]["effect"], at_a[-1]["policy_version"]) == ("allow", versions[0])


async def test_a_link_that_the_gateway_denies_now_is_cut_within_a_second(mesh: Mesh) -> None:
    async with Talk(mesh):
        before = mesh.gateway.status()["links"]
        put_s = await asyncio.to_thread(add, mesh.gateway, NO_RELAY)
        await asyncio.to_thread(
            wait_until, lambda: mesh.gateway.status()["links"] == 0, "the link's end"
        )
        cut_s = time.monotonic()
        line = await asyncio.to_thread(
            mesh.gateway.wait_audit, lambda line: line["action"] == "link.cut"
        )

    assert before >= 1
    assert cut_s - put_s < NEW_WITHIN_S
    assert line["rule"] == "no links"


@pytest.mark.parametrize(
    ("text", "action", "rule"),
    [(NO_NODE_A, "hop.cut", "not a"), (NO_PREFIX_OF_A, "registration.cut", "no prefix")],
    ids=["a hop", "a registration"],
)
async def test_it_is_cut_within_a_second_at_a_gateway_that_denies_it_now(
    text: str, action: str, rule: str, mesh: Mesh
) -> None:
    put_s = await asyncio.to_thread(add, mesh.gateway, text)

    def is_gone() -> bool:
        return all(route["prefix"] != "agent://acme/finance" for route in routes(mesh))

    await asyncio.to_thread(wait_until, is_gone, "the end of it")
    gone_s = time.monotonic()
    line = await asyncio.to_thread(mesh.gateway.wait_audit, lambda line: line["action"] == action)

    assert gone_s - put_s < NEW_WITHIN_S
    assert (line["subject"], line["rule"]) == ("agent://acme/node/a", rule)


def routes(mesh: Mesh) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = mesh.gateway.status()["routes"]
    return found


async def test_a_hangup_makes_a_program_read_its_policy_and_ends_none(mesh: Mesh) -> None:
    programs = (mesh.authority, mesh.gateway, mesh.a, mesh.b)
    before = [program.status()["policy"]["reloads"]["unchanged"] for program in programs]
    for program in programs:
        os.kill(program.pid, signal.SIGHUP)
    for program, count in zip(programs, before, strict=True):
        await asyncio.to_thread(
            wait_loaded,
            program,
            lambda policy, count=count: policy["reloads"]["unchanged"] > count,
        )

    assert all(program.is_running for program in programs)
