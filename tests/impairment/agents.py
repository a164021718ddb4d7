"""The two agents of the workload, each a process beside its sidecar, by the SDK alone.

    python -m tests.impairment.agents hear SOCKET NAME
    python -m tests.impairment.agents tell SOCKET NAME TO SECONDS

Each says what happens to it, one JSON object a line. Both end when their input does.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, cast

import sidelink

from tests.impairment.rungs import (
    ASK_TIMEOUT_S,
    ASKS_PER_S,
    BODY_BYTES,
    TELL_TIMEOUT_S,
    TELLS_PER_S,
)


def say(**told: Any) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


async def hear(socket: str, name: str) -> None:
    """Note each number that arrives, and answer each ask."""
    async with sidelink.connect(socket) as mesh:
        agent = await mesh.agent(name)
        inbox = agent.inbox()
        say(ready=agent.uri)
        async for message in inbox:
            if message.kind == "ask":
                await message.reply(message.body)
            else:
                number, _ = cast("list[Any]", message.body)
                say(heard=number)


async def tell(socket: str, name: str, to: str, seconds: str) -> None:
    """Send at a steady rate, whatever becomes of those before: nobody waits for anybody."""
    async with sidelink.connect(socket) as mesh:
        agent = await mesh.agent(name)
        say(ready=agent.uri)
        count = int(float(seconds) * TELLS_PER_S)
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(tell_one(agent, to, number))
                if number % (TELLS_PER_S // ASKS_PER_S) == 0:
                    group.create_task(ask_one(agent, to, number))
                await asyncio.sleep(begun_s + (number + 1) / TELLS_PER_S - loop.time())
        say(done=True)


async def tell_one(agent: sidelink.Agent, to: str, number: int) -> None:
    begun_s = time.monotonic()
    outcome = "accepted"
    try:
        await agent.tell(to, [number, bytes(BODY_BYTES)], timeout=TELL_TIMEOUT_S)
    except sidelink.SidelinkError as error:
        outcome = error.code
    say(told=number, outcome=outcome, took_s=time.monotonic() - begun_s)


async def ask_one(agent: sidelink.Agent, to: str, number: int) -> None:
    begun_s = time.monotonic()
    outcome = "answered"
    try:
        reply = await agent.ask(to, number, timeout=ASK_TIMEOUT_S)
        if reply.body != number:
            outcome = "a wrong answer"
    except sidelink.SidelinkError as error:
        outcome = error.code
    say(asked=number, outcome=outcome, took_s=time.monotonic() - begun_s)


ROLES: Final[Mapping[str, Callable[..., Coroutine[Any, Any, None]]]] = {"hear": hear, "tell": tell}


async def until_input_ends(work: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    ended = asyncio.ensure_future(reader.read())
    await asyncio.wait((task, ended), return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    if not task.done():
        task.cancel()
    await asyncio.gather(task, ended, return_exceptions=True)
    if not task.cancelled():
        task.result()


if __name__ == "__main__":
    asyncio.run(until_input_ends(ROLES[sys.argv[1]](*sys.argv[2:])))
