"""How fast one hop is on loopback: set-up, bulk bytes and a 1 KiB round trip, two processes.

    python bench/hop_probe.py [--engine qh3|aioquic] [--peer-engine …] [--datagram 1452] [--mb 512]

Bulk is measured at the receiver. The acceptor runs in a child process, as real neighbours do.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from pathlib import Path
from types import MappingProxyType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from identity import Code, Identifier, NoiseKey, NoisePublicKey, VerifiedPeer
from identity.proof import VerifiedIdentity
from link import Frame, FrameKind
from transport import Endpoint, Hop, HopIdentity, HopPurpose, TransportSettings

BODY = b"b" * 65_000
QUEUE_BYTES = 8 << 20
ROUND_TRIPS = 3_000
LINK_BULK, LINK_ECHO, LINK_DONE = 1, 2, 3


class Permit:
    action = "hop.admit"

    def __init__(self, subject: Identifier) -> None:
        self.subject = subject


def identity(letter: bytes) -> HopIdentity:
    key = NoiseKey.generate()
    own = Identifier(letter * 32)

    def verify(proof: bytes, noise_key: bytes) -> VerifiedPeer:
        proved = VerifiedIdentity(
            Identifier(proof), None, "node", "gateway", "acme", None, MappingProxyType({}), None, 0
        )
        return VerifiedPeer(proved, NoisePublicKey(noise_key))

    return HopIdentity(own, key, own.digest, verify)


class Owner:
    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.closed = asyncio.Event()
        self.bytes = 0
        self.first_s = 0.0
        self.answer: asyncio.Future[bytes] | None = None

    def hop_verified(self, hop: Hop) -> None:
        hop.accept(Permit(hop.peer.identifier))

    def hop_opened(self, hop: Hop) -> None:
        self.opened.set()

    def frames_received(self, hop: Hop, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.link == LINK_BULK:
                if not self.bytes:
                    self.first_s = time.perf_counter()
                self.bytes += len(frame.body)
                if frame.body == b"end":
                    taken_s = time.perf_counter() - self.first_s
                    hop.send_frame(LINK_DONE, FrameKind.RECORD, repr(self.bytes / taken_s).encode())
                    self.bytes = 0
            elif self.answer is not None:
                self.answer.set_result(frame.body)
            else:
                hop.send_frame(frame.link, frame.kind, frame.body)

    def stream_received(self, hop: Hop, stream: int, data: bytes, ended: bool) -> None: ...

    def stream_reset(self, hop: Hop, stream: int, code: int) -> None: ...

    def hop_closed(self, hop: Hop, code: Code, detail: str) -> None:
        self.closed.set()


async def accept(settings: TransportSettings) -> None:
    owner, own = Owner(), identity(b"s")
    endpoint = await Endpoint.bind(
        "127.0.0.1", 0, identity=lambda: own, handler=owner, settings=settings
    )
    print(endpoint.address[1], flush=True)
    await owner.closed.wait()
    print(endpoint.udp_counters, file=sys.stderr)
    await endpoint.close()


async def dial(port: int, settings: TransportSettings, bulk_bytes: int) -> None:
    owner, own = Owner(), identity(b"d")
    loop = asyncio.get_running_loop()
    endpoint = await Endpoint.bind(
        "127.0.0.1", 0, identity=lambda: own, handler=owner, settings=settings
    )
    hop = endpoint.dial("127.0.0.1", port, purpose=HopPurpose.ADMIT, target=None)
    await owner.opened.wait()
    print(f"  set-up {hop.opened_in_s * 1e3:8.1f} ms   post-quantum TLS: {hop.post_quantum}")
    owner.answer = loop.create_future()
    for _ in range(bulk_bytes // len(BODY)):
        while hop.queued_bytes > QUEUE_BYTES:  # noqa: ASYNC110
            await asyncio.sleep(0.0005)  # Acknowledgements make room; nothing says when.
        hop.send_frame(LINK_BULK, FrameKind.RECORD, BODY)
    hop.send_frame(LINK_BULK, FrameKind.RECORD, b"end")
    rate = float(await owner.answer)
    print(f"  bulk   {rate / 1e6:8.1f} MB/s")
    body, taken = b"r" * 1024, []
    for _ in range(ROUND_TRIPS):
        begun_s = time.perf_counter()
        owner.answer = loop.create_future()
        hop.send_frame(LINK_ECHO, FrameKind.RECORD, body)
        await owner.answer
        taken.append(time.perf_counter() - begun_s)
    taken.sort()
    p50, p99 = taken[len(taken) // 2], taken[len(taken) * 99 // 100]
    print(f"  1 KiB round trip p50 {p50 * 1e6:.0f} µs, p99 {p99 * 1e6:.0f} µs")
    hop.close(Code.HOP_CLOSED)
    await owner.closed.wait()
    await endpoint.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="qh3")
    parser.add_argument("--peer-engine")
    parser.add_argument("--datagram", type=int, default=1452)
    parser.add_argument("--mb", type=int, default=512)
    parser.add_argument("--asyncio", action="store_true", help="no uvloop")
    parser.add_argument("--accept", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.asyncio:
        run = asyncio.run
    else:
        import uvloop

        run = uvloop.run
    peer = options.peer_engine or options.engine
    chosen = peer if options.accept else options.engine
    settings = TransportSettings(engine=chosen, datagram_bytes=options.datagram)
    if options.accept:
        run(accept(settings))
        return
    print(f"{options.engine} → {peer}, {options.datagram}-byte datagrams")
    arguments = [sys.executable, __file__, "--accept", *sys.argv[1:]]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        run(dial(int(child.stdout.readline()), settings, options.mb << 20))
        child.wait(10)


if __name__ == "__main__":
    main()
