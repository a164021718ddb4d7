"""What README.md tells a newcomer to type works as written, and its files load."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sidelink

from node.settings import SidecarSettings
from node.settings_load import load_settings
from policy import STARTER_POLICY, PolicyEngine
from tests.docs.markdown import ROOT, fenced_blocks, named_blocks
from tests.mesh.programs import LOOPBACK, clean_environment, free_udp_port

README = ROOT / "README.md"
QUICK_START_SECONDS_MAX = 50


@pytest.fixture
def quick_start() -> Iterator[Path]:
    """The mesh of the quick start, made by the README's own commands; its folder."""
    # A machine that runs tests may have the usual ports in use.
    script = named_blocks(README, "sh")["quick-start"]
    script = script.replace("127.0.0.1:7440", f"{LOOPBACK}:{free_udp_port()}")
    script = script.replace("7463", "0").replace("sleep 1", "sleep 0.1")
    # Short, since the path of a Unix socket is.
    folder = Path(tempfile.mkdtemp(prefix="readme-"))
    (folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    with (folder / "output").open("w") as output:
        shell = subprocess.Popen(
            ["sh", "-eu", "-c", script],
            cwd=folder,
            env=clean_environment(SIDELINK_OPS_PORT="0"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        code = shell.wait(QUICK_START_SECONDS_MAX)
        logs = "\n".join(path.read_text() for path in (folder / "mesh").glob("*.log"))
        assert code == 0, (folder / "output").read_text() + logs
        yield folder
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
        # A process that was killed may still be closing what it had open.
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.mesh
async def test_the_quick_start_and_the_example_of_the_sdk_work_as_written(
    quick_start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "paid" in (quick_start / "output").read_text().splitlines()
    sockets = {
        name: quick_start / "mesh" / name / "sidecar" / "run" / "agent.sock"
        for name in ("laptop", "server")
    }
    monkeypatch.setenv("SIDELINK_AGENT_SOCKET", str(sockets["laptop"]))

    example = asyncio.create_task(_as_coroutine(named_blocks(README, "python")["sdk"]))
    async with asyncio.timeout(20), sidelink.connect(str(sockets["server"])) as mesh:
        clerk = await mesh.agent("billing/clerk", attributes={"role": "clerk"})
        reply = await _ask_when_it_is_there(clerk, example)

    assert reply.body == {"ok": True}
    assert reply.attributes == {"role": "planner"}
    assert not example.done(), "the example reads its inbox until it is stopped"
    example.cancel()
    await asyncio.gather(example, return_exceptions=True)


def test_the_readme_of_the_sdk_has_the_same_example() -> None:
    example = named_blocks(README, "python")["sdk"]

    assert example in [text for _, text in fenced_blocks(ROOT / "sdk" / "README.md")]


@pytest.mark.parametrize("name", ["server", "client"])
def test_a_settings_file_of_the_readme_loads(name: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(named_blocks(README, "yaml")[name])

    settings = load_settings(SidecarSettings, {"state": str(tmp_path), "config": str(file)})

    services = [server.service for server in settings.mcp.servers]
    services += [ingress.service for ingress in settings.mcp.ingress]
    assert services == ["clock"]


def test_the_rule_of_the_readme_fits_the_policy_of_a_first_start() -> None:
    rule = re.sub("^rules:\n", "", named_blocks(README, "yaml")["rule"])
    policy = STARTER_POLICY.replace("\nrules:\n", f"\nrules:\n{rule}")
    assert policy != STARTER_POLICY

    assert all(outcome.passed for outcome in PolicyEngine.load(policy, file="it").run_tests())


async def _as_coroutine(source: str) -> None:
    """Run statements that await, as they stand in a document."""
    names: dict[str, Any] = {}
    exec(f"async def example():\n{textwrap.indent(source, '    ')}", names)
    await names["example"]()


async def _ask_when_it_is_there(
    clerk: sidelink.Agent, example: "asyncio.Task[None]"
) -> sidelink.Reply:
    while True:
        assert not example.done(), example.exception()
        try:
            return await clerk.ask("agent://acme/finance/planner", "ready?", timeout=5)
        except (sidelink.Unreachable, sidelink.Rejected):
            await asyncio.sleep(0.1)
