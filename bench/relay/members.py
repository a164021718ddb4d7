"""Two members of a mesh without agents: one pushes records, the other takes and counts them.

They have real credentials and real hops. What they seal is nobody's: a gateway cannot tell.
"""

import asyncio
import os
import time
from typing import Final

import msgspec

from bench.errors import BenchError
from channel import RecordType
from channel.wire import RecordHeader, decode_header_untrusted, encode_header
from identity import AgentUri, Code
from link import (
    LINK_WINDOW_BYTES,
    Credit,
    Frame,
    FrameKind,
    LinkIds,
    LinkOpen,
    ReceiveWindow,
    SendWindow,
)
from link.messages import (
    decode_code_untrusted,
    decode_credit_untrusted,
    encode_credit,
    encode_link_open,
    encode_prefix,
)
from node.parts import Parts
from transport import Endpoint, Hop, HopPurpose

SOURCE: Final = "source"
SINK: Final = "sink"
TRUST_DOMAIN: Final = "acme"
# As large as a real one: an ephemeral key, and an encapsulation key of ML-KEM-768.
NOISE_1_BYTES: Final = 32 + 1184
NOISE_2_BYTES: Final = 2_048
LINK_NONCE_BYTES: Final = 16
# The pusher stops here and goes on when the hop has sent: enough for many full datagrams.
QUEUED_BYTES_HIGH: Final = 2 << 20
FRAMES_PER_LOOK: Final = 64
ROOM_POLL_S: Final = 0.0005
REOPEN_S: Final = 0.25


class Carried(msgspec.Struct, frozen=True):
    """What the sink counted, between two looks at its clock."""

    frames: int
    seconds: float


class Hops:
    """The handler of hops to a gateway that is believed to be one, as a sidecar does it."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.fault: BenchError | None = None
        self._open: asyncio.Queue[Hop] = asyncio.Queue()

    async def dial(self, endpoint: Endpoint) -> Hop:
        """Open a hop to the gateway that the ticket named."""
        [gateway, *_] = self.parts.store.gateways()
        endpoint.dial(
            gateway.host,
            gateway.port,
            purpose=HopPurpose.ADMIT,
            target=gateway.identifier,
            handler=self,
        )
        return await self._open.get()

    def raise_fault(self) -> None:
        if self.fault is not None:
            raise self.fault

    # HopHandler.

    def hop_verified(self, hop: Hop) -> None:
        self.parts.admission.answer_hop(hop, role="gateway")

    def hop_opened(self, hop: Hop) -> None:
        self._open.put_nowait(hop)

    def frames_received(self, hop: Hop, frames: list[Frame]) -> None:
        """Nothing that an idle hop is told matters."""

    def stream_received(self, hop: Hop, stream: int, data: bytes, ended: bool) -> None:
        pass

    def stream_reset(self, hop: Hop, stream: int, code: int) -> None:
        pass

    def hop_closed(self, hop: Hop, code: Code, detail: str) -> None:
        self.fail(f"a hop was closed: {code.text}, {detail}")

    def fail(self, why: str) -> None:
        if self.fault is None:
            self.fault = BenchError(why)


class Member(Hops):
    """A node with one hop, which carries its links."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._hop: Hop | None = None

    @property
    def hop(self) -> Hop:
        assert self._hop is not None, "join first"
        return self._hop

    async def join(self, endpoint: Endpoint) -> None:
        self._hop = await self.dial(endpoint)


class SourceLink:
    __slots__ = ("sequence", "window")

    def __init__(self) -> None:
        self.sequence = 0
        self.window = SendWindow()


