"""What a rung has shown, judged against what the mesh promises. Pure."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.impairment.rungs import ASK_TIMEOUT_S, Rung

# An ask ends by itself; the sidecar's timer and the way to its agent may take this much more.
ASK_OVERDUE_S = 2.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one tell or ask: ``accepted``, ``answered``, or the code of its failure."""

    number: int
    outcome: str
    took_s: float


@dataclass(frozen=True, slots=True)
class HopLoss:
    """A sidecar's log has told of a lost hop."""

    node: str
    at_s: float
    """After the begin of the rung."""
    code: str
    detail: str
    back_after_s: float | None
    """Until a hop was open again; None if none was."""


@dataclass(slots=True)
class Seen:
    """What two agents have told while a rung was climbed."""

    tells: list[Outcome] = field(default_factory=list)
    asks: list[Outcome] = field(default_factory=list)
    heard: list[int] = field(default_factory=list)
    """The numbers that came out of the inbox, in that order."""
    is_done: bool = False
    hop_losses: list[HopLoss] = field(default_factory=list)
    proxies: dict[str, Any] = field(default_factory=dict)

    def take(self, told: dict[str, Any]) -> None:
        if "heard" in told:
            self.heard.append(told["heard"])
        elif "told" in told:
            self.tells.append(Outcome(told["told"], told["outcome"], told["took_s"]))
        elif "asked" in told:
            self.asks.append(Outcome(told["asked"], told["outcome"], told["took_s"]))
        elif "done" in told:
            self.is_done = True

    @property
    def missing(self) -> set[int]:
        """Accepted, and not heard of."""
        accepted = {tell.number for tell in self.tells if tell.outcome == "accepted"}
        return accepted - set(self.heard)


@dataclass(frozen=True, slots=True)
class RungReport:
    """Seconds unless the name says otherwise."""

    rung: str
    title: str
    tells: int
    accepted: int
    tell_failures: dict[str, int]
    accepted_p50_s: float
    accepted_p99_s: float
    heard: int
    lost: int
    """Accepted and never heard: the promise is that there is none."""
    twice: int
    out_of_order: int
    unaccepted_heard: int
    """Refused or of unknown outcome, and heard all the same: at most once is kept."""
    asks: int
    answered: int
    ask_failures: dict[str, int]
    asks_overdue: int
    ask_p50_s: float
    ask_p99_s: float
    hop_losses: list[HopLoss]
    proxies: dict[str, Any]
    broken: list[str]
    """The promises that did not hold, in words. Empty: the rung is climbed."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        lines = [
            f"{self.rung}: {self.title}: {'; '.join(self.broken) or 'all promises hold'}",
            f"  tells {self.tells}, accepted {self.accepted} (p50 {self.accepted_p50_s:.2f} s, "
            f"p99 {self.accepted_p99_s:.2f} s), heard {self.heard}, lost {self.lost}, "
            f"twice {self.twice}, out of order {self.out_of_order}",
            f"  asks {self.asks}, answered {self.answered} (p50 {self.ask_p50_s:.2f} s, "
            f"p99 {self.ask_p99_s:.2f} s)",
        ]
        for name, failures in (("tells", self.tell_failures), ("asks", self.ask_failures)):
            if failures:
                told = ", ".join(f"{count} {code}" for code, count in failures.items())
                lines.append(f"  {name} that failed: {told}")
        for loss in self.hop_losses:
            back = "never" if loss.back_after_s is None else f"after {loss.back_after_s:.1f} s"
            lines.append(
                f"  {loss.node} lost its hop at {loss.at_s:.1f} s ({loss.code}: {loss.detail}), "
                f"back {back}"
            )
        return "\n".join(lines)


def judge(name: str, rung: Rung, seen: Seen) -> RungReport:
    """Hold what was seen against the promise."""
    accepted = [tell for tell in seen.tells if tell.outcome == "accepted"]
    answered = [ask for ask in seen.asks if ask.outcome == "answered"]
    times = Counter(seen.heard)
    numbers = {tell.number for tell in accepted}
    overdue = sum(ask.took_s > ASK_TIMEOUT_S + ASK_OVERDUE_S for ask in seen.asks)
    lost, twice = len(seen.missing), sum(count > 1 for count in times.values())
    out_of_order = _out_of_order(seen.heard)
    asks = len(seen.asks)
    broken = {
        "the sender did not come to its end": not seen.is_done,
        "nothing was accepted": not accepted,
        f"{lost} accepted messages never arrived": lost,
        f"{twice} messages arrived more than once": twice,
        f"{out_of_order} messages were overtaken": out_of_order,
        f"{overdue} asks ended too late": overdue,
        f"{len(answered)} of {asks} asks were answered": len(answered) < rung.answered_min * asks,
    }
    return RungReport(
        rung=name,
        title=rung.title,
        tells=len(seen.tells),
        accepted=len(accepted),
        tell_failures=_failures(seen.tells, "accepted"),
        accepted_p50_s=percentile([tell.took_s for tell in accepted], 50),
        accepted_p99_s=percentile([tell.took_s for tell in accepted], 99),
        heard=len(seen.heard),
        lost=lost,
        twice=twice,
        out_of_order=out_of_order,
        unaccepted_heard=len(times.keys() - numbers),
        asks=asks,
        answered=len(answered),
        ask_failures=_failures(seen.asks, "answered"),
        asks_overdue=overdue,
        ask_p50_s=percentile([ask.took_s for ask in answered], 50),
        ask_p99_s=percentile([ask.took_s for ask in answered], 99),
        hop_losses=seen.hop_losses,
        proxies=seen.proxies,
        broken=[promise for promise, is_broken in broken.items() if is_broken],
    )


def percentile(values: Sequence[float], percent: int) -> float:
    """NaN of nothing."""
    if len(values) < 2:
        return values[0] if values else math.nan
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _out_of_order(heard: Sequence[int]) -> int:
    """How many came after a later one."""
    highest, count = -1, 0
    for number in heard:
        count += number < highest
        highest = max(highest, number)
    return count


def _failures(outcomes: Sequence[Outcome], good: str) -> dict[str, int]:
    return dict(Counter(one.outcome for one in outcomes if one.outcome != good))
