"""House rules that no linter checks."""

import ast
import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
FRAGMENT_SENTENCES_MAX = 2

# The pure cores: they are told the time and handed the bytes.
CORES = ("channel/", "gateway/relay.py", "identity/", "link/", "policy/", "sidecar/router.py")
CORE_EXEMPT = ("identity/keystore.py",)
CORE_IMPORTS_FORBIDDEN = {"asyncio", "random", "socket", "ssl", "subprocess", "threading", "time"}
CLOCK_READS = {"now", "today", "utcnow"}

# The one place that may leave a test out: it says so when the time budget is spent.
MAY_SKIP = "tests/conftest.py"
SKIPS = {"importorskip", "skip", "skipif", "xfail"}

# Written in parts, or this file would be its own first offender.
PLACES_OF_ONE_MACHINE = re.compile(
    "|".join([r"(?<![\w./-])/(?:wo" + r"rk|fa" + r"rm|ro" + r"ot|home/\w+)/", r"\.\./sha" + r"red"])
)
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
MAY_LOOK_BESIDE = re.compile(r"^tests/")


def listed_files() -> list[str]:
    """Every text file of the project that is, or is about to be, in the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in names.splitlines() if (ROOT / name).is_file()]


FILES = listed_files()
SOURCES = {
    name: (ROOT / name).read_text(encoding="utf-8") for name in FILES if name.endswith(".py")
}


@cache
def trees() -> Mapping[str, ast.Module]:
    """Of all sources. It takes seconds, which a process that runs none of these tests need not."""
    return {name: ast.parse(text, name) for name, text in SOURCES.items()}


def functions_of(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imports_of(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def core_trees() -> dict[str, ast.Module]:
    return {
        name: tree
        for name, tree in trees().items()
        if name.startswith(CORES) and name not in CORE_EXEMPT
    }


def test_a_module_fits_in_the_head() -> None:
    too_long = {
        name: lines
        for name, text in SOURCES.items()
        if (lines := len(text.splitlines())) > MODULE_LINES_MAX
    }

    assert too_long == {}


def test_a_function_fits_on_a_screen() -> None:
    too_long = [
        f"{name}:{function.lineno} {function.name}: {lines} lines"
        for name, tree in trees().items()
        for function in functions_of(tree)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES_MAX
    ]

    assert too_long == []


def test_every_module_and_test_file_says_what_it_is_for() -> None:
    silent = [
        name
        for name, tree in trees().items()
        if not ast.get_docstring(tree) and (tree.body or Path(name).name != "__init__.py")
    ]

    assert silent == []


def test_the_cores_read_no_clock_and_draw_no_chance() -> None:
    imports = [
        f"{name}: imports {module}"
        for name, tree in core_trees().items()
        for module in imports_of(tree)
        if module in CORE_IMPORTS_FORBIDDEN
    ]
    clocks = [
        f"{name}:{node.lineno}: reads the clock by {node.func.attr}()"
        for name, tree in core_trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in {"date", "datetime"}
        and node.func.attr in CLOCK_READS
    ]

    assert imports + clocks == []
    assert {"gateway/relay.py", "sidecar/router.py"} <= core_trees().keys()


def test_no_test_is_left_out() -> None:
    left_out = [
        f"{name}:{node.lineno}: {node.attr}"
        for name, tree in trees().items()
        if name.startswith("tests/")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in SKIPS
        and ast.unparse(node.value) in {"pytest", "pytest.mark", "unittest"}
    ]

    assert [line for line in left_out if not line.startswith(MAY_SKIP)] == []


def test_no_broad_except_swallows_an_error_without_a_word() -> None:
    swallowed = [
        f"{name}:{node.lineno}"
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in {"BaseException", "Exception"})
        and all(isinstance(statement, ast.Pass | ast.Continue) for statement in node.body)
    ]

    assert swallowed == []


def test_nothing_names_a_place_of_one_machine_or_is_left_unfinished() -> None:
    offences = []
    for name in FILES:
        try:
            lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(lines, start=1):
            place = PLACES_OF_ONE_MACHINE.search(line)
            if place and not (MAY_LOOK_BESIDE.match(name) and place[0].startswith("..")):
                offences.append(f"{name}:{number}: {place[0]}")
            if unfinished := UNFINISHED.search(line):
                offences.append(f"{name}:{number}: {unfinished[0]}")

    assert offences == []


def test_a_changelog_fragment_is_one_or_two_sentences_of_a_known_kind() -> None:
    fragments = [Path(name) for name in FILES if name.startswith("changelog.d/")]
    name_rule = re.compile(r"(?:\d+|\+[a-z0-9-]+)\.(?:security|added|changed|fixed)\.md")
    offences = []
    for fragment in fragments:
        text = (ROOT / fragment).read_text(encoding="utf-8").strip()
        if fragment.name == ".gitkeep":
            continue
        if not name_rule.fullmatch(fragment.name):
            offences.append(f"{fragment}: the name")
        if not 1 <= len(re.findall(r"[.!?](?:\s|$)", text)) <= FRAGMENT_SENTENCES_MAX:
            offences.append(f"{fragment}: the length")

    assert offences == []


def test_both_distributions_carry_the_same_licence() -> None:
    assert (ROOT / "LICENSE").read_bytes() == (ROOT / "sdk" / "LICENSE").read_bytes()
