"""How hops fare on the ladder: how long one takes to open, and how long it lives.

    python -m tests.impairment.hop_probe open [RUNG …] [--pairs qh3:aioquic …] [--hops 50]
    python -m tests.impairment.hop_probe keep [RUNG …] [--seconds 60] [--frames-per-s 10]

Dialler and acceptor stand in one process, each hop behind a proxy of its own. A handshake may take
PATIENCE_S here, so that the times show what the limit costs (or another one, by --limit-s).
"""

import argparse
import asyncio
import itertools
import json
import math
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import uvloop

from identity import Code
from link import Frame, FrameKind
from tests.impairment.core import Direction
from tests.impairment.proxy import UdpProxy
from tests.impairment.report import percentile
from tests.impairment.rungs import RUNGS, Rung
from tests.impairment.settings import NO_IMPAIRMENT, Impairment
from tests.transport.helpers import Owner, endpoint, make_identity
from transport import Endpoint, Hop, HopPurpose, limits

PATIENCE_S: Final = 30.0
STAGGER_S: Final = 0.05
"""Between two dials: one process pays for both ends of all handshakes."""
FRAME_BYTES: Final = 400
ENGINES: Final = ("qh3", "aioquic")
PAIRS: Final = tuple(":".join(pair) for pair in itertools.product(ENGINES, ENGINES))
_SENT_S: Final = struct.Struct("=d")


@dataclass
class Watcher(Owner):
    """Knows when things happened, and how long frames were under way."""

    began_s: float = 0.0
    end: str | None = None
    """Why it closed, if it did, in the words of the log."""
    at_s: dict[str, float] = field(default_factory=dict)
    took_s: list[float] = field(default_factory=list)

    def _note(self, what: str, value: object) -> None:
        self.at_s.setdefault(what, asyncio.get_running_loop().time() - self.began_s)
        if what != "frames":
            super()._note(what, value)

    def hop_closed(self, hop: Hop, code: Code, detail: str) -> None:
        if code is not Code.HOP_CLOSED:  # That is how a probe itself ends.
            self.end = f"{code.text}: {detail}"
        super().hop_closed(hop, code, detail)

    def frames_received(self, hop: Hop, frames: list[Frame]) -> None:
        now_s = asyncio.get_running_loop().time()
        self.took_s += [now_s - _SENT_S.unpack_from(frame.body)[0] for frame in frames]


@dataclass(frozen=True, slots=True)
class Opening:
    """One attempt, as its dialler saw it. NaN: it did not come so far."""

    verified_s: float
    opened_s: float
    end: str | None

    def is_within(self, limit_s: float) -> bool:
        """A hop has so long until the proof, and as long again until both have accepted."""
        return self.verified_s <= limit_s and self.opened_s - self.verified_s <= limit_s


@dataclass(frozen=True, slots=True)
class OpenRow:
    rung: str
    pair: str
    hops: int
    in_time: int
    opened: int
    p50_s: float
    p90_s: float
    p99_s: float
    max_s: float
    proved_p99_s: float
    """Until the peer was proved: what the first limit bounds."""
    failures: dict[str, int]

    def text(self) -> str:
        return (
            f"{self.rung:10} {self.pair:16} {self.in_time:3}/{self.hops} in time, "
            f"{self.opened} in {PATIENCE_S:g} s; p50 {self.p50_s:5.2f}  p90 {self.p90_s:5.2f}  "
            f"p99 {self.p99_s:5.2f}  max {self.max_s:5.2f} s; proved p99 {self.proved_p99_s:5.2f} s"
            f"  {self.failures or ''}"
        )


@dataclass(frozen=True, slots=True)
class KeepRow:
    rung: str
    pair: str
    hops: int
    lost: int
    lost_at_s: list[float]
    ends: dict[str, int]
    frames: int
    p50_s: float
    p99_s: float
    max_s: float

    def text(self) -> str:
        when = ", ".join(f"{at_s:.0f}" for at_s in self.lost_at_s)
        return (
            f"{self.rung:10} {self.pair:16} {self.lost:2}/{self.hops} lost ({when}) "
            f"{self.ends or ''}; frames {self.frames}, p50 {self.p50_s:5.2f}  "
            f"p99 {self.p99_s:5.2f}  max {self.max_s:5.2f} s"
        )


@asynccontextmanager
async def endpoints(pair: str, options: argparse.Namespace) -> AsyncIterator[list[Endpoint]]:
    """The dialler's and the acceptor's."""
    settings: dict[str, Any] = {
        "datagram_bytes": options.datagram_bytes,
        "idle_timeout_s": options.idle_timeout_s,
        "handshake_timeout_s": PATIENCE_S,
        "half_open_max": 1_000,
        "half_open_per_source_max": 1_000,
    }
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                endpoint(Watcher(), make_identity(name), engine=engine, **settings)
            )
            for name, engine in zip("da", pair.split(":"), strict=True)
        ]


@asynccontextmanager
async def one_hop(
    near: Endpoint, far: Endpoint, impairment: Impairment, seed: int
) -> AsyncIterator[tuple[Watcher, UdpProxy, Hop]]:
    watcher = Watcher(began_s=asyncio.get_running_loop().time())
    async with UdpProxy.open(far.address, up=impairment, down=impairment, seed=seed) as proxy:
        hop = near.dial(*proxy.address, purpose=HopPurpose.ADMIT, target=None, handler=watcher)
        try:
            yield watcher, proxy, hop
        finally:
            hop.close(Code.HOP_CLOSED)


