"""All agents of one sidecar, as one process: they talk, fall silent, come and go, and are checked.

Commands come from the benchmark, see `bench.worker`.
"""

import asyncio
import random
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import aiohttp
import msgspec
import sidelink
import uvloop
from sidelink.errors import SidelinkError

from bench.soak.talk import ANSWER_S_MAX, Counted, Hearing, Plan, converse, over_within
from bench.worker import serve
from tests.sidecar.mcp_helpers import call_of

DOMAIN: Final = "acme"
# Talks are short, with long silences between: most find that their channel was put away.
TELLS_MIN, TELLS_MAX = 1, 8
PAUSE_S_MAX: Final = 0.5
SIZES_BYTES: Final = (32, 1_024, 16_384, 200_000)
SIZE_WEIGHTS: Final = (60, 30, 9, 1)
# So many of a sidecar's agents keep their channel in use, so that there are some that must move.
REGULARS_MAX: Final = 10
REGULAR_TELLS: Final = 60
REGULAR_PAUSE_S: Final = 1.0
# Programs that come, say something and go.
VISIT_PAUSE_S: Final = 2.0
VISITORS: Final = 20
CALL_PAUSE_S: Final = 0.5
CALL_BYTES_MAX: Final = 50_000
OWN_SHARE: Final = 0.1
"""Of the talks, with an agent of the same sidecar."""
END_S_MAX: Final = 2 * ANSWER_S_MAX


class Wishes(msgspec.Struct, frozen=True):
    """What the agents of one sidecar are to do."""

    others: dict[str, int]
    """The other sidecars, by the prefix of their agents, and how many each has."""
    seed: int
    pause_s: float
    """Between two talks of one agent, in the mean."""
    regulars_with: str | None
    """The prefix of those with whom some keep up one long talk after the other."""
    tool_port: int | None
    """Where an MCP client of these agents reaches its tool."""


@dataclass(slots=True)
class Place:
    """Where these agents live."""

    socket: str
    prefix: str
    agents: int


