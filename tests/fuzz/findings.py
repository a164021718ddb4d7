"""What a run leaves behind: counts, the input that failed, and the command that replays it."""

import hashlib
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fuzz.target import Target

ROOT: Final = Path(__file__).resolve().parents[2]
CORPUS: Final = Path(__file__).resolve().parent / "corpus"
"""Inputs that once failed, and a few that lead far; kept small and in the repository."""
WORK: Final = ROOT / ".fuzz"
"""What the engines keep between runs: may be deleted at any time."""


@dataclass(frozen=True)
class Outcome:
    """How one target fared."""

    target: str
    runs: int
    seconds: float
    finding: Path | None = None


def replay_command(target: str, path: Path) -> str:
    return f"./dev fuzz {target} --replay {path}"


def keep_finding(target: Target, data: bytes, folder: Path) -> Path:
    """Write the input to a file that is named for what is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{target.name}-{hashlib.sha256(data).hexdigest()[:12]}.bin"
    path.write_bytes(data)
    return path


def describe(error: BaseException) -> str:
    """The last calls of its way, which are those that matter."""
    return "".join(traceback.format_exception(error, limit=-12))


def regressions_of(target: Target) -> list[Path]:
    return sorted((CORPUS / target.name).glob("*.bin"))


def inputs_of(target: Target) -> list[bytes]:
    """All that the target begins with: seeds of our own making, then regressions."""
    return [*target.seeds(), *(path.read_bytes() for path in regressions_of(target))]
