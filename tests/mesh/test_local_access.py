"""Processes of other users, and processes with tokens, before a real sidecar."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import sidelink

from node.state_folder import read_ports
from tests.mesh.meshes import Mesh
from tests.mesh.programs import REPOSITORY, WAIT_S, clean_environment, run_sidelink

pytestmark = pytest.mark.mesh

USER: Final = 12_345
STRANGER: Final = 12_346
GROUP: Final = 23_456

SETTINGS = """\
agent_socket: {socket}
agent_port: 0
agents:
  socket_group: {group}
  rules:
    - {{names: [finance/*], uid: {user}, exe: {python}}}
"""

# Everything is imported before it becomes somebody else, who may not be able to read it.
OPENS = """\
import asyncio, json, os, sys, sidelink
path, user, group, *names = sys.argv[1:]
os.setgroups([int(group)]); os.setgid(9999); os.setuid(int(user))
async def main():
    told = {}
    try:
        async with sidelink.connect(path) as mesh:
            for name in names:
                try:
                    told[name] = (await mesh.agent(name)).uri
                except sidelink.SidelinkError as error:
                    told[name] = str(error)
    except sidelink.SidelinkError as error:
        told["connect"] = str(error)
    print(json.dumps(told))
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with Mesh() as mesh:
        mesh.folder.chmod(0o711)
        text = SETTINGS.format(
            socket=socket_of(mesh), group=GROUP, user=USER, python=Path(sys.executable).resolve()
        )
        mesh.a.write_state_file("config.yaml", text)
        yield mesh.up()


def socket_of(mesh: Mesh) -> Path:
    return mesh.folder / "door" / "agent.sock"


def port_of(mesh: Mesh) -> str:
    return f"tcp://127.0.0.1:{read_ports(mesh.a.paths.folder)['agents']}"


def opened_by(mesh: Mesh, user: int, group: int, *names: str) -> dict[str, str]:
    """What a process of that user is told when it opens these agents."""
    done = subprocess.run(
        [sys.executable, "-c", OPENS, str(socket_of(mesh)), str(user), str(group), *names],
        cwd=REPOSITORY,
        env=clean_environment(HOME="/"),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=True,
    )
    told: dict[str, str] = json.loads(done.stdout)
    return told


def new_token(mesh: Mesh, *agents: str, expires: str = "1h") -> dict[str, Any]:
    words = [word for agent in agents for word in ("--agent", agent)]
    state = ("--state", str(mesh.a.base))
    done = run_sidelink("agent", "token", "create", *words, "--expires", expires, "--json", *state)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_another_user_acts_as_what_its_rule_names_and_as_nobody_else(mesh: Mesh) -> None:
    told = opened_by(mesh, USER, GROUP, "finance/planner", "finance/planner/child")

    assert told["finance/planner"] == mesh.uri("finance/planner")
    assert "local.unauthorized" in told["finance/planner/child"]
    line = mesh.a.wait_audit(lambda line: line["action"] == "agent.open")
    assert (line["subject"], line["object"]) == (f"user {USER}", "finance/planner/child")
    assert mesh.a.status()["local_refused"]["agent"] >= 1


def test_a_user_without_a_rule_is_turned_away_at_the_socket(mesh: Mesh) -> None:
    assert "local.unauthorized" in opened_by(mesh, STRANGER, GROUP, "finance/x")["connect"]


def test_a_user_outside_the_group_does_not_reach_the_socket(mesh: Mesh) -> None:
    assert "Permission denied" in opened_by(mesh, USER, 1, "finance/planner")["connect"]


async def test_a_token_acts_by_tcp_as_its_agent_alone_until_it_is_revoked(mesh: Mesh) -> None:
    made = new_token(mesh, "finance/clerk")
    async with (
        asyncio.timeout(WAIT_S),
        sidelink.connect(port_of(mesh), token=made["token"]) as connected,
    ):
        clerk = await connected.agent("finance/clerk")
        with pytest.raises(sidelink.LocalError, match="may not act as finance/planner"):
            await connected.agent("finance/planner")

        reading = asyncio.create_task(anext(clerk.inbox()))
        words = ("agent", "token", "revoke", str(made["id"]), "--state", str(mesh.a.base))
        revoked = await asyncio.to_thread(run_sidelink, *words)

        assert revoked.returncode == 0, revoked.stderr
        async with asyncio.timeout(2):
            with pytest.raises(sidelink.Unreachable, match=r"local\.unauthorized"):
                await reading


async def test_a_token_that_is_over_ends_its_connection(mesh: Mesh) -> None:
    made = new_token(mesh, "finance/guest", expires="4s")
    async with (
        asyncio.timeout(WAIT_S),
        sidelink.connect(port_of(mesh), token=made["token"]) as connected,
    ):
        guest = await connected.agent("finance/guest")

        async with asyncio.timeout(6):
            with pytest.raises(sidelink.Unreachable, match=r"local\.unauthorized"):
                await anext(guest.inbox())


async def test_tokens_outlive_a_restart_and_no_file_holds_one(mesh: Mesh) -> None:
    token = new_token(mesh, "finance/keeper")["token"]

    assert mesh.a.stop() == 0
    secrets = [
        path
        for path in mesh.a.base.rglob("*")
        if path.is_file() and token[4:20].encode() in path.read_bytes()
    ]
    mesh.a.start()
    mesh.a.wait_ready()

    assert secrets == []
    async with asyncio.timeout(WAIT_S), sidelink.connect(port_of(mesh), token=token) as connected:
        assert (await connected.agent("finance/keeper")).uri == mesh.uri("finance/keeper")


def test_a_command_line_with_a_token_acts_as_its_agent(mesh: Mesh) -> None:
    token = new_token(mesh, "finance/shell")["token"]
    words = ("send", mesh.uri("finance/keeper"), "hello", "--socket", port_of(mesh))

    as_itself = run_sidelink(*words, "--as", "finance/shell", SIDELINK_AGENT_TOKEN=token)
    as_another = run_sidelink(*words, "--as", "finance/planner", SIDELINK_AGENT_TOKEN=token)

    assert "may not act as" not in as_itself.stderr
    assert as_another.returncode == 1
    assert "local.unauthorized" in as_another.stderr


def test_a_rule_without_effect_is_told_before_a_ticket_is_used(mesh: Mesh) -> None:
    extra = mesh.sidecar("extra")
    extra.write_state_file("config.yaml", f"agents: {{rules: [{{names: [a], uid: {USER}}}]}}\n")

    extra.start("--ticket", mesh.ticket(name="node/extra", prefixes=["extra"]))

    assert extra.wait_end() == 2
    assert "agents.rules.0" in extra.log_text()
    assert "socket_group" in extra.log_text()
