"""A gateway on a core of its own, and the load generator on another."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import proc
from bench.children import Children, Worker
from bench.meshes import awaiting, starting
from bench.relay.members import SINK, SOURCE
from tests.mesh.meshes import Mesh

ENROL_S_MAX: Final = 150.0


@dataclass(frozen=True, slots=True)
class Setting:
    """What is running."""

    gateway_pid: int
    generator: Worker


@contextmanager
def gateway_and_generator(folder: Path, *, links: int, idle_nodes: int = 0) -> Iterator[Setting]:
    """The gateway is started by the command line; the generator has so many links through it, and
    credentials for nodes without a hop."""
    folder.mkdir()
    gateway_core, *_, generator_core = 2 * sorted(os.sched_getaffinity(0))
    with Mesh() as mesh, Children(folder) as children:
        with starting():
            mesh.authority.start()
            mesh.authority.wait_status(bool, "its admin socket")
            mesh.gateway.start("--ticket", mesh.ticket(role="gateway", name="node/gateway"))
            mesh.gateway.wait_ready()
        generator = children.start_worker("generator", "bench.relay.generator")
        proc.pin(generator.pid, generator_core)
        with awaiting():
            wishes = {
                "folder": str(folder),
                "tickets": {name: _ticket(mesh, name) for name in (SOURCE, SINK)},
                "idle_tickets": [_ticket(mesh, f"idle-{n}") for n in range(idle_nodes)],
            }
        generator.call("enrol", timeout_s=ENROL_S_MAX, **wishes)
        with starting():
            # Anew, so that nothing is left of what it did until here.
            mesh.gateway.stop()
            mesh.gateway.start()
            mesh.gateway.wait_ready()
        proc.pin(mesh.gateway.pid, gateway_core)
        generator.call("join")
        generator.call("open links", count=links)
        yield Setting(mesh.gateway.pid, generator)


def _ticket(mesh: Mesh, name: str) -> str:
    return mesh.ticket(name=f"node/{name}", prefixes=[name])
