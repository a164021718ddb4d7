"""Who may know whom, where import-linter's contracts cannot say it."""

import sys
import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# They may import every room, and nobody ships them.
ABOVE_ALL = {"bench", "tests"}
ROOMS = {init.parent.name for init in ROOT.glob("*/__init__.py")} - ABOVE_ALL
PACKAGES = sorted([*ROOMS, "sidelink"])

# A library at the heart of the matter has one adapter, so that it can be judged and replaced.
ADAPTED = {
    "aioquic": "transport",
    "cbor2": "identity",
    "cel_expr_python": "policy",
    "jwt": "authority",
    "noise": "channel",
    "qh3": "transport",
    "yaml": "policy",
}
SDK_MAY_IMPORT = {"msgspec"}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, include_external_packages=True, cache_dir=None)


@pytest.mark.parametrize("library", ADAPTED)
def test_a_library_at_the_heart_has_one_importer(graph: grimp.ImportGraph, library: str) -> None:
    importers = graph.find_modules_that_directly_import(library)

    assert len(importers) == 1, importers
    assert importers.pop().partition(".")[0] == ADAPTED[library]


def test_the_sdk_needs_msgspec_and_nothing_else(graph: grimp.ImportGraph) -> None:
    outside = {
        imported
        for module in graph.modules
        if module.partition(".")[0] == "sidelink"
        for imported in graph.find_modules_directly_imported_by(module)
        if imported.partition(".")[0] != "sidelink"
    }

    assert outside - sys.stdlib_module_names == SDK_MAY_IMPORT


def test_every_package_is_in_the_wheel_the_types_and_the_layers() -> None:
    tools = SETTINGS["tool"]
    (layers,) = [row for row in tools["importlinter"]["contracts"] if row["type"] == "layers"]
    layered = [name.strip() for row in layers["layers"] for name in row.split("|")]
    ours = [name for name in PACKAGES if name != "sidelink"]

    assert sorted(tools["hatch"]["build"]["targets"]["wheel"]["packages"]) == ours
    assert sorted(tools["mypy"]["packages"]) == PACKAGES
    assert sorted(tools["importlinter"]["root_packages"]) == PACKAGES
    assert sorted(layered) == PACKAGES


def test_the_image_is_built_from_every_package() -> None:
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()

    missing = [name for name in PACKAGES if name != "sidelink" and f"!{name}" not in allowed]

    assert missing == []
