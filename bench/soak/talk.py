"""One talk of one agent with another: a few numbered tells, asks between them, and at its end the
question what was heard. So each talk is checked at once, and nobody remembers it for long.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Protocol

import msgspec
from sidelink.errors import SidelinkError

# Longer than a gateway takes to be missed, and its channels to go on elsewhere.
ANSWER_S_MAX: Final = 45.0
# Talks whose end never came, because their teller's last question failed, are forgotten in time.
TALKS_HEARD_MAX: Final = 4_096


class Teller(Protocol):
    """As much of an agent as a talk needs of the one that begins it."""

    async def tell(self, to: str, body: object, *, timeout: float) -> None: ...  # noqa: ASYNC109
    async def ask(self, to: str, body: object, *, timeout: float) -> Any: ...  # noqa: ASYNC109
    async def flush(self) -> None: ...


class Counted(msgspec.Struct):
    """What the talks of one process came to."""

    talks: int = 0
    told: int = 0
    """Tells that were accepted."""
    answered: int = 0
    """Asks that had the right answer."""
    lost: int = 0
    """Accepted, never heard, and nobody was told."""
    told_lost: int = 0
    """Accepted and not heard, of which the teller was told later that their outcome is unknown."""
    disordered: int = 0
    """Heard twice, out of turn, or though the teller was told that it had not gone."""
    unchecked: int = 0
    """Talks whose last question had no answer."""
    streams: int = 0
    """Calls of a tool, each a byte stream, with the right result."""
    failures: dict[str, int] = msgspec.field(default_factory=dict)
    """What was told to those that asked, told or called, by code."""

    def fail(self, code: str) -> None:
        self.failures[code] = self.failures.get(code, 0) + 1

    def add(self, other: "Counted") -> None:
        for name in ("talks", "told", "answered", "lost", "told_lost", "disordered", "unchecked"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.streams += other.streams
        self.failures = dict(Counter(self.failures) + Counter(other.failures))


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be said: after how long, and how large."""

    name: str
    """No other talk has it."""
    pauses_s: Sequence[float]
    """One before each tell."""
    sizes_bytes: Sequence[int]
    """One for each tell."""
    asked_after: frozenset[int]
    """The tells, by number, behind which an ask follows."""


class Hearing:
    """What the agents of one process have heard, talk by talk."""

    def __init__(self) -> None:
        self._heard: OrderedDict[str, list[int]] = OrderedDict()

    def note(self, talk: str, number: int) -> None:
        heard = self._heard.get(talk)
        if heard is None:
            heard = self._heard[talk] = []
            if len(self._heard) > TALKS_HEARD_MAX:
                self._heard.popitem(last=False)
        heard.append(number)

    def take(self, talk: str) -> list[int]:
        """The numbers in the order in which they came. The talk is over."""
        return self._heard.pop(talk, [])

    def answer(self, body: Any) -> dict[str, Any]:
        """What an agent replies to an ask of ``converse``."""
        if "question" in body:
            return {"answer": body["question"]}
        return {"heard": self.take(body["talk"])}


class Said:
    """The teller's side of one talk."""

    def __init__(self) -> None:
        self.accepted: list[int] = []
        self.uncertain: set[int] = set()
        self.told_of_loss = False

    def judge(self, heard: Sequence[int], counted: Counted) -> None:
        """Compare with what was heard."""
        missing = len(set(self.accepted) - set(heard))
        if self.told_of_loss:
            counted.told_lost += missing
        else:
            counted.lost += missing
        counted.disordered += sum(later <= earlier for earlier, later in pairwise(heard))
        counted.disordered += len(_unsaid(heard, self.accepted, self.uncertain))


def _unsaid(heard: Iterable[int], accepted: Iterable[int], uncertain: set[int]) -> set[int]:
    return set(heard) - set(accepted) - uncertain


async def converse(
    teller: Teller, to: str, plan: Plan, counted: Counted, ending: asyncio.Event
) -> None:
    """Say it all, or as much as there is time for, and ask what was heard."""
    said = Said()
    for number, (pause_s, size_bytes) in enumerate(
        zip(plan.pauses_s, plan.sizes_bytes, strict=True), start=1
    ):
        if await over_within(ending, pause_s):
            break
        await _tell(teller, to, {"talk": plan.name, "number": number}, size_bytes, said, counted)
        if number in plan.asked_after:
            await _ask(teller, to, number, counted)
    counted.talks += 1
    counted.told += len(said.accepted)
    try:
        await teller.flush()
    except SidelinkError as error:
        said.told_of_loss = True
        counted.fail(error.code)
    try:
        reply = await teller.ask(to, {"talk": plan.name}, timeout=ANSWER_S_MAX)
    except SidelinkError as error:
        counted.fail(error.code)
        counted.unchecked += 1
    else:
        said.judge(reply.body["heard"], counted)


async def _tell(
    teller: Teller, to: str, head: dict[str, Any], size_bytes: int, said: Said, counted: Counted
) -> None:
    try:
        await teller.tell(to, head | {"rest": bytes(size_bytes)}, timeout=ANSWER_S_MAX)
    except SidelinkError as error:
        counted.fail(error.code)
        if error.outcome_unknown:
            said.uncertain.add(head["number"])
    else:
        said.accepted.append(head["number"])


async def _ask(teller: Teller, to: str, number: int, counted: Counted) -> None:
    try:
        reply = await teller.ask(to, {"question": number}, timeout=ANSWER_S_MAX)
    except SidelinkError as error:
        counted.fail(error.code)
    else:
        if reply.body == {"answer": number}:
            counted.answered += 1
        else:
            counted.disordered += 1


async def over_within(ending: asyncio.Event, seconds: float) -> bool:
    """Wait so long. True, and at once, when the run is over."""
    try:
        async with asyncio.timeout(seconds):
            await ending.wait()
    except TimeoutError:
        return False
    return True
