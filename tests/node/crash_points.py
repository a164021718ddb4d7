"""Kills a rotation of the master key before each of its writes, and opens what is left.

``python -m tests.node.crash_points FOLDER`` prints one JSON object: how many points there were, and
for each that failed what was seen. A process of its own, with one thread, so that it may fork.
"""

import itertools
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from identity import Keystore, Purpose, load_master_key, new_identity
from node.folder_keys import open_keystore, rotate_master_key
from node.state_folder import StateFolder

KILLED = 9
NAMES = ("a", "b", "c")
# Whatever changes the folder, or makes a change last.
CALLS = ("open", "write", "fsync", "link", "unlink", "rename", "replace", "close")
POINTS_MAX = 500
NOW = 1_900_000_000


def main(folder: Path) -> None:
    origin = folder / "origin"
    with StateFolder.open(origin) as state:
        keystore = open_keystore(state, {}, create_missing=True)
        keystore.save_many(new_identity(n, unix_s=NOW, purposes=(Purpose.CHANNEL,)) for n in NAMES)
        keystore.close()
    outcomes, faults = [], []
    known: set[tuple[bool, bool]] = set()
    for point in range(1, POINTS_MAX):
        left = folder / f"after-{point}"
        shutil.copytree(origin, left)
        if not killed_before(point, lambda left=left: rotate(left)):
            break
        kind = (left / "master.key.next").exists(), opens(left)
        if kind not in known:
            # What is left may be cut short again, while it is settled.
            known.add(kind)
            faults += killed_again(left, folder, point)
        outcomes.append(look(left))
        faults += [f"point {point}: {outcomes[-1]}"] if outcomes[-1] not in OUTCOMES else []
        shutil.rmtree(left)
    print(json.dumps({"points": len(outcomes), "ways": sorted(set(outcomes)), "faults": faults}))


def killed_again(left: Path, folder: Path, point: int) -> list[str]:
    faults = []
    for again in range(1, POINTS_MAX):
        copy = folder / f"after-{point}-{again}"
        shutil.copytree(left, copy)
        killed = killed_before(again, lambda copy=copy: settle(copy))
        seen = look(copy)
        faults += [f"points {point} and {again}: {seen}"] if seen not in OUTCOMES else []
        shutil.rmtree(copy)
        if not killed:
            return faults
    raise AssertionError("no end of points")


def killed_before(point: int, act: Callable[[], None]) -> bool:
    """Act in a process that is killed before its so many-eth write; False if it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            count = itertools.count(1)
            watch(lambda: os._exit(KILLED) if next(count) == point else None)
            act()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, KILLED), status
    return status == KILLED


def watch(step: Callable[[], None]) -> None:
    """Step before each call of the system that counts, and before each statement of SQLite."""

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            step()
            return real(*arguments, **named)

        return call

    for name in CALLS:
        setattr(os, name, watched(getattr(os, name)))
    connect = sqlite3.connect

    def connect_watched(*arguments: Any, **named: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **named)
        connection.set_trace_callback(lambda _: step())
        return connection

    sqlite3.connect = connect_watched  # type: ignore[assignment]


def rotate(folder: Path) -> None:
    with StateFolder.open(folder) as state:
        rotate_master_key(state, {})


def settle(folder: Path) -> None:
    with StateFolder.open(folder) as state:
        open_keystore(state, {}).close()


def opens(folder: Path) -> bool:
    """Whether the key in its place is the one that opens, before anything is settled."""
    copy = folder.with_suffix(".copy")
    shutil.copytree(folder, copy)
    try:
        key = load_master_key(copy / "master.key", environment={}, create_missing=False)
        Keystore.open(copy / "state.db", key).close()
    except Exception:
        return False
    else:
        return True
    finally:
        shutil.rmtree(copy)


OUTCOMES = ("before", "after")


def look(folder: Path) -> str:
    """Open it as a program does: all identities are there, under one key, and nothing is left."""
    old = (folder.parent / "origin" / "master.key").read_bytes()
    try:
        settle(folder)
        with StateFolder.open(folder) as state:
            keystore = open_keystore(state, {})
            missing = [name for name in NAMES if keystore.load(name) is None]
            keystore.close()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    left = sorted(path.name for path in folder.iterdir())
    if missing or left != ["lock", "master.key", "run", "state.db"]:
        return f"missing {missing}, and left {left}"
    return "before" if (folder / "master.key").read_bytes() == old else "after"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
