"""A sidecar that kills itself at one of its durable writes: for tests of what is left behind.

``python -m tests.mesh.killed_sidecar before|after NUMBER ARMED [flags of sidelink up]``. From the
moment the file ARMED exists, each commit of a transaction is counted; at the given one the process
ends as by a power cut, just before it or just after.
"""

import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

from cli.main import main

WHEN, AT, ARMED = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
_real_connect = sqlite3.connect
_commits = 0


class KilledConnection(sqlite3.Connection):
    """Counts what is committed, whoever commits it."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql != "COMMIT" or not ARMED.exists():
            return super().execute(sql, *parameters)
        global _commits
        _commits += 1
        if _commits == AT and WHEN == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = super().execute(sql, *parameters)
        if _commits == AT:
            os.kill(os.getpid(), signal.SIGKILL)
        return done


def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
    return _real_connect(*arguments, factory=KilledConnection, **options)


if __name__ == "__main__":
    sqlite3.connect = connect  # type: ignore[assignment]
    sys.exit(main(["up", *sys.argv[4:]]))
