"""The proxy as a program.

python -m tests.impairment --to 127.0.0.1:7440 --loss 0.02 --burst 8 --delay-ms 100

An option without a direction holds both ways; --up-… (towards the target) and --down-… win over
it. The first line on standard output says where it listens. Standard input takes the commands of
``tests.impairment.commands``. It ends at the end of its input, or after --seconds.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final

import uvloop

from node.addresses import SocketAddress
from tests.impairment.commands import COMMAND_BYTES_MAX, perform
from tests.impairment.core import Direction
from tests.impairment.proxy import UdpProxy
from tests.impairment.settings import Impairment, ImpairmentError

SECONDS_DEFAULT: Final = 3_600.0
READ_BYTES: Final = 65_536


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.impairment",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("--listen", type=SocketAddress.parse, default="127.0.0.1:0")
    parser.add_argument("--to", type=SocketAddress.parse, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rebind-every-s", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=SECONDS_DEFAULT)
    for prefix in ("", *(f"{direction}-" for direction in Direction)):
        for field in fields(Impairment):
            option = f"--{prefix}{field.name}".replace("_", "-")
            parser.add_argument(option, type=type(field.default))
    options = parser.parse_args(arguments)
    try:
        options.impairments = {direction: _of(options, direction) for direction in Direction}
    except ImpairmentError as error:
        parser.error(str(error))
    return options


def _of(options: argparse.Namespace, direction: Direction) -> Impairment:
    chosen: dict[str, Any] = {}
    for field in fields(Impairment):
        for name in (field.name, f"{direction}_{field.name}"):
            if hasattr(options, name):
                chosen[field.name] = getattr(options, name)
    return Impairment(**chosen)


async def run(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    async with UdpProxy.open(
        (options.to.host, options.to.port),
        listen=(options.listen.host, options.listen.port),
        up=options.impairments[Direction.UP],
        down=options.impairments[Direction.DOWN],
        seed=options.seed,
    ) as proxy:
        proxy.core.rebind_every(options.rebind_every_s, loop.time())
        proxy.look()
        say({"listening": str(SocketAddress(*proxy.address)), "to": str(options.to)})
        reading = threading.Thread(target=read_lines, args=(loop, proxy, over.set), daemon=True)
        reading.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(options.seconds):
                await over.wait()


def read_lines(
    loop: asyncio.AbstractEventLoop, proxy: UdpProxy, at_end: Callable[[], None]
) -> None:
    """In a thread, since standard input may be a pipe, a file or a terminal."""
    rest = b""
    with contextlib.suppress(RuntimeError):  # The loop has ended meanwhile.
        while len(rest) <= COMMAND_BYTES_MAX and (data := os.read(0, READ_BYTES)):
            *lines, rest = (rest + data).split(b"\n")
            for line in filter(None, lines):
                loop.call_soon_threadsafe(answer, proxy, line)
        loop.call_soon_threadsafe(at_end)


def answer(proxy: UdpProxy, line: bytes) -> None:
    try:
        told = perform(proxy.core, line, asyncio.get_running_loop().time())
    except ImpairmentError as error:
        told = {"error": str(error)}
    proxy.look()
    say(proxy.stats() if told is None else told)


def say(told: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # Nobody listens; the end of input comes too.
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(run(read_options()))
