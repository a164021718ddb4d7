"""What costs a sidecar that has nothing to say: agents that are there, agents that have left,
channels that are open, channels that were put away. Growth of its resident memory, for each.

What hops and links cost a gateway that have nothing to say, ``bench.relay.idle`` weighs.
"""

import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from bench import proc
from bench.benchmark import say
from bench.children import Children, Worker
from bench.meshes import awaiting, starting
from bench.report import Row, Target, at_most, find_value
from bench.soak.setting import POLICY, A, B
from tests.mesh.meshes import Mesh
from tests.mesh.programs import Program

SIDECAR: Final = "sidecar"
MEMORY: Final = "resident memory"
DISK: Final = "on disk"
CONNECTED: Final = "agent, connected"
LEFT: Final = "agent that has left"
INITIATED: Final = "open channel, at its initiator"
ANSWERED: Final = "open channel, at its responder"
PUT_AWAY: Final = "channel that was put away"
KIB: Final = 1024
# Next to nothing: of a million, less than a quarter of a gigabyte.
GONE_KIB_MAX: Final = 0.25

WORK_S_MAX: Final = 180.0
WARM_UP_SIDE: Final = 6
LONG_S, SHORT_S = 3_600.0, 1.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many of each are weighed, and how long after they came."""

    agents: int
    warm_up_agents: int
    """The first ones also bring what all share: code that runs for the first time, pools."""
    rounds: int
    """Crowds that come and go behind the first one."""
    side: int
    """Channels: so many agents with so many others."""
    settle_s: float
    """What is written a little later takes memory, which is then free again."""


FULL: Final = Sizes(agents=1_500, warm_up_agents=100, rounds=5, side=32, settle_s=1.5)
QUICK: Final = Sizes(agents=50, warm_up_agents=20, rounds=2, side=4, settle_s=0.1)


@dataclass(frozen=True, slots=True)
class Idle:
    """Two sidecars, and a process with the agents of each."""

    mesh: Mesh
    a: Worker
    b: Worker
    settle_s: float

    def come(self, count: int, *, first: int = 0) -> None:
        for worker, program, prefix in ((self.a, self.mesh.a, A), (self.b, self.mesh.b, B)):
            socket = str(program.agent_socket)
            worker.post("come", socket=socket, prefix=prefix, first=first, count=count)
        self._wait()
        self._each("listen")

    def leave(self) -> None:
        self._each("leave")

    def meet(self, own: tuple[int, int], other: tuple[int, int]) -> None:
        others = f"agent://acme/{B}"
        self.a.call("meet", timeout_s=WORK_S_MAX, own=own, other=other, others=others)

    def restart(self, channel_idle_s: float) -> None:
        """Both sidecars anew, so that nothing is left of what they did until here."""
        for program in (self.mesh.a, self.mesh.b):
            program.stop()
            _configure(program, channel_idle_s)
        with starting():
            for program in (self.mesh.a, self.mesh.b):
                program.start()
            for program in (self.mesh.a, self.mesh.b):
                program.wait_ready()

    def wait_put_away(self) -> None:
        with awaiting():
            for program in (self.mesh.a, self.mesh.b):
                program.wait_status(lambda status: status["channels"] == 0, "no channel")

    def weigh(self, program: Program) -> int:
        time.sleep(self.settle_s)
        return proc.resident_bytes(program.pid)

    def _each(self, do: str) -> None:
        for worker in (self.a, self.b):
            worker.post(do)
        self._wait()

    def _wait(self) -> None:
        for worker in (self.a, self.b):
            worker.answer(WORK_S_MAX)


def sidecar_rows(folder: Path, sizes: Sizes) -> tuple[Row, ...]:
    with _running(folder, sizes.settle_s) as idle:
        return (*_agent_rows(idle, sizes), *_open_rows(idle, sizes), *_put_away_rows(idle, sizes))


def targets_of(rows: tuple[Row, ...]) -> tuple[Target, ...]:
    return tuple(
        at_most(f"KiB of memory for a{name}", find_value(rows, SIDECAR, case, MEMORY), GONE_KIB_MAX)
        for name, case in ((f"n {LEFT}", LEFT), (f" {PUT_AWAY}", PUT_AWAY))
    )


@contextmanager
def _running(folder: Path, settle_s: float) -> Iterator[Idle]:
    with Mesh() as mesh, Children(folder) as children:
        for program in (mesh.a, mesh.b):
            program.write_state_file("policy.yaml", POLICY)
            _configure(program, LONG_S)
        with starting():
            mesh.up()
        a, b = (
            children.start_worker(f"idlers of {name}", "bench.soak.idlers") for name in ("a", "b")
        )
        yield Idle(mesh, a, b, settle_s)


def _configure(program: Program, channel_idle_s: float) -> None:
    settings = {"channel_idle_s": channel_idle_s, "direct": {"enabled": False}}
    program.write_state_file("config.yaml", json.dumps(settings))


def _agent_rows(idle: Idle, sizes: Sizes) -> Iterator[Row]:
    """First they are there, then they have come and left, then others have."""
    count = sizes.agents
    say(f"{count} agents come and leave")
    sidecar = idle.mesh.a
    idle.come(sizes.warm_up_agents)
    before = idle.weigh(sidecar)
    idle.come(count, first=sizes.warm_up_agents)
    yield _row(CONNECTED, idle.weigh(sidecar) - before, count)
    idle.leave()
    # What the first ones took is free for those that come behind them.
    disk_before = _disk_bytes(sidecar)
    weighed = [idle.weigh(sidecar)]
    for number in range(sizes.rounds):
        idle.come(count, first=(2 + number) * count)
        idle.leave()
        weighed.append(idle.weigh(sidecar))
    yield _row(LEFT, _usual_growth(weighed), count)
    disk_bytes = _disk_bytes(sidecar) - disk_before
    yield Row(SIDECAR, LEFT, DISK, disk_bytes / (sizes.rounds * count) / KIB, "KiB")


def _open_rows(idle: Idle, sizes: Sizes) -> Iterator[Row]:
    say(f"{sizes.side**2} channels are open")
    idle.restart(LONG_S)
    begin, end = WARM_UP_SIDE, WARM_UP_SIDE + sizes.side
    idle.come(end)
    idle.meet((0, begin), (0, begin))
    sidecars = (idle.mesh.a, idle.mesh.b)
    before = [idle.weigh(sidecar) for sidecar in sidecars]
    idle.meet((begin, end), (begin, end))
    after = [idle.weigh(sidecar) for sidecar in sidecars]
    for case, grown in zip((INITIATED, ANSWERED), _differences(before, after), strict=True):
        yield _row(case, grown, sizes.side**2)
    idle.leave()


def _put_away_rows(idle: Idle, sizes: Sizes) -> Iterator[Row]:
    """A first crowd finds the size that the heap needs; what later ones add stays of them."""
    side, crowds = sizes.side, 1 + sizes.rounds
    say(f"{crowds * side**2} channels are opened and put away")
    idle.restart(SHORT_S)
    idle.come(crowds * side)
    weighed = []
    for number in range(crowds):
        idle.meet((0, side), (number * side, (number + 1) * side))
        idle.wait_put_away()
        weighed.append(idle.weigh(idle.mesh.a))
    yield _row(PUT_AWAY, _usual_growth(weighed), side**2)
    idle.leave()


def _usual_growth(weighed: list[int]) -> float:
    """The median of rounds: in some, more was open at once than ever, and a heap had to grow."""
    return statistics.median(late - early for early, late in pairwise(weighed))


def _row(case: str, grown_bytes: float, count: int) -> Row:
    return Row(SIDECAR, case, MEMORY, grown_bytes / count / KIB, "KiB")


def _differences(before: list[int], after: list[int]) -> list[int]:
    return [late - early for early, late in zip(before, after, strict=True)]


def _disk_bytes(program: Program) -> int:
    """The database and what SQLite keeps beside it."""
    database = program.paths.database
    return sum(path.stat().st_size for path in database.parent.glob(f"{database.name}*"))
