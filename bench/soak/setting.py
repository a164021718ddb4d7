"""What is running: an authority, two gateways, three sidecars, and the agents of each."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.children import Children, Worker
from bench.meshes import awaiting, starting
from bench.soak.crowd import Wishes
from bench.soak.inspected import inspecting
from tests.impairment.process import ProxyProcess
from tests.mesh.meshes import Mesh
from tests.mesh.programs import Program

C_TICKET: Final = {"name": "node/c", "prefixes": ["support"], "allowed_attributes": {}}
A, B, C = "finance", "billing", "support"
"""The prefixes of the three sidecars' agents."""
TOOL_SERVER: Final = Path(__file__).parents[2] / "tests" / "mesh" / "mcp_stdio_server.py"
# So that nearly each talk opens a channel, and each is put away soon after it.
CHANNEL_IDLE_S: Final = 3.0
OPEN_S_MAX: Final = 120.0
# Programs and agents' processes that nobody restarts, by their names in the report.
STEADY: Final = (
    "authority",
    "gateway",
    "sidecar a",
    "sidecar b",
    "agents of a",
    "agents of b",
    "agents of c",
)

POLICY: Final = """\
apiVersion: sidelink/v1
kind: Policy
metadata: {name: soak}
rules:
  - name: agents talk
    effect: allow
    actions: [message.ask, message.tell]
    from: {kind: agent}
    to: {kind: agent}
  - name: the tool is called
    effect: allow
    actions: [mcp.call]
    from: {name: agent://acme/finance/assistant}
    to: {service: tools}
    tools: ["echo"]
  - name: sidecars reach each other directly
    effect: allow
    actions: [path.direct]
    from: {kind: agent}
    to: {kind: agent}
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """All of it. Names of programs are those of the report."""

    mesh: Mesh
    steady_gateway: ProxyProcess
    """Before the gateway that is never restarted: all reach it through here."""
    restarted_gateway: Program
    restarted_sidecar: Program
    crowds: Mapping[str, Worker]
    """By the prefix of their agents."""

    def pids(self) -> dict[str, int]:
        """Who runs now."""
        mesh = self.mesh
        programs = {
            "authority": mesh.authority,
            "gateway": mesh.gateway,
            "gateway, restarted": self.restarted_gateway,
            "sidecar a": mesh.a,
            "sidecar b": mesh.b,
            "sidecar c, restarted": self.restarted_sidecar,
        }
        found = {label: program.pid for label, program in programs.items() if program.is_running}
        crowds = zip("abc", self.crowds.values(), strict=True)
        return found | {f"agents of {letter}": crowd.pid for letter, crowd in crowds}

    def each_crowd(self, do: str, *, timeout_s: float = OPEN_S_MAX, **wishes: Any) -> list[Any]:
        """The answers of all of them, which work at the same time."""
        for crowd in self.crowds.values():
            crowd.post(do, **wishes)
        return [crowd.answer(timeout_s) for crowd in self.crowds.values()]


@contextmanager
def running(folder: Path, agents: int, pause_s: float, *, inspect: str | None) -> Iterator[Setting]:
    """Start it, let the agents begin to talk, and end it."""
    with Mesh(gateways=2) as mesh, ProxyProcess(mesh.gateway_address) as proxy:
        reached = str(proxy.address)
        mesh.authority.flags = tuple(
            word.replace(mesh.gateway_address, reached) for word in mesh.authority.flags
        )
        c = mesh.sidecar("c")
        _configure(mesh, c)
        if inspect is not None:
            for program in mesh.programs:
                inspecting(program, inspect, folder)
        with starting():
            mesh.up()
            c.start("--ticket", mesh.ticket(**C_TICKET))
            c.wait_ready()
        with Children(folder) as children:
            crowds = {
                prefix: children.start_worker(f"agents of {sidecar.name}", "bench.soak.crowd")
                for prefix, sidecar in ((A, mesh.a), (B, mesh.b), (C, c))
            }
            setting = Setting(mesh, proxy, mesh.gateways[1], c, crowds)
            sockets = (program.agent_socket for program in (mesh.a, mesh.b, c))
            for (prefix, crowd), socket in zip(crowds.items(), sockets, strict=True):
                crowd.post("open", socket=str(socket), prefix=prefix, agents=agents)
            for crowd in crowds.values():
                crowd.answer(OPEN_S_MAX)
            _begin(setting, agents, pause_s)
            yield setting


def _configure(mesh: Mesh, c: Program) -> None:
    """Two of the sidecars may meet; the third goes through the gateways."""
    ingress = {
        "service": "tools",
        "agent": f"{A}/assistant",
        "to": f"agent://acme/{B}/tools",
        "allow_any_local": True,
    }
    command = [sys.executable, "-I", "-S", str(TOOL_SERVER)]
    server = {"service": "tools", "agent": f"{B}/tools", "command": command}
    meeting = {"enabled": True, "allow_loopback": True}
    for sidecar, own in (
        (mesh.a, {"direct": meeting, "mcp": {"ingress": [ingress]}}),
        (mesh.b, {"direct": meeting, "mcp": {"servers": [server]}}),
        (c, {"direct": {"enabled": False}}),
    ):
        sidecar.write_state_file("policy.yaml", POLICY)
        # Every JSON document is YAML.
        text = json.dumps({"channel_idle_s": CHANNEL_IDLE_S, **own})
        sidecar.write_state_file("config.yaml", text)


def _begin(setting: Setting, agents: int, pause_s: float) -> None:
    with awaiting():
        ports = setting.mesh.a.status()["ports"]
    for seed, (prefix, crowd) in enumerate(setting.crowds.items()):
        wishes = Wishes(
            others={other: agents for other in setting.crowds if other != prefix},
            seed=seed,
            pause_s=pause_s,
            regulars_with=None if prefix == C else C,
            tool_port=ports["mcp_tools"] if prefix == A else None,
        )
        crowd.call("begin", wishes=_builtins(wishes))


def _builtins(wishes: Wishes) -> dict[str, Any]:
    return {name: getattr(wishes, name) for name in wishes.__struct_fields__}
