"""An agent of either side, as a process: ``python -m bench.messages.agent SYSTEM ROLE RULER``.

RULER is the descriptor of its end of the ruler's socket. Commands come from the benchmark, see
`bench.worker`; what they make the agent do is the same for every system.
"""

import socket
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import uvloop

from bench.messages.asks import Asked, AskPlan, measure_asks
from bench.messages.ruler import Counted, Inbox, Plan, Tally, Window
from bench.messages.systems import Place, Sender, SystemModule, known_systems
from bench.worker import serve


class ReceivingAgent:
    """Counts what comes and answers asks."""

    def __init__(self, module: SystemModule, ruler: socket.socket, stack: AsyncExitStack) -> None:
        self._module = module
        self._ruler = ruler
        self._stack = stack
        self._inbox = Inbox()
        self._tally: Tally | None = None

    async def open(self, wishes: Mapping[str, Any]) -> Place:
        return await self._stack.enter_async_context(
            self._module.open_receiver(wishes["place"], self._inbox)
        )

    async def begin(self, wishes: Mapping[str, Any]) -> None:
        self._tally = Tally(msgspec.convert(wishes["plan"], Plan), self._ruler)
        self._inbox.begin(self._tally)

    async def finish(self, _: Mapping[str, Any]) -> Counted:
        assert self._tally is not None
        return await self._tally.finished


class SendingAgent:
    """Sends as fast as it may, and asks."""

    def __init__(self, module: SystemModule, ruler: socket.socket, stack: AsyncExitStack) -> None:
        ruler.setblocking(False)
        self._module = module
        self._ruler = ruler
        self._stack = stack
        self._sender: Sender | None = None

    async def open(self, wishes: Mapping[str, Any]) -> None:
        self._sender = await self._stack.enter_async_context(
            self._module.open_sender(wishes["place"])
        )

    async def send(self, wishes: Mapping[str, Any]) -> None:
        assert self._sender is not None
        window = Window(msgspec.convert(wishes["plan"], Plan), self._ruler)
        await self._sender.send(window)
        await window.drain()

    async def ask(self, wishes: Mapping[str, Any]) -> Asked:
        assert self._sender is not None
        return await measure_asks(self._sender.ask, msgspec.convert(wishes["plan"], AskPlan))


async def main(name: str, role: str, ruler: socket.socket) -> None:
    module = next(system.module for system in known_systems() if system.name == name)
    async with AsyncExitStack() as stack:
        if role == "receiver":
            receiver = ReceivingAgent(module, ruler, stack)
            await serve({"open": receiver.open, "begin": receiver.begin, "finish": receiver.finish})
        else:
            sender = SendingAgent(module, ruler, stack)
            await serve({"open": sender.open, "send": sender.send, "ask": sender.ask})


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[3])) as ruler_end:
        uvloop.run(main(sys.argv[1], sys.argv[2], ruler_end))
