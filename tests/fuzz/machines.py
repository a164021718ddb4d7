"""How a state machine becomes a target: the input is a program of its operations."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from tests.fuzz.fakes import fast_crypto
from tests.fuzz.loops import VirtualLoop
from tests.fuzz.program import Program
from tests.fuzz.target import Target

STEPS_MAX: Final = 300
# Of the loop after each step: enough for a task to react, and for its answer to be taken up.
TURNS: Final = 4

Operation = Callable[[Any, Program], object]


class Machine(Protocol):
    """What holds after each step, and at the end. Both raise AssertionError when it does not."""

    def check(self) -> None: ...
    def finish(self) -> None: ...


class LoopMachine(Machine, Protocol):
    """One whose parts make tasks and timers. Its clock is the loop's."""

    def use_loop(self, loop: VirtualLoop) -> None:
        """Called once, within the loop, before the first step."""


def machine_target(
    name: str,
    feeds: str,
    make: Callable[[], Any],
    operations: Sequence[Operation],
    scripts: Sequence[Sequence[str | bytes | int]],
    *,
    in_loop: bool = False,
    **options: Any,
) -> Target:
    """``scripts`` are programs by the names of operations, each followed by its parameters."""

    def run(data: bytes) -> None:
        with fast_crypto():
            if in_loop:
                _run_in_loop(make, operations, data)
            else:
                _run(make, operations, data)

    seeds = [encode_script(script, operations) for script in scripts]
    options = {"bytes_max": 512, "cpu_s_max": 5.0} | options
    return Target(
        name, feeds, run, lambda: seeds, None, is_machine=True, is_program=True, **options
    )


def _run(make: Callable[[], Machine], operations: Sequence[Operation], data: bytes) -> None:
    program = Program(data)
    machine = make()
    machine.check()
    for _ in range(STEPS_MAX):
        if program.is_over:
            break
        program.choose(operations)(machine, program)
        machine.check()
    machine.finish()


def _run_in_loop(
    make: Callable[[], LoopMachine], operations: Sequence[Operation], data: bytes
) -> None:
    """The same with a turn of the loop after each step. A task's own fault is a fault."""
    loop = VirtualLoop()
    faults: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))

    async def play() -> None:
        program = Program(data)
        machine = make()
        machine.use_loop(loop)
        for _ in range(STEPS_MAX):
            machine.check()
            if program.is_over:
                break
            program.choose(operations)(machine, program)
            for _ in range(TURNS):
                await asyncio.sleep(0)
        machine.finish()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        await _end_tasks()

    try:
        loop.run_until_complete(play())
    finally:
        loop.close()
    for context in faults:
        raise AssertionError(str(context.get("message"))) from context.get("exception")


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def encode_script(script: Sequence[str | bytes | int], operations: Sequence[Operation]) -> bytes:
    """A program's bytes: words are operations, numbers and bytes are what they read."""
    numbers = {operation.__name__: number for number, operation in enumerate(operations)}
    encoded = bytearray()
    for word in script:
        if isinstance(word, str):
            encoded.append(numbers[word])
        elif isinstance(word, int):
            encoded.append(word)
        else:
            encoded += word
    return bytes(encoded)
