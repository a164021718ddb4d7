"""Tells many stories: ./dev simulate [--seeds N] [--first SEED]. Exits 1 if one of them breaks."""

import argparse
import os
import sys
import time
from collections import Counter
from multiprocessing import get_context

from tests.simulation.seeds import try_to_tell, weather_of

CHUNK = 10
SEEDS_MAX = 1_000_000


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./dev simulate",
        description="Whole meshes under chaos on seeds. The same seed is the same story.",
    )
    parser.add_argument("--seeds", type=_count, default=2_000, help="how many (2000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    wanted = parser.parse_args()
    begun_s = time.monotonic()
    broken: Counter[str] = Counter()
    told = range(wanted.first, wanted.first + wanted.seeds)
    with get_context("spawn").Pool(os.cpu_count()) as pool:
        for seed, fault in pool.imap(try_to_tell, told, chunksize=CHUNK):
            if fault:
                broken[weather_of(seed)] += 1
                print(f"seed {seed} ({weather_of(seed)}):\n{fault}", flush=True)
    seconds = time.monotonic() - begun_s
    print(f"{wanted.seeds} stories in {seconds:.0f} s, {broken.total()} broken", *broken.items())
    return 1 if broken else 0


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= SEEDS_MAX:
        raise argparse.ArgumentTypeError(f"1 to {SEEDS_MAX}")
    return count


if __name__ == "__main__":
    sys.exit(main())
