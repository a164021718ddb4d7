"""A mesh with two honest sidecars, its sinner, and the worker that asks."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from bench import proc
from bench.children import Children, Worker
from bench.hostile.worker import Asked
from bench.meshes import awaiting, starting
from tests.mesh.meshes import Mesh
from tests.mesh.programs import wait_until
from tests.mesh.sins import SIDECAR, Sin, Sinner, count, hostile_sidecar, scrape

ASK_S_MAX: Final = 60.0
SETTLE_S_MAX: Final = 30.0
SPIN: Final = "import time\nend = time.monotonic() + 120\nwhile time.monotonic() < end: pass"


@dataclass(slots=True)
class Pressure:
    """What was seen of the programs while it lasted; complete at its end."""

    peak_bytes: dict[str, int] = field(default_factory=dict)
    counted: float = 0.0


class Setting:
    """Everything that runs."""

    def __init__(self, mesh: Mesh, sinner: Sinner, worker: Worker) -> None:
        self._mesh = mesh
        self._sinner = sinner
        self._worker = worker
        self._pids: Mapping[str, int] = {
            "gateway": mesh.gateway.pid,
            "sidecar a": mesh.a.pid,
            "sidecar b": mesh.b.pid,
        }

    def settle(self) -> None:
        """Until nothing is left of the sin before: handshakes end after some seconds."""
        with awaiting():
            wait_until(
                lambda: scrape(self._mesh.gateway)["sidelink_hops_half_open"] == 0,
                "handshakes to end",
                SETTLE_S_MAX,
            )

    def ask(self, *, seconds: float, per_s: float) -> Asked:
        timeout_s = ASK_S_MAX + seconds
        found = self._worker.call("ask", timeout_s=timeout_s, seconds=seconds, per_s=per_s)
        return msgspec.convert(found, Asked)

    @contextmanager
    def pressed(self, sin: Sin | None) -> Iterator[Pressure]:
        """A sinner at work, from when it is first counted; None: a program that takes a core."""
        pressure = Pressure()
        for pid in self._pids.values():
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # Peaks begin anew: see proc(5).
        if sin is None:
            with _spinning():
                yield pressure
        else:
            before = count(self._mesh, sin.counted)
            with awaiting(), self._committed(sin, before):
                yield pressure
            pressure.counted = count(self._mesh, sin.counted) - before
        for label, pid in self._pids.items():
            pressure.peak_bytes[label] = proc.peak_resident_bytes(pid)

    @contextmanager
    def _committed(self, sin: Sin, before: float) -> Iterator[None]:
        if sin.module != SIDECAR:
            with self._sinner.at_work(sin):
                wait_until(lambda: count(self._mesh, sin.counted) > before, sin.name)
                yield
            return
        with hostile_sidecar(self._mesh, sin, "deaf") as deaf:
            near = str(self._mesh.a.agent_socket)
            self._worker.call("tell", near=near, deaf=str(deaf.agent_socket))
            yield
            self._worker.call("hush")


@contextmanager
def running(children: Children, *, real_time: bool) -> Iterator[Setting]:
    """``real_time`` is for the honest: what other programs of the machine do is not measured."""
    with Mesh() as mesh:
        with starting():
            mesh.up()
            sinner = Sinner(mesh)
            sinner.enrol()
        worker = children.start_worker("honest agents", "bench.hostile.worker")
        worker.call("open", near=str(mesh.a.agent_socket), far=str(mesh.b.agent_socket))
        if real_time:
            for pid in (mesh.gateway.pid, mesh.a.pid, mesh.b.pid, worker.pid):
                proc.prefer(pid)
        yield Setting(mesh, sinner, worker)


@contextmanager
def _spinning() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", SPIN])
    try:
        yield
    finally:
        process.kill()
        process.wait()
