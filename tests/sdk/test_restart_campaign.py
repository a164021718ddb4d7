"""Random conversations with a sidecar that comes and goes, held against what it has taken."""

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sidelink
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sdk.fakes import WAIT_S, uri
from tests.sdk.scripted import Ending, ScriptedSidecar, Visit, scripted

pytestmark = pytest.mark.usefixtures("soon_back")

RAW = "application/octet-stream"
WAYS = ("tell_nowait", "tell", "ask", "flush", "pause", "cancel")


@dataclass(frozen=True, slots=True)
class Step:
    way: str
    to: int
    """Which receiver; for a pause, how long."""
    name: str = "planner"


NAMES = ("planner", "clerk")
steps = st.lists(
    st.builds(Step, st.sampled_from(WAYS), st.integers(0, 2), st.sampled_from(NAMES)), max_size=60
)
visits = st.lists(st.builds(Visit, st.sampled_from(Ending), st.integers(0, 25)), max_size=4)


@dataclass
class Conversation:
    """What one agent says, numbered, and what it was told about it."""

    agent: sidelink.Agent
    issued: int = 0
    ends: dict[int, "asyncio.Future[object]"] = field(default_factory=dict)
    unreported: set[int] = field(default_factory=set)
    """Sent without receipt, and no flush has raised since."""
    confirmed: set[int] = field(default_factory=set)
    errors: list[sidelink.SidelinkError] = field(default_factory=list)
    flushes: list["asyncio.Future[None]"] = field(default_factory=list)

    def receiver(self, to: int) -> str:
        return uri(f"for-{self.agent.name}/{to}")

    async def say(self, step: Step) -> None:
        to, number = self.receiver(step.to), self.issued
        body = b"%d" % number
        match step.way:
            case "tell_nowait":
                self.agent.tell_nowait(to, body, content_type=RAW)
                self.unreported.add(number)
            case "tell":
                self.ends[number] = asyncio.ensure_future(
                    self.agent.tell(to, body, content_type=RAW, timeout=WAIT_S)
                )
                await asyncio.sleep(0)  # The call is made when its task runs.
            case "ask":
                self.ends[number] = asyncio.ensure_future(
                    self.agent.ask(to, body, content_type=RAW, timeout=WAIT_S)
                )
                await asyncio.sleep(0)
            case "flush":
                self.flushes.append(asyncio.ensure_future(self.flush()))
                await asyncio.sleep(0)
            case "cancel":
                if number - 1 in self.ends:
                    self.ends[number - 1].cancel()
            case _:
                for _ in range(5 * step.to):
                    await asyncio.sleep(0)
        self.issued += 1

    async def flush(self) -> None:
        before = set(self.unreported)
        try:
            await self.agent.flush(timeout=WAIT_S)
        except sidelink.SidelinkError as error:
            self.errors.append(error)
            self.unreported.clear()
        else:
            self.confirmed |= before & self.unreported

    async def finish(self) -> None:
        await asyncio.gather(*self.ends.values(), *self.flushes, return_exceptions=True)
        await self.flush()
        await self.flush()


async def converse(
    said: list[Step], script: list[Visit]
) -> tuple[list[Conversation], ScriptedSidecar]:
    with tempfile.TemporaryDirectory(prefix="sl") as folder:
        path = Path(folder) / "agent.sock"
        async with (
            asyncio.timeout(WAIT_S),
            scripted(path, ScriptedSidecar(script)) as sidecar,
            sidelink.connect(path) as mesh,
        ):
            talks = {name: Conversation(await mesh.agent(name)) for name in NAMES}
            for step in said:
                await talks[step.name].say(step)
            for talk in talks.values():
                await talk.finish()
                assert not talk.agent._outbox._line
                assert not talk.agent._outbox._refused
            assert mesh._backlog.calls == mesh._backlog.unsent_bytes == 0
    return list(talks.values()), sidecar


def check(talk: Conversation, sidecar: ScriptedSidecar, script: list[Visit]) -> None:
    taken: set[int] = set()
    for to in range(3):
        received = [int(body) for body in sidecar.taken_for(talk.receiver(to))]
        assert len(received) == len(set(received)), "something came twice"
        assert received == sorted(received), "something was overtaken"
        taken.update(received)
    assert talk.confirmed <= taken, "a flush confirmed what was not received"
    for number, end in talk.ends.items():
        assert end.done()
        if end.cancelled():
            continue
        error = end.exception()
        if error is None:
            assert number in taken, "a call succeeded that was not received"
        else:
            assert isinstance(error, sidelink.SidelinkError)
            assert error.outcome_unknown or number not in taken, "not sent, and yet received"
            talk.errors.append(error)
    if all(visit.ending is Ending.DRAINS for visit in script):
        assert talk.errors == [], "a sidecar that stops in good order is no error"


def hold(said: list[Step], script: list[Visit], loop_factory: object) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:  # type: ignore[arg-type]
        talks, sidecar = runner.run(converse(said, script))
    for talk in talks:
        check(talk, sidecar, script)


EVERY_WAY = [
    Step(way, 1, name)
    for way in ("tell_nowait", "tell", "tell_nowait", "ask", "flush")
    for name in NAMES
]


@pytest.mark.parametrize("ending", Ending, ids=lambda ending: ending.value)
def test_nothing_is_doubled_overtaken_or_confirmed_falsely(ending: Ending) -> None:
    said, script = EVERY_WAY * 4, [Visit(ending, 3), Visit(ending, 0), Visit(ending, 7)]

    hold(said, script, asyncio.new_event_loop)


@pytest.mark.prove
@pytest.mark.timeout(300)
@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
@settings(
    max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(said=steps, script=visits)
def test_nothing_is_doubled_overtaken_or_confirmed_falsely_in_any_conversation(
    loop_factory: object, said: list[Step], script: list[Visit]
) -> None:
    hold(said, script, loop_factory)
