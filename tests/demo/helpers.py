"""Runs the demo as a person would, and finds whatever it left behind."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

DEMO = ("-m", "cli.demo")

# As the demo, but with an empty cache, so that it has to install.
FRESH_DEMO = """
import sys
from pathlib import Path
from cli.demo import run, venvs
venvs.cache_folder = lambda: Path(sys.argv[1])
sys.exit(run.run(as_json=True))
"""

# As the demo, but so impatient that it gives up on its first program.
IMPATIENT_DEMO = """
import sys
from cli.demo import mesh, run
mesh.READY_S_MAX = 0.01
sys.exit(run.run(as_json=True))
"""


class Watched:
    """A demo whose processes carry a mark that each of them inherits, confined ones too."""

    def __init__(self, temporary: Path, *words: str) -> None:
        self.mark = f"mark-{uuid.uuid4().hex}"
        self.temporary = temporary
        self.process = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env={**os.environ, "USER": self.mark, "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def processes(self) -> list[str]:
        """Every process that it started, at any remove, and that still runs."""
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                variables = (folder / "environ").read_bytes()
                words = (folder / "cmdline").read_bytes()
            except OSError:
                continue  # It has ended meanwhile.
            if self.mark.encode() in variables:
                found.append(words.replace(b"\0", b" ").decode(errors="replace"))
        return found

    def files(self) -> list[str]:
        return sorted(path.name for path in self.temporary.iterdir())
