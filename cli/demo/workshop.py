"""The demo's temporary folder: short enough for Unix sockets, gone at the end, but for logs."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# What lies below, down to a socket's name, needs the rest of the 107 bytes that a path may have.
PARENT_BYTES_MAX: Final = 50
SHORT_PARENT: Final = "/tmp"  # noqa: S108  # A folder of our own is made in it.


class Workshop:
    """Everything of one run. ``keep_logs`` decides what is left of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.pip = folder / "pip"
        self.pip.mkdir()
        self._keeps_logs = False

    def keep_logs(self) -> None:
        """Leave logs and audit logs behind, and nothing that holds a key."""
        self._keeps_logs = True

    def clear(self) -> None:
        if not self._keeps_logs:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        for audit in self.folder.glob("*/*/*/audit.jsonl"):
            mesh, node = audit.relative_to(self.folder).parts[:2]
            shutil.copy(audit, self.logs / f"{mesh}-{node}-audit.jsonl")
        for path in self.folder.iterdir():
            if path.is_file():
                path.unlink()
            elif path != self.logs:
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def open_workshop() -> Iterator[Workshop]:
    default = tempfile.gettempdir()
    parent = default if len(os.fsencode(default)) <= PARENT_BYTES_MAX else SHORT_PARENT
    workshop = Workshop(Path(tempfile.mkdtemp(prefix="sl-", dir=parent)))
    try:
        yield workshop
    except Exception:
        # A mistake of the demo's own: what the programs said may tell why.
        workshop.keep_logs()
        raise
    finally:
        workshop.clear()
