"""Agents B of the demo: they answer, and remember who spoke. They have the SDK and nothing else."""

import asyncio
import json
import sys
from collections.abc import Mapping
from importlib.metadata import distributions
from typing import Any, Final

import sidelink

LATE_MESSAGES_S_MAX: Final = 10.0


class Handlers:
    """Several agents of one process, and what they have seen."""

    def __init__(self, answer: str, expected: int) -> None:
        self._answer = answer
        self._expected = expected
        self._all_seen = asyncio.Event()
        self.seen: list[dict[str, Any]] = []

    async def handle(self, agent: sidelink.Agent) -> None:
        async for message in agent.inbox():
            self.seen.append(
                {
                    "to": agent.uri,
                    "kind": message.kind,
                    "sender": message.sender,
                    "sender_identifier": message.sender_identifier,
                    "attributes": dict(message.attributes),
                    "body": message.body,
                }
            )
            if len(self.seen) >= self._expected:
                self._all_seen.set()
            if message.kind == "ask":
                await message.reply({"answer": self._answer})

    async def wait_all_seen(self) -> None:
        await asyncio.wait_for(self._all_seen.wait(), LATE_MESSAGES_S_MAX)


async def main(wishes: Mapping[str, Any]) -> dict[str, Any]:
    handlers = Handlers(wishes["answer"], wishes["expected"])
    tasks = []
    names = []
    async with sidelink.connect(wishes["socket"]) as mesh:
        for name in wishes["names"]:
            agent = await mesh.agent(name, attributes=wishes["attributes"])
            names.append(agent.uri)
            tasks.append(asyncio.create_task(handlers.handle(agent)))
        # The end of the input says that nobody will speak any more.
        await asyncio.to_thread(sys.stdin.read)
        try:
            await handlers.wait_all_seen()
        except TimeoutError:
            print("not every message came", file=sys.stderr)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "names": names,
        "distributions": sorted(found.name for found in distributions()),
        "seen": handlers.seen,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.loads(sys.stdin.readline())))))
