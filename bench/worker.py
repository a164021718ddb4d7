"""The other end of `bench.children.Worker`: reads commands line by line and answers each.

It ends when its standard input does, whatever it is doing, so that a worker never outlives the
benchmark that started it.
"""

import asyncio
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

LINE_BYTES_MAX: Final = 1 << 20

Command = Callable[[Mapping[str, Any]], Awaitable[Any]]


class _OverError(Exception):
    """The input has ended, or a command has failed: nothing more is to be done."""


async def serve(commands: Mapping[str, Command]) -> None:
    """Carry out commands, one after the other, until the input ends or one of them fails."""
    answers = _claim_stdout()
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    lines: asyncio.Queue[bytes] = asyncio.Queue()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_read_lines(reader, lines))
            group.create_task(_carry_out(commands, lines, answers))
    except* _OverError:
        pass


async def _read_lines(reader: asyncio.StreamReader, lines: asyncio.Queue[bytes]) -> None:
    while line := await reader.readline():
        lines.put_nowait(line)
    raise _OverError


async def _carry_out(
    commands: Mapping[str, Command], lines: asyncio.Queue[bytes], answers: int
) -> None:
    while True:
        wishes = msgspec.json.decode(await lines.get())
        try:
            answer = {"is": await commands[wishes["do"]](wishes)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        os.write(answers, msgspec.json.encode(answer) + b"\n")
        if "error" in answer:
            raise _OverError


def _claim_stdout() -> int:
    """Answers have standard output to themselves: what libraries print there goes to the log."""
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers
