"""What a hostile peer may do to a mesh of real programs: a table, and the processes that do it.

Each sin says where operators see it: a metric that rises, and the place in the status that shows
the same.
"""

import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from tests.mesh.meshes import Mesh
from tests.mesh.programs import REPOSITORY, Program, clean_environment

# Strangers that look like many: sockets in all, over so many addresses of loopback.
PORTS: Final = 512
SOURCES: Final = 16
# A sinner ends by itself after so long, whatever became of whoever started it.
SIN_S_MAX: Final = 120.0
ENROL_S_MAX: Final = 60.0


@dataclass(frozen=True, slots=True)
class Counted:
    """Where a sin shows at one program of the mesh."""

    program: str
    metric: str
    """As it is scraped, labels and all."""
    status: tuple[str, ...]
    """The keys that lead to it."""


@dataclass(frozen=True, slots=True)
class Sin:
    module: str
    name: str
    counted: Counted


def _closed(code: str) -> Counted:
    return Counted("gateway", f'sidelink_hops_closed_total{{code="{code}"}}', ("hops_closed", code))


def _refused(program: str, code: str) -> Counted:
    metric = f'sidelink_links_refused_total{{code="{code}"}}'
    return Counted(program, metric, ("refused", code))


def _dropped(reason: str) -> Counted:
    metric = f'sidelink_datagrams_dropped_total{{reason="{reason}"}}'
    return Counted("gateway", metric, ("transport", "dropped", reason))


_BEGUN: Final = Counted("gateway", "sidelink_handshakes_begun_total", ("transport", "accepted"))

FLOOD: Final = "tests.transport.flood"
MEMBER: Final = "tests.mesh.hostile_member"
SIDECAR: Final = "tests.mesh.hostile_sidecar"

SINS: Final[Mapping[str, Sin]] = {
    "strangers flood it with Initials from many ports": Sin(FLOOD, "initials", _dropped("flood")),
    "strangers send datagrams that are no QUIC": Sin(FLOOD, "noise", _dropped("unknown")),
    "strangers begin handshakes and fall silent": Sin(FLOOD, "stalls", _BEGUN),
    "strangers say their first message a byte at a time": Sin(FLOOD, "drips", _BEGUN),
    "strangers go through TLS and leave, over and over": Sin(FLOOD, "handshakes", _BEGUN),
    "a member sends garbage where frames belong": Sin(MEMBER, "garbage", _closed("hop.bad_frame")),
    "a member cuts its frames short": Sin(MEMBER, "cut-short", _closed("hop.bad_frame")),
    "a member claims lengths beyond any limit": Sin(MEMBER, "lengths", _closed("hop.bad_frame")),
    "a member sends more than it was granted": Sin(
        MEMBER, "window", _refused("gateway", "route.credit_exceeded")
    ),
    "a member speaks on links that there are not": Sin(
        MEMBER, "no-link", _closed("hop.limit_exceeded")
    ),
    "a member opens byte streams without end": Sin(
        MEMBER, "streams", _refused("gateway", "route.link_closed")
    ),
    "a member opens channels in a loop": Sin(MEMBER, "channels", _refused("b", "route.link_limit")),
    "a member opens channels, and leaves each once it cost a handshake": Sin(
        MEMBER, "closed-channels", _refused("b", "route.link_limit")
    ),
    "a member registers its prefix in a loop": Sin(
        MEMBER, "register", _closed("hop.limit_exceeded")
    ),
    "a member takes what it is sent and grants nothing": Sin(
        SIDECAR,
        "never-read",
        Counted("a", "sidelink_conversations_stalled_total", ("messages", "stalls")),
    ),
}


class Sinner:
    """A node with a real credential, and the strangers beside it. One sin at a time."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._state = mesh.folder / "sinner"

    def enrol(self) -> None:
        """Get its credential, so that no sin waits for it."""
        ticket = self._mesh.ticket(name="node/sinner", prefixes=["sinner"])
        command = self._command(Sin(MEMBER, "garbage", _closed("")), 0.0)
        subprocess.run(
            [*command, "--ticket", ticket],
            cwd=REPOSITORY,
            env=clean_environment(),
            stdout=subprocess.DEVNULL,
            timeout=ENROL_S_MAX,
            check=True,
        )

    @contextmanager
    def at_work(self, sin: Sin) -> Iterator[None]:
        """From a little after this begins until it ends."""
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                self._command(sin, SIN_S_MAX),
                cwd=REPOSITORY,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            try:
                yield
                assert process.poll() is None, f"the sinner ended first: {_text(errors)}"
            finally:
                process.kill()
                process.wait()

    def _command(self, sin: Sin, seconds: float) -> list[str]:
        command = [sys.executable, "-m", sin.module, "--seconds", str(seconds)]
        if sin.module == FLOOD:
            options = ["--kind", sin.name, "--target", self._mesh.gateway_address]
            return [*command, *options, "--ports", str(PORTS), "--sources", str(SOURCES)]
        return [*command, "--sin", sin.name, "--state", str(self._state)]


@contextmanager
def hostile_sidecar(mesh: Mesh, sin: Sin, prefix: str) -> Iterator[Program]:
    """A whole sidecar that is enrolled for a prefix and sins in one way."""
    program = mesh.sidecar(f"rogue-{sin.name}")
    program.executable = (sys.executable, "-m", SIDECAR, sin.name)
    program.command = ()
    program.start("--ticket", mesh.ticket(name=f"node/{prefix}", prefixes=[prefix]))
    try:
        program.wait_ready()
        yield program
    finally:
        program.kill()


def program_of(mesh: Mesh, counted: Counted) -> Program:
    return {"gateway": mesh.gateway, "a": mesh.a, "b": mesh.b}[counted.program]


def scrape(program: Program) -> dict[str, float]:
    """Every metric of a program, by the text that a monitor reads."""
    port = program.status()["ports"]["ops"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in pairs}


def count(mesh: Mesh, counted: Counted) -> float:
    """The metric. 0.0 before it was first counted."""
    return scrape(program_of(mesh, counted)).get(counted.metric, 0.0)


def shown(mesh: Mesh, counted: Counted) -> float:
    """The same in the status."""
    found: Any = program_of(mesh, counted).status()
    for key in counted.status:
        found = found.get(key, {})
    return float(found or 0)


def _text(errors: Any) -> str:
    errors.seek(0)
    return str(errors.read()[-2_000:].decode(errors="replace"))
