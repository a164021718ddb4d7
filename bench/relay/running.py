"""A gateway on a core of its own, and the load generator on another."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import proc
from bench.children import Children, Worker
from bench.meshes import starting
from bench.relay.members import SINK, SOURCE
from tests.mesh.meshes import Mesh


@dataclass(frozen=True, slots=True)
class Setting:
    """What is running."""

    gateway_pid: int
    generator: Worker


@contextmanager
def gateway_and_generator(folder: Path, *, links: int) -> Iterator[Setting]:
    """The gateway is started by the command line; the generator has so many links through it."""
    folder.mkdir()
    gateway_core, *_, generator_core = 2 * sorted(os.sched_getaffinity(0))
    with Mesh() as mesh, Children(folder) as children:
        with starting():
            mesh.authority.start()
            mesh.authority.wait_status(bool, "its admin socket")
            mesh.gateway.start("--ticket", mesh.ticket(role="gateway", name="node/gateway"))
            mesh.gateway.wait_ready()
            tickets = {
                name: mesh.ticket(name=f"node/{name}", prefixes=[name]) for name in (SOURCE, SINK)
            }
        proc.pin(mesh.gateway.pid, gateway_core)
        generator = children.start_worker("generator", "bench.relay.generator")
        proc.pin(generator.pid, generator_core)
        generator.call("open", folder=str(folder), tickets=tickets)
        generator.call("open links", count=links)
        yield Setting(mesh.gateway.pid, generator)
