"""One mesh of four programs: each its own process and state folder, enrolled by a ticket."""

import asyncio
import http.client
import json
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cli.demo.children import Child, Children
from cli.demo.faults import DemoError
from cli.demo.venvs import FILES
from identity import SidelinkError, Ticket
from node.admin_client import admin_request
from node.state_folder import StatePaths

TRUST_DOMAIN: Final = "acme"
LABELS: Final = ("authority", "gateway", "a", "b")
HOST: Final = "127.0.0.1"
READY_S_MAX: Final = 40.0
POLL_S: Final = 0.05
ADMIN_S_MAX: Final = 10.0
METRICS_BYTES_MAX: Final = 1 << 20

_CLI: Final = (sys.executable, "-m", "cli.main")


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A program that has become part of the mesh, as it describes itself."""

    label: str
    identifier: str
    name: str | None
    attributes: Mapping[str, Any]
    ready: bool
    seconds: float
    """From the start of its process to ready."""


@dataclass(slots=True)
class Node:
    """One program of a mesh."""

    label: str
    program: str
    state: Path
    child: Child
    begun_s: float
    report: NodeReport | None = None

    @property
    def admin_socket(self) -> Path:
        return StatePaths(self.state / self.program).admin_socket

    @property
    def agent_socket(self) -> Path:
        return StatePaths(self.state / self.program).agent_socket

    async def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Ask its admin socket, as the command line does. Raises SidelinkError."""
        return await asyncio.to_thread(
            admin_request, self.admin_socket, method, path, body, timeout_s=ADMIN_S_MAX
        )

    async def port(self, name: str) -> int:
        ports = (await self.ask("GET", "/v1/status"))["ports"]
        return int(ports[name])

    async def metrics(self) -> str:
        """The text that a Prometheus would scrape."""
        return await asyncio.to_thread(_scrape, await self.port("ops"))


@dataclass(slots=True)
class Mesh:
    """Start it once. ``plain`` runs sidecars that do not seal, for the control run."""

    label: str
    children: Children
    folder: Path
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What goes into config.yaml of the sidecars `a` and `b`."""
    plain: bool = False
    nodes: dict[str, Node] = field(default_factory=dict)
    ticket_codes: list[bytes] = field(default_factory=list)

    @property
    def tap(self) -> Path:
        return self.folder / "tap"

    @property
    def reports(self) -> list[NodeReport]:
        """In the order in which they depend on each other."""
        found = (self.nodes[label].report for label in LABELS if label in self.nodes)
        return [report for report in found if report is not None]

    async def start(self) -> None:
        """All four, until each is ready. Raises DemoError."""
        self.folder.mkdir()
        # Unused a moment ago: the authority has to know it before the gateway can start.
        address = f"{HOST}:{_free_udp_port()}"
        domain = ("--trust-domain", TRUST_DOMAIN, "--gateways", address)
        await self._start("authority", "authority", (*_CLI, "authority", "up", *domain))
        await self._until("authority", lambda status: "identifier" in status)
        tapped = (sys.executable, "-m", "cli.demo.tapped_gateway", str(self.tap))
        ticket = await self._ticket("gateway", role="gateway", name="node/gateway")
        await self._start("gateway", "gateway", (*tapped, "--listen", address, *ticket))
        await self._until("gateway", _is_ready)
        # Only now: it is ready when its gateway is enrolled and connected.
        await self._until("authority", _is_connected)
        await asyncio.gather(
            self._start_sidecar("a", ["finance"], "sender.yaml"),
            self._start_sidecar("b", ["billing", "tools"], "receiver.yaml"),
        )

    async def stop(self) -> None:
        await self.children.stop([node.child for node in self.nodes.values()])

    async def wait_listening(self, node: str, names: list[str], child: Child) -> None:
        """Until the agents of ``child`` take messages from a sidecar. Raises DemoError."""

        async def listening() -> bool:
            agents = (await self.nodes[node].ask("GET", "/v1/agents"))["agents"]
            return set(names) <= {agent["uri"] for agent in agents if agent["listening"]}

        await _poll(listening, child, f"{', '.join(names)} to listen")

    async def _start_sidecar(self, label: str, prefixes: list[str], policy: str) -> None:
        ticket = await self._ticket(
            label,
            role="sidecar",
            name=f"node/{label}",
            prefixes=prefixes,
            attributes={"site": {"a": "berlin", "b": "lisbon"}[label]},
            allowed_attributes={"role": None, "clearance": [1, 2]},
        )
        state = self.folder / label / "sidecar"
        state.mkdir(mode=0o700, parents=True)
        shutil.copy(FILES / policy, state / "policy.yaml")
        if label in self.settings:
            # Every JSON document is YAML.
            (state / "config.yaml").write_text(json.dumps(self.settings[label], indent=2))
        up = (sys.executable, "-m", "cli.demo.plain_sidecar") if self.plain else (*_CLI, "up")
        own = ("--listen", f"{HOST}:0", "--mcp-port", "0", *ticket)
        await self._start(label, "sidecar", (*up, *own))
        await self._until(label, _is_ready)

    async def _start(self, label: str, program: str, words: tuple[str, ...]) -> None:
        state = self.folder / label
        begun_s = asyncio.get_running_loop().time()
        child = await self.children.start(
            f"{self.label} {label}", (*words, "--state", state, "--ops-port", "0")
        )
        self.nodes[label] = Node(label, program, state, child, begun_s)

    async def _until(self, label: str, is_enough: Callable[[dict[str, Any]], bool]) -> None:
        node = self.nodes[label]

        async def reached() -> bool:
            status = await node.ask("GET", "/v1/status")
            if not is_enough(status):
                return False
            node.report = NodeReport(
                label=label,
                identifier=status["identifier"],
                name=status["name"],
                attributes=status["attributes"],
                ready=status["ready"],
                seconds=asyncio.get_running_loop().time() - node.begun_s,
            )
            return True

        await _poll(reached, node.child, f"{label} to be ready")

    async def _ticket(self, label: str, **wishes: Any) -> tuple[str, str]:
        """A flag with a file that holds a new ticket."""
        answer = await self.nodes["authority"].ask("POST", "/v1/tickets", wishes)
        text = answer["ticket"]
        self.ticket_codes.append(Ticket.parse_untrusted(text).code)
        path = self.folder / f"{label}.ticket"
        path.touch(mode=0o600)
        path.write_text(text)
        return "--ticket-file", str(path)


def _is_ready(status: Mapping[str, Any]) -> bool:
    return bool(status["ready"])


def _is_connected(status: Mapping[str, Any]) -> bool:
    return bool(status["ready"]) and all(one["connected"] for one in status["gateways"])


async def _poll(reached: Any, child: Child, what: str) -> None:
    """Ask again and again; a program that does not answer yet is asked again too."""
    clock = asyncio.get_running_loop()
    deadline_s = clock.time() + READY_S_MAX
    why = ""
    while clock.time() < deadline_s:
        if child.status is not None:
            raise DemoError(child.last_words())
        try:
            if await reached():
                return
        except SidelinkError as error:
            why = f" ({error.detail})"
        await asyncio.sleep(POLL_S)
    raise DemoError(f"waited {READY_S_MAX:g} s for {what}{why}; see {child.log}")


def _scrape(port: int) -> str:
    connection = http.client.HTTPConnection(HOST, port, timeout=ADMIN_S_MAX)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read(METRICS_BYTES_MAX).decode()
    except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
        raise DemoError(f"no metrics on port {port}: {error}") from None
    finally:
        connection.close()


def _free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
