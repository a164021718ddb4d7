"""Records as fast as they go: counted at their receiver, and by the gateway's CPU time."""

import time
from pathlib import Path
from typing import Final

import msgspec

from bench import proc
from bench.benchmark import say
from bench.options import size_label
from bench.relay.members import Carried
from bench.relay.running import Setting, gateway_and_generator
from bench.report import Row
from bench.samples import Samples

GATEWAY: Final = "gateway"
GENERATOR: Final = "generator"
RATE: Final = "records relayed"
BYTES: Final = "bytes of records relayed"
CPU_RATE: Final = "records for each second of the gateway's CPU"
BUSY: Final = "core in use"

# Four of a lane, as if four agents each had something to say.
LINKS: Final = 16
WARM_UP_SHARE: Final = 0.25
MIB: Final = 1 << 20


def load_rows(folder: Path, sizes: tuple[int, ...], rounds: int, seconds: float) -> tuple[Row, ...]:
    """Medians of the rounds; each round has all sizes in turn."""
    samples = Samples()
    with gateway_and_generator(folder, links=LINKS) as setting:
        for round_ in range(rounds):
            for size in sizes:
                say(f"round {round_ + 1} of {rounds}, records of {size_label(size)}")
                _one_run(samples, round_, setting, size, seconds)
    return samples.rows()


def _one_run(
    samples: Samples, round_: int, setting: Setting, size_bytes: int, seconds: float
) -> None:
    generator = setting.generator
    pids = {GATEWAY: setting.gateway_pid, GENERATOR: generator.pid}
    generator.call("begin", size_bytes=size_bytes, warm_up_s=seconds * WARM_UP_SHARE)
    before = {name: proc.cpu_s(pid) for name, pid in pids.items()}
    begun_s = time.perf_counter()
    carried = msgspec.convert(generator.call("count", seconds=seconds), Carried)
    taken_s = time.perf_counter() - begun_s
    spent_s = {name: proc.cpu_s(pid) - before[name] for name, pid in pids.items()}
    generator.call("end")
    case = size_label(size_bytes)
    per_s = carried.frames / carried.seconds
    samples.add(round_, GATEWAY, case, RATE, per_s, "records/s")
    samples.add(round_, GATEWAY, case, BYTES, per_s * size_bytes / MIB, "MiB/s")
    if spent_s[GATEWAY]:
        per_cpu_s = carried.frames / spent_s[GATEWAY]
        samples.add(round_, GATEWAY, case, CPU_RATE, per_cpu_s, "records/s")
    for name, value_s in spent_s.items():
        samples.add(round_, name, case, BUSY, 100 * value_s / taken_s, "%")
