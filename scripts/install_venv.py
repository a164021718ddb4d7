"""Makes .venv for ./dev, then becomes the command that was asked for.

Ended by a signal at any moment, it takes pip and all of pip's children with it.
Called as: install_venv.py [--extra NAME] STAMP COMMAND [ARGUMENTS], in the root of the clone.
With an extra, .venv is there, and gets the packages of that extra beside the others.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path
from types import FrameType

VENV = Path(".venv")
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "sidelink-stamp"
LOG = VENV / "sidelink-install.log"
GRACE_S = 3
ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


def say(text: str) -> None:
    print(f"dev: {text}", file=sys.stderr, flush=True)


def was_made_here(stamp: str) -> bool:
    """Scripts in a virtual environment name its folder, so a moved clone gets a new one."""
    try:
        return PYTHON.exists() and STAMP.read_text().splitlines()[0] == stamp.splitlines()[0]
    except (OSError, IndexError):
        return False


class EndedError(Exception):
    """A signal asked this program to end; its argument is the signal's number."""


def raise_ended(number: int, _frame: FrameType | None) -> None:
    for ending in ENDING:
        signal.signal(ending, signal.SIG_IGN)
    raise EndedError(number)


def run_contained(words: list[str | Path]) -> int:
    """Runs a command in a session of its own, so that its children can be ended with it."""
    temporary = VENV.resolve() / "tmp"
    temporary.mkdir(exist_ok=True)
    with LOG.open("ab") as log:
        child = subprocess.Popen(
            words,
            env={**os.environ, "TMPDIR": str(temporary)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        return child.wait()
    except EndedError:
        os.killpg(child.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def install(stamp: str) -> bool:
    if was_made_here(stamp):
        say("a pyproject.toml changed; installing again")
    else:
        version = "{}.{}".format(*sys.version_info)
        say(f"installing into .venv with Python {version} (once; about a minute)")
        shutil.rmtree(VENV, ignore_errors=True)
        venv.create(VENV)
        LOG.touch()
        if run_contained([PYTHON, "-m", "ensurepip", "--upgrade"]) != 0:
            return False
    return pip_install("-e", "./sdk", "-e", ".[dev]")


def install_extra(extra: str) -> bool:
    say(f"installing what `{extra}` needs beside the rest (once)")
    return pip_install("-e", f".[{extra}]")


def pip_install(*wanted: str) -> bool:
    pip: list[str | Path] = [PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    return run_contained([*pip, "install", "--prefer-binary", *wanted]) == 0


def main() -> int:
    extra = sys.argv[2] if sys.argv[1] == "--extra" else None
    stamp, *command = sys.argv[1 if extra is None else 3 :]
    for ending in ENDING:
        signal.signal(ending, raise_ended)
    try:
        installed = install(stamp) if extra is None else install_extra(extra)
    except EndedError as ended:
        return 128 + int(ended.args[0])
    for ending in ENDING:
        signal.signal(ending, signal.SIG_DFL)
    if not installed:
        sys.stderr.write(LOG.read_text(errors="replace"))
        say("the installation failed; the lines above are from pip")
        return 1
    (STAMP if extra is None else VENV / f"sidelink-{extra}-stamp").write_text(stamp + "\n")
    os.execv("/bin/sh", ["sh", "./dev", *command])


if __name__ == "__main__":
    sys.exit(main())
