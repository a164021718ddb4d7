"""Published vectors: what any implementation of the protocol can hold itself against.

One JSON file for each subject; binary values are hex. A case that must be refused carries the code
of the registry with which our own nodes refuse it. Nothing here needs the rest of this project.
"""

from pathlib import Path
from typing import Final

VECTORS: Final = (
    "frames-1",
    "identity-1",
    "names-1",
    "policies-1",
    "policy/decisions-1",
    "policy/refusals-1",
    "proofs-1",
    "session-1",
)

_FOLDER: Final = Path(__file__).parent / "vectors"


def vector_path(name: str) -> Path:
    """The file of one of VECTORS. ValueError for another name."""
    if name not in VECTORS:
        raise ValueError(f"there is no vector file {name!r}; there are {', '.join(VECTORS)}")
    return _FOLDER / f"{name}.json"
