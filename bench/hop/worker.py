"""One end of the hop, as a process: it dials or accepts, sends bulk, echoes and counts.

Commands come from the benchmark, see `bench.worker`.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import uvloop

from bench.nodes import NodeOnHops, nobody
from bench.samples import percentile
from bench.worker import serve
from link import Frame, FrameKind
from transport import Endpoint, Hop, HopPurpose, TransportSettings

BULK_BODY: Final = bytes(65_000)
ECHO_BODY: Final = bytes(1024)
LINK_BULK, LINK_ECHO = 1, 2
LAST: Final = b"last"
QUEUED_BYTES_HIGH: Final = 8 << 20
# Acknowledgements make room below, and nothing says when.
ROOM_POLL_S: Final = 0.0005
DIAL_S_MAX: Final = 10.0


class SetUp(msgspec.Struct, frozen=True):
    """A hop that has opened."""

    seconds: float
    post_quantum: bool | None


class Delays(msgspec.Struct, frozen=True):
    """Of round trips."""

    p50_s: float
    p99_s: float


class End:
    """Whichever role it has; both know how to count, and how to echo."""

    def __init__(self) -> None:
        self._endpoint: Endpoint | None = None
        self._own: NodeOnHops | None = None
        self._hop: Hop | None = None
        self._bytes = 0
        self._first_s = 0.0
        self._answer: asyncio.Future[bytes] | None = None
        self._counted: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def listen(self, wishes: Mapping[str, Any]) -> int:
        """The port. Frames of LINK_ECHO go back, those of LINK_BULK are counted."""
        own = nobody(b"a")
        own.take = self._serve
        endpoint = await own.bind(_settings(wishes))
        self._own, self._endpoint = own, endpoint
        return endpoint.address[1]

    async def dial(self, wishes: Mapping[str, Any]) -> SetUp:
        own = nobody(b"d")
        own.take = self._take_answer
        endpoint = await own.bind(_settings(wishes))
        endpoint.dial("127.0.0.1", wishes["port"], purpose=HopPurpose.ADMIT, target=None)
        async with asyncio.timeout(DIAL_S_MAX):
            hop = await own.opened.get()
        self._own, self._endpoint, self._hop = own, endpoint, hop
        return SetUp(hop.opened_in_s, hop.post_quantum)

    async def send_bulk(self, wishes: Mapping[str, Any]) -> None:
        hop = self._hop
        assert hop is not None
        for _ in range(wishes["count_bytes"] // len(BULK_BODY)):
            while hop.queued_bytes > QUEUED_BYTES_HIGH:  # noqa: ASYNC110
                await asyncio.sleep(ROOM_POLL_S)
            hop.send_frame(LINK_BULK, FrameKind.RECORD, BULK_BODY)
        hop.send_frame(LINK_BULK, FrameKind.RECORD, LAST)

    async def counted(self, _: Mapping[str, Any]) -> float:
        """Bytes per second of the bulk, at the side that received it."""
        rate = await self._counted
        self._counted = asyncio.get_running_loop().create_future()
        return rate

    async def echo(self, wishes: Mapping[str, Any]) -> Delays:
        hop = self._hop
        assert hop is not None
        taken_s = []
        for _ in range(wishes["count"]):
            begun_s = time.perf_counter()
            self._answer = asyncio.get_running_loop().create_future()
            hop.send_frame(LINK_ECHO, FrameKind.RECORD, ECHO_BODY)
            await self._answer
            taken_s.append(time.perf_counter() - begun_s)
        taken_s.sort()
        return Delays(percentile(taken_s, 0.5), percentile(taken_s, 0.99))

    def _serve(self, hop: Hop, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.link == LINK_ECHO:
                hop.send_frame(frame.link, frame.kind, frame.body)
                continue
            if not self._bytes:
                self._first_s = time.perf_counter()
            self._bytes += len(frame.body)
            if frame.body == LAST:
                self._counted.set_result(self._bytes / (time.perf_counter() - self._first_s))
                self._bytes = 0

    def _take_answer(self, hop: Hop, frames: list[Frame]) -> None:
        for frame in frames:
            if self._answer is not None:
                self._answer.set_result(frame.body)


def _settings(wishes: Mapping[str, Any]) -> TransportSettings:
    return TransportSettings(engine=wishes["engine"], datagram_bytes=wishes["datagram_bytes"])


async def main() -> None:
    end = End()
    await serve(
        {
            "listen": end.listen,
            "dial": end.dial,
            "send bulk": end.send_bulk,
            "counted": end.counted,
            "echo": end.echo,
        }
    )


if __name__ == "__main__":
    uvloop.run(main())
