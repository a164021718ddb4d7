"""What a benchmark says in the end, for people and for programs: rows, and targets met or not."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured, and how busy the place was before."""

    cpu: str
    cores: int
    kernel: str
    python: str
    load: tuple[float, float, float]
    """The load averages of 1, 5 and 15 minutes before the run."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. ``system`` is what was measured, ``case`` under which conditions."""

    system: str
    case: str
    metric: str
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class Target:
    """What we want to reach, beside what this run reached. ``value`` None: it was not measured."""

    name: str
    value: float | None
    target: float
    met: bool


@dataclass(frozen=True, slots=True)
class Report:
    """One run of one benchmark."""

    name: str
    machine: Machine
    rows: tuple[Row, ...]
    targets: tuple[Target, ...]

    def as_json(self) -> str:
        """The one object that `--json` prints. Keys are in the order of the fields."""
        encoded = msgspec.json.format(msgspec.json.encode(asdict(self)), indent=2)
        return encoded.decode()


def at_least(name: str, value: float | None, target: float) -> Target:
    """A target for what should be large."""
    return Target(f"{name}, at least", value, target, value is not None and value >= target)


def at_most(name: str, value: float | None, target: float) -> Target:
    """A target for what should be small."""
    return Target(f"{name}, at most", value, target, value is not None and value <= target)


def find_value(rows: Sequence[Row], system: str, case: str, metric: str) -> float | None:
    """The one figure of this name, or None where it was not measured."""
    found = [
        row.value for row in rows if (row.system, row.case, row.metric) == (system, case, metric)
    ]
    assert len(found) <= 1, f"{system}, {case}, {metric} stands in the report twice"
    return found[0] if found else None
