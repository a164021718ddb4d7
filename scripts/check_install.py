"""Builds both wheels and installs them in two empty environments, as users will."""

import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Run inside the environment: which of the named packages can be imported there.
IMPORTABLE = """
import importlib.util, sys
print(" ".join(name for name in sys.argv[1:] if importlib.util.find_spec(name)))
"""
DISTRIBUTIONS = """
import importlib.metadata
print(" ".join(sorted(d.name.lower() for d in importlib.metadata.distributions())))
"""


class InstallError(Exception):
    """An environment does not hold what it should."""


def run(*words: str | Path, cwd: Path) -> str:
    done = subprocess.run(words, check=False, cwd=cwd, capture_output=True, text=True)
    if done.returncode != 0:
        command = " ".join(map(str, words))
        raise InstallError(f"{command}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def our_packages() -> list[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages: list[str] = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    return packages


def check_the_sdk_alone(folder: Path, wheel: Path) -> None:
    python = folder / "bin" / "python"
    venv.create(folder, with_pip=True)
    run(python, "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    run(python, "-I", "-W", "error", "-c", "import sidelink; sidelink.connect", cwd=folder)
    if found := run(python, "-I", "-c", IMPORTABLE, *our_packages(), cwd=folder).split():
        raise InstallError(f"beside the SDK these can be imported: {found}")
    others = set(run(python, "-I", "-c", DISTRIBUTIONS, cwd=folder).split())
    if others - {"sidelink", "msgspec", "pip", "setuptools"}:
        raise InstallError(f"the SDK brings more than msgspec: {sorted(others)}")
    print("sidelink alone: imports, with msgspec and nothing else of ours")


def check_both(folder: Path, wheels: list[Path]) -> None:
    python = folder / "bin" / "python"
    venv.create(folder, with_pip=True)
    run(python, "-m", "pip", "install", "--quiet", "--prefer-binary", *wheels, cwd=folder)
    wanted = [*our_packages(), "sidelink"]
    found = run(python, "-I", "-c", IMPORTABLE, *wanted, "tests", "scripts", cwd=folder).split()
    if found != wanted:
        raise InstallError(f"installed: {found}, wanted: {wanted}")
    run(python, "-m", "pip", "check", cwd=folder)
    if "Usage: sidelink" not in run(folder / "bin" / "sidelink", "--help", cwd=folder):
        raise InstallError("sidelink --help does not say how it is used")
    print("both: every package imports, sidelink --help answers")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="sidelink-install-") as name:
        folder = Path(name)
        try:
            build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", name]
            run(*build, ROOT / "sdk", ROOT, cwd=folder)
            wheels = sorted(folder.glob("*.whl"))
            (sdk,) = [wheel for wheel in wheels if wheel.name.startswith("sidelink-")]
            check_the_sdk_alone(folder / "sdk-only", sdk)
            check_both(folder / "both", wheels)
        except InstallError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
