"""The public names of every package are pinned in public_api.txt; a change there is a decision.

After a change that is meant: `.venv/bin/python -m tests.test_public_api`, and commit the file.
"""

import importlib
import inspect
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PINNED = Path(__file__).with_name("public_api.txt")
PACKAGES: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "mypy"
]["packages"]


# The rooms that others build on. A program is used by its command, and need not name anything.
LIBRARIES = ["channel", "identity", "link", "policy", "sidelink", "transport"]


def parameters_of(function: object) -> str:
    """Names, kinds and defaults; annotations are mypy's business."""
    try:
        signature = inspect.signature(function)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(bare))


def members_of(name: str, value: object) -> list[str]:
    """What an agent's author may call on a class of the SDK."""
    if not inspect.isclass(value):
        return []
    ours = [base for base in reversed(value.__mro__) if base.__module__.startswith("sidelink")]
    members = {member: found for base in ours for member, found in vars(base).items()}
    lines = []
    for member, found in sorted(members.items()):
        if member.startswith("_"):
            continue
        is_function = inspect.isfunction(found)
        lines.append(f"{name}.{member}{parameters_of(found) if is_function else ''}")
    return lines


def names_of(package: ModuleType) -> list[str]:
    lines = []
    for name in sorted(getattr(package, "__all__", [])):
        value = getattr(package, name)
        full = f"{package.__name__}.{name}"
        if package.__name__ != "sidelink":
            lines.append(full)
            continue
        lines.append(full + (parameters_of(value) if inspect.isfunction(value) else ""))
        lines.extend(members_of(full, value))
    return lines


def public_api() -> str:
    lines = [
        line for package in sorted(PACKAGES) for line in names_of(importlib.import_module(package))
    ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("package", LIBRARIES)
def test_a_library_says_what_is_public(package: str) -> None:
    assert importlib.import_module(package).__all__


def test_the_public_names_are_the_pinned_ones() -> None:
    assert public_api() == PINNED.read_text(encoding="utf-8"), __doc__


if __name__ == "__main__":
    PINNED.write_text(public_api(), encoding="utf-8")