class Crowd:
    """What the benchmark may ask for: open, begin, keep apart, count, end."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._hearing = Hearing()
        self._counted = Counted()
        self._ending = asyncio.Event()
        self._listening: list[asyncio.Task[None]] = []
        self._talking: list[asyncio.Task[None]] = []
        self._agents: list[sidelink.Agent] = []
        self._apart_from: frozenset[str] = frozenset()
        self._names = count(1)

    async def open(self, wishes: Mapping[str, Any]) -> None:
        self._place = Place(wishes["socket"], wishes["prefix"], wishes["agents"])
        mesh = await self._stack.enter_async_context(sidelink.connect(self._place.socket))
        for number in range(self._place.agents):
            agent = await mesh.agent(f"{self._place.prefix}/agent-{number}")
            self._agents.append(agent)
            self._listening.append(asyncio.create_task(_listen(agent, self._hearing)))

    async def begin(self, wishes: Mapping[str, Any]) -> None:
        self._wishes = msgspec.convert(wishes["wishes"], Wishes)
        self._random = random.Random(self._wishes.seed)
        regulars = REGULARS_MAX if self._wishes.regulars_with else 0
        work: list[Coroutine[Any, Any, None]] = [self._come_and_go()]
        for number, agent in enumerate(self._agents):
            is_regular = number < regulars
            work.append(
                self._talk_regularly(agent, number)
                if is_regular
                else self._talk_now_and_then(agent)
            )
        if self._wishes.tool_port is not None:
            work.append(self._call_tools(self._wishes.tool_port))
        self._talking = [asyncio.create_task(one) for one in work]

    async def keep_apart(self, wishes: Mapping[str, Any]) -> None:
        """Begin nothing with the agents of these prefixes until told otherwise."""
        self._apart_from = frozenset(wishes["prefixes"])

    async def count(self, _: Mapping[str, Any]) -> Counted:
        self._raise_fault()
        return self._counted

    async def end_talks(self, _: Mapping[str, Any]) -> None:
        """Returns once every talk that was begun here has been checked."""
        self._ending.set()
        async with asyncio.timeout(END_S_MAX):
            await asyncio.gather(*self._talking)

    async def close(self, _: Mapping[str, Any]) -> None:
        """Nobody talks any more, here or elsewhere."""
        for task in self._listening:
            task.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)

    def _raise_fault(self) -> None:
        for task in (*self._listening, *self._talking):
            if task.done():
                task.result()

    # What they do until the end.

    async def _talk_now_and_then(self, agent: sidelink.Agent) -> None:
        while not await over_within(
            self._ending, self._random.expovariate(1 / self._wishes.pause_s)
        ):
            to = self._choose_partner(agent)
            if to is not None:
                await converse(agent, to, self._new_plan(), self._counted, self._ending)

    async def _talk_regularly(self, agent: sidelink.Agent, number: int) -> None:
        to = f"agent://{DOMAIN}/{self._wishes.regulars_with}/agent-{number}"
        while not self._ending.is_set():
            tells = [REGULAR_PAUSE_S] * REGULAR_TELLS
            asked_after = frozenset(range(5, REGULAR_TELLS, 5))
            plan = Plan(self._new_name(), tells, self._sizes(REGULAR_TELLS), asked_after)
            await converse(agent, to, plan, self._counted, self._ending)

    async def _come_and_go(self) -> None:
        """A program after the other, each with a connection of its own."""
        for number in count():
            if await over_within(self._ending, VISIT_PAUSE_S):
                return
            try:
                async with sidelink.connect(self._place.socket, wait_s=ANSWER_S_MAX) as mesh:
                    agent = await mesh.agent(f"{self._place.prefix}/visitor-{number % VISITORS}")
                    to = self._choose_partner(agent)
                    if to is not None:
                        await converse(agent, to, self._new_plan(), self._counted, self._ending)
            except SidelinkError as error:
                self._counted.fail(error.code)

    async def _call_tools(self, port: int) -> None:
        """Each call is one byte stream through the mesh, there and back."""
        url = f"http://127.0.0.1:{port}/mcp/tools"
        async with aiohttp.ClientSession() as http:
            while not await over_within(self._ending, CALL_PAUSE_S):
                if self._apart_from:
                    continue
                text = "x" * self._random.randrange(CALL_BYTES_MAX)
                body, headers = call_of("echo", text=text)
                async with http.post(url, data=body, headers=dict(headers)) as response:
                    answer = await response.text()
                if response.status == 200 and text in answer and '"result"' in answer:
                    self._counted.streams += 1
                else:
                    self._counted.fail(f"tool call, status {response.status}")

    def _choose_partner(self, agent: sidelink.Agent) -> str | None:
        """An agent of another sidecar, or now and then of our own."""
        own = self._place
        prefix, agents = own.prefix, own.agents
        if self._random.random() >= OWN_SHARE:
            others = {
                name: agents
                for name, agents in self._wishes.others.items()
                if name not in self._apart_from
            }
            if not others:
                return None
            prefix = self._random.choice(sorted(others))
            agents = others[prefix]
        to = f"agent://{DOMAIN}/{prefix}/agent-{self._random.randrange(agents)}"
        return None if to == agent.uri else to

    def _new_plan(self) -> Plan:
        tells = self._random.randint(TELLS_MIN, TELLS_MAX)
        pauses_s = [self._random.uniform(0, PAUSE_S_MAX) for _ in range(tells)]
        asked_after = frozenset({self._random.randint(1, tells)})
        return Plan(self._new_name(), pauses_s, self._sizes(tells), asked_after)

    def _new_name(self) -> str:
        return f"{self._place.prefix} {next(self._names)}"

    def _sizes(self, number: int) -> list[int]:
        return self._random.choices(SIZES_BYTES, SIZE_WEIGHTS, k=number)


async def _listen(agent: sidelink.Agent, hearing: Hearing) -> None:
    async for message in agent.inbox():
        body: Any = message.body
        if message.kind == "ask":
            await message.reply(hearing.answer(body))
        else:
            hearing.note(body["talk"], body["number"])


async def main() -> None:
    async with AsyncExitStack() as stack:
        crowd = Crowd(stack)
        await serve(
            {
                "open": crowd.open,
                "begin": crowd.begin,
                "keep apart": crowd.keep_apart,
                "count": crowd.count,
                "end talks": crowd.end_talks,
                "close": crowd.close,
            }
        )


if __name__ == "__main__":
    uvloop.run(main())
