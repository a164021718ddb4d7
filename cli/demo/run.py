"""Runs the demo from its first process to its last word, and ends it in good order if told to."""

import asyncio
import secrets
import signal
import sys
from typing import Final

from rich.console import Console

from cli.demo.children import Children
from cli.demo.conduct import Stage, conduct
from cli.demo.faults import DemoError
from cli.demo.proofs import CANARIES, Step, judge
from cli.demo.reports import Evidence
from cli.demo.show import console, steps_as_json, table
from cli.demo.venvs import Venvs, cache_folder
from cli.demo.workshop import Workshop, open_workshop
from identity import SidelinkError

ENDING: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
CANARY_BYTES: Final = 16
EXIT_NOT_PROVED: Final = 1
EXIT_SIGNAL: Final = 128  # plus the signal's number, as shells have it.


def run(*, as_json: bool) -> int:
    """The whole demo. Returns its exit code."""
    return asyncio.run(_until_signal(as_json))


async def _until_signal(as_json: bool) -> int:
    """The first signal ends the demo; further ones find it at that already."""
    task = asyncio.create_task(_demo(as_json))
    received: list[int] = []

    def end(number: signal.Signals) -> None:
        if not received:
            received.append(number)
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in ENDING:
        loop.add_signal_handler(number, end, number)
    try:
        return await task
    except asyncio.CancelledError:
        print("demo: interrupted; nothing is left running", file=sys.stderr)
        return EXIT_SIGNAL + received[0]


async def _demo(as_json: bool) -> int:
    clock = asyncio.get_running_loop()
    begun_s = clock.time()
    evidence = Evidence({name: secrets.token_hex(CANARY_BYTES) for name in CANARIES})
    with open_workshop() as workshop:
        fault = await _collect(workshop, evidence)
        steps = judge(evidence)
        if fault is not None:
            steps = _blame(steps, fault)
        failed = [step.name for step in steps if not step.proved]
        if failed:
            workshop.keep_logs()
    print(steps_as_json(steps)) if as_json else console().print(table(steps))
    if failed:
        logs = workshop.logs
        print(f"demo: not proved: {', '.join(failed)}. Logs: {logs}", file=sys.stderr)
        return EXIT_NOT_PROVED
    if not as_json:
        console().print(
            f"All {len(steps)} steps proved in {clock.time() - begun_s:.1f} s. Nothing is left "
            f"but the agents' environments, in {cache_folder()}.",
            soft_wrap=True,
        )
    return 0


async def _collect(workshop: Workshop, evidence: Evidence) -> str | None:
    """Run everything. Returns what stopped it half-way, if anything did."""
    talk = Console(stderr=True, highlight=False)
    with talk.status("starting") as status:

        def say(text: str) -> None:
            status.update(text)
            if not talk.is_terminal:
                print(f"demo: {text}", file=sys.stderr, flush=True)

        try:
            async with Children(workshop.logs) as children:
                venvs = Venvs.in_cache()
                await venvs.ensure(children, workshop.pip, say)
                await conduct(Stage(workshop, children, venvs, say), evidence)
        except (DemoError, SidelinkError) as error:
            return str(error)
    return None


def _blame(steps: list[Step], fault: str) -> list[Step]:
    """The first step that was not reached is the one at which it stopped."""
    at = next((place for place, step in enumerate(steps) if not step.proved), 0)
    return [*steps[:at], Step(steps[at].name, False, 0.0, fault), *steps[at + 1 :]]
