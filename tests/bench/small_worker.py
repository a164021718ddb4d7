"""A worker that can do little: for tests of how workers are led."""

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any

from bench.worker import serve


async def double(wishes: Mapping[str, Any]) -> int:
    print("a library says something on standard output")
    return int(wishes["number"]) * 2


async def fail(_: Mapping[str, Any]) -> None:
    raise ValueError("this cannot be done")


async def die(_: Mapping[str, Any]) -> None:
    print("last words", file=sys.stderr, flush=True)
    os._exit(3)


async def hang(_: Mapping[str, Any]) -> None:
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(serve({"double": double, "fail": fail, "die": die, "hang": hang}))
