"""A sidecar that ends its connections when and how a test says, and knows what it has taken."""

import asyncio
import contextlib
import enum
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import sidelink
from sidelink.wire import (
    ASK,
    Answer,
    ClientFrame,
    CloseAgent,
    Draining,
    Failed,
    Flush,
    Goodbye,
    Hello,
    Leave,
    Listen,
    OpenAgent,
    Opened,
    Receipt,
    Reply,
    Send,
    ServerFrame,
    TellRun,
    Welcome,
    client_frame_reader,
    encode_batches,
)

from tests.sdk.fakes import DOMAIN, IDENTIFIER, WAIT_S, uri

DRAINING: Final = "local.draining"


class Ending(enum.Enum):
    CUTS = "it cuts the connection"
    DROPS = "it says Goodbye, and drops what it reads then"
    DRAINS = "it says that it stops, and takes what was under way"
    REFUSES = "it refuses what is new, and says Goodbye later"


@dataclass(frozen=True, slots=True)
class Visit:
    """One connection: how it ends, and how many messages and flushes are taken before."""

    ending: Ending
    after: int


class ScriptedSidecar:
    """Answers every ask with its body. When the script is over, connections last."""

    def __init__(self, visits: Sequence[Visit] = ()) -> None:
        self.visits = list(visits)
        self.connections: list[_Connection] = []
        self.refused_names: dict[str, str] = {}
        self.refuses_s = 0.002
        """How long it refuses what is new before it says Goodbye."""
        self.greeting: list[ServerFrame] = [Welcome(1, DOMAIN, IDENTIFIER)]
        self.stays = False
        """It says that it stops, and does not."""
        self.taken: list[tuple[str, bytes]] = []
        """Receiver and body, over all connections, in the order in which they were taken."""
        self.timeouts_ms: list[int] = []
        self.listens: list[bool] = []
        self.answers: list[bytes] = []
        self.opened: list[str] = []

    def taken_for(self, to: str) -> list[bytes]:
        return [body for receiver, body in self.taken if receiver == to]


class _Connection(asyncio.Protocol):
    def __init__(self, sidecar: ScriptedSidecar) -> None:
        self._sidecar = sidecar
        self._reader = client_frame_reader()
        self._visit = sidecar.visits.pop(0) if sidecar.visits else None
        self._taken = 0
        self._agents = 0
        self._ending: Ending | None = None
        self.transport: asyncio.Transport | None = None
        self.closed = asyncio.Event()
        sidecar.connections.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are not of that class.

    def data_received(self, data: bytes) -> None:
        for frame in self._reader.feed_untrusted(data):
            if self._ending in (Ending.CUTS, Ending.DROPS):
                return
            match frame:
                case Send():
                    self._send(frame)
                case TellRun(agent=agent, to=to, bodies=bodies):
                    for body in bodies:
                        if self._comes_to_its_end():
                            self._refuse(0, agent)
                        else:
                            self._take(to, body)
                case Leave():
                    if not self._sidecar.stays:
                        self.goodbye()
                case Flush(request=request):
                    if not self._comes_to_its_end() or self._ending is Ending.REFUSES:
                        self._taken += 1
                        self.answer(Receipt(request))
                case _:
                    self._serve(frame)

    def _serve(self, frame: ClientFrame) -> None:
        match frame:
            case Hello():
                self.answer(*self._sidecar.greeting)
            case OpenAgent(request=request, name=name):
                self._open(request, name)
            case CloseAgent(request=request):
                self.answer(Receipt(request))
            case Listen(on=on):
                self._sidecar.listens.append(on)
            case Answer(body=body):
                self._sidecar.answers.append(body)
            case _:
                pass

    def connection_lost(self, _error: Exception | None) -> None:
        self.closed.set()

    @property
    def is_ending(self) -> bool:
        return self._ending is not None

    def cut(self) -> None:
        assert self.transport is not None
        self.transport.abort()

    def answer(self, *frames: ServerFrame) -> None:
        assert self.transport is not None
        for batch in encode_batches(frames):
            self.transport.write(batch)

    def goodbye(self, delay_ms: int = 0) -> None:
        assert self.transport is not None
        if self.transport.is_closing():
            return
        self.answer(Goodbye(DRAINING, delay_ms))
        self._ending = Ending.DROPS
        self.transport.write_eof()

    def _open(self, request: int, name: str) -> None:
        self._sidecar.opened.append(name)
        if name in self._sidecar.refused_names:
            self.answer(Failed(request, self._sidecar.refused_names[name]))
            return
        self._agents += 1
        # Numbers that no other connection gave.
        number = 1000 * len(self._sidecar.connections) + self._agents
        self.answer(Opened(request, number, uri(name), IDENTIFIER, {}))

    def _send(self, send: Send) -> None:
        if self._comes_to_its_end():
            self._refuse(send.request, send.agent, tell=send.kind != ASK)
            return
        self._take(send.to, send.body)
        if send.kind == ASK:
            self._sidecar.timeouts_ms.append(send.timeout_ms)
            self.answer(Reply(send.request, send.body, send.content_type, send.to, IDENTIFIER, {}))
        elif send.request:
            self.answer(Receipt(send.request))

    def _take(self, to: str, body: bytes) -> None:
        if self._ending in (None, Ending.DRAINS):
            self._taken += 1
            self._sidecar.taken.append((to, body))

    def _refuse(self, request: int, agent: int, *, tell: bool = False) -> None:
        if self._ending is not Ending.REFUSES:
            return
        # Both ways to say it are in use.
        self.answer(Receipt(request, ok=False) if tell else Failed(request, DRAINING, agent=agent))

    def _comes_to_its_end(self) -> bool:
        """True when nothing more is taken."""
        visit = self._visit
        if visit is not None and self._ending is None and self._taken >= visit.after:
            self._end(visit.ending)
        return self._ending is not None and self._ending is not Ending.DRAINS

    def _end(self, ending: Ending) -> None:
        assert self.transport is not None
        self._ending = ending
        if ending is Ending.CUTS:
            self.transport.abort()
        elif ending is Ending.REFUSES:
            asyncio.get_running_loop().call_later(self._sidecar.refuses_s, self.goodbye)
        elif ending is Ending.DRAINS:
            self.answer(Draining(0))
        else:
            self.goodbye()


async def until(condition: Callable[[], bool]) -> None:
    """For what the test has brought about and a few loop turns will do."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come")


@contextlib.asynccontextmanager
async def scripted(path: Path, sidecar: ScriptedSidecar) -> AsyncIterator[ScriptedSidecar]:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    server = await asyncio.get_running_loop().create_unix_server(lambda: _Connection(sidecar), path)
    try:
        yield sidecar
    finally:
        server.close()
        for connection in sidecar.connections:
            if connection.transport is not None:
                connection.cut()
                await connection.closed.wait()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # From Python 3.13 on the server has done so.


@contextlib.asynccontextmanager
async def one_agent(
    path: Path, *visits: Visit
) -> AsyncIterator[tuple[ScriptedSidecar, sidelink.Mesh, sidelink.Agent]]:
    async with (
        asyncio.timeout(WAIT_S),
        scripted(path, ScriptedSidecar(visits)) as sidecar,
        sidelink.connect(path) as mesh,
    ):
        yield sidecar, mesh, await mesh.agent("planner")
