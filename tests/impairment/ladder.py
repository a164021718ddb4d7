"""The ladder: on each rung two agents talk through a worse network, and every promise is checked.

python -m tests.impairment.ladder [RUNG …] [--engines GATEWAY,A,B] [--seed N] [--json]
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from tests.impairment.process import REPOSITORY
from tests.impairment.report import HopLoss, RungReport, Seen, judge
from tests.impairment.rungs import (
    ASK_TIMEOUT_S,
    RUNGS,
    SETTLE_S_MAX,
    TELL_TIMEOUT_S,
    Rung,
)
from tests.mesh.meshes import AUTO, Mesh
from tests.mesh.programs import WAIT_S, Program, clean_environment

# What the last tell and the last ask may still take when the sending is over.
LAST_ANSWERS_S_MAX: Final = max(ASK_TIMEOUT_S, TELL_TIMEOUT_S) + 5.0


async def climb(mesh: Mesh, name: str, rung: Rung) -> RungReport:
    """One rung, on a mesh whose proxies forward everything before it and after it."""
    seen = Seen()
    logs = {program: program.log.stat().st_size for program in (mesh.a, mesh.b)}
    begun_unix_s = time.time()
    before = await _stats(mesh)
    await _on_proxies(mesh, "set", **asdict(rung.impairment))
    try:
        await _talk(mesh, name, rung, seen)
        seen.proxies = counted_since(before, await _stats(mesh))
    finally:
        await _on_proxies(mesh, "clear")
        for program in logs:
            await asyncio.to_thread(program.wait_ready)
    for program, offset in logs.items():
        seen.hop_losses += read_hop_losses(program, offset, begun_unix_s)
    return judge(name, rung, seen)


async def _talk(mesh: Mesh, name: str, rung: Rung, seen: Seen) -> None:
    """Let one agent tell and the other hear, until all is heard or enough time has passed."""
    changed = asyncio.Event()
    hears = ("hear", str(mesh.b.agent_socket), f"billing/{name}")
    tells = ("tell", str(mesh.a.agent_socket), f"finance/{name}", mesh.uri(f"billing/{name}"))
    async with (
        agent(seen, changed, *hears),
        agent(seen, changed, *tells, str(rung.seconds)),
        asyncio.TaskGroup() as group,
    ):
        trouble = group.create_task(_make_trouble(mesh, rung))
        with suppress(TimeoutError):
            async with asyncio.timeout(rung.seconds + LAST_ANSWERS_S_MAX):
                await _wait(changed, lambda: seen.is_done)
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S_MAX):
                await _wait(changed, lambda: not seen.missing)
        trouble.cancel()


async def _make_trouble(mesh: Mesh, rung: Rung) -> None:
    """What happens at a time of its own."""
    if rung.rebind_every_s:
        await _on_proxies(mesh, "rebind_every", rung.rebind_every_s)
    if rung.blackhole_at_s is not None:
        await asyncio.sleep(rung.blackhole_at_s)
        await _on_proxies(mesh, "blackhole", rung.blackhole_s)


async def _on_proxies(mesh: Mesh, do: str, *arguments: Any, **settings: Any) -> None:
    for proxy in mesh.proxies.values():
        await asyncio.to_thread(getattr(proxy, do), *arguments, **settings)


async def _wait(changed: asyncio.Event, is_so: Any) -> None:
    while not is_so():
        changed.clear()
        await changed.wait()


@asynccontextmanager
async def agent(seen: Seen, changed: asyncio.Event, *arguments: str) -> AsyncIterator[None]:
    """A process of ``tests.impairment.agents``, ready; what it says goes into ``seen``."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.impairment.agents", *arguments),
        cwd=REPOSITORY,
        env=clean_environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    async def listen(lines: asyncio.StreamReader) -> None:
        async for line in lines:
            seen.take(json.loads(line))
            changed.set()

    listening: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(WAIT_S):
            first = await process.stdout.readline()
        assert b"ready" in first, f"{arguments[0]} did not start"
        listening = asyncio.create_task(listen(process.stdout))
        yield
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(WAIT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        if listening is not None:
            await listening


async def _stats(mesh: Mesh) -> dict[str, Any]:
    return {node: await asyncio.to_thread(proxy.stats) for node, proxy in mesh.proxies.items()}


def counted_since(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The differences of all numbers, in the shape of ``after``."""
    return {
        name: counted_since(before.get(name, {}), value)
        if isinstance(value, dict)
        else value - before.get(name, 0)
        for name, value in after.items()
    }


def read_hop_losses(program: Program, offset: int, begun_unix_s: float) -> list[HopLoss]:
    """What a sidecar's log says, from an offset on, of hops lost and regained."""
    with program.log.open("rb") as log:
        log.seek(offset)
        text = log.read().decode(errors="replace")
    lost: list[tuple[float, dict[str, Any]]] = []
    found: list[HopLoss] = []

    def note(until_s: float | None) -> None:
        # Each failed attempt to come back is told of as well: the first line is the loss.
        if lost:
            at_s, line = lost[0]
            back_after_s = None if until_s is None else until_s - at_s
            found.append(HopLoss(program.name, at_s, line["code"], line["detail"], back_after_s))
            lost.clear()

    for line in map(json.loads, filter(lambda one: one.startswith("{"), text.splitlines())):
        at_s = datetime.fromisoformat(line["timestamp"]).timestamp() - begun_unix_s
        if line["event"] == "hop_lost":
            lost.append((at_s, line))
        elif line["event"] == "gateway_connected":
            note(at_s)
    note(None)
    return found


async def climb_all(options: argparse.Namespace) -> list[RungReport]:
    reports = []
    with Mesh(engines=options.engines) as mesh:
        await asyncio.to_thread(lambda: mesh.up().put_proxies_between(seed=options.seed))
        for name in options.rungs or RUNGS:
            reports.append(await climb(mesh, name, RUNGS[name]))
            if not options.json:
                print(reports[-1].text(), flush=True)
    return reports


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.impairment.ladder",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rungs", nargs="*", metavar="RUNG", help=", ".join(RUNGS))
    parser.add_argument("--engines", default=",".join(AUTO), metavar="GATEWAY,A,B")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    options.engines = tuple(options.engines.split(","))
    if len(options.engines) != len(AUTO):
        parser.error("--engines takes three names")
    for name in options.rungs:
        if name not in RUNGS:
            parser.error(f"no such rung: {name}")
    return options


def main() -> None:
    options = read_options()
    reports = asyncio.run(climb_all(options))
    if options.json:
        print(json.dumps([report.to_json() for report in reports], indent=2))
    sys.exit(any(report.broken for report in reports))


if __name__ == "__main__":
    main()
