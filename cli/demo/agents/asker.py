"""Agent A of the demo: it tells, it asks, and it is refused. It has the SDK and nothing else."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Mapping
from importlib.metadata import distributions
from typing import Any, Final

import sidelink

TIMEOUT_S: Final = 15.0


async def main(wishes: Mapping[str, Any]) -> dict[str, Any]:
    steps: dict[str, Any] = {}
    async with sidelink.connect(wishes["socket"]) as mesh:
        agent = await mesh.agent(wishes["name"], attributes=wishes["attributes"])
        for wish in wishes["steps"]:
            body = {"canary": wish["canary"]}
            if wish["kind"] == "tell":
                saying: Awaitable[sidelink.Reply | None] = agent.tell(wish["to"], body)
            else:
                saying = agent.ask(wish["to"], body, timeout=TIMEOUT_S)
            steps[wish["step"]] = await attempt(saying)
        return {
            "agent": {
                "uri": agent.uri,
                "identifier": agent.identifier,
                "attributes": dict(agent.attributes),
            },
            "distributions": sorted(found.name for found in distributions()),
            "steps": steps,
        }


async def attempt(saying: Awaitable[sidelink.Reply | None]) -> dict[str, Any]:
    """What came of it, and how long it took."""
    clock = asyncio.get_running_loop()
    begun_s = clock.time()
    try:
        reply = await saying
    except sidelink.SidelinkError as error:
        outcome: dict[str, Any] = {
            "refusal": {
                "kind": type(error).__name__,
                "code": error.code,
                "rule": error.rule,
                "reason": error.message,
            }
        }
    else:
        outcome = {} if reply is None else {"reply": describe(reply)}
    return {"seconds": clock.time() - begun_s, **outcome}


def describe(reply: sidelink.Reply) -> dict[str, Any]:
    return {
        "sender": reply.sender,
        "sender_identifier": reply.sender_identifier,
        "attributes": dict(reply.attributes),
        "body": reply.body,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.loads(sys.stdin.readline())))))
