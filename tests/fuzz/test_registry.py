"""No function that touches a peer's bytes is left out: the seeds of the targets reach them all."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.fuzz.findings import CORPUS, ROOT, inputs_of
from tests.fuzz.guard import run_input
from tests.fuzz.registry import TARGETS
from tests.fuzz.target import Target

SUFFIX: Final = "_untrusted"
OURS: Final = (
    "authority",
    "channel",
    "cli",
    "conformance",
    "gateway",
    "identity",
    "link",
    "node",
    "policy",
    "sdk/sidelink",
    "sidecar",
    "transport",
)
NEVER_CALLED: Final = {
    "channel/_noise.py: RecordCipher.open_untrusted": "a protocol; its implementations are called",
    "channel/kem.py: Kem.encapsulate_untrusted": "a protocol; its implementations are called",
    "channel/kem.py: KemPrivateKey.decapsulate_untrusted": "a protocol, likewise",
    "node/spreading.py: Shelf.offer_untrusted": "a protocol, likewise",
}
REGRESSION_BYTES_MAX: Final = 4_096


def defined() -> dict[tuple[str, int], str]:
    """(file, line) → readable name, of each function whose name says that it is fed by a peer."""
    found = {}
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            where = path.relative_to(ROOT).as_posix()
            for name, line in _functions(ast.parse(path.read_bytes()), ""):
                if name.endswith(SUFFIX):
                    found[str(path), line] = f"{where}: {name}"
    return found


def _functions(tree: Any, within: str) -> Iterator[tuple[str, int]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            # A decorated function's code begins with its first decorator.
            line = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            yield f"{within}{node.name}", line
            yield from _functions(node, f"{within}{node.name}.")
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{within}{node.name}.")
        else:
            yield from _functions(node, within)


def reached_by(targets: list[Target]) -> set[tuple[str, int]]:
    """Which of them the seeds and regressions of these targets enter, as Python sees it."""
    reached: set[tuple[str, int]] = set()

    def note(frame: Any, event: str, _argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_name.endswith(SUFFIX):
            reached.add((code.co_filename, code.co_firstlineno))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        for target in targets:
            for data in inputs_of(target):
                run_input(target, data)
    finally:
        sys.setprofile(before)
    return reached


def test_every_function_that_touches_a_peers_bytes_is_reached_by_the_seeds_of_a_target() -> None:
    names = defined()
    # Policy is read from files of our own side: it has no such function, and takes longest.
    reached = reached_by([one for one in TARGETS if not one.name.startswith("policy.")])
    missed = {name for place, name in names.items() if place not in reached}

    assert missed == NEVER_CALLED.keys()
    assert len(names) > 100


def test_a_target_that_is_gone_leaves_what_it_reached_unreached() -> None:
    """Without this, the test above could pass because everything counts as reached."""
    reached = reached_by([target for target in TARGETS if target.name == "link.credit"])
    names = [name for place, name in defined().items() if place in reached]

    assert names == ["link/messages.py: decode_credit_untrusted"]


def test_every_kept_input_is_small_and_belongs_to_a_target() -> None:
    names = {target.name for target in TARGETS}
    kept = [path for path in CORPUS.rglob("*") if path.is_file()]

    assert {path.parent.name for path in kept} <= names
    assert all(path.stat().st_size <= REGRESSION_BYTES_MAX for path in kept)
    assert all(path.suffix == ".bin" for path in kept)


def test_targets_say_what_they_feed_and_have_names_of_their_own() -> None:
    assert len({target.name for target in TARGETS}) == len(TARGETS)
    assert all(target.feeds and not target.feeds.endswith(".") for target in TARGETS)
    assert all(Path(target.name).name == target.name for target in TARGETS)
