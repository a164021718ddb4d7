"""A program that counts its own objects while it runs: ``python -m bench.soak.inspected …``.

The programs have no such switch. Here one of them runs as ever, with a thread beside it that
writes down what there is: objects by type, memory by the line that allocated it, or what the heaps
hold. What is in use in a heap and grows is a leak; what is free in it and grows is fragmentation.
"""

import contextlib
import ctypes
import gc
import os
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from cli.main import main
from tests.mesh.programs import Program

KINDS: Final = ("objects", "lines", "heaps")
KIND: Final = "BENCH_SOAK_INSPECT"
FOLDER: Final = "BENCH_SOAK_INSPECT_TO"
INTERVAL: Final = "BENCH_SOAK_INSPECT_EVERY_S"
INTERVAL_S: Final = 20.0
LARGEST: Final = 400
GROWN_SHOWN: Final = 12


class Inventory(msgspec.Struct, frozen=True):
    """What there was at one moment: numbers by type, or bytes by line."""

    found: dict[str, int]


def inspecting(program: Program, kind: str, folder: Path, interval_s: float = INTERVAL_S) -> None:
    """Have a program of a mesh, which has not been started yet, inspected."""
    program.executable = (sys.executable, "-m", "bench.soak.inspected")
    program.environment = {
        **program.environment,
        KIND: kind,
        FOLDER: str(folder),
        INTERVAL: str(interval_s),
    }


def read_growth(folder: Path, pid: int) -> list[tuple[str, int]]:
    """What grew most from a third of a process' life to its end. Nothing if it was not seen."""
    path = _path_of(folder, pid)
    lines = path.read_bytes().splitlines() if path.exists() else []
    inventories = [msgspec.json.decode(line, type=Inventory) for line in lines]
    if len(inventories) < 3:
        return []
    return grown(inventories[len(inventories) // 3].found, inventories[-1].found)


def grown(before: Mapping[str, int], after: Mapping[str, int]) -> list[tuple[str, int]]:
    """By how much each has grown, the most first."""
    return (Counter(after) - Counter(before)).most_common(GROWN_SHOWN)


def count_objects() -> dict[str, int]:
    """All that the garbage collector knows of, by type."""
    gc.collect()
    counted = Counter(type(one) for one in gc.get_objects())
    return {f"{kind.__module__}.{kind.__qualname__}": n for kind, n in counted.most_common(LARGEST)}


def weigh_lines() -> dict[str, int]:
    """Bytes by the line that allocated them, while ``tracemalloc`` runs."""
    gc.collect()
    statistics = tracemalloc.take_snapshot().statistics("lineno")
    return {
        f"{one.traceback[0].filename}:{one.traceback[0].lineno}": one.size
        for one in statistics[:LARGEST]
    }


class _Mallinfo2(ctypes.Structure):
    """As <malloc.h> of glibc 2.33 has it."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def weigh_heaps() -> dict[str, int]:
    """Bytes that libraries and large objects have of malloc, and blocks of Python's small objects.

    Nothing is collected first: this costs next to nothing, so that a run with it still counts.
    """
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Mallinfo2
    told = mallinfo2()
    return {
        "bytes of malloc in use": told.uordblks + told.hblkhd,
        "bytes of malloc free": told.fordblks,
        "blocks of small objects in use": sys.getallocatedblocks(),
    }


@contextlib.contextmanager
def _inspected(environment: Mapping[str, str]) -> Iterator[None]:
    kind = environment.get(KIND)
    if kind is None:
        yield
        return
    take = {"objects": count_objects, "lines": weigh_lines, "heaps": weigh_heaps}[kind]
    if kind == "lines":
        tracemalloc.start()
    path = _path_of(Path(environment[FOLDER]), os.getpid())
    ended = threading.Event()

    def look() -> None:
        with path.open("ab", buffering=0) as file:
            while not ended.wait(float(environment[INTERVAL])):
                file.write(msgspec.json.encode(Inventory(take())) + b"\n")

    thread = threading.Thread(target=look, name="inspect", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _path_of(folder: Path, pid: int) -> Path:
    return folder / f"inventory-{pid}.jsonl"


if __name__ == "__main__":
    with _inspected(os.environ):
        sys.exit(main())