async def open_one(near: Endpoint, far: Endpoint, rung: Rung, seed: int) -> Opening:
    await asyncio.sleep(seed * STAGGER_S)
    async with one_hop(near, far, rung.impairment, seed) as (watcher, _, _):
        async with asyncio.timeout(3 * PATIENCE_S):
            while not watcher.at_s.keys() & {"opened", "closed"}:
                watcher.changed.clear()
                await watcher.changed.wait()
        return Opening(
            watcher.at_s.get("verified", math.nan),
            watcher.at_s.get("opened", math.nan),
            watcher.end,
        )


async def open_many(name: str, pair: str, options: argparse.Namespace) -> OpenRow:
    async with endpoints(pair, options) as (near, far):
        tried = await asyncio.gather(
            *(open_one(near, far, RUNGS[name], seed) for seed in range(options.hops))
        )
    opened = [one.opened_s for one in tried if one.end is None]
    proved = [one.verified_s for one in tried if not math.isnan(one.verified_s)]
    return OpenRow(
        rung=name,
        pair=pair,
        hops=options.hops,
        in_time=sum(one.is_within(options.limit_s) for one in tried),
        opened=len(opened),
        p50_s=percentile(opened, 50),
        p90_s=percentile(opened, 90),
        p99_s=percentile(opened, 99),
        max_s=max(opened, default=math.nan),
        proved_p99_s=percentile(proved, 99),
        failures=dict(Counter(one.end for one in tried if one.end is not None)),
    )


async def keep_one(
    near: Endpoint, far: Endpoint, rung: Rung, seed: int, options: argparse.Namespace
) -> Watcher:
    """Open a hop on a good network, then make it worse and let frames go in both directions."""
    loop = asyncio.get_running_loop()
    async with one_hop(near, far, NO_IMPAIRMENT, seed) as (watcher, proxy, hop):
        await watcher.wait_for("opened")
        for direction in Direction:
            proxy.core.ways[direction].change(rung.impairment)
        watcher.began_s = loop.time()
        proxy.core.rebind_every(rung.rebind_every_s, watcher.began_s)
        proxy.look()
        while (at_s := loop.time() - watcher.began_s) < options.seconds and watcher.end is None:
            if options.frames_per_s:
                body = _SENT_S.pack(loop.time()) + bytes(FRAME_BYTES)
                hop.send_frame(1, FrameKind.RECORD, body)
                await asyncio.sleep(1 / options.frames_per_s)
            else:
                await asyncio.sleep(min(1.0, options.seconds - at_s))
        return watcher


async def keep_many(name: str, pair: str, options: argparse.Namespace) -> KeepRow:
    async with endpoints(pair, options) as (near, far):
        acceptor = far._handler
        assert isinstance(acceptor, Watcher)
        if options.frames_per_s:
            answer_all(acceptor)
        kept = await asyncio.gather(
            *(keep_one(near, far, RUNGS[name], seed, options) for seed in range(options.hops))
        )
    lost = [one for one in kept if one.end is not None]
    took_s = [took_s for one in kept for took_s in one.took_s]
    return KeepRow(
        rung=name,
        pair=pair,
        hops=options.hops,
        lost=len(lost),
        lost_at_s=sorted(one.at_s["closed"] for one in lost),
        ends=dict(Counter(one.end for one in lost if one.end is not None)),
        frames=len(took_s),
        p50_s=percentile(took_s, 50),
        p99_s=percentile(took_s, 99),
        max_s=max(took_s, default=math.nan),
    )


def answer_all(acceptor: Watcher) -> None:
    """Send each frame back, so that what the dialler measures is there and back."""

    def frames_received(hop: Hop, frames: list[Frame]) -> None:
        for frame in frames:
            hop.send_frame(frame.link, frame.kind, frame.body)

    acceptor.frames_received = frames_received  # type: ignore[method-assign]


async def run(options: argparse.Namespace) -> list[OpenRow | KeepRow]:
    rows: list[OpenRow | KeepRow] = []
    for name in options.rungs or RUNGS:
        for pair in options.pairs:
            probe = open_many if options.what == "open" else keep_many
            rows.append(await probe(name, pair, options))
            print(rows[-1].text(), flush=True, file=sys.stderr if options.json else sys.stdout)
    return rows


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.impairment.hop_probe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("open", "keep"))
    parser.add_argument("rungs", nargs="*", metavar="RUNG", help=", ".join(RUNGS))
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=PAIRS)
    parser.add_argument("--hops", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0, help="of keep")
    parser.add_argument("--frames-per-s", type=float, default=0.0, help="of keep, on each hop")
    parser.add_argument("--datagram-bytes", type=int, default=limits.DATAGRAM_BYTES)
    parser.add_argument("--idle-timeout-s", type=float, default=limits.IDLE_TIMEOUT_S)
    parser.add_argument("--limit-s", type=float, default=limits.HANDSHAKE_TIMEOUT_S)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    for name in options.rungs:
        if name not in RUNGS:
            parser.error(f"no such rung: {name}")
    return options


def main() -> None:
    options = read_options()
    rows = uvloop.run(run(options))
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
