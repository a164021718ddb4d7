"""``./dev bench hop``: its options, and the run."""

import argparse
import tempfile
from pathlib import Path
from typing import Final, cast

import msgspec

from bench.benchmark import Findings, say
from bench.children import Children
from bench.hop.worker import Delays, SetUp
from bench.options import several, whole
from bench.samples import Samples
from bench.svg import Bar, Chart, Panel
from transport import EngineChoice
from transport.limits import (
    DATAGRAM_BYTES,
    DATAGRAM_BYTES_MAX,
    DATAGRAM_BYTES_MIN,
    LOOPBACK_DATAGRAM_BYTES,
)

SUMMARY = "one hop between two processes: set-up, bulk, round trip; both QUIC engines"

ENGINES: Final = ("qh3", "aioquic")
DATAGRAMS: Final = (DATAGRAM_BYTES, LOOPBACK_DATAGRAM_BYTES)
ROUNDS, ROUNDS_MAX = 3, 100
ROUND_TRIPS, QUICK_ROUND_TRIPS = 3_000, 50
MIB: Final = 1 << 20
BULK_BYTES_OF: Final = {"qh3": 256 * MIB, "aioquic": 32 * MIB}
QUICK_BULK_BYTES: Final = 2 * MIB
STEP_S_MAX: Final = 120.0

SET_UP: Final = "set-up"
BULK: Final = "bulk, counted at the receiver"
P50, P99 = "1 KiB round trip, p50", "1 KiB round trip, p99"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", choices=ENGINES, help="of the dialler [default: each]")
    parser.add_argument("--peer-engine", choices=ENGINES, help="[default: the dialler's]")
    parser.add_argument(
        "--datagram-bytes",
        type=several(whole(DATAGRAM_BYTES_MIN, DATAGRAM_BYTES_MAX)),
        metavar="BYTES,…",
        help="[default: 1452, as on Ethernet, and 14720, as on loopback]",
    )
    parser.add_argument(
        "--rounds", type=whole(1, ROUNDS_MAX), metavar="COUNT", help="[default: 3; --quick: 1]"
    )


def run(options: argparse.Namespace) -> Findings:
    engines = ENGINES if options.engine is None else (options.engine,)
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    samples = Samples()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for round_ in range(rounds):
            for engine in engines:
                peer_engine = cast("EngineChoice", options.peer_engine or engine)
                for datagram_bytes in options.datagram_bytes or DATAGRAMS:
                    say(f"round {round_ + 1} of {rounds}, {engine}, {datagram_bytes} bytes")
                    with Children(Path(folder)) as children:
                        hop = OneHop(engine, peer_engine, datagram_bytes, quick=options.quick)
                        hop.measure(children, samples, round_)
    return findings_of(samples)


class OneHop:
    """A dialler and an acceptor, each a process."""

    def __init__(self, engine: str, peer_engine: str, datagram_bytes: int, *, quick: bool) -> None:
        self._engine = engine
        self._peer_engine = peer_engine
        self._datagram_bytes = datagram_bytes
        self._bulk_bytes = QUICK_BULK_BYTES if quick else BULK_BYTES_OF[engine]
        self._round_trips = QUICK_ROUND_TRIPS if quick else ROUND_TRIPS

    def measure(self, children: Children, samples: Samples, round_: int) -> None:
        acceptor = children.start_worker("acceptor", "bench.hop.worker")
        dialler = children.start_worker("dialler", "bench.hop.worker")
        size = self._datagram_bytes
        port = acceptor.call("listen", engine=self._peer_engine, datagram_bytes=size)
        dialled = dialler.call("dial", engine=self._engine, datagram_bytes=size, port=port)
        set_up = msgspec.convert(dialled, SetUp)
        acceptor.post("counted")
        dialler.call("send bulk", timeout_s=STEP_S_MAX, count_bytes=self._bulk_bytes)
        bytes_per_s: float = acceptor.answer(STEP_S_MAX)
        echoed = dialler.call("echo", timeout_s=STEP_S_MAX, count=self._round_trips)
        delays = msgspec.convert(echoed, Delays)
        same = self._engine == self._peer_engine
        system = self._engine if same else f"{self._engine} to {self._peer_engine}"
        case = f"{size} B datagrams"
        samples.add(round_, system, case, SET_UP, set_up.seconds * 1e3, "ms")
        samples.add(round_, system, case, BULK, bytes_per_s / MIB, "MiB/s")
        samples.add(round_, system, case, P50, delays.p50_s * 1e6, "µs")
        samples.add(round_, system, case, P99, delays.p99_s * 1e6, "µs")


def findings_of(samples: Samples) -> Findings:
    rows = samples.rows()
    bars = tuple(
        Bar(f"{row.system}, {row.case}", row.value, True) for row in rows if row.metric == BULK
    )
    chart = Chart(
        "hop",
        "One hop, one process at each end",
        "More is better. Frames of 65,000 bytes over loopback.",
        (Panel("Bulk, counted at the receiver", " MiB/s", bars),),
    )
    return Findings(rows, charts=(chart,))
