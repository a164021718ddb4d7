"""Sidelink: real programs, started by the command line, and agents that use the SDK alone."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import sidelink

from bench.background import in_background
from bench.children import Children
from bench.errors import BenchError
from bench.meshes import awaiting, starting
from bench.messages.ruler import Inbox, Window
from bench.messages.systems import Place
from node.settings import SidecarSettings
from tests.mesh.meshes import Mesh

CONTENT_TYPE: Final = "application/octet-stream"
RECEIVER: Final = "billing/main"
SENDER: Final = "finance/planner"
TO: Final = f"agent://acme/{RECEIVER}"
ATTRIBUTES: Final[Mapping[str, str | int]] = {"role": "planner", "clearance": 2}
ETHERNET_DATAGRAM_BYTES: Final = 1_452

POLICY: Final = """\
apiVersion: sidelink/v1
kind: Policy
metadata: {name: finance}
attributes: {role: text, clearance: int}
rules:
  - name: planners ask and tell billing
    effect: allow
    actions: [message.ask, message.tell]
    from: {trust_domain: acme, role: planner}
    to: {name: "agent://acme/billing/*"}
    when: message.size < 65536 && subject.clearance >= 2
"""
# Where sidecars have a direct path, policy says between whom; elsewhere the action is unknown.
DIRECT_RULE: Final = """\
  - name: sidecars reach each other directly
    effect: allow
    actions: [path.direct]
    from: {kind: agent}
    to: {kind: agent}
    when: subject.trust_domain == object.trust_domain
"""


class OurPrograms:
    """An authority, a gateway and two sidecars, each enrolled by ticket."""

    def __init__(self, mesh: Mesh, *, is_direct: bool) -> None:
        self._mesh = mesh
        self._is_direct = is_direct
        self.pids = {
            "authority": mesh.authority.pid,
            "gateway": mesh.gateway.pid,
            "sidecar a": mesh.a.pid,
            "sidecar b": mesh.b.pid,
        }
        self.place = {
            "sender_socket": str(mesh.a.agent_socket),
            "receiver_socket": str(mesh.b.agent_socket),
        }

    def check(self) -> None:
        for sidecar in (self._mesh.a, self._mesh.b):
            if self._is_direct:
                with awaiting():
                    sidecar.wait_status(_has_direct_hop, "a direct hop")
            elif _has_direct_hop(sidecar.status()):
                raise BenchError(f"sidecar {sidecar.name} has a direct hop, and should have none")


def _has_direct_hop(status: Mapping[str, Any]) -> bool:
    return int(status.get("direct_hops", 0)) >= 1


@contextmanager
def run_programs(variant: str, folder: Path, children: Children) -> Iterator[OurPrograms]:
    """The programs have a folder of their own, which is short enough for Unix sockets."""
    is_direct = variant == "direct"
    with Mesh() as mesh:
        for sidecar in (mesh.a, mesh.b):
            sidecar.write_state_file("policy.yaml", POLICY + (DIRECT_RULE if is_direct else ""))
            if "direct" in SidecarSettings.model_fields:
                direct = {"enabled": is_direct, "allow_loopback": True}
                # Every JSON document is YAML.
                sidecar.write_state_file("config.yaml", json.dumps({"direct": direct}))
        if variant == "gateway-1452":
            for program in (mesh.gateway, mesh.a, mesh.b):
                program.flags += ("--datagram-bytes", str(ETHERNET_DATAGRAM_BYTES))
        with starting():
            mesh.up()
        yield OurPrograms(mesh, is_direct=is_direct)


class OurSender:
    """Tells without waiting for each; the SDK and the sidecar hold it back."""

    def __init__(self, agent: sidelink.Agent) -> None:
        self._agent = agent

    async def send(self, window: Window) -> None:
        agent = self._agent
        async for burst in window.bursts():
            for body in burst:
                if not agent.writable:
                    await agent.wait_writable()
                agent.tell_nowait(TO, body, content_type=CONTENT_TYPE)
        await agent.flush()

    async def ask(self, body: bytes) -> bytes:
        reply = await self._agent.ask(TO, body, content_type=CONTENT_TYPE)
        return reply.raw_body


@asynccontextmanager
async def open_sender(place: Place) -> AsyncIterator[OurSender]:
    async with sidelink.connect(place["sender_socket"]) as mesh:
        yield OurSender(await mesh.agent(SENDER, attributes=ATTRIBUTES))


@asynccontextmanager
async def open_receiver(place: Place, inbox: Inbox) -> AsyncIterator[Place]:
    async with sidelink.connect(place["receiver_socket"]) as mesh:
        agent = await mesh.agent(RECEIVER)
        async with in_background(_read(agent, inbox)):
            yield {}


async def _read(agent: sidelink.Agent, inbox: Inbox) -> None:
    async for message in agent.inbox():
        if message.kind == "ask":
            await message.reply(message.raw_body, content_type=CONTENT_TYPE)
        else:
            inbox.take(message.raw_body)