class Source(Member):
    """Opens links and pushes."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._links: dict[int, SourceLink] = {}
        self._ids = LinkIds(is_dialler=True)
        self._opening: set[int] = set()
        self._stopped = False
        self._moved = asyncio.Event()

    async def open_links(self, count: int) -> None:
        """One agent to one agent each; returns when so many more are accepted and finished."""
        wanted = len(self._links) + count
        while len(self._links) < wanted:
            for _ in range(wanted - len(self._links)):
                self._open_link()
            while self._opening:
                await self.wait_moved()
            if len(self._links) < wanted:
                await asyncio.sleep(REOPEN_S)  # The gateway takes no more of us at once.

    def _open_link(self) -> None:
        link = self._ids.take()
        self._opening.add(link)
        opening = LinkOpen(
            target=AgentUri.in_domain(TRUST_DOMAIN, f"{SINK}/{link}"),
            source=AgentUri.in_domain(TRUST_DOMAIN, f"{SOURCE}/main"),
            nonce=os.urandom(LINK_NONCE_BYTES),
            source_node=None,
            noise_1=os.urandom(NOISE_1_BYTES),
        )
        self.hop.send_frame(link, FrameKind.LINK_OPEN, encode_link_open(opening))

    async def push(self, size_bytes: int) -> None:
        """Send records of this size on every link, as fast as credit allows, until ``stop``."""
        hop = self.hop
        self._stopped = False
        header_bytes = len(encode_header(RecordHeader(RecordType.DATA, 0, 0, 0)))
        rest = os.urandom(size_bytes - header_bytes)
        while not self._stopped:
            self.raise_fault()
            sent, is_full = 0, False
            for number, link in self._links.items():
                room = min(link.window.available_bytes // size_bytes, FRAMES_PER_LOOK)
                is_full = is_full or hop.queued_bytes > QUEUED_BYTES_HIGH
                if not room or is_full:
                    continue
                for sequence in range(link.sequence, link.sequence + room):
                    header = encode_header(RecordHeader(RecordType.DATA, 0, 0, sequence))
                    hop.send_frame(number, FrameKind.RECORD, header + rest)
                link.sequence += room
                link.window.spend(room * size_bytes)
                sent += room
            if sent or is_full:
                # The hop has its turn. That its queue is shorter, nothing tells.
                await asyncio.sleep(0 if sent else ROOM_POLL_S)
            else:
                await self.wait_moved()

    def stop(self) -> None:
        self._stopped = True
        self._moved.set()

    @property
    def pushed(self) -> int:
        """Records so far, of all links."""
        return sum(link.sequence for link in self._links.values())

    async def wait_moved(self) -> None:
        """Until the gateway has said something: credit, an answer, or that it is gone."""
        self._moved.clear()
        await self._moved.wait()
        self.raise_fault()

    def frames_received(self, hop: Hop, frames: list[Frame]) -> None:
        for number, kind, body in frames:
            if kind == FrameKind.CREDIT:
                self._links[number].window.grant_untrusted(decode_credit_untrusted(body).limit)
            elif kind == FrameKind.LINK_ACCEPT:
                self._opening.discard(number)
                self._links[number] = SourceLink()
                hop.send_frame(number, FrameKind.LINK_FINISH, os.urandom(NOISE_2_BYTES))
            elif kind == FrameKind.LINK_CLOSE:
                self._closed(number, decode_code_untrusted(body))
        self._moved.set()

    def _closed(self, number: int, code: Code) -> None:
        if number in self._opening and code is Code.ROUTE_LINK_LIMIT:
            self._opening.discard(number)
        else:
            self.fail(f"a link was closed: {code.text}")

    def fail(self, why: str) -> None:
        super().fail(why)
        self._moved.set()


class SinkLink:
    __slots__ = ("next_sequence", "window")

    def __init__(self) -> None:
        self.next_sequence = 0
        self.window = ReceiveWindow(LINK_WINDOW_BYTES)


class Sink(Member):
    """Accepts every link, checks and counts every record, and grants credit for it."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.frames = 0
        self.size_bytes = 0
        """What every record must measure."""
        self._links: dict[int, SinkLink] = {}
        self._registered = asyncio.Event()
        self._moved = asyncio.Event()

    async def join(self, endpoint: Endpoint) -> None:
        """Returns once the gateway has registered its prefix."""
        await super().join(endpoint)
        delegable = self.parts.node.identity.delegable
        assert delegable is not None
        for prefix in delegable.name_prefixes:
            self.hop.send_frame(0, FrameKind.REGISTER, encode_prefix(prefix))
        await self._registered.wait()

    async def wait_counted(self, frames: int) -> None:
        """Until so many records have come in all."""
        while self.frames < frames:
            self.raise_fault()
            self._moved.clear()
            await self._moved.wait()

    async def count(self, seconds: float) -> Carried:
        frames, begun_s = self.frames, time.perf_counter()
        await asyncio.sleep(seconds)
        self.raise_fault()
        return Carried(self.frames - frames, time.perf_counter() - begun_s)

    def frames_received(self, hop: Hop, frames: list[Frame]) -> None:
        for number, kind, body in frames:
            if kind == FrameKind.RECORD:
                self._take(hop, number, body)
            elif kind == FrameKind.LINK_OPEN:
                self._links[number] = SinkLink()
                hop.send_frame(number, FrameKind.LINK_ACCEPT, os.urandom(NOISE_2_BYTES))
            elif kind == FrameKind.REGISTERED:
                self._registered.set()
        self._moved.set()

    def fail(self, why: str) -> None:
        super().fail(why)
        self._moved.set()

    def _take(self, hop: Hop, number: int, body: bytes) -> None:
        link = self._links[number]
        sequence = decode_header_untrusted(body).sequence
        if sequence != link.next_sequence or len(body) != self.size_bytes:
            self.fail(f"link {number}: record {sequence} of {len(body)} bytes came out of turn")
        link.next_sequence = sequence + 1
        self.frames += 1
        window = link.window
        window.receive_untrusted(len(body))
        limit = window.consume(len(body))
        if limit is not None:
            hop.send_frame(number, FrameKind.CREDIT, encode_credit(Credit(0, limit)))
