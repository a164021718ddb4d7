"""A sidecar that keeps a crowd of agents, all asleep: its memory, its file, and its restart."""

import statistics
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from bench import proc
from bench.benchmark import say
from bench.children import Worker
from bench.errors import BenchError
from bench.identity.minting import Minted
from bench.meshes import awaiting, starting
from node.state_folder import read_ports
from tests.mesh.meshes import Mesh
from tests.mesh.programs import LOOPBACK, Program

PREFIX: Final = "finance"
"""Of the sidecar's ticket in `tests.mesh.meshes`."""
READY_S_MAX: Final = 120.0
POLL_S: Final = 0.005
REQUEST_S_MAX: Final = 5.0
SETTLE_S: Final = 1.5
MINT_S_MAX: Final = 3_600.0
# Minted in parts, so that whoever waits hears of it, and a busy moment costs one of them.
PART: Final = 20_000


@dataclass(frozen=True, slots=True)
class Start:
    """One start of the program."""

    ready_s: float
    """From the start of its process until /readyz says 200."""
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class Crowd:
    """What a crowd costs, beside the same sidecar without it."""

    minted: tuple[Minted, ...]
    empty: Start
    full: Start
    disk_bytes: int


def weigh(worker: Worker, count: int, starts: int) -> Crowd:
    """Real programs: an authority, a gateway and a sidecar; the crowd is minted while it stands."""
    with _mesh() as mesh:
        sidecar = mesh.a
        say(f"starting a sidecar without agents {starts} times")
        empty = _usual_start(sidecar, starts)
        before_bytes = _disk_bytes(sidecar)
        minted = tuple(_mint(worker, sidecar, count))
        disk_bytes = _disk_bytes(sidecar) - before_bytes
        say(f"starting it with {count:,} agents {starts} times")
        return Crowd(minted, empty, _usual_start(sidecar, starts), disk_bytes)


@contextmanager
def _mesh() -> Iterator[Mesh]:
    with Mesh() as mesh:
        with starting():
            mesh.up()
        mesh.b.stop()
        mesh.a.stop()
        yield mesh


def _mint(worker: Worker, sidecar: Program, count: int) -> Iterator[Minted]:
    for first in range(0, count, PART):
        part = min(PART, count - first)
        say(f"minting agents {first:,} to {first + part:,}")
        folder = str(sidecar.paths.folder)
        answer = worker.call(
            "mint", timeout_s=MINT_S_MAX, folder=folder, prefix=PREFIX, first=first, count=part
        )
        yield msgspec.convert(answer, Minted)


def _usual_start(sidecar: Program, starts: int) -> Start:
    """The medians of several; the program is stopped at the end."""
    found = [_start(sidecar) for _ in range(starts)]
    return Start(
        statistics.median(start.ready_s for start in found),
        round(statistics.median(start.resident_bytes for start in found)),
    )


def _start(sidecar: Program) -> Start:
    begun_s = time.monotonic()
    with starting():
        sidecar.start()
    while not _is_ready(sidecar):
        if time.monotonic() - begun_s > READY_S_MAX or not sidecar.is_running:
            raise BenchError(f"the sidecar did not become ready. {sidecar.log_tail()}")
        time.sleep(POLL_S)
    ready_s = time.monotonic() - begun_s
    time.sleep(SETTLE_S)
    resident_bytes = proc.resident_bytes(sidecar.pid)
    with awaiting():
        sidecar.stop()
    return Start(ready_s, resident_bytes)


def _is_ready(sidecar: Program) -> bool:
    port = read_ports(sidecar.paths.folder).get("ops")
    if port is None:
        return False
    try:
        url = f"http://{LOOPBACK}:{port}/readyz"
        with urllib.request.urlopen(url, timeout=REQUEST_S_MAX) as answer:
            return bool(answer.status == 200)
    except (urllib.error.HTTPError, urllib.error.URLError, ConnectionError):
        return False


def _disk_bytes(sidecar: Program) -> int:
    """The database and what SQLite keeps beside it."""
    database: Path = sidecar.paths.database
    return sum(path.stat().st_size for path in database.parent.glob(f"{database.name}*"))
